package queueorder_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queueorder"
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

// The legs of an aircraft come in the wrong order, and go into a topic in the right one.
func ExampleOpen() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s, done := tempStore()
	defer done()
	for _, topic := range []string{"legs", "sorted"} {
		if err := s.CreateTopic(ctx, topic, queue.TopicOptions{}); err != nil {
			log.Fatal(err)
		}
	}
	err := s.CreateSubscription(ctx, "legs", "sort", queue.SubscriptionOptions{})
	if err == nil {
		err = s.CreateSubscription(ctx, "sorted", "board", queue.SubscriptionOptions{Ordered: true})
	}
	if err != nil {
		log.Fatal(err)
	}
	for _, number := range []string{"3", "1", "2"} {
		s.Publish(ctx, []ackwise.Message{{Topic: "legs", Key: "N123", Body: []byte("leg " + number),
			Headers: []ackwise.Header{{Name: ackwise.HeaderSequence, Value: []byte(number)}}}})
	}

	r, err := queueorder.Open(ctx, s, queueorder.Options{Topic: "legs", Subscription: "sort",
		Out: "sorted"})
	if err != nil {
		log.Fatal(err)
	}
	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- r.Run(run) }() // ends with run

	board, err := s.Receiver(ctx, "sorted", "board", queue.ReceiverOptions{})
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		ds, err := board.Receive(ctx, 1)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", ds[0].Body)
		board.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}})
	}
	stop()
	fmt.Println(<-ended)
	// Output:
	// leg 1
	// leg 2
	// leg 3
	// <nil>
}

// A sequencer keeps its numbers in a table of the store that it publishes to.
func ExampleOpenKeeper() {
	ctx := context.Background()
	s, done := tempStore()
	defer done()
	if err := s.CreateTopic(ctx, "legs", queue.TopicOptions{}); err != nil {
		log.Fatal(err)
	}
	for _, id := range []string{"m-1", "m-2", "m-2"} { // a restart before each, and a repeat
		keeper, err := queueorder.OpenKeeper(ctx, s, "numbers")
		if err != nil {
			log.Fatal(err)
		}
		numbers, err := ordering.NewSequencer(ctx, ordering.SequencerOptions{Keeper: keeper})
		if err != nil {
			log.Fatal(err)
		}
		sink, err := ordering.Stamped(s, ordering.StampOptions{Sequencer: numbers})
		if err != nil {
			log.Fatal(err)
		}
		rs := sink.Publish(ctx, []ackwise.Message{{Topic: "legs", Key: "N123", ID: id}})
		fmt.Println(rs[0].Class, rs[0].Duplicate)
		if err := numbers.Close(ctx); err != nil {
			log.Fatal(err)
		}
	}
	kept, err := s.Scan(ctx, "legs", "", 10)
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range kept {
		number, _ := p.Message.Header(ackwise.HeaderSequence)
		fmt.Printf("%s has number %s\n", p.Message.ID, number)
	}
	// Output:
	// accepted false
	// accepted false
	// accepted true
	// m-1 has number 1
	// m-2 has number 2
}
