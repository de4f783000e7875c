package deliver

import (
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
)

// binder is the part of ackwise.Transactional that a BatchHandler can have too.
type binder interface {
	Bind(ackwise.Source) error
}

// bind checks that handler and source can keep the guarantee, and ties them for ExactlyOnce. The
// error says why not, and what to use instead.
func bind(g Guarantee, handler any, src ackwise.Source) error {
	if handler == nil {
		return invalid("handler", "", "it is nil")
	}
	b, transactional := handler.(binder)
	switch g {
	case AtLeastOnce, AtMostOnce:
		if transactional {
			return &ackwise.HintError{
				Err: fmt.Errorf("a transactional handler settles by its own commit, and %s "+
					"would settle the delivery a second time", g),
				Hint: "Set Options.Guarantee to ExactlyOnce, or use a plain handler.",
			}
		}
		return nil
	case ExactlyOnce:
		if !transactional {
			return &ackwise.HintError{
				Err: errors.New("exactly-once needs a handler whose own transaction settles the " +
					"delivery (ackwise.Transactional); with a plain handler a crash between the " +
					"effect and the ack repeats the effect"),
				Hint: "Use queue.Transact where the effect is in the embedded engine, " +
					"postgres.Inbox where it is in Postgres, kafka.Transact where it is messages " +
					"to the same Kafka, or AtLeastOnce with a handler of " +
					"package idempotency, which applies each message's effect once.",
			}
		}
		if err := b.Bind(src); err != nil {
			return fmt.Errorf("bind the transactional handler to its source: %w", err)
		}
		return nil
	}
	return invalid("Guarantee", uint8(g), "no such guarantee")
}
