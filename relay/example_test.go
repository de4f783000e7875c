package relay_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/relay"
)

// list is a source of a few messages, which then ends.
type list struct{ left []string }

func (l *list) Receive(context.Context, int) ([]*ackwise.Delivery, error) {
	if len(l.left) == 0 {
		return nil, io.EOF
	}
	id := l.left[0]
	l.left = l.left[1:]
	return []*ackwise.Delivery{{Message: ackwise.Message{ID: id, Body: []byte("body of " + id)},
		Token: ackwise.LeaseToken(id)}}, nil
}

func (l *list) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	for _, s := range ss {
		fmt.Println(s.Token, s.Outcome)
	}
	return make([]ackwise.SettleResult, len(ss))
}

func (l *list) Features() ackwise.Features { return ackwise.Features{Extend: true} }
func (l *list) Close() error               { return nil }

// lines is a sink that prints.
type lines struct{ w io.Writer }

func (s lines) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	for i, m := range msgs {
		if m.ID == "bad" {
			results[i] = ackwise.Result{Class: ackwise.ResultRejected, Err: errors.New("too bad")}
			continue
		}
		if _, err := fmt.Fprintf(s.w, "%s: %s\n", m.Topic, m.Body); err != nil {
			results[i] = ackwise.Result{Class: ackwise.ResultUnknown, Err: err}
			continue
		}
		results[i].Class = ackwise.ResultAccepted
	}
	return results
}

func (s lines) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{} }
func (s lines) Close() error                   { return nil }

// A message is acked at its source once the sink has accepted it.
func ExampleHandler() {
	source, sink := &list{left: []string{"1", "2"}}, lines{os.Stdout}
	err := deliver.Run(context.Background(), source, relay.Handler(sink, relay.Options{Topic: "to"}),
		deliver.Options{Concurrency: 1, MaxInFlight: 1, NoDeadLetters: true})
	fmt.Println(err)
	// Output:
	// to: body of 1
	// 1 ack
	// to: body of 2
	// 2 ack
	// <nil>
}

// A BatchHandler publishes at once what is ready.
func ExampleBatchHandler() {
	h := relay.BatchHandler(lines{os.Stdout}, relay.Options{})
	errs := h.HandleBatch(context.Background(), []*ackwise.Delivery{
		{Message: ackwise.Message{ID: "1", Topic: "a", Body: []byte("one")}},
		{Message: ackwise.Message{ID: "bad"}},
	})
	fmt.Println(errs[0], ackwise.OutcomeOf(errs[1]).Outcome)
	// Output:
	// a: one
	// <nil> dead
}

// A source without dead letters of its own keeps them in a sink.
func ExampleDeadLetters() {
	source := &list{left: []string{"x"}}
	dead := relay.DeadLetters(lines{os.Stdout}, "pipeline", relay.Options{Topic: "dead"})
	reject := ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
		return ackwise.Reject(errors.New("no good"))
	})
	err := deliver.Run(context.Background(), source, reject, deliver.Options{DeadLetters: dead})
	fmt.Println(err)
	// Output:
	// dead: body of x
	// x ack
	// <nil>
}

// A pushed batch is relayed by the same code as a pulled one: here as CloudEvents.
func ExampleTransform() {
	batch := []*ackwise.Delivery{{Message: ackwise.Message{ID: "o-1", Topic: "orders",
		Body: []byte("7")}}}
	h := relay.BatchHandler(lines{os.Stdout}, relay.Options{Transform: relay.Transform{
		CloudEvents: relay.Structured, EventSource: "/shop", EventType: "order"}})
	settlements, err := deliver.ProcessBatch(context.Background(), batch, h,
		deliver.Options{NoDeadLetters: true})
	fmt.Println(settlements[0].Outcome, err)
	// Output:
	// orders: {"data":7,"id":"o-1","source":"/shop","specversion":"1.0","type":"order"}
	// ack <nil>
}
