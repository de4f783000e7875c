package ackwise_test

import (
	"context"
	"fmt"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// The whole way of one message, as the README shows it.
func Example() {
	ctx, stop := context.WithCancel(context.Background())
	dir, err := os.MkdirTemp("", "orders")
	check(err)
	defer os.RemoveAll(dir)
	store, err := queue.Open(dir, queue.Options{})
	check(err)
	defer store.Close()
	check(store.CreateTopic(ctx, "orders", queue.TopicOptions{}))
	check(store.CreateSubscription(ctx, "orders", "billing", queue.SubscriptionOptions{}))
	order := ackwise.Message{Topic: "orders", ID: "o-1", Key: "ada", Body: []byte("2 tea")}
	check(store.Publish(ctx, []ackwise.Message{order})[0].Err) // nil: it is on the disk
	source, err := store.Receiver(ctx, "orders", "billing", queue.ReceiverOptions{})
	check(err)
	handler := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		fmt.Println(d.ID, d.Cause, string(d.Body))
		stop()     // one is enough here
		return nil // an ack; an error would bring the message back
	})
	check(deliver.Run(ctx, source, handler, deliver.Options{}))
	// Output: o-1 first 2 tea
}
