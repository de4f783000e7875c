package idempotency

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"time"

	"github.com/ackwise/ackwise"
)

// Row is what one message says of one key.
type Row struct {
	Key   string
	Stamp ackwise.Stamp // when it was so, by the producer's clock; not zero
	Data  []byte        // nil = a deletion
}

// UpsertOptions configure Upsert.
type UpsertOptions struct {
	// MaxDrift is how far ahead of Now a stamp may be. One that is beyond it would win over all
	// that is written until then: its message is rejected. Default: 5 min.
	MaxDrift time.Duration
	// Now is the clock that stamps are held against. Default: time.Now.
	Now func() time.Time
}

// Upsert makes a handler by which the last write wins, by the producer's clock: row reads a
// message, and what it says is written if it wins over what is there, see Wins. Messages may come
// in any order and any number of times, and the table ends alike; one that is older than what is
// there is acked and changes nothing. Deletions leave tombstones, see Table.Purge.
//
// A row without a key, with a stamp that is none or too far ahead, or of a key that is written
// without stamps, makes its message a dead letter. The plain function is Table.Upsert.
func Upsert(t Table, row func(d *ackwise.Delivery) (Row, error), o UpsertOptions) ackwise.Handler {
	o.MaxDrift = cmp.Or(o.MaxDrift, 5*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		r, err := row(d)
		if err != nil {
			return err
		}
		if err := checkTableKey(r.Key); err != nil {
			return err
		}
		if err := checkDrift(r.Stamp, o); err != nil {
			return ackwise.Reject(fmt.Errorf("upsert %.80q: %w", r.Key, err))
		}
		if _, err := t.Upsert(ctx, r.Key, r.Stamp, r.Data); err != nil {
			return refuse(fmt.Errorf("upsert %.80q: %w", r.Key, err))
		}
		return nil
	})
}

// checkDrift refuses a stamp that is none, or too far ahead of the clock.
func checkDrift(s ackwise.Stamp, o UpsertOptions) error {
	if err := ValidateStamp(s); err != nil {
		return err
	}
	ahead := s.Millis - o.Now().UnixMilli()
	if ahead <= o.MaxDrift.Milliseconds() {
		return nil
	}
	by := time.Duration(min(ahead, math.MaxInt64/int64(time.Millisecond))) * time.Millisecond
	return &ackwise.InvalidError{Field: "stamp", Value: s.String(), Reason: fmt.Sprintf(
		"it is %s ahead of this clock, at most %s are allowed: one of the two clocks is wrong", by,
		o.MaxDrift)}
}
