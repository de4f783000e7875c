package ackwise_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

func ExampleHandlerFunc() {
	errDown := errors.New("bank is down")
	handler := ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		if d.Attempt == 1 {
			return errDown // a nack: again later
		}
		return nil // an ack
	})
	for attempt := 1; attempt <= 2; attempt++ {
		d := &ackwise.Delivery{Message: ackwise.Message{ID: "o-1"}, Attempt: attempt}
		fmt.Println(ackwise.OutcomeOf(handler.Handle(context.Background(), d)).Outcome)
	}
	// Output:
	// nack
	// ack
}

func ExampleBatchHandlerFunc() {
	handler := ackwise.BatchHandlerFunc(func(_ context.Context, ds []*ackwise.Delivery) []error {
		errs := make([]error, len(ds)) // exactly one each, in their order
		for i, d := range ds {
			if len(d.Body) == 0 {
				errs[i] = ackwise.Reject(errors.New("empty order"))
			}
		}
		return errs
	})
	batch := []*ackwise.Delivery{{Message: ackwise.Message{Body: []byte("2 tea")}}, {}}
	for _, err := range handler.HandleBatch(context.Background(), batch) {
		fmt.Println(ackwise.OutcomeOf(err).Outcome)
	}
	// Output:
	// ack
	// dead
}

func ExampleRetryAfter() {
	err := ackwise.RetryAfter(errors.New("too many requests"), 30*time.Second)
	fmt.Println(err)
	v := ackwise.OutcomeOf(err)
	fmt.Println(v.Outcome, v.Delay, v.Reason)
	// Output:
	// too many requests (retry after 30s)
	// nack 30s too many requests
}

func ExampleSnooze() {
	v := ackwise.OutcomeOf(ackwise.Snooze(time.Hour))
	fmt.Println(v.Outcome, v.Delay)
	// Output: snooze 1h0m0s
}

func ExampleReject() {
	v := ackwise.OutcomeOf(ackwise.Reject(errors.New("no such account")))
	fmt.Println(v.Outcome, v.Reason)
	// Output: dead no such account
}

func ExampleDrop() {
	v := ackwise.OutcomeOf(ackwise.Drop("older than a day"))
	fmt.Println(v.Outcome, v.Reason)
	// Output: drop older than a day
}

func ExampleOutcomeOf() {
	wrapped := fmt.Errorf("charge card: %w", ackwise.Snooze(time.Minute))
	for _, err := range []error{nil, errors.New("timeout"), wrapped} {
		fmt.Println(ackwise.OutcomeOf(err).Outcome)
	}
	// Output:
	// ack
	// nack
	// snooze
}

func ExampleNewID() {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	earlier, later := ackwise.NewID(now), ackwise.NewID(now.Add(time.Millisecond))
	fmt.Println(len(earlier), earlier < later)
	// Output: 36 true
}

func ExampleMessage_Validate() {
	m := ackwise.Message{Topic: "or/ders", Body: []byte("2 tea")}
	fmt.Println(m.Validate())
	// Output: invalid topic "or/ders": only letters, digits, '.', '_' and '-' are allowed in a name
}

func ExampleCause_DuplicateSource() {
	fmt.Println(ackwise.CauseRestarted, "is a", ackwise.CauseRestarted.DuplicateSource())
	// Output: restarted is a crash
}

func ExampleHintError() {
	err := error(&ackwise.HintError{
		Err:  &ackwise.NotFoundError{Kind: "topic", Name: "oders", Nearest: "orders"},
		Hint: "Make it with --create.",
	})
	fmt.Println(err)
	// Output:
	// no topic "oders"; did you mean "orders"?
	//   hint: Make it with --create.
}
