package idempotency

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/ackwise/ackwise"
)

// Options configure Dedup and DedupBatch. Again has to be set; the other fields have defaults.
type Options struct {
	// Again is how long after its first delivery a message may come again: the longest of the
	// retry budget's span, the source's own retention of what is in flight, and the age at which
	// dead letters are still redriven. A store whose Window is shorter is refused. Required.
	Again time.Duration
	// Lease is how long a claim outlives a handler that died; while the handler works it is
	// extended every third of it. Default: 30 s.
	Lease time.Duration
	// MaxHold is how long a claim is extended in all. Then the handler's context ends, with a
	// cause that is ErrFence, and the claim is left to run out. At least Lease. Default: 1 h.
	MaxHold time.Duration
	// BusyDelay is the longest that a duplicate of a running message is put off at a time. It is
	// put off again until the first has ended; that spends no budget. Default: 5 s.
	BusyDelay time.Duration
	// Key says what is deduplicated by. Default: Delivery.DedupKey.
	Key func(*ackwise.Delivery) string
	// Sum is the fingerprint of the payload: the same key with another one is a conflict. The zero
	// Sum is not compared. Default: Fingerprint of the body.
	Sum func(*ackwise.Delivery) Sum
	// Rule names Key and Sum in the store, so that two handlers with different rules cannot share
	// one name. Required where one of the two is set. Default: "id, body".
	Rule string
	// Logger gets what no returned error says: a claim that could not be given back or extended.
	// Default: nothing is logged.
	Logger *slog.Logger
	// Observe is told of what happens, see ackwise.Event. Its kinds are "duplicate" (made before:
	// acked), "busy" (put off), "conflict" (another payload: rejected), "takeover" (an earlier
	// claim ran out: the effect may have been made), "lost" (the claim ended while the handler
	// ran), "extend-failed" (tried again while the lease lasts), "release-failed" (the claim runs
	// out), "unknown" (the effect was made, its completion is not known). Default: nil.
	Observe func(ackwise.Event)
}

const (
	defaultLease     = 30 * time.Second
	defaultBusyDelay = 5 * time.Second
	defaultRule      = "id, body"
	maxFullDelay     = time.Minute
)

// fill sets defaults and returns everything that is wrong.
func (o *Options) fill(window time.Duration) error {
	bad := func(field, reason string) error {
		return &ackwise.InvalidError{Field: field, Reason: reason}
	}
	var faults []error
	if (o.Key != nil || o.Sum != nil) && o.Rule == "" {
		faults = append(faults, bad("Rule", "it has to name what Key and Sum do, since one is set"))
	}
	o.Lease = cmp.Or(o.Lease, defaultLease)
	o.MaxHold = cmp.Or(o.MaxHold, max(time.Hour, o.Lease))
	o.BusyDelay = cmp.Or(o.BusyDelay, defaultBusyDelay)
	if o.Key == nil {
		o.Key = (*ackwise.Delivery).DedupKey
	}
	if o.Sum == nil {
		o.Sum = func(d *ackwise.Delivery) Sum { return Fingerprint(d.Body) }
	}
	if o.Rule == "" {
		o.Rule = defaultRule
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.Again <= 0:
		faults = append(faults, bad("Again",
			"it has to say how long after its first delivery a message may come again"))
	case window < o.Again:
		faults = append(faults, &ackwise.HintError{
			Err: fmt.Errorf("the dedup window is %s, and a message may come again after %s: its "+
				"effect would be made twice", window, o.Again),
			Hint: fmt.Sprintf("open the store with a window of at least %s, or lower the retry "+
				"budget and the age at which dead letters are redriven", o.Again)})
	}
	if o.Lease < time.Millisecond {
		faults = append(faults, bad("Lease", "at least 1 ms is needed"))
	}
	if o.MaxHold < o.Lease {
		faults = append(faults, bad("MaxHold", fmt.Sprintf("%s is shorter than the lease, %s",
			o.MaxHold, o.Lease)))
	}
	if o.BusyDelay < 0 {
		faults = append(faults, bad("BusyDelay", "it is negative"))
	}
	return errors.Join(faults...)
}

// Fingerprint makes a Sum of parts: the first 16 bytes of SHA-256 over each part behind its length.
// So "ab", "c" and "a", "bc" differ, and so do a nil part and an empty one.
func Fingerprint(parts ...[]byte) Sum {
	h := sha256.New()
	for _, p := range parts {
		size := uint64(len(p))
		if p == nil {
			size = math.MaxUint64
		}
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], size)
		h.Write(b[:])
		h.Write(p)
	}
	return Sum(h.Sum(nil)[:len(Sum{})])
}

// Claim is what a handler holds while it makes an effect.
type Claim struct {
	Key      string
	Fence    uint64 // grows with each claim of the key: a resource may refuse lower ones
	Takeover bool   // an earlier claim ran out: the effect may have been made, wholly or partly
}

type claimsKey struct{}

// FromContext returns the claims that a handler works under: one within Dedup and Once, one for
// each delivery, in their order, within DedupBatch, none elsewhere.
func FromContext(ctx context.Context) []Claim {
	claims, _ := ctx.Value(claimsKey{}).([]Claim)
	return claims
}
