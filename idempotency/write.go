package idempotency

import (
	"context"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
)

// Write makes a handler that sets a value: the one that the message says, whatever is there. The
// same message again sets the same value. It suits messages that come in order, or keys that are
// written once; where an old message may come after a newer one, use Upsert. Nil data removes the
// key. The plain function is Table.Put, and Table.Swap where the version has to match.
func Write(t Table, set func(d *ackwise.Delivery) (key string, data []byte, err error),
) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		key, data, err := set(d)
		if err != nil {
			return err
		}
		if err := checkTableKey(key); err != nil {
			return err
		}
		if err := t.Put(ctx, key, data); err != nil {
			return refuse(fmt.Errorf("write %.80q: %w", key, err))
		}
		return nil
	})
}

// checkTableKey rejects a message that names no key: no retry gives it one.
func checkTableKey(key string) error {
	if key == "" {
		return ackwise.Reject(&ackwise.InvalidError{Field: "table key", Reason: "it is empty"})
	}
	return nil
}

// refuse rejects a message whose error no retry helps: a value that the table never takes, a key
// that is written in both ways. Every other error stays what it is.
func refuse(err error) error {
	if _, invalid := errors.AsType[*ackwise.InvalidError](err); invalid ||
		errors.Is(err, ErrStamped) || errors.Is(err, ackwise.ErrTooLarge) {
		return ackwise.Reject(err)
	}
	return err
}
