package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// trickle adds n messages, one each gap, and returns when calls came and how large they were.
func trickle(t *testing.T, n int, gap time.Duration, o Options) (at []time.Duration, sizes []int) {
	t.Helper()
	src := newFake(t, leases())
	src.endWhen = n
	start := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			src.add(id(i), "")
			if err := wait(t.Context(), gap); err != nil {
				return
			}
		}
	}()
	h := func(ctx context.Context, ds []*ackwise.Delivery) []error {
		at, sizes = append(at, time.Since(start)), append(sizes, len(ds))
		return make([]error, len(ds))
	}
	if err := RunBatch(t.Context(), src, ackwise.BatchHandlerFunc(h), o); !errors.Is(err, errEnded) {
		t.Errorf("RunBatch = %v", err)
	}
	<-done
	return at, sizes
}

func TestACallLingersForAFullBatch(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name   string
		n      int
		linger time.Duration
		size   int
		at     []time.Duration
		sizes  []int
	}{
		{"by default it takes what is ready", 4, 0, 100,
			[]time.Duration{0, 10 * ms, 20 * ms, 30 * ms}, []int{1, 1, 1, 1}},
		{"until Linger is over", 6, 25 * ms, 100,
			[]time.Duration{25 * ms, 55 * ms}, []int{3, 3}},
		{"until the batch is full", 6, time.Minute, 3,
			[]time.Duration{20 * ms, 50 * ms}, []int{3, 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				at, sizes := trickle(t, c.n, 10*ms, Options{Concurrency: 1, BatchSize: c.size,
					Linger: c.linger})
				if !slices.Equal(sizes, c.sizes) || !slices.Equal(at, c.at) {
					t.Errorf("calls of %v at %v, want %v at %v", sizes, at, c.sizes, c.at)
				}
			})
		})
	}
}

// What waits for its retry fills the room: nothing can come that would make a batch larger.
func TestACallDoesNotLingerWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, logLike())
		src.add("fails", "")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		var second time.Duration
		err := RunBatch(ctx, src, ackwise.BatchHandlerFunc(
			func(_ context.Context, ds []*ackwise.Delivery) []error {
				if ds[0].ID == "fails" {
					src.add("second", "")
					return []error{ackwise.RetryAfter(errors.New("down"), time.Hour)}
				}
				second = time.Since(start)
				return make([]error, len(ds))
			}), Options{Concurrency: 1, BatchSize: 2, MaxInFlight: 2, Linger: 10 * time.Second,
			NoDeadLetters: true})
		if err != nil || second != 10*time.Second { // the first one's own linger
			t.Errorf("the second was handled after %s, %v", second, err)
		}
	})
}

// A source that has ended brings no more: what is ready is handled at once.
func TestACallDoesNotLingerAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ss, err := ProcessBatch(t.Context(), pushedBatch("a/1", "a/2", "b/1"),
			ackwise.BatchHandlerFunc(func(_ context.Context, ds []*ackwise.Delivery) []error {
				return make([]error, len(ds))
			}), Options{NoDeadLetters: true, Linger: time.Hour})
		if err != nil || len(ss) != 3 || time.Since(start) != 0 {
			t.Errorf("%d settlements after %s, %v", len(ss), time.Since(start), err)
		}
	})
}

// However messages come, none waits longer than Linger once a handler is free, and the loop sleeps
// between (a loop that turned would never let the clock of the bubble move).
func TestLingerBoundsTheWait(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				src := newFake(t, leases())
				const n = 60
				src.endWhen = n
				added := map[string]time.Time{}
				go func() {
					for i := range n {
						src.locked(func() { added[id(i)] = time.Now() })
						src.add(id(i), []string{"", "a", "b"}[r.IntN(3)])
						if wait(t.Context(), time.Duration(r.IntN(40))*time.Millisecond) != nil {
							return
						}
					}
				}()
				free := time.Now()
				h := func(ctx context.Context, ds []*ackwise.Delivery) []error {
					src.locked(func() {
						first := slices.MinFunc(ds, func(a, b *ackwise.Delivery) int {
							return added[a.ID].Compare(added[b.ID])
						})
						from := added[first.ID]
						if free.After(from) {
							from = free
						}
						if d := time.Since(from); d > 30*time.Millisecond && first.Key == "" {
							t.Errorf("seed %d: %s waited %s", seed, first.ID, d)
						}
					})
					_ = wait(ctx, time.Duration(len(ds))*time.Millisecond)
					free = time.Now()
					return make([]error, len(ds))
				}
				err := RunBatch(t.Context(), src, ackwise.BatchHandlerFunc(h),
					Options{Concurrency: 1, BatchSize: 8, Linger: 30 * time.Millisecond})
				if !errors.Is(err, errEnded) {
					t.Errorf("seed %d: %v", seed, err)
				}
			})
		})
	}
}

func TestAStopEndsTheLinger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		err := RunBatch(ctx, src, ackwise.BatchHandlerFunc(
			func(_ context.Context, ds []*ackwise.Delivery) []error {
				t.Error("the handler is called")
				return make([]error, len(ds))
			}), Options{Linger: time.Hour})
		if err != nil || time.Since(start) != time.Second ||
			!slices.Equal(src.outcomes["a"], []ackwise.Outcome{ackwise.OutcomeRelease}) {
			t.Errorf("%v after %s, a is %v", err, time.Since(start), src.outcomes["a"])
		}
	})
}

func TestProcessBatchKeepsRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var calls [][]string
		failed := false
		h := func(_ context.Context, ds []*ackwise.Delivery) []error {
			var ids []string
			errs := make([]error, len(ds))
			for i, d := range ds {
				ids = append(ids, d.ID)
				if d.ID == "a/2" && !failed {
					failed, errs[i] = true, errors.New("down")
				}
			}
			calls = append(calls, ids)
			return errs
		}
		ss, err := ProcessBatch(ctx, pushedBatch("a/1", "a/2", "a/3", "b/1"),
			ackwise.BatchHandlerFunc(h), Options{Concurrency: 1, NoDeadLetters: true})
		for _, s := range ss {
			if s.Outcome != ackwise.OutcomeAck {
				t.Errorf("%s: %s", s.Token, s.Outcome)
			}
		}
		want := [][]string{{"a/1", "a/2", "a/3", "b/1"}, {"a/2", "a/3"}}
		if err != nil || len(ss) != 4 || !slices.EqualFunc(calls, want, slices.Equal[[]string]) {
			t.Errorf("calls %v, want %v; %v", calls, want, err)
		}
	})
}

func TestALingerThatOutlastsTheLeaseIsRefused(t *testing.T) {
	f := leases()
	f.Extend = false
	err := RunBatch(t.Context(), newFake(t, f), ackwise.BatchHandlerFunc(
		func(context.Context, []*ackwise.Delivery) []error { return nil }),
		Options{Linger: time.Minute, Backoff: Backoff{Cap: time.Second}})
	var bad *ackwise.InvalidError
	if !errors.As(err, &bad) || bad.Field != "Linger" {
		t.Errorf("got %v", err)
	}
}
