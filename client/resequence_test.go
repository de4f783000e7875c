package client_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queueorder"
	"github.com/ackwise/ackwise/server"
)

// A resequencer and a sequencer's keeper work through the socket as they do in the owner.
func TestAResequencerThroughTheSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	dir := filepath.Join(t.TempDir(), "store")
	open := func() *client.Client {
		c, err := client.Open(ctx, dir, client.Options{Create: true, Serve: server.Local})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
		return c
	}
	open() // the owner
	c := open()
	for _, topic := range []string{"in", "out"} {
		if err := c.CreateTopic(ctx, topic, queue.TopicOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.CreateSubscription(ctx, topic, "sub", queue.SubscriptionOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for n := 20; n > 0; n-- {
		rs := c.Publish(ctx, []ackwise.Message{{Topic: "in", Key: "k\xff", ID: fmt.Sprint("m", n),
			Headers: []ackwise.Header{{Name: ackwise.HeaderSequence,
				Value: strconv.AppendInt(nil, int64(n), 10)}}}})
		if rs[0].Err != nil {
			t.Fatal(rs[0].Err)
		}
	}
	r, err := queueorder.Open(ctx, c, queueorder.Options{Topic: "in", Subscription: "sub",
		Out: "out", Batch: 3, Receiver: func(ctx context.Context, topic, sub string,
			o queue.ReceiverOptions) (ackwise.Source, error) {
			return c.Receiver(ctx, topic, sub, o)
		}})
	if err != nil {
		t.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(run) }() // ends with run
	out, err := c.Receiver(ctx, "out", "sub", queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 20; n++ {
		ds, err := out.Receive(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("m", n); ds[0].ID != want || ds[0].Key != "k\xff" {
			t.Fatalf("%s came, want %s", ds[0].ID, want)
		}
		out.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}})
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := queueorder.OpenKeeper(ctx, c, "numbers"); err != nil {
		t.Error(err)
	}
}
