package queuestore_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// tempEngine opens an engine in a directory that done removes.
func tempEngine() (e *queue.Store, done func()) {
	dir, err := os.MkdirTemp("", "ackwise-example-")
	if err != nil {
		log.Fatal(err)
	}
	if e, err = queue.Open(dir, queue.Options{}); err != nil {
		log.Fatal(err)
	}
	return e, func() {
		if err := errors.Join(e.Close(), os.RemoveAll(dir)); err != nil {
			log.Print(err)
		}
	}
}

// A card is charged once, however often the order comes.
func ExampleOpen() {
	ctx := context.Background()
	engine, done := tempEngine()
	defer done()
	s, err := queuestore.Open(ctx, engine, "charges", queuestore.Options{Window: 24 * time.Hour})
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		answers, err := s.Claim(ctx, []idempotency.Ask{{Key: "order-1", Lease: time.Minute}})
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s %q\n", answers[0].Status, answers[0].Result)
		if answers[0].Status != idempotency.Claimed {
			continue
		}
		fmt.Println("charge the card")
		_, err = s.Settle(ctx, []idempotency.Settlement{{Key: "order-1", Fence: answers[0].Fence,
			Verb: idempotency.Complete, Result: []byte("receipt 7")}})
		if err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// claimed ""
	// charge the card
	// done "receipt 7"
}

// The position of an aircraft is the newest by its own clock, in whatever order the messages come.
func ExampleOpenTable() {
	ctx := context.Background()
	engine, done := tempEngine()
	defer done()
	table, err := queuestore.OpenTable(engine, "aircraft")
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range []struct {
		millis int64
		place  string
	}{{2000, "JFK"}, {1000, "BOS"}, {3000, "ORD"}} {
		wrote, err := table.Upsert(ctx, "N14228", ackwise.Stamp{Millis: p.millis, Node: "radar"},
			[]byte(p.place))
		fmt.Println(p.place, wrote, err)
	}
	e, err := table.Get(ctx, "N14228")
	fmt.Printf("%s %v\n", e.Data, err)
	// Output:
	// JFK true <nil>
	// BOS false <nil>
	// ORD true <nil>
	// ORD <nil>
}
