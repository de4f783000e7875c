package memlog_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

var kinds = [...]string{"records", "assigned", "revoked", "lost"}

func show(m *memlog.Member) {
	changes, err := m.Poll(context.Background(), 10)
	if err != nil {
		fmt.Println(m.Name(), err)
	}
	for _, c := range changes {
		fmt.Println(m.Name(), kinds[c.Kind], c.Partition, len(c.Records))
	}
}

func ExampleLog() {
	log := memlog.New("flights", 1)
	log.Append(0, ackwise.Message{ID: "1"}, ackwise.Message{ID: "2"})
	a, b := log.Join("a"), log.Join("b")
	log.Rebalance(0, time.Time{})
	show(a)
	a.Commit(context.Background(), []logsource.Mark{
		{Partition: "flights/0", Position: "000000000001"}})
	log.Move(0, b, time.Now().Add(time.Minute))
	show(a)
	a.Release("flights/0")
	show(b)
	// Output:
	// a assigned flights/0 0
	// a records flights/0 2
	// a revoked flights/0 0
	// b assigned flights/0 0
	// b records flights/0 1
}

func TestFences(t *testing.T) {
	log := memlog.New("t", 1)
	log.Append(0, ackwise.Message{ID: "1"})
	a, b := log.Join("a"), log.Join("b")
	log.Rebalance(0, time.Time{})
	mark := []logsource.Mark{{Partition: "t/0", Position: "000000000001"}}
	log.Seize(0, b)
	if err := a.Commit(t.Context(), mark)[0]; !errors.Is(err, logsource.ErrFenced) {
		t.Errorf("commit of the former owner: %v", err)
	}
	b.Kill()
	if err := b.Commit(t.Context(), mark)[0]; !errors.Is(err, logsource.ErrFenced) {
		t.Errorf("commit of a killed member: %v", err)
	}
	if _, err := b.Poll(t.Context(), 1); !errors.Is(err, ackwise.ErrClosed) {
		t.Errorf("poll of a killed member: %v", err)
	}
	if pos, note := log.Committed(0); pos != "" || note != nil || log.Owner(0) != nil {
		t.Errorf("position %q, owner %v", pos, log.Owner(0))
	}
}

func TestExpire(t *testing.T) {
	log := memlog.New("t", 2)
	a, b := log.Join("a"), log.Join("b")
	log.Rebalance(0, time.Time{})
	end := time.Unix(100, 0)
	log.Move(0, b, end)
	log.Expire(end.Add(-1))
	if log.Owner(0) != a {
		t.Error("moved before the deadline")
	}
	log.Expire(end)
	if log.Owner(0) != b || log.Owner(1) != b {
		t.Error("not moved after the deadline")
	}
}
