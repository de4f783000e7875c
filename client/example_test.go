package client_test

import (
	"context"
	"fmt"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	c, err := client.Open(ctx, dir, client.Options{Create: true, Serve: server.Local})
	if err != nil {
		panic(err)
	}
	defer c.Close()
	fmt.Println("topic:", c.CreateTopic(ctx, "orders", queue.TopicOptions{}))
	fmt.Println("subscription:",
		c.CreateSubscription(ctx, "orders", "billing", queue.SubscriptionOptions{}))
	r := c.Publish(ctx, []ackwise.Message{{ID: "o-1", Topic: "orders", Body: []byte("42 €")}})[0]
	fmt.Println("publish:", r.Class, r.ID)
	// Output:
	// topic: <nil>
	// subscription: <nil>
	// publish: accepted o-1
}

func ExampleClient_Receiver() {
	dir, err := os.MkdirTemp("", "orders")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	ctx := context.Background()
	owner, err := client.Open(ctx, dir, client.Options{Create: true, Serve: server.Local})
	if err != nil {
		panic(err)
	}
	defer owner.Close()
	_ = owner.CreateTopic(ctx, "orders", queue.TopicOptions{})
	_ = owner.CreateSubscription(ctx, "orders", "billing", queue.SubscriptionOptions{})
	owner.Publish(ctx, []ackwise.Message{{ID: "o-1", Topic: "orders", Body: []byte("42 €")}})

	other, err := client.Open(ctx, dir, client.Options{}) // another process, say
	if err != nil {
		panic(err)
	}
	defer other.Close()
	r, err := other.Receiver(ctx, "orders", "billing", queue.ReceiverOptions{})
	if err != nil {
		panic(err)
	}
	ds, err := r.Receive(ctx, 10)
	if err != nil {
		panic(err)
	}
	fmt.Printf("%s: %s\n", ds[0].ID, ds[0].Body)
	rs := r.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}})
	fmt.Println("ack:", rs[0].Err)
	// Output:
	// o-1: 42 €
	// ack: <nil>
}
