package queuestore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/queue/queuestore"
)

func openTable(t *testing.T, e queuestore.Tables, name string) *queuestore.Table {
	t.Helper()
	table, err := queuestore.OpenTable(e, name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestTableKeepsTheContract(t *testing.T) {
	dir, n := t.TempDir(), 0
	e := openEngine(t, dir)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table {
			n++
			return openTable(t, e, fmt.Sprintf("table-%d", n))
		},
		Reopen: func(t *testing.T, _ idempotency.Table) idempotency.Table {
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = openEngine(t, dir)
			return openTable(t, e, fmt.Sprintf("table-%d", n))
		},
	})
	verified(t, e)
}

// A key that could be written and never deleted is refused before it is there.
func TestTheLongestKeysCanBeDeleted(t *testing.T) {
	e := openEngine(t, t.TempDir())
	table, ctx := openTable(t, e, "t"), t.Context()
	longest := strings.Repeat("k", ackwise.MaxKeyBytes-16)
	for i, data := range [][]byte{[]byte("v"), nil} {
		wrote, err := table.Upsert(ctx, longest, ackwise.Stamp{Millis: int64(1 + i), Node: "n"}, data)
		if err != nil || !wrote {
			t.Errorf("upsert %d of the longest key: %t, %v", i, wrote, err)
		}
	}
	if n, err := table.Purge(ctx, -time.Hour); n != 1 || err != nil {
		t.Errorf("%d were purged, %v, want 1", n, err)
	}
	for _, key := range []string{longest + "k", strings.Repeat("k", ackwise.MaxKeyBytes)} {
		_, err := table.Upsert(ctx, key, ackwise.Stamp{Millis: 1, Node: "n"}, []byte("v"))
		if !errors.Is(err, ackwise.ErrTooLarge) || !strings.Contains(err.Error(), "1008") {
			t.Errorf("a key of %d bytes: %v, want ErrTooLarge", len(key), err)
		}
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
