package client_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// BenchmarkPublishAndAck passes batches of 100-byte messages through the socket and back.
func BenchmarkPublishAndAck(b *testing.B) {
	for _, size := range []int{1, 100, 1000} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) { passBatches(b, size) })
	}
}

func passBatches(b *testing.B, size int) {
	ctx := b.Context()
	c, err := client.Open(ctx, b.TempDir(), client.Options{Create: true, Serve: server.Local})
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	err = errors.Join(c.CreateTopic(ctx, topic, queue.TopicOptions{}),
		c.CreateSubscription(ctx, topic, sub, queue.SubscriptionOptions{}))
	if err != nil {
		b.Fatal(err)
	}
	r, err := c.Receiver(ctx, topic, sub, queue.ReceiverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	ms := make([]ackwise.Message, size)
	for i := range ms {
		ms[i] = ackwise.Message{Topic: topic, Body: make([]byte, 100)}
		for j := range ms[i].Body {
			ms[i].Body[j] = 'x'
		}
	}
	messages := 0
	for b.Loop() {
		for _, res := range c.Publish(ctx, ms) {
			if res.Err != nil {
				b.Fatal(res.Err)
			}
		}
		for got := 0; got < size; {
			ds, err := r.Receive(ctx, size)
			if err != nil {
				b.Fatal(err)
			}
			ss := make([]ackwise.Settlement, len(ds))
			for i, d := range ds {
				ss[i].Token = d.Token
			}
			for _, res := range r.Settle(ctx, ss) {
				if res.Err != nil {
					b.Fatal(res.Err)
				}
			}
			got += len(ds)
		}
		messages += size
	}
	b.ReportMetric(float64(messages)/b.Elapsed().Seconds(), "messages/s")
}
