package kafka_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// lagging is what a pipeline asks how far behind it is.
type lagging interface {
	Lag(ctx context.Context) (records int64, oldest time.Time, err error)
}

// testLag: what is not settled is told, from the first moment on: what was fetched, what was not,
// and no end of a transaction for a record. A member that has no partitions yet says so.
func testLag(t *testing.T, p *place) {
	p.put(t, 0, 0, 10)
	p.transact(t, kgo.TryCommit, 5)
	p.transact(t, kgo.TryAbort, 5)
	s := open(t, p.url(""))
	untold, told := 0, 0
	lag := func(want int64, oldest bool) {
		t.Helper()
		for over := late(t); ; {
			n, at, err := s.(lagging).Lag(t.Context())
			switch {
			case err != nil && !strings.Contains(err.Error(), "no partitions yet"):
				t.Fatal(err)
			case err != nil:
				untold++
			case n < want:
				t.Fatalf("the lag is %d, want %d", n, want)
			case n == want && at.IsZero() != oldest:
				told++
				return
			}
			select {
			case <-over:
				t.Fatalf("the lag is %d since %s, %v, and not %d", n, at, err, want)
			default:
				pause.For(t.Context(), 10*time.Millisecond)
			}
		}
	}
	lag(15, true)
	ds := receive(t, s, 15)
	lag(15, true)
	settle(t, s, ackwise.OutcomeAck, ds[3:]...)
	lag(3, true)
	settle(t, s, ackwise.OutcomeAck, ds[:3]...)
	lag(0, false)
	p.put(t, 1, 15, 3)
	lag(3, true)
	t.Logf("not known %d times, told %d times", untold, told)
}

// testLagOfSurplus: a member for which there is no partition is not through before the others are.
func testLagOfSurplus(t *testing.T, p *place) {
	p.put(t, 0, 0, 3)
	first := open(t, p.url(""))
	ds := receive(t, first, 3)
	surplus := open(t, p.url(""))
	lag := func() (int64, error) {
		n, _, err := surplus.(lagging).Lag(t.Context())
		return n, err
	}
	for range 50 {
		if n, err := lag(); err == nil {
			t.Fatalf("the lag is %d, and nothing is settled", n)
		}
		pause.For(t.Context(), 10*time.Millisecond)
	}
	settle(t, first, ackwise.OutcomeAck, ds...)
	for over := late(t); ; pause.For(t.Context(), 10*time.Millisecond) {
		n, err := lag()
		if err == nil && n == 0 {
			return
		}
		select {
		case <-over:
			t.Fatalf("the lag is %d, %v", n, err)
		default:
		}
	}
}

// transact writes records to partition 1 in a transaction, and ends it.
func (p *place) transact(t *testing.T, end kgo.TransactionEndTry, n int) {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(p.brokers, ",")...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.TransactionalID("tx-"+p.topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	for range n {
		r := &kgo.Record{Topic: p.topic, Partition: 1, Value: []byte("x")}
		if err := cl.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if err := cl.EndTransaction(t.Context(), end); err != nil {
		t.Fatal(err)
	}
}
