package idempotency_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// clock is a clock that a test moves.
type clock struct{ nanos atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.nanos.Store(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.nanos.Load()).UTC() }
func (c *clock) advance(d time.Duration) { c.nanos.Add(int64(d)) }

// openMemory makes a store of a test.
func openMemory(t *testing.T, o memstore.Options) *memstore.Store {
	t.Helper()
	m, err := memstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// A clock that goes backwards stands still: nothing is forgotten early, and nothing is kept for
// longer than the window once it goes on.
func TestMemoryWithAClockThatGoesBackwards(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Window: time.Hour, Now: c.now})
	h := dedup(t, s, w.handler(), hour)
	c.advance(10 * time.Minute)
	outcome(t, h, delivery("before"), ackwise.OutcomeAck)
	c.advance(-9 * time.Minute)
	outcome(t, h, delivery("meanwhile"), ackwise.OutcomeAck)
	c.advance(9*time.Minute + time.Hour - time.Millisecond)
	for _, id := range []string{"before", "meanwhile"} {
		outcome(t, h, delivery(id), ackwise.OutcomeAck)
		w.want(t, id, 1)
	}
	c.advance(time.Hour/8 + time.Millisecond)
	for _, id := range []string{"before", "meanwhile"} {
		outcome(t, h, delivery(id), ackwise.OutcomeAck)
		w.want(t, id, 2)
	}
}
