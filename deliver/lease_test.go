package deliver

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

func TestHeartbeatsKeepTheLeaseUpToTheCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		start := time.Now()
		var cause error
		var after time.Duration
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if d.Attempt > 1 {
				return nil
			}
			wait(ctx, 24*time.Hour)
			cause, after = context.Cause(ctx), time.Since(start)
			return errors.New("cut off")
		}
		o := Options{MaxHandle: 10 * time.Minute}
		stop := runFor(t, src, ackwise.HandlerFunc(h), o)
		wait(t.Context(), 9*time.Minute)
		src.locked(func() {
			if m := src.msgs[0]; m.counts.HandOuts != 1 {
				t.Errorf("handed out %d times while the handler works, want 1", m.counts.HandOuts)
			}
		})
		wait(t.Context(), 2*time.Minute)
		synctest.Wait()
		if !errors.Is(cause, ackwise.ErrLeaseLost) {
			t.Errorf("cause %v, want ErrLeaseLost", cause)
		}
		if after < o.MaxHandle || after > o.MaxHandle+sweepEvery {
			t.Errorf("cut off after %s, want %s and at most one look more", after, o.MaxHandle)
		}
		extends := 0
		for _, o := range src.outcomes["a"] {
			if o == ackwise.OutcomeExtend {
				extends++
			}
		}
		// One when half of the 30 s lease is over, for ten minutes.
		if extends < 38 || extends > 40 {
			t.Errorf("%d heartbeats, want about 39", extends)
		}
		if src.msgs[0].counts.Failures != 1 {
			t.Error("a handler that ran into the ceiling is a failure")
		}
		stop()
	})
}

func TestWaitingDeliveriesKeepTheirLeaseToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := leases()
		f.MaxNackDelay = 0
		src := newFake(t, f)
		for i := range 8 {
			src.add(id(i), "")
		}
		src.endWhen = 8
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			wait(ctx, time.Minute)
			if d.ID == id(0) && len(src.left) == 0 {
				return ackwise.RetryAfter(errors.New("busy"), 5*time.Minute)
			}
			return nil
		}
		Run(t.Context(), src, ackwise.HandlerFunc(h), Options{Concurrency: 1, MaxInFlight: 8})
		for _, m := range src.msgs {
			if m.counts.HandOuts != 1 || m.out != "ack" {
				t.Errorf("%s: handed out %d times, %s", m.m.ID, m.counts.HandOuts, m.out)
			}
		}
	})
}

func TestALostLeaseEndsTheHandler(t *testing.T) {
	for _, tc := range []struct {
		name   string
		result error
		lose   func(src *fakeSource, m *fakeMessage)
		acks   int
	}{
		{"told by a heartbeat; a failure is dropped", errors.New("cancelled"),
			func(src *fakeSource, m *fakeMessage) { src.back(m, ackwise.CauseRebalanced) }, 0},
		{"told by the source; a failure is dropped", errors.New("cancelled"),
			func(src *fakeSource, m *fakeMessage) {
				d := m.d
				src.back(m, ackwise.CauseRebalanced)
				d.MarkLost()
			}, 0},
		{"a success is reported all the same", nil,
			func(src *fakeSource, m *fakeMessage) { src.back(m, ackwise.CauseRebalanced) }, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, leases())
				src.add("a", "")
				var cause error
				h := func(ctx context.Context, d *ackwise.Delivery) error {
					cause = wait(ctx, time.Hour)
					select {
					case <-d.Lost():
					default:
						t.Error("Lost is not closed")
					}
					return tc.result
				}
				var w watcher
				stop := runFor(t, src, ackwise.HandlerFunc(h), Options{Observe: w.see})
				synctest.Wait()
				src.locked(func() {
					tc.lose(src, src.msgs[0])
					src.msgs[0].due = time.Now().Add(time.Hour)
				})
				wait(t.Context(), 20*time.Second)
				synctest.Wait()
				if !errors.Is(cause, ackwise.ErrLeaseLost) {
					t.Errorf("cause %v, want ErrLeaseLost", cause)
				}
				src.locked(func() {
					if src.ackLost != tc.acks || src.msgs[0].counts.Failures != 0 {
						t.Errorf("%d late acks, %d failures; want %d and 0",
							src.ackLost, src.msgs[0].counts.Failures, tc.acks)
					}
				})
				if w.count("lease-lost") != 1 {
					t.Errorf("lease-lost observed %d times, want once", w.count("lease-lost"))
				}
				if err := stop(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestFailedHeartbeatsAreRepeated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		src.endWhen = 1
		n := 0
		src.settleErr = func(s ackwise.Settlement) error {
			if s.Outcome != ackwise.OutcomeExtend {
				return nil
			}
			if n++; n%4 != 0 {
				return errors.New("timeout")
			}
			return nil
		}
		var w watcher
		Run(t.Context(), src, ackwise.HandlerFunc(
			func(ctx context.Context, _ *ackwise.Delivery) error { return wait(ctx, 5*time.Minute) }),
			Options{Observe: w.see})
		if src.msgs[0].counts.HandOuts != 1 || src.msgs[0].out != "ack" || w.count("extend-failed") < 10 {
			t.Errorf("%d hand-outs, %q, %d failed heartbeats", src.msgs[0].counts.HandOuts,
				src.msgs[0].out, w.count("extend-failed"))
		}
	})
}

func TestASlowSettleDoesNotStarveHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := leases()
		f.Lease = 2 * time.Second
		src := newFake(t, f)
		src.add("slow", "")
		src.add("quick", "")
		src.endWhen = 2
		stuck := stuckSettle{src}
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if d.ID == "slow" {
				return wait(ctx, 8*time.Second)
			}
			return nil
		}
		Run(t.Context(), stuck, ackwise.HandlerFunc(h), Options{})
		for _, m := range src.msgs {
			if m.counts.HandOuts != 1 || m.out != "ack" {
				t.Errorf("%s: %d hand-outs, %q", m.m.ID, m.counts.HandOuts, m.out)
			}
		}
	})
}

// stuckSettle takes 6 s for everything but heartbeats.
type stuckSettle struct{ *fakeSource }

func (s stuckSettle) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	if ss[0].Outcome != ackwise.OutcomeExtend {
		wait(ctx, 6*time.Second)
	}
	return s.fakeSource.Settle(ctx, ss)
}

// Two handlers run, one delivery waits behind one of them and one for room.
func TestStopTakesExactlyItsGraces(t *testing.T) {
	for _, tc := range []stopCase{
		{"a handler that ends in the grace is acked", func(ctx context.Context) error {
			return wait(ctx, 10*time.Second)
		}, 10 * time.Second, ackwise.OutcomeAck, 0},
		{"one that fails in the grace is nacked", func(ctx context.Context) error {
			wait(ctx, 10*time.Second)
			return errors.New("down")
		}, 10 * time.Second, ackwise.OutcomeNack, 0},
		{"one that is cut off is released", func(ctx context.Context) error {
			return wait(ctx, time.Hour)
		}, 20 * time.Second, ackwise.OutcomeRelease, 0},
		{"one that ends late is settled by its result", func(ctx context.Context) error {
			return wait(context.WithoutCancel(ctx), 22*time.Second)
		}, 22 * time.Second, ackwise.OutcomeAck, 0},
		{"one that never ends is left to its lease", func(ctx context.Context) error {
			return wait(context.WithoutCancel(ctx), time.Hour)
		}, 23 * time.Second, ackwise.OutcomeExtend, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, tc.run)
		})
	}
}

// stopCase is one way for a handler to end, or not, after a stop.
type stopCase struct {
	name    string
	work    func(ctx context.Context) error
	want    time.Duration // of the stop
	outcome ackwise.Outcome
	stuck   int
}

func (tc stopCase) run(t *testing.T) {
	src := newFake(t, leases())
	for _, id := range []string{"a", "b", "c", "d"} {
		src.add(id, id[:1])
	}
	src.msgs[1].m.Key = "a" // b waits behind a
	ctx, cancel := context.WithCancel(t.Context())
	var w watcher
	o := Options{Concurrency: 2, MaxInFlight: 4, StopGrace: 20 * time.Second,
		CancelGrace: 3 * time.Second, Observe: w.see}
	done := make(chan error, 1)
	var c calls
	go func() {
		done <- Run(ctx, src, ackwise.HandlerFunc(
			func(ctx context.Context, d *ackwise.Delivery) error {
				c.begin(d)
				defer c.finish(d)
				return tc.work(ctx)
			}), o)
	}()
	synctest.Wait()
	start := time.Now()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	if got := time.Since(start); got != tc.want {
		t.Errorf("the stop took %s, want %s", got, tc.want)
	}
	if got := src.outcomes["a"]; !slices.Contains(got, tc.outcome) {
		t.Errorf("a: %v, want %s", got, tc.outcome)
	}
	for _, id := range []string{"b", "d"} {
		got := slices.DeleteFunc(src.outcomes[id], func(o ackwise.Outcome) bool {
			return o == ackwise.OutcomeExtend
		})
		// b is behind a: where a never ends, b is left to the same lease.
		if (id == "d" || tc.stuck == 0) &&
			!slices.Equal(got, []ackwise.Outcome{ackwise.OutcomeRelease}) {
			t.Errorf("%s unstarted: %v, want release", id, got)
		}
	}
	if got := c.seen(); len(got) != 2 {
		t.Errorf("handled %v, want only the two that ran", got)
	}
	if got := w.count("stuck"); got != 2*tc.stuck {
		t.Errorf("%d reported as stuck, want %d", got, 2*tc.stuck)
	}
	if tc.outcome != ackwise.OutcomeExtend && len(src.tokens) != 0 {
		t.Errorf("%d deliveries still held", len(src.tokens))
	}
	wait(t.Context(), 2*time.Hour) // for the handler that never ends
}

func TestAnIdleLoopStopsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		stop := runFor(t, src, ackwise.HandlerFunc(
			func(context.Context, *ackwise.Delivery) error { return nil }), Options{})
		wait(t.Context(), time.Hour)
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) != 0 {
			t.Errorf("stopped with %v after %s", err, time.Since(start))
		}
		if src.receives != 1 {
			t.Errorf("%d Receive calls in an idle hour, want 1", src.receives)
		}
	})
}

func TestAStopGivesUpSettlingInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, logLike())
		src.add("a", "")
		src.settleErr = func(ackwise.Settlement) error { return errors.New("unreachable") }
		var w watcher
		stop := runFor(t, src, ackwise.HandlerFunc(
			func(context.Context, *ackwise.Delivery) error { return nil }),
			Options{NoDeadLetters: true, SettleTimeout: 7 * time.Second, Observe: w.see})
		wait(t.Context(), time.Minute)
		start := time.Now()
		if err := stop(); err != nil || time.Since(start) != 7*time.Second {
			t.Errorf("stopped with %v after %s, want nil after 7s", err, time.Since(start))
		}
		if w.count("unsettled") != 1 || len(src.left) != 0 {
			t.Errorf("%d unsettled, left %v", w.count("unsettled"), src.left)
		}
	})
}
