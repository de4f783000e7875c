package idempotency

import (
	"context"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

// Store remembers, for a bounded time, which effects were made. Its methods may be called from
// several goroutines and processes at once.
//
// A key goes free ─▶ claimed ─▶ done ─▶ free again when the window has passed. A claim is held
// for a lease and named by a fence that grows with each claim of the key: one that ran out is taken
// over by whoever asks next, and what the former holder says after that is refused with ErrFence. A
// key that is done is forgotten by time alone, never before Window; a store that is full answers
// ackwise.ErrFull to a key that it does not know, and forgets nothing.
//
// A whole call fails with an error where the store cannot be reached: nothing is known then of what
// it asked, and it may be repeated.
type Store interface {
	// Bind says by which rule the keys and sums of this store's name are made. The first rule is
	// kept for good; another one is refused with a *RuleError that names both.
	Bind(ctx context.Context, rule string) error
	// Claim asks for the right to make the effects of keys. It answers each ask, in their order; a
	// key twice in one call is Busy the second time.
	Claim(ctx context.Context, asks []Ask) ([]Answer, error)
	// Settle ends claims, or extends them. It answers each one, in their order: nil, ErrFence, or
	// what went wrong. A repeated Complete or Release of the same claim is answered nil. When it
	// returns, what is complete is as durable as the store.
	Settle(ctx context.Context, claims []Settlement) ([]error, error)
	// Window is how long a key stays done.
	Window() time.Duration
	// Close lets go of what the store holds in this process. Claims stay until they run out.
	Close() error
}

// Bounds that every Store enforces.
const (
	MaxKeyBytes    = 512     // Ask.Key
	MaxResultBytes = 1 << 16 // Settlement.Result
)

// Sum is a fingerprint of a message's payload. The zero Sum fits every other.
type Sum [16]byte

// Fits reports whether two sums may be of one payload.
func (s Sum) Fits(other Sum) bool { return s == other || s == Sum{} || other == Sum{} }

// Ask asks for a claim.
type Ask struct {
	Key   string        // what is deduplicated by: 1 to MaxKeyBytes bytes, valid UTF-8
	Sum   Sum           // fingerprint of the payload; zero = not compared
	Lease time.Duration // how long the claim is held without a word; at least 1 ms
}

// Status says what a store answers.
type Status uint8

// The four answers. The zero value is none of them, so that a forgotten answer is not a claim.
const (
	Claimed  Status = iota + 1 // make the effect, then settle
	Done                       // made before, within the window
	Busy                       // somebody else is making it
	Conflict                   // known with another payload
)

// String returns the status's word, such as "claimed".
func (s Status) String() string {
	words := [...]string{"none", "claimed", "done", "busy", "conflict"}
	if int(s) < len(words) {
		return words[s]
	}
	return "unknown status"
}

// Answer is a store's answer to one Ask.
type Answer struct {
	Status   Status
	Fence    uint64        // Claimed: names the claim; grows with each claim of a key
	Takeover bool          // Claimed: an earlier claim ran out, its effect may have been made
	Result   []byte        // Done: what its completion kept
	Time     time.Time     // Done: when it was completed, by the store's clock
	Wait     time.Duration // Busy: how long the other claim lasts at most, if it is not extended
	// Err is set, and Status zero, where this ask was refused: an *ackwise.InvalidError, or an
	// error that is ackwise.ErrFull.
	Err error
}

// Verb says what a Settlement does.
type Verb uint8

// The three verbs.
const (
	Complete Verb = iota + 1 // the effect is made: the key is done
	Release                  // it was not made: the key is free again
	Extend                   // hold the claim for Lease from now on
)

// Settlement ends a claim, or extends it.
type Settlement struct {
	Key    string
	Fence  uint64
	Verb   Verb
	Result []byte        // Complete: kept for later asks, at most MaxResultBytes; nil = nothing
	Lease  time.Duration // Extend: at least 1 ms
}

// Validate reports what every store refuses: a key or a lease out of bounds. The error is an
// *ackwise.InvalidError.
func (a Ask) Validate() error {
	if err := validateKey(a.Key); err != nil {
		return err
	}
	return validateLease(a.Lease)
}

// Validate reports what every store refuses: a key, a result or a lease out of bounds, or a verb
// that is none. The error is an *ackwise.InvalidError.
func (s Settlement) Validate() error {
	if err := validateKey(s.Key); err != nil {
		return err
	}
	switch s.Verb {
	case Complete:
		if len(s.Result) > MaxResultBytes {
			return &ackwise.InvalidError{Field: "result", Reason: fmt.Sprintf(
				"%d bytes long, at most %d are allowed", len(s.Result), MaxResultBytes)}
		}
		return nil
	case Release:
		return nil
	case Extend:
		return validateLease(s.Lease)
	}
	return &ackwise.InvalidError{Field: "verb", Reason: "it is none of complete, release and extend"}
}

func validateKey(key string) error {
	switch {
	case key == "":
		return &ackwise.InvalidError{Field: "dedup key", Reason: "it is empty"}
	case len(key) > MaxKeyBytes:
		return &ackwise.InvalidError{Field: "dedup key", Reason: fmt.Sprintf(
			"%d bytes long, at most %d are allowed", len(key), MaxKeyBytes)}
	case !utf8.ValidString(key):
		return &ackwise.InvalidError{Field: "dedup key", Value: key, Reason: "it is not valid UTF-8"}
	}
	return nil
}

func validateLease(lease time.Duration) error {
	if lease < time.Millisecond {
		return &ackwise.InvalidError{Field: "lease", Value: lease.String(),
			Reason: "at least 1 ms is needed"}
	}
	return nil
}
