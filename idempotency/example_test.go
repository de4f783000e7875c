package idempotency_test

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

func ExampleDedup() {
	store, err := memstore.Open(memstore.Options{Window: 24 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	ctx := context.Background()
	pay := ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		fmt.Printf("pay %s\n", d.Body)
		return nil
	})
	handler, err := idempotency.Dedup(ctx, store, pay, idempotency.Options{Again: 12 * time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 { // one message, delivered three times
		d := &ackwise.Delivery{Message: ackwise.Message{ID: "order-7", Body: []byte("9 EUR")}}
		fmt.Println(handler.Handle(ctx, d))
	}
	_, err = idempotency.Dedup(ctx, store, pay, idempotency.Options{Again: 48 * time.Hour})
	fmt.Println(strings.ReplaceAll(err.Error(), ", ", ",\n    "))
	// Output:
	// pay 9 EUR
	// <nil>
	// <nil>
	// <nil>
	// set up dedup: the dedup window is 24h0m0s,
	//     and a message may come again after 48h0m0s: its effect would be made twice
	//   hint: open the store with a window of at least 48h0m0s,
	//     or lower the retry budget and the age at which dead letters are redriven
}

func ExampleDedupBatch() {
	store, err := memstore.Open(memstore.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	ctx := context.Background()
	pay := func(_ context.Context, ds []*ackwise.Delivery) []error {
		for _, d := range ds {
			fmt.Println("pay", d.ID)
		}
		return make([]error, len(ds))
	}
	handler, err := idempotency.DedupBatch(ctx, store, ackwise.BatchHandlerFunc(pay),
		idempotency.Options{Again: time.Hour})
	if err != nil {
		fmt.Println(err)
		return
	}
	batch := func(ids ...string) {
		var ds []*ackwise.Delivery
		for _, id := range ids {
			ds = append(ds, &ackwise.Delivery{Message: ackwise.Message{ID: id}})
		}
		fmt.Println(handler.HandleBatch(ctx, ds))
	}
	batch("a", "b")
	batch("b", "c")
	// Output:
	// pay a
	// pay b
	// [<nil> <nil>]
	// pay c
	// [<nil> <nil>]
}

func ExampleOnce() {
	store, err := memstore.Open(memstore.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer store.Close()
	for range 2 {
		receipt, again, err := idempotency.Once(context.Background(), store,
			idempotency.Ask{Key: "order-7", Sum: idempotency.Fingerprint([]byte("9 EUR"))},
			func(context.Context) (string, error) { return "receipt 1", nil })
		fmt.Println(receipt, again, err)
	}
	// Output:
	// receipt 1 false <nil>
	// receipt 1 true <nil>
}

func ExampleWrite() {
	table := memstore.OpenTable(memstore.TableOptions{})
	handler := idempotency.Write(table,
		func(d *ackwise.Delivery) (string, []byte, error) { return d.Key, d.Body, nil })
	ctx := context.Background()
	d := &ackwise.Delivery{Message: ackwise.Message{Key: "N12345", Body: []byte("SFO")}}
	fmt.Println(handler.Handle(ctx, d), handler.Handle(ctx, d))
	e, err := table.Get(ctx, "N12345")
	fmt.Printf("%s %v\n", e.Data, err)
	// Output:
	// <nil> <nil>
	// SFO <nil>
}

func ExampleUpsert() {
	table := memstore.OpenTable(memstore.TableOptions{})
	handler := idempotency.Upsert(table, func(d *ackwise.Delivery) (idempotency.Row, error) {
		text, _ := d.Header(ackwise.HeaderStamp)
		stamp, err := ackwise.ParseStamp(string(text))
		if err != nil {
			return idempotency.Row{}, ackwise.Reject(err)
		}
		return idempotency.Row{Key: d.Key, Stamp: stamp, Data: d.Body}, nil
	}, idempotency.UpsertOptions{})
	ctx := context.Background()
	at := func(millis int64, airport string) {
		stamp := ackwise.Stamp{Millis: millis, Node: "tower"}
		fmt.Println(handler.Handle(ctx, &ackwise.Delivery{Message: ackwise.Message{Key: "N12345",
			Body:    []byte(airport),
			Headers: []ackwise.Header{{Name: ackwise.HeaderStamp, Value: []byte(stamp.String())}}}}))
	}
	at(2000, "SFO")
	at(1000, "LAX") // late: it was there before
	e, err := table.Get(ctx, "N12345")
	fmt.Printf("%s %v\n", e.Data, err)
	// Output:
	// <nil>
	// <nil>
	// SFO <nil>
}

func ExampleCompare() {
	table := memstore.OpenTable(memstore.TableOptions{})
	seats := func(_ context.Context, d *ackwise.Delivery, have []byte) ([]byte, error) {
		fmt.Printf("there is %q, wanted is %q\n", have, d.Body)
		return d.Body, nil
	}
	handler := idempotency.Compare(table, seats,
		func(d *ackwise.Delivery) string { return d.Key })
	ctx := context.Background()
	d := &ackwise.Delivery{Message: ackwise.Message{Key: "flight 1", Body: []byte("12A 12B")}}
	fmt.Println(handler.Handle(ctx, d))
	fmt.Println(handler.Handle(ctx, d)) // writes nothing
	// Output:
	// there is "", wanted is "12A 12B"
	// <nil>
	// there is "12A 12B", wanted is "12A 12B"
	// <nil>
}

func ExampleApply() {
	table := memstore.OpenTable(memstore.TableOptions{})
	for range 2 {
		change, err := idempotency.Apply(context.Background(), table, "flight 1",
			func([]byte) ([]byte, error) { return []byte("12A 12B"), nil })
		fmt.Println("wrote:", change.Wrote, err)
	}
	// Output:
	// wrote: true <nil>
	// wrote: false <nil>
}

func ExampleFingerprint() {
	one := idempotency.Fingerprint([]byte("ab"), []byte("c"))
	two := idempotency.Fingerprint([]byte("a"), []byte("bc"))
	fmt.Println(one == two)
	// Output:
	// false
}
