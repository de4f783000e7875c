package prove

import (
	"context"
	"maps"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// books is a system outside of the consumer: what was done to it stays.
type books struct {
	mu   sync.Mutex // guards rows
	rows map[string]int
}

func booksOf(w *World) *books {
	return Keep(w, "books", func() *books { return &books{rows: make(map[string]int)} })
}

// add is a plain increment: made twice, it counts twice.
func (b *books) add(name string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[name] += n
}

func (b *books) set(name string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rows[name] = n
}

func (b *books) has(name string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.rows[name]
	return ok
}

func (b *books) remove(name string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.rows, name)
}

func (b *books) copied() map[string]int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.rows)
}

// theBooks shows the books as the effects.
func theBooks(_ context.Context, w *World) (any, error) { return booksOf(w).copied(), nil }

// tableOf is a table that outlives the consumers, each call a point.
func tableOf(w *World) idempotency.Table {
	return w.Table(Keep(w, "table", func() idempotency.Table {
		return memstore.OpenTable(memstore.TableOptions{Now: w.Now})
	}))
}

// theTable shows the values of some of the table's keys.
func theTable(keys ...string) func(ctx context.Context, w *World) (any, error) {
	return func(ctx context.Context, w *World) (any, error) {
		all := make(map[string]string)
		for _, key := range keys {
			e, err := tableOf(w).Get(ctx, key)
			if err != nil {
				return nil, err
			}
			if e.Data != nil {
				all[key] = string(e.Data)
			}
		}
		return all, nil
	}
}

// storeOf is a dedup store that outlives the consumers, each call a point.
func storeOf(w *World) (idempotency.Store, error) {
	var err error
	s := Keep(w, "store", func() idempotency.Store {
		var s *memstore.Store
		s, err = memstore.Open(memstore.Options{Name: "test",
			Window: 30 * 24 * time.Hour, MaxKeys: 1000, Now: w.Now})
		return s
	})
	return w.Store(s), err
}

// handler makes a consumer of a function that needs the world only.
func handler(f func(w *World) ackwise.HandlerFunc) func(context.Context, *World) (
	ackwise.Handler, error) {
	return func(_ context.Context, w *World) (ackwise.Handler, error) { return f(w), nil }
}

// flights are three messages: two of one key, and one of another.
func flights() []ackwise.Message {
	return []ackwise.Message{
		flight("f1", "N1", "100", "0000000000000001-00000000-a"),
		flight("f2", "N1", "42", "0000000000000002-00000000-a"),
		flight("f3", "N2", "7", "0000000000000003-00000000-a"),
	}
}

func flight(id, aircraft, miles, stamp string) ackwise.Message {
	return ackwise.Message{ID: id, Key: aircraft, Body: []byte(miles), Headers: []ackwise.Header{
		{Name: ackwise.HeaderStamp, Value: []byte(stamp)}}}
}

func miles(d *ackwise.Delivery) int {
	n, err := strconv.Atoi(string(d.Body))
	if err != nil {
		panic(err)
	}
	return n
}

func stampOf(d *ackwise.Delivery) ackwise.Stamp {
	text, _ := d.Header(ackwise.HeaderStamp)
	s, err := ackwise.ParseStamp(string(text))
	if err != nil {
		panic(err)
	}
	return s
}

// consumer is a small consumer and what the prover says of it.
type consumer struct {
	name string
	c    Case
	kind kind // of the fault that convicts it; "" = acquitted
}

// judge proves a consumer, and fails where the verdict is another.
func judge(t *testing.T, c consumer) *verdict {
	t.Helper()
	if c.c.Messages == nil {
		c.c.Messages = flights()
	}
	if c.c.Schedules == 0 {
		c.c.Schedules = 250
	}
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		c.c.Schedules *= 40
	}
	v, err := prove(t.Context(), &c.c)
	switch {
	case err != nil:
		t.Fatal(err)
	case c.kind == "" && v.convicted:
		t.Errorf("a right consumer is convicted: %s", v.text)
	case c.kind != "" && !v.convicted:
		t.Errorf("a wrong consumer is acquitted: %s", v.text)
	case c.kind != "" && !slices.ContainsFunc(v.schedule, func(f fault) bool {
		return f.kind == c.kind
	}):
		t.Errorf("convicted by %q, want a fault of the kind %q\n%s", v.schedule, c.kind, v.text)
	}
	return v
}
