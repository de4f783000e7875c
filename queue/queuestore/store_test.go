package queuestore_test

import (
	"testing"
	"time"

	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// openEngine opens an engine that the test's end verifies and closes.
func openEngine(t *testing.T, dir string) *queue.Store {
	t.Helper()
	s, err := queue.Open(dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verified checks that the state is what the log says.
func verified(t *testing.T, s *queue.Store) {
	t.Helper()
	report, err := s.Verify(t.Context())
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("verify: %q, %v", report.Findings, err)
	}
}

func open(t *testing.T, e queuestore.Engine, o storetest.StoreOptions) *queuestore.Store {
	t.Helper()
	s, err := queuestore.Open(t.Context(), e, o.Name,
		queuestore.Options{Window: o.Window, MaxKeys: o.MaxKeys})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStoreKeepsTheContract(t *testing.T) {
	dir := t.TempDir()
	e := openEngine(t, dir)
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	storetest.RunStore(t, storetest.StoreHarness{
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			return open(t, e, o)
		},
		Reopen: func(t *testing.T, s idempotency.Store, o storetest.StoreOptions) idempotency.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			verified(t, e)
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			e = openEngine(t, dir)
			verified(t, e)
			return open(t, e, o)
		},
		Shared: true, Window: 400 * time.Millisecond,
	})
	verified(t, e)
}
