package idempotency_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// slow is a store whose answers to asks, and to releases, take their time.
type slow struct {
	*memstore.Store
	claim   time.Duration
	release time.Duration
	taken   func() // called before a slow answer to an ask is given
}

func (s slow) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	answers, err := s.Store.Claim(ctx, asks)
	time.Sleep(s.claim) // virtual
	if s.taken != nil {
		s.taken()
	}
	return answers, err
}

func (s slow) Settle(ctx context.Context, all []idempotency.Settlement) ([]error, error) {
	if s.release > 0 && all[0].Verb == idempotency.Release {
		time.Sleep(s.release) // virtual
		return nil, errors.New("away")
	}
	return s.Store.Settle(ctx, all)
}

// statusOf asks for a key as somebody else would.
func statusOf(t *testing.T, s idempotency.Store, key string) idempotency.Status {
	t.Helper()
	answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: key, Lease: time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0].Status
}

// TestAClaimThatWasAnsweredLateIsExtended has most of a lease, or all of it, pass before the answer
// is there. Nobody else may get the claim while the handler works.
func TestAClaimThatWasAnsweredLateIsExtended(t *testing.T) {
	for _, took := range []time.Duration{48 * time.Second, 80 * time.Second} {
		t.Run(took.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := openMemory(t, memstore.Options{Window: 48 * time.Hour})
				worked := false
				h := dedup(t, slow{Store: m, claim: took}, ackwise.HandlerFunc(
					func(context.Context, *ackwise.Delivery) error {
						for range 5 {
							time.Sleep(18 * time.Second) // virtual
							if got := statusOf(t, m, "k"); got != idempotency.Busy {
								t.Errorf("somebody else who asks is told %s", got)
							}
						}
						worked = true
						return nil
					}), hour)
				outcome(t, h, delivery("k"), ackwise.OutcomeAck)
				if !worked {
					t.Error("the handler did not work")
				}
			})
		})
	}
}

// TestAClaimThatWasLostBeforeItsAnswerIsNotUsed has another one take the claim over before the
// first one hears that it has it.
func TestAClaimThatWasLostBeforeItsAnswerIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t, memstore.Options{Window: 48 * time.Hour})
		w := &world{}
		h := dedup(t, slow{Store: m, claim: 80 * time.Second, taken: func() {
			if got := statusOf(t, m, "k"); got != idempotency.Claimed {
				t.Errorf("a claim that ran out is answered %s", got)
			}
		}}, w.handler(), hour)
		err := h.Handle(t.Context(), delivery("k"))
		if !errors.Is(err, idempotency.ErrFence) {
			t.Errorf("the handler returned %v, want ErrFence", err)
		}
		w.want(t, "k", 0)
	})
}

// TestGivingBackDoesNotEatTheLease has the release of one message take longer than the lease of the
// other ones of its batch.
func TestGivingBackDoesNotEatTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := openMemory(t, memstore.Options{Window: 48 * time.Hour})
		statusOf(t, m, "busy")
		o := hour
		o.Lease = 900 * time.Millisecond
		worked := false
		h, err := idempotency.DedupBatch(t.Context(),
			slow{Store: m, release: 200 * time.Millisecond}, ackwise.BatchHandlerFunc(
				func(_ context.Context, ds []*ackwise.Delivery) []error {
					time.Sleep(850 * time.Millisecond) // virtual
					if got := statusOf(t, m, "other"); got != idempotency.Busy {
						t.Errorf("somebody else who asks is told %s", got)
					}
					worked = true
					return make([]error, len(ds))
				}), o)
		if err != nil {
			t.Fatal(err)
		}
		busy, behind, other := delivery("busy"), delivery("behind"), delivery("other")
		busy.Key, behind.Key = "k", "k"
		h.HandleBatch(t.Context(), []*ackwise.Delivery{busy, behind, other})
		if !worked {
			t.Error("the handler did not work")
		}
	})
}
