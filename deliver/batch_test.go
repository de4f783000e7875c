package deliver

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise"
)

func TestABatchCallTakesWhatIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 95 {
			src.add(id(i), []string{"", "k"}[i%2])
		}
		src.endWhen = 95
		var sizes []int
		h := func(ctx context.Context, ds []*ackwise.Delivery) []error {
			sizes = append(sizes, len(ds))
			last := ""
			for _, d := range ds {
				if d.Key != "" && d.ID <= last {
					t.Errorf("the run is out of order at %s", d.ID)
				}
				if d.Key != "" {
					last = d.ID
				}
			}
			return make([]error, len(ds))
		}
		err := RunBatch(t.Context(), src, ackwise.BatchHandlerFunc(h),
			Options{Concurrency: 1, BatchSize: 30, MaxInFlight: 1000})
		// Later ones may be smaller: the key's next run waits for its last one's settlement.
		if !errors.Is(err, errEnded) || sizes[0] != 30 || len(sizes) > 6 || slices.Max(sizes) > 30 {
			t.Errorf("Run = %v, batches of %v", err, sizes)
		}
	})
}

func TestARunsFirstFailureSendsTheRestBack(t *testing.T) {
	for name, f := range map[string]ackwise.Features{"given back": leases(), "held": logLike()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, f)
				for i := range 5 {
					src.add(id(i), "k")
				}
				src.add("other", "x")
				src.endWhen = 6
				calls, handled := 0, make(map[string]int)
				h := func(ctx context.Context, ds []*ackwise.Delivery) []error {
					calls++
					errs := make([]error, len(ds))
					for i, d := range ds {
						handled[d.ID]++
						if d.ID == id(2) && calls == 1 {
							errs[i] = errors.New("down")
						}
					}
					return errs
				}
				RunBatch(t.Context(), src, ackwise.BatchHandlerFunc(h),
					Options{Concurrency: 1, NoDeadLetters: !f.Dead})
				want := map[string][]ackwise.Outcome{
					id(1): {ackwise.OutcomeAck},
					id(2): {ackwise.OutcomeNack, ackwise.OutcomeAck},
					id(3): {ackwise.OutcomeRelease, ackwise.OutcomeAck},
					id(4): {ackwise.OutcomeRelease, ackwise.OutcomeAck}, "other": {ackwise.OutcomeAck}}
				if name == "held" {
					for id := range want {
						want[id] = []ackwise.Outcome{ackwise.OutcomeAck}
					}
				}
				for id, w := range want {
					if got := src.outcomes[id]; !slices.Equal(got, w) {
						t.Errorf("%s: %v, want %v", id, got, w)
					}
				}
				kept := slices.DeleteFunc(slices.Clone(src.left), func(s string) bool { return s == "other" })
				for i, want := range []int{1, 1, 2, 2, 2} {
					if got := handled[id(i)]; got != want {
						t.Errorf("%s was handled %d times, want %d", id(i), got, want)
					}
				}
				if !slices.IsSorted(kept) || calls < 2 {
					t.Errorf("left in the order %v after %d calls", src.left, calls)
				}
			})
		})
	}
}

func TestAWrongNumberOfResultsIsAFailureOfAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		src.add("b", "")
		src.endWhen = 2
		logs := &logRecorder{}
		calls := 0
		h := func(ctx context.Context, ds []*ackwise.Delivery) []error {
			if calls++; calls == 1 {
				return make([]error, 1)
			}
			return make([]error, len(ds))
		}
		RunBatch(t.Context(), src, ackwise.BatchHandlerFunc(h),
			Options{Concurrency: 1, Logger: logs.logger()})
		for _, m := range src.msgs {
			if m.counts.Failures != 1 || m.out != "ack" {
				t.Errorf("%s: %d failures, %q", m.m.ID, m.counts.Failures, m.out)
			}
		}
		if want := "returned 1 results for 2 deliveries"; !strings.Contains(logs.text(), want) {
			t.Errorf("the log lacks %q:\n%s", want, logs.text())
		}
	})
}
