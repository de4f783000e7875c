package idempotency

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
)

// applyTries bounds how often Apply reads again after somebody else's write. One of those who race
// for a key always succeeds, so that this is about how many may race for one key without a nack.
const applyTries = 16

// Change says what Apply did.
type Change struct {
	Wrote   bool   // false = what is wanted was there already: nothing was written
	Tries   int    // how often the value was read
	Version uint64 // of the value that is there now; 0 = none is
}

// Apply brings the value of a key to what is wanted: it reads what is there, asks want for what
// should be there (nil = missing, both ways), and writes only if the two differ and nobody wrote
// meanwhile; else it reads again. Want is called once for each try, and must not change what it is
// given. After 16 tries Apply gives up with an error that is ErrChanged: the key is busy.
func Apply(ctx context.Context, t Table, key string,
	want func(have []byte) ([]byte, error)) (Change, error) {
	var c Change
	for c.Tries < applyTries {
		c.Tries++
		there, err := t.Get(ctx, key)
		if err != nil {
			return c, fmt.Errorf("read %.80q: %w", key, err)
		}
		if there.Stamped() {
			return c, fmt.Errorf("compare %.80q: %w", key, ErrStamped)
		}
		c.Version = there.Version
		wanted, err := want(there.Data)
		if err != nil {
			return c, err
		}
		if bytes.Equal(wanted, there.Data) && (wanted == nil) == (there.Data == nil) {
			return c, nil
		}
		version, err := t.Swap(ctx, key, there.Version, wanted)
		if err == nil {
			c.Wrote, c.Version = true, version
			return c, nil
		}
		if !errors.Is(err, ErrChanged) {
			return c, fmt.Errorf("write %.80q: %w", key, err)
		}
	}
	return c, fmt.Errorf("write %.80q, tried %d times: %w", key, c.Tries, ErrChanged)
}

// Compare makes a handler that applies only the difference: want computes, of the message and of
// what is there, what should be there, see Apply; key says where. A message whose wanted state is
// there already is acked and nothing is written.
//
// This makes an effect idempotent only where want gives the same when it is asked again with its
// own result: "set the seats that this booking wants" does, "add one" does not. For the latter keep
// what was counted in the value (the last stamp, or the IDs), or use Dedup.
func Compare(t Table,
	want func(ctx context.Context, d *ackwise.Delivery, have []byte) ([]byte, error),
	key func(*ackwise.Delivery) string) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		k := key(d)
		if err := checkTableKey(k); err != nil {
			return err
		}
		_, err := Apply(ctx, t, k, func(have []byte) ([]byte, error) { return want(ctx, d, have) })
		return refuse(err)
	})
}
