package queue_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// tempStore opens a store in a directory that done removes.
func tempStore() (s *queue.Store, done func()) {
	dir, err := os.MkdirTemp("", "ackwise-example-")
	if err != nil {
		log.Fatal(err)
	}
	if s, err = queue.Open(dir, queue.Options{}); err != nil {
		log.Fatal(err)
	}
	return s, func() {
		if err := s.Close(); err != nil {
			log.Print(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Print(err)
		}
	}
}

// A message is published, fails once, and says when it comes back why it did.
func ExampleOpen() {
	ctx := context.Background()
	s, done := tempStore()
	defer done()
	if err := s.CreateTopic(ctx, "orders", queue.TopicOptions{}); err != nil {
		log.Fatal(err)
	}
	err := s.CreateSubscription(ctx, "orders", "billing", queue.SubscriptionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	result := s.Publish(ctx, []ackwise.Message{{Topic: "orders", ID: "o-1", Body: []byte("book")}})
	fmt.Println(result[0].Class, result[0].ID)

	r, err := s.Receiver(ctx, "orders", "billing", queue.ReceiverOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for _, outcome := range []ackwise.Outcome{ackwise.OutcomeNack, ackwise.OutcomeAck} {
		ds, err := r.Receive(ctx, 1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("attempt %d, because %s: %s\n", ds[0].Attempt, ds[0].Cause, ds[0].Body)
		r.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token, Outcome: outcome, Reason: "busy"}})
	}
	// Output:
	// accepted o-1
	// attempt 1, because first: book
	// attempt 2, because failed: book
}

// The sum and the ack are one atomic record: however often the message is handed out, it counts
// once.
func ExampleTransact() {
	ctx := context.Background()
	s, done := tempStore()
	defer done()
	if err := s.CreateTopic(ctx, "flights", queue.TopicOptions{}); err != nil {
		log.Fatal(err)
	}
	err := s.CreateSubscription(ctx, "flights", "miles", queue.SubscriptionOptions{})
	if err != nil {
		log.Fatal(err)
	}
	s.Publish(ctx, []ackwise.Message{{Topic: "flights", Body: []byte{100}},
		{Topic: "flights", Body: []byte{42}}})
	r, err := s.Receiver(ctx, "flights", "miles", queue.ReceiverOptions{})
	if err != nil {
		log.Fatal(err)
	}
	add := queue.Transact(func(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
		sum, err := tx.Get(ctx, "sums", "miles")
		if err != nil {
			return err
		}
		sum = append(make([]byte, 8-len(sum)), sum...)
		miles := binary.BigEndian.Uint64(sum) + uint64(d.Body[0])
		tx.Put("sums", "miles", binary.BigEndian.AppendUint64(nil, miles))
		return nil
	})
	if err := add.Bind(r); err != nil {
		log.Fatal(err)
	}
	ds, err := r.Receive(ctx, 2)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range append(ds, ds[0]) { // the first one again, as after a lost ack
		fmt.Println(add.Handle(ctx, d))
	}
	sum, err := s.Get(ctx, "sums", "miles")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(binary.BigEndian.Uint64(sum.Value), "miles")
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// 142 miles
}

// A process is named so that it cannot be taken for a later one of the same number.
func ExampleProcessID() {
	fmt.Println(queue.ProcessID(0) == queue.ProcessID(os.Getpid()))
	// Output:
	// true
}
