package queuestore_test

import (
	"fmt"
	"testing"

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
