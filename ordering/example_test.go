package ordering_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
)

// Three messages come in the wrong order and go in the right one. A caller with a disk makes each
// step durable, as package queue/queueorder does.
func ExampleNewResequencer() {
	r, err := ordering.NewResequencer(ordering.ResequencerOptions{})
	if err != nil {
		log.Fatal(err)
	}
	now := time.Now()
	if err := r.Learn(now, "N123", nil); err != nil {
		log.Fatal(err)
	}
	for _, number := range []string{"3", "2", "1"} {
		m := ackwise.Message{Key: "N123", Body: []byte("leg " + number),
			Headers: []ackwise.Header{{Name: ackwise.HeaderSequence, Value: []byte(number)}}}
		a, err := r.Read(&m)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := r.Arrive(now, a); err != nil {
			log.Fatal(err)
		}
		for {
			next, ok := r.Next(now)
			if !ok {
				break
			}
			fmt.Println("number", next.Number, "goes")
		}
		if gap := r.Report().Oldest; gap != nil {
			fmt.Println(gap)
		}
	}
	// Output:
	// numbers 1 to 2 of key "N123" are missing (unknown)
	// number 1 of key "N123" is missing (unknown)
	// number 1 goes
	// number 2 goes
	// number 3 goes
}

func tempKeeper() (k *ordering.FileKeeper, done func()) {
	dir, err := os.MkdirTemp("", "ackwise-example-")
	if err != nil {
		log.Fatal(err)
	}
	if k, err = ordering.OpenFileKeeper(filepath.Join(dir, "keeper")); err != nil {
		log.Fatal(err)
	}
	return k, func() {
		if err := k.Close(); err != nil {
			log.Print(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			log.Print(err)
		}
	}
}

// A clock goes on behind its last stamp after a restart, even where the wall clock was set back.
func ExampleNewClock() {
	ctx := context.Background()
	keeper, done := tempKeeper()
	defer done()
	var stamps []ackwise.Stamp
	for _, wall := range []string{"2026-03-01T12:00:00Z", "2026-03-01T11:00:00Z"} {
		c, err := ordering.NewClock(ctx, ordering.ClockOptions{Node: "web-1", Keeper: keeper,
			Now: func() time.Time { t, _ := time.Parse(time.RFC3339, wall); return t }})
		if err != nil {
			log.Fatal(err)
		}
		s, err := c.Now(ctx)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(s)
		stamps = append(stamps, s)
	}
	fmt.Println(stamps[0].Compare(stamps[1]))
	// Output:
	// 0000019ca9450a00-00000000-web-1
	// 0000019ca9450de8-00000000-web-1
	// -1
}

// A publish whose fate is unknown is repeated with the number that it had, also by a new process.
func ExampleNewSequencer() {
	ctx := context.Background()
	keeper, done := tempKeeper()
	defer done()
	for range 2 {
		s, err := ordering.NewSequencer(ctx, ordering.SequencerOptions{Keeper: keeper})
		if err != nil {
			log.Fatal(err)
		}
		ns := []ordering.Number{{Key: "N123", ID: "m-1"}, {Key: "N123", ID: "m-2"}}
		if err := s.Assign(ctx, ns); err != nil {
			log.Fatal(err)
		}
		fmt.Println(ns[0].N, ns[1].N, ns[1].Again)
	}
	// Output:
	// 1 2 false
	// 1 2 true
}

// A keeper holds what was saved last, over restarts.
func ExampleOpenFileKeeper() {
	ctx := context.Background()
	keeper, done := tempKeeper()
	defer done()
	for _, value := range []string{"one", "two"} {
		err := keeper.Save(ctx, []ordering.Record{{Name: "last", Value: []byte(value)}})
		if err != nil {
			log.Fatal(err)
		}
	}
	err := keeper.Load(ctx, func(r ordering.Record) error {
		fmt.Printf("%s = %s\n", r.Name, r.Value)
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// last = two
}
