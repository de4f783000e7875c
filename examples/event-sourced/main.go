// Command event-sourced decides on commands and appends what was decided, as facts, to a topic; the
// state is what the facts add up to. It promises that each command is decided once, on the state
// that all facts before it have made: the fact, the state and the ack are one record
// (queue.Transact), so that no crash and no redelivery comes between them.
//
//	commands ─▶ queue.Transact ─┬─▶ facts (a topic)
//	                            ├─▶ accounts (a table)
//	                            └─▶ ack
//
// One command is sent twice, and its handler fails at first.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
)

func main() {
	dir, err := os.MkdirTemp("", "event-sourced")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	store, err := queue.Open(dir, queue.Options{})
	check(err)
	defer func() { check(store.Close()) }()
	ctx, stop := context.WithCancel(context.Background())
	for _, topic := range []string{"commands", "facts"} {
		check(store.CreateTopic(ctx, topic, queue.TopicOptions{}))
		check(store.CreateSubscription(ctx, topic, "bank",
			queue.SubscriptionOptions{Ordered: true}))
	}
	for _, c := range []struct{ id, amount string }{
		{"c-1", "100"}, {"c-2", "-70"}, {"c-2", "-70"}, {"c-3", "-70"}} {
		r := store.Publish(ctx, []ackwise.Message{
			{Topic: "commands", ID: c.id, Key: "ada", Body: []byte(c.amount)}})[0]
		check(r.Err)
		fmt.Println("sent", c.id, c.amount, "duplicate:", r.Duplicate)
	}

	bank := queue.Transact(func(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
		have, err := tx.Get(ctx, "accounts", d.Key)
		if err != nil {
			return err
		}
		balance, _ := strconv.Atoi(string(have)) // a new account has 0
		amount, err := strconv.Atoi(string(d.Body))
		if err != nil {
			return ackwise.Reject(err)
		}
		fact := "refused"
		if balance+amount >= 0 {
			balance, fact = balance+amount, "booked"
		}
		tx.Put("accounts", d.Key, []byte(strconv.Itoa(balance)))
		tx.Publish(ackwise.Message{Topic: "facts", ID: "fact-of-" + d.ID, Key: d.Key,
			Body: fmt.Appendf(nil, "%s %d", fact, amount)})
		if d.ID == "c-2" && d.Attempt == 1 {
			return errors.New("too slow") // nothing of the above has happened
		}
		return nil
	})
	source, err := store.Receiver(ctx, "commands", "bank", queue.ReceiverOptions{})
	check(err)
	acked := 0
	check(deliver.Run(ctx, source, bank, deliver.Options{Guarantee: deliver.ExactlyOnce,
		Backoff: deliver.Backoff{First: time.Millisecond},
		Observe: func(e ackwise.Event) {
			if e.Kind == "settled" && e.Outcome == ackwise.OutcomeAck {
				acked++
			}
			if acked == 3 {
				stop()
			}
		}}))

	ctx = context.Background()
	facts, err := store.Peek(ctx, "facts", "bank", queue.PeekOptions{})
	check(err)
	for _, f := range facts {
		fmt.Printf("%s: %s\n", f.Message.ID, f.Message.Body)
	}
	balance, err := store.Get(ctx, "accounts", "ada")
	check(err)
	fmt.Printf("ada has %s\n", balance.Value)
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
