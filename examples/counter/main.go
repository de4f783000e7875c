// Command counter adds up the miles of each carrier. Each message is sent twice, and the handler
// fails now and then after it has counted, and is called again. It promises the exact sum: the new
// value of the counter, the mark that this ID was counted and the ack are one record
// (queue.Transact with Tx.Once). A counter in a variable beside it, counted by the same handler,
// shows what "add" comes to without that.
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
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

const flights = 100

func main() {
	dir, err := os.MkdirTemp("", "counter")
	check(err)
	defer func() { check(os.RemoveAll(dir)) }()
	store, err := queue.Open(dir, queue.Options{})
	check(err)
	defer func() { check(store.Close()) }()
	ctx, stop := context.WithCancel(context.Background())
	check(store.CreateTopic(ctx, "flights", queue.TopicOptions{DedupWindow: queue.NoDedup}))
	check(store.OpenSet(ctx, "counted", 24*time.Hour, 1_000_000)) // IDs, kept for a day
	check(store.CreateSubscription(ctx, "flights", "miles", queue.SubscriptionOptions{}))
	truth := map[string]int{}
	for n := range flights {
		carrier := []string{"AA", "DL", "UA"}[n%3]
		truth[carrier] += n
		for range 2 { // the producer does not know whether it was heard, and sends it again
			check(store.Publish(ctx, []ackwise.Message{{Topic: "flights", Key: carrier,
				ID: fmt.Sprintf("flight-%d", n), Body: []byte(strconv.Itoa(n))}})[0].Err)
		}
	}

	careless := map[string]int{}
	counter := queue.Transact(func(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
		miles, err := strconv.Atoi(string(d.Body))
		if err != nil {
			return ackwise.Reject(err)
		}
		careless[d.Key] += miles
		counted, err := tx.Once(ctx, "counted", d.DedupKey(), idempotency.Fingerprint(d.Body))
		if err != nil {
			return err
		}
		if !counted {
			have, err := tx.Get(ctx, "miles", d.Key)
			if err != nil {
				return err
			}
			sum, _ := strconv.Atoi(string(have)) // a new carrier has 0
			tx.Put("miles", d.Key, []byte(strconv.Itoa(sum+miles)))
		}
		if d.Attempt == 1 && miles%10 == 0 {
			return errors.New("cut off after counting")
		}
		return nil
	})
	source, err := store.Receiver(ctx, "flights", "miles", queue.ReceiverOptions{})
	check(err)
	acked := 0
	check(deliver.Run(ctx, source, counter, deliver.Options{Guarantee: deliver.ExactlyOnce,
		Concurrency: 1, Backoff: deliver.Backoff{First: time.Millisecond},
		Observe: func(e ackwise.Event) {
			if e.Kind == "settled" && e.Outcome == ackwise.OutcomeAck {
				if acked++; acked == 2*flights {
					stop()
				}
			}
		}}))

	for _, carrier := range []string{"AA", "DL", "UA"} {
		e, err := store.Get(context.Background(), "miles", carrier)
		check(err)
		fmt.Printf("%s: %s miles, exact: %t; the careless counter: %d\n", carrier, e.Value,
			string(e.Value) == strconv.Itoa(truth[carrier]), careless[carrier])
	}
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
