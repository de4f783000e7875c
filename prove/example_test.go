package prove_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/prove"
)

// printer is a testing.TB that prints. A test passes its own t to prove.Run.
type printer struct{ testing.TB }

func (printer) Helper()                           {}
func (printer) Name() string                      { return "TestMiles" }
func (printer) Context() context.Context          { return context.Background() }
func (printer) Errorf(format string, args ...any) { fmt.Printf("FAIL "+format+"\n", args...) }
func (printer) Logf(format string, args ...any)   { fmt.Printf("ok "+format+"\n", args...) }

// A handler that adds is wrong: a message that comes again is added again. One that remembers what
// each message adds is right.
func ExampleRun() {
	messages := []ackwise.Message{{ID: "flight-1", Body: []byte("LHR")},
		{ID: "flight-2", Body: []byte("JFK")}}
	type table = map[string]int // the database: it outlives the consumers
	database := func(w *prove.World) table {
		return prove.Keep(w, "database", func() table { return make(table) })
	}
	effects := func(_ context.Context, w *prove.World) (any, error) { return database(w), nil }

	prove.Run(printer{}, prove.Case{Messages: messages, Effects: effects,
		New: func(_ context.Context, w *prove.World) (ackwise.Handler, error) {
			return ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
				database(w)["landings in "+string(d.Body)]++
				return nil
			}), nil
		}})
	prove.Run(printer{}, prove.Case{Messages: messages, Effects: effects, Schedules: 100,
		New: func(_ context.Context, w *prove.World) (ackwise.Handler, error) {
			return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
				return prove.Call(ctx, "write", func(context.Context) error {
					database(w)[d.ID+" landed in "+string(d.Body)] = 1
					return nil
				})
			}), nil
		}})
	// Output:
	// FAIL prove: the handler does not survive redelivery: it ends otherwise than one clean run
	//
	// Shortest schedule that differs (1 fault; number 1 tried, seed 1): 1:again
	//
	//   message 1 (flight-1), delivery 1 (first) to consumer 1
	//       ack
	//   message 1 (flight-1), delivery 2 (produced-again) to consumer 1
	//       ack
	//   message 2 (flight-2), delivery 1 (first) to consumer 1
	//       ack
	//
	// Effects that differ from the clean run:
	//   landings in LHR  want 1, got 2
	//
	// What it shows:
	//   A message comes again, and its effect is made again. Make the effect idempotent, or put
	//   idempotency.Dedup around it.
	//
	// To repeat it:
	//   ACKWISE_PROVE='1:again' go test -run '^TestMiles$'
	// ok prove: the effects are those of the clean run each time: 2 messages, 4 points, 100 schedules
	// (47 single faults, 53 combinations, seed 1)
}

// Outside of a prover, as in production, points do nothing.
func ExampleCall() {
	ctx := context.Background()
	err := prove.Call(ctx, "charge the card", func(context.Context) error {
		fmt.Println("charged")
		return nil
	})
	prove.Point(ctx, "after the charge")
	fmt.Println(err)
	// Output:
	// charged
	// <nil>
}
