package deliver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// transactional is a handler whose effect and settlement are one step in the fake source.
type transactional struct {
	src     *fakeSource
	bound   ackwise.Source
	refuse  error
	effects []string
	fail    int // attempts that fail before the commit
}

func (h *transactional) Bind(src ackwise.Source) error {
	h.bound = src
	return h.refuse
}

func (h *transactional) Handle(_ context.Context, d *ackwise.Delivery) error {
	if h.fail > 0 {
		h.fail--
		return errors.New("conflict")
	}
	var err error
	h.src.locked(func() {
		err = h.src.settle1(ackwise.Settlement{Token: d.Token}).Err
		if err == nil {
			h.effects = append(h.effects, d.ID)
		}
	})
	return err
}

func nothing(context.Context, *ackwise.Delivery) error { return nil }

func TestExactlyOnceSettlesByTheHandlersCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 20 {
			src.add(id(i), "k")
		}
		src.endWhen = 20
		h := &transactional{src: src, fail: 2}
		if err := Run(t.Context(), src, h, Options{Guarantee: ExactlyOnce}); !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
		if h.bound != src || len(h.effects) != 20 || !slices.IsSorted(h.effects) {
			t.Errorf("bound to %v, effects %v", h.bound, h.effects)
		}
		acks := 0
		for _, call := range src.settles {
			for _, s := range call {
				if s.Outcome == ackwise.OutcomeAck {
					acks++
				}
			}
		}
		if acks != 0 {
			t.Errorf("the loop acked %d times what the commit had settled", acks)
		}
	})
}

func TestGuaranteesThatCannotBeKeptAreRefused(t *testing.T) {
	src := newFake(t, leases())
	for _, tc := range []struct {
		name string
		h    ackwise.Handler
		g    Guarantee
		want []string
	}{
		{"a plain handler exactly once", ackwise.HandlerFunc(nothing), ExactlyOnce,
			[]string{"own transaction", "repeats the effect", "queue.Transact", "AtLeastOnce"}},
		{"a handler that does not bind", &transactional{refuse: errors.New("another database: use X")},
			ExactlyOnce, []string{"bind the transactional handler", "another database: use X"}},
		{"a transactional handler at least once", &transactional{}, AtLeastOnce,
			[]string{"a second time", "ExactlyOnce"}},
		{"a transactional handler at most once", &transactional{}, AtMostOnce,
			[]string{"a second time", "at-most-once"}},
		{"no such guarantee", ackwise.HandlerFunc(nothing), 9, []string{"no such guarantee"}},
		{"no handler", nil, AtLeastOnce, []string{"invalid handler: it is nil"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			err := Run(t.Context(), src, tc.h, Options{Guarantee: tc.g})
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error lacks %q:\n%v", want, err)
				}
			}
		})
	}
	if src.receives != 0 {
		t.Error("a refused loop has received")
	}
}

func TestAtMostOnceHandlesOnlyWhatIsAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 100 {
			src.add(id(i), []string{"", "k"}[i%2])
		}
		src.endWhen = 100
		n := 0
		src.settleErr = func(ackwise.Settlement) error {
			if n++; n%3 == 0 {
				return errors.New("unreachable")
			}
			return nil
		}
		src.applied = func(ackwise.Settlement) error {
			if n++; n%7 == 0 {
				return errors.New("the answer is lost")
			}
			return nil
		}
		var c calls
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			c.begin(d)
			defer c.finish(d)
			src.locked(func() {
				if !slices.Contains(src.left, d.ID) {
					t.Errorf("%s is handled before its ack", d.ID)
				}
			})
			wait(ctx, time.Minute) // longer than the lease, which no longer matters
			if context.Cause(ctx) != nil {
				t.Errorf("%s was interrupted: %v", d.ID, context.Cause(ctx))
			}
			if d.ID == id(4) {
				panic("breaks")
			}
			if d.ID < id(20) {
				return errors.New("down")
			}
			return nil
		}
		o := Options{Guarantee: AtMostOnce, StopGrace: 2 * time.Minute}
		if err := Run(t.Context(), src, ackwise.HandlerFunc(h), o); !errors.Is(err, errEnded) {
			t.Fatal(err)
		}
		ids := slices.Sorted(slices.Values(c.ids))
		if len(ids) != len(slices.Compact(ids)) {
			t.Error("a message was handled twice")
		}
		if src.faults == 0 || c.overlap != 0 || len(ids) < 50 {
			t.Errorf("%d faults, %d overlaps, %d handled", src.faults, c.overlap, len(ids))
		}
	})
}

// TestAHeartbeatUnderWayDoesNotLoseWhatIsAckedEarly: the answer to an extend that was sent before
// the early ack comes after it, says that the lease is gone, and no longer matters.
func TestAHeartbeatUnderWayDoesNotLoseWhatIsAckedEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		src.add("b", "")
		src.endWhen = 2
		interrupted := 0
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if wait(ctx, 16*time.Second) != nil {
				interrupted++
			}
			return nil
		}
		Run(t.Context(), slowExtend{src}, ackwise.HandlerFunc(h),
			Options{Guarantee: AtMostOnce, Concurrency: 1})
		if interrupted != 0 || len(src.outcomes["b"]) != 1 {
			t.Errorf("%d interrupted, b: %v", interrupted, src.outcomes["b"])
		}
	})
}

// slowExtend takes 3 s for a heartbeat.
type slowExtend struct{ *fakeSource }

func (s slowExtend) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	if ss[0].Outcome == ackwise.OutcomeExtend {
		wait(ctx, 3*time.Second)
	}
	return s.fakeSource.Settle(ctx, ss)
}
