package memstore_test

import (
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
	"github.com/ackwise/ackwise/idempotency/storetest"
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

// open makes a store of a test.
func open(t *testing.T, o memstore.Options) *memstore.Store {
	t.Helper()
	m, err := memstore.Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestStoreKeepsTheContract(t *testing.T) {
	c := newClock()
	storetest.RunStore(t, storetest.StoreHarness{
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			return open(t, memstore.Options{Name: o.Name, Window: o.Window,
				MaxKeys: o.MaxKeys, Now: c.now})
		},
		Advance: c.advance,
	})
}

// The suite has to work where time is real too, as it is for a server's store.
func TestStoreKeepsTheContractInRealTime(t *testing.T) {
	storetest.RunStore(t, storetest.StoreHarness{
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			return open(t, memstore.Options{Name: o.Name, Window: o.Window,
				MaxKeys: o.MaxKeys})
		},
	})
}

func TestTableKeepsTheContract(t *testing.T) {
	c := newClock()
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(*testing.T) idempotency.Table {
			return memstore.OpenTable(memstore.TableOptions{Now: c.now})
		},
		Advance: c.advance,
	})
}

func TestTableKeepsTheContractInRealTime(t *testing.T) {
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(*testing.T) idempotency.Table {
			return memstore.OpenTable(memstore.TableOptions{})
		},
	})
}

func TestNonsenseIsRefused(t *testing.T) {
	_, err := memstore.Open(memstore.Options{Name: "a/b", Window: -1, MaxKeys: -1})
	for _, want := range []string{"dedup store", "Window", "MaxKeys"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want it to name %s", err, want)
		}
	}
}
