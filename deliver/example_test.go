package deliver_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
)

// list is a source that hands out a fixed list of messages and ends. Its loop holds the retries.
type list struct{ bodies []string }

func (l *list) Receive(_ context.Context, max int) ([]*ackwise.Delivery, error) {
	if len(l.bodies) == 0 {
		return nil, io.EOF
	}
	n := min(max, len(l.bodies))
	var ds []*ackwise.Delivery
	for _, body := range l.bodies[:n] {
		d := &ackwise.Delivery{Attempt: 1, Cause: ackwise.CauseFirst, Token: ackwise.LeaseToken(body)}
		d.ID, d.Key, d.Body = body, "flights", []byte(body)
		ds = append(ds, d)
	}
	l.bodies = l.bodies[n:]
	return ds, nil
}

func (l *list) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	for _, s := range ss {
		fmt.Println(s.Outcome, s.Token)
	}
	return make([]ackwise.SettleResult, len(ss))
}

func (l *list) Features() ackwise.Features { return ackwise.Features{Order: ackwise.OrderKey} }
func (l *list) Close() error               { return nil }

func ExampleRun() {
	attempts := 0
	handler := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		switch attempts++; {
		case attempts == 1:
			return errors.New("the first attempt fails")
		case string(d.Body) == "LX 8":
			return ackwise.Reject(errors.New("not a flight"))
		}
		return nil
	})
	err := deliver.Run(context.Background(), &list{[]string{"BA 1", "LX 8", "QF 9"}}, handler,
		deliver.Options{
			Backoff: deliver.Backoff{First: time.Millisecond},
			DeadLetters: deliver.DeadLetterFunc(
				func(ctx context.Context, d *ackwise.Delivery, reason string) error {
					fmt.Println("dead letter", d.ID+":", reason)
					return nil
				}),
		})
	fmt.Println("attempts:", attempts, "error:", err)
	// Output:
	// ack BA 1
	// dead letter LX 8: not a flight
	// ack LX 8
	// ack QF 9
	// attempts: 4 error: <nil>
}

func ExampleRunBatch() {
	sum := 0
	handler := ackwise.BatchHandlerFunc(func(ctx context.Context, ds []*ackwise.Delivery) []error {
		errs := make([]error, len(ds))
		for i, d := range ds {
			n, err := strconv.Atoi(string(d.Body))
			if err != nil {
				errs[i] = ackwise.Drop("not a number")
			}
			sum += n
		}
		return errs
	})
	err := deliver.RunBatch(context.Background(), &list{[]string{"1", "2", "x", "4"}}, handler,
		deliver.Options{Concurrency: 1, NoDeadLetters: true})
	fmt.Println("sum:", sum, "error:", err)
	// Output:
	// ack 1
	// ack 2
	// drop x
	// ack 4
	// sum: 7 error: <nil>
}

func ExampleProcess() {
	batch := []*ackwise.Delivery{
		{Message: ackwise.Message{ID: "a", Key: "k"}}, {Message: ackwise.Message{ID: "b", Key: "k"}},
		{Message: ackwise.Message{ID: "c"}},
	}
	handler := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		if d.ID == "a" {
			return errors.New("the database is down")
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Millisecond)
	defer cancel()
	settlements, err := deliver.Process(ctx, batch, handler, deliver.Options{NoDeadLetters: true})
	for i, s := range settlements {
		fmt.Println(batch[i].ID, s.Outcome)
	}
	fmt.Println("error:", err)
	// Output:
	// a nack
	// b release
	// c ack
	// error: <nil>
}

func ExampleBackoff_Delay() {
	var b deliver.Backoff
	for _, failures := range []int{1, 2, 5, 100} {
		fmt.Println(failures, b.Delay(failures, 0.5))
	}
	// Output:
	// 1 500ms
	// 2 1s
	// 5 8s
	// 100 2m30s
}

// A pushed batch of changes goes on in as few calls as keep each key's order.
func ExampleProcessBatch() {
	batch := []*ackwise.Delivery{
		{Message: ackwise.Message{ID: "a", Key: "k"}}, {Message: ackwise.Message{ID: "b", Key: "k"}},
		{Message: ackwise.Message{ID: "c"}},
	}
	handler := ackwise.BatchHandlerFunc(func(_ context.Context, ds []*ackwise.Delivery) []error {
		fmt.Println("a call of", len(ds))
		return make([]error, len(ds))
	})
	settlements, err := deliver.ProcessBatch(context.Background(), batch, handler,
		deliver.Options{NoDeadLetters: true})
	for i, s := range settlements {
		fmt.Println(batch[i].ID, s.Outcome)
	}
	fmt.Println("error:", err)
	// Output:
	// a call of 3
	// a ack
	// b ack
	// c ack
	// error: <nil>
}
