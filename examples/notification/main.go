// Command notification sends a mail for each message, once, though each message is delivered a
// hundred times. It promises what idempotency.Dedup can: a message whose mail was sent and noted is
// answered from the note, a mail that failed is tried again, and one message with two bodies is
// found. It cannot promise more than the mail server lets it: a process that dies after the server
// took the mail, and before that is noted, leaves a claim that runs out, and the mail is sent
// again.
//
// It needs no server: the notes are in memory. A service keeps them in a store that survives it,
// such as queue/queuestore.
package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// mailServer takes mails, and refuses the first try of the one to Bob.
type mailServer struct {
	tries map[string]int
	sent  []string
}

func (s *mailServer) send(to string) error {
	if s.tries[to]++; to == "bob" && s.tries[to] == 1 {
		return errors.New("mailbox is busy")
	}
	s.sent = append(s.sent, to)
	return nil
}

func main() {
	ctx := context.Background()
	server := &mailServer{tries: map[string]int{}}
	notes, err := memstore.Open(memstore.Options{Name: "mails",
		Window: 24 * time.Hour})
	if err != nil {
		panic(err)
	}
	handler, err := idempotency.Dedup(ctx, notes, ackwise.HandlerFunc(
		func(_ context.Context, d *ackwise.Delivery) error { return server.send(string(d.Body)) }),
		idempotency.Options{Again: 4 * time.Hour}) // retries, and the age of what is redriven
	if err != nil {
		panic(err)
	}

	outcomes := map[string]int{}
	for attempt := range 100 {
		for _, m := range []ackwise.Message{
			{ID: "order-1", Topic: "shipped", Body: []byte("ada")},
			{ID: "order-2", Topic: "shipped", Body: []byte("bob")},
		} {
			d := &ackwise.Delivery{Message: m, Attempt: attempt + 1}
			outcomes[ackwise.OutcomeOf(handler.Handle(ctx, d)).Outcome.String()]++
		}
	}
	fmt.Println("200 deliveries:", outcomes["ack"], "acked,", outcomes["nack"], "nacked")
	fmt.Println("mails sent:", server.sent)

	other := &ackwise.Delivery{Message: ackwise.Message{ID: "order-1", Body: []byte("eve")}}
	fmt.Println("order-1 to somebody else:", ackwise.OutcomeOf(handler.Handle(ctx, other)).Outcome)

	// A window that is shorter than the time for which messages come again is refused.
	_, err = idempotency.Dedup(ctx, notes, ackwise.HandlerFunc(
		func(context.Context, *ackwise.Delivery) error { return nil }),
		idempotency.Options{Again: 48 * time.Hour})
	fmt.Println("a window that is too short is refused:", err != nil)
}
