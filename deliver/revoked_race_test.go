package deliver

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"

	"github.com/ackwise/ackwise"
)

// markingSource marks its deliveries as revoked from a goroutine of its own, as a source does whose
// partition is taken away while the loop is about to start what it holds.
type markingSource struct {
	t       *testing.T
	batches int
	marking sync.WaitGroup

	mu      sync.Mutex // guards all below
	next    int
	settled map[ackwise.LeaseToken]bool
}

func (s *markingSource) Features() ackwise.Features {
	return ackwise.Features{Dead: true, Counts: true, MaxNackDelay: 1 << 40}
}

func (s *markingSource) Close() error { return nil }

func (s *markingSource) Receive(context.Context, int) ([]*ackwise.Delivery, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.batches--; s.batches < 0 {
		return nil, io.EOF
	}
	ds := make([]*ackwise.Delivery, 8)
	for i := range ds {
		s.next++
		ds[i] = &ackwise.Delivery{Message: ackwise.Message{ID: fmt.Sprint(s.next)},
			Token: ackwise.LeaseToken(fmt.Sprint(s.next))}
	}
	s.marking.Go(func() { // ends when all are marked
		for _, d := range ds {
			d.MarkRevoked()
		}
	})
	return ds, nil
}

func (s *markingSource) Settle(_ context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range ss {
		s.settled[st.Token] = true
	}
	return make([]ackwise.SettleResult, len(ss))
}

// A delivery that is revoked between two looks of the loop is given back: the loop neither starts
// it nor falls over it.
func TestADeliveryRevokedWhileItStartsIsGivenBack(t *testing.T) {
	s := &markingSource{t: t, batches: 3000, settled: make(map[ackwise.LeaseToken]bool)}
	err := Run(t.Context(), s, ackwise.HandlerFunc(
		func(context.Context, *ackwise.Delivery) error { return nil }), Options{})
	s.marking.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if len(s.settled) != s.next {
		t.Errorf("%d of %d deliveries were settled", len(s.settled), s.next)
	}
}
