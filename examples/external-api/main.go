// Command external-api charges a card through an API that takes an idempotency key, and shows the
// one gap that deduplication alone leaves, and how the key closes it. It promises one charge a
// message, also where the process dies between the API's answer and the note of it: the claim runs
// out, the next delivery takes it over and calls the API again with the same key, and the API gives
// the charge that it has made already.
//
//	claim ─▶ call with the key ─▶ ✗ the process dies       (the claim runs out)
//	claim, a takeover ─▶ call with the same key ─▶ complete ─▶ ack
//
// It needs no server: API and notes are in memory.
package main

import (
	"context"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// cardAPI makes a charge once for each idempotency key, as those of payment providers do.
type cardAPI struct {
	calls   int
	charges map[string]string // by idempotency key
}

func (a *cardAPI) charge(key, amount string) (receipt string) {
	a.calls++
	if a.charges[key] == "" {
		a.charges[key] = fmt.Sprintf("receipt %d for %s", len(a.charges)+1, amount)
	}
	return a.charges[key]
}

func main() {
	ctx := context.Background()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	notes, err := memstore.Open(memstore.Options{Name: "charges",
		Window: 24 * time.Hour, Now: func() time.Time { return now }})
	if err != nil {
		panic(err)
	}
	api := &cardAPI{charges: map[string]string{}}
	d := &ackwise.Delivery{Message: ackwise.Message{ID: "order-1", Topic: "orders",
		Body: []byte("12.50 EUR")}}
	ask := idempotency.Ask{Key: d.DedupKey(), Sum: idempotency.Fingerprint(d.Body),
		Lease: 30 * time.Second}
	charge := func(context.Context) (string, error) {
		return api.charge(d.DedupKey(), string(d.Body)), nil
	}

	// The process that gets the first delivery claims, calls, and is killed before it can complete.
	if _, err := notes.Claim(ctx, []idempotency.Ask{ask}); err != nil {
		panic(err)
	}
	api.charge(d.DedupKey(), string(d.Body))
	_, _, err = idempotency.Once(ctx, notes, ask, charge)
	fmt.Println("while its claim lasts, a second delivery is put off:",
		ackwise.OutcomeOf(err).Outcome)

	now = now.Add(time.Minute) // the claim runs out
	for range 3 {
		receipt, again, err := idempotency.Once(ctx, notes, ask, charge)
		if err != nil {
			panic(err)
		}
		fmt.Printf("delivered again: %s, known: %t\n", receipt, again)
	}
	fmt.Printf("%d calls, %d charge\n", api.calls, len(api.charges))
}
