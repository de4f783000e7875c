package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

func TestRunAcksWhatSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 500 {
			src.add(id(i), "")
		}
		src.endWhen = 500
		var c calls
		err := Run(t.Context(), src, ackwise.HandlerFunc(
			func(ctx context.Context, d *ackwise.Delivery) error {
				c.begin(d)
				defer c.finish(d)
				return wait(ctx, time.Second)
			}), Options{MaxInFlight: 40})
		if !errors.Is(err, errEnded) {
			t.Fatalf("Run = %v, want the source's final error", err)
		}
		if len(src.left) != 500 || len(c.ids) != 500 {
			t.Errorf("%d left, %d handled, want 500 and 500", len(src.left), len(c.ids))
		}
		if c.most != 16 {
			t.Errorf("%d handlers at once, want 16", c.most)
		}
		if src.maxHeld > 40 {
			t.Errorf("%d held at once, want at most 40", src.maxHeld)
		}
	})
}

func TestOutcomesBecomeSettlements(t *testing.T) {
	fault := errors.New("fault")
	for _, tc := range []struct {
		name string
		err  error
		want ackwise.Outcome
	}{
		{"an error is a nack", fault, ackwise.OutcomeNack},
		{"RetryAfter is a nack", ackwise.RetryAfter(fault, time.Minute), ackwise.OutcomeNack},
		{"Snooze is a snooze", ackwise.Snooze(time.Minute), ackwise.OutcomeSnooze},
		{"Reject is a dead letter", ackwise.Reject(fault), ackwise.OutcomeDead},
		{"Drop is a drop", ackwise.Drop("old"), ackwise.OutcomeDrop},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, leases())
				src.add("a", "")
				src.endWhen = 1
				start := time.Now()
				var tries []time.Duration
				h := func(ctx context.Context, d *ackwise.Delivery) error {
					tries = append(tries, time.Since(start))
					if len(tries) == 1 {
						return tc.err
					}
					return nil
				}
				if err := Run(t.Context(), src, ackwise.HandlerFunc(h), seeded(1)); !errors.Is(err, errEnded) {
					t.Fatalf("Run = %v", err)
				}
				if got := src.outcomes["a"][0]; got != tc.want {
					t.Errorf("settled as %s, want %s", got, tc.want)
				}
				v := ackwise.OutcomeOf(tc.err)
				if (v.After || v.Outcome == ackwise.OutcomeSnooze) && tries[1] != time.Minute {
					t.Errorf("tried again after %s, want 1m", tries[1])
				}
			})
		})
	}
}

func TestRetriesFollowTheBackoffAndTheLastFailureIsDead(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    ackwise.Features
	}{
		{"delayed by the source", leases()},
		{"held in the loop, leases extended", func() ackwise.Features {
			f := leases()
			f.MaxNackDelay = 0
			return f
		}()},
		{"counted in memory", func() ackwise.Features {
			f := leases()
			f.Counts = false
			return f
		}()},
		{"held in the loop, no leases, nothing counted", logLike()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, tc.f)
				src.add("a", "k")
				src.endWhen = 1
				o := Options{Rand: fullDelay, MaxFailures: 10}
				var letters []string
				if !tc.f.Dead {
					o.DeadLetters = DeadLetterFunc(
						func(_ context.Context, d *ackwise.Delivery, reason string) error {
							letters = append(letters, d.ID+": "+reason)
							return nil
						})
				}
				start := time.Now()
				var tries []time.Duration
				h := func(context.Context, *ackwise.Delivery) error {
					tries = append(tries, time.Since(start))
					return errors.New("down")
				}
				if err := Run(t.Context(), src, ackwise.HandlerFunc(h), o); !errors.Is(err, errEnded) {
					t.Fatalf("Run = %v", err)
				}
				want := []time.Duration{0}
				for i := range 9 {
					want = append(want, want[i]+min(time.Second<<i, 5*time.Minute))
				}
				if !slices.Equal(tries, want) {
					t.Errorf("tried at %v\nwant     %v", tries, want)
				}
				if tc.f.Dead {
					if o := src.outcomes["a"]; o[len(o)-1] != ackwise.OutcomeDead {
						t.Errorf("outcomes %v, want a dead letter last", o)
					}
				} else if !slices.Equal(letters, []string{"a: down"}) {
					t.Errorf("dead letters %q", letters)
				}
			})
		})
	}
}

func TestACrashedMessageIsDeadBeforeItsHandlerIsCalled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("poison", "").counts.Crashes = 3
		src.add("near", "").counts.Crashes = 2
		src.endWhen = 2
		var c calls
		Run(t.Context(), src, ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
			c.begin(d)
			return nil
		}), Options{})
		if !slices.Equal(c.ids, []string{"near"}) {
			t.Errorf("handled %v, want only near", c.ids)
		}
		if got := src.outcomes["poison"]; !slices.Equal(got, []ackwise.Outcome{ackwise.OutcomeDead}) {
			t.Errorf("poison: %v", got)
		}
	})
}

func TestAMessageHandedOutTooOftenIsDeadWhereNothingSaysWhy(t *testing.T) {
	for _, tc := range []struct {
		name string
		f    func(*ackwise.Features)
		o    Options
		want []string // handled
	}{
		{"only hand-outs are known", func(f *ackwise.Features) { f.HandOuts = true }, Options{},
			[]string{"thirty"}},
		{"a budget of its own", func(f *ackwise.Features) { f.HandOuts = true },
			Options{MaxHandOuts: 31}, []string{"often", "thirty"}},
		{"no budget", func(f *ackwise.Features) { f.HandOuts = true },
			Options{MaxHandOuts: Unlimited}, []string{"often", "thirty"}},
		{"crashes are known", func(f *ackwise.Features) { f.HandOuts, f.Counts = true, true },
			Options{}, []string{"often", "thirty"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := leases()
				f.Counts = false
				tc.f(&f)
				src := newFake(t, f)
				src.add("often", "").counts.HandOuts = 30 // and once more by this hand-out
				src.add("thirty", "").counts.HandOuts = 29
				src.endWhen = 2
				var c calls
				Run(t.Context(), src, ackwise.HandlerFunc(
					func(_ context.Context, d *ackwise.Delivery) error {
						c.begin(d)
						return nil
					}), tc.o)
				slices.Sort(c.ids)
				if !slices.Equal(c.ids, tc.want) {
					t.Errorf("handled %v, want %v", c.ids, tc.want)
				}
			})
		})
	}
}

// TestHandOutsThatWereGivenBackAreNotHeldAgainstAMessage snoozes a message far more often than
// MaxHandOuts.
func TestHandOutsThatWereGivenBackAreNotHeldAgainstAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := leases()
		f.Counts, f.HandOuts = false, true
		src := newFake(t, f)
		src.add("patient", "")
		src.endWhen = 1
		n := 0
		Run(t.Context(), src, ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
			if n++; n <= 40 {
				return ackwise.Snooze(time.Second)
			}
			return nil
		}), Options{MaxHandOuts: 3})
		last := src.outcomes["patient"]
		if n != 41 || last[len(last)-1] != ackwise.OutcomeAck {
			t.Errorf("%d calls, outcomes %v", n, last)
		}
	})
}

// TestOnlyEOFItselfEndsTheLoop cuts the source's connection once: many clients say that with an
// error that wraps io.EOF.
func TestOnlyEOFItselfEndsTheLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.endWhen, src.end = 1, io.EOF
		src.add("after", "")
		cuts := 0
		src.recvErr = func() error {
			if cuts++; cuts == 1 {
				return fmt.Errorf("receive from the server: %w", io.EOF)
			}
			return nil
		}
		var c calls
		err := Run(t.Context(), src, ackwise.HandlerFunc(
			func(_ context.Context, d *ackwise.Delivery) error {
				c.begin(d)
				return nil
			}), Options{})
		if err != nil || !slices.Equal(c.ids, []string{"after"}) {
			t.Errorf("handled %v, ended with %v", c.ids, err)
		}
	})
}

func TestWithoutDeadLettersItRetriesForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, logLike())
		src.add("a", "k").counts.Crashes = 99
		src.endWhen = 1
		n := 0
		Run(t.Context(), src, ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
			if n++; n < 200 {
				return ackwise.Reject(errors.New("poison"))
			}
			return nil
		}), Options{NoDeadLetters: true, Rand: fullDelay, Breaker: Breaker{Off: true}})
		if n != 200 || !slices.Equal(src.left, []string{"a"}) {
			t.Errorf("%d attempts, left %v", n, src.left)
		}
	})
}

func TestASuspectRunsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 40 {
			src.add(id(i), "").suspect = i%10 == 5
		}
		src.endWhen = 40
		var running, besides, suspects atomic.Int32
		Run(t.Context(), src, ackwise.HandlerFunc(
			func(ctx context.Context, d *ackwise.Delivery) error {
				n := running.Add(1)
				if d.Suspect {
					suspects.Add(1)
				}
				if d.Suspect && n > 1 {
					besides.Add(1)
				}
				wait(ctx, time.Second)
				if d.Suspect && running.Load() > 1 {
					besides.Add(1)
				}
				running.Add(-1)
				return nil
			}), Options{})
		if suspects.Load() != 4 || besides.Load() != 0 {
			t.Errorf("%d suspects handled, %d times beside others; want 4 and 0",
				suspects.Load(), besides.Load())
		}
	})
}

func TestAPanicIsAFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		src.endWhen = 1
		var w watcher
		logs := &logRecorder{}
		n := 0
		Run(t.Context(), src, ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
			if n++; n == 1 {
				panic("boom")
			}
			return nil
		}), Options{Observe: w.see, Logger: logs.logger()})
		if n != 2 || src.outcomes["a"][0] != ackwise.OutcomeNack {
			t.Errorf("%d calls, outcomes %v", n, src.outcomes["a"])
		}
		text := logs.text()
		if strings.Count(text, "boom") != 1 || !strings.Contains(text, "run_test.go") {
			t.Errorf("want the panic and its stack logged once, got:\n%s", text)
		}
		for _, want := range []string{"id=a", "attempt=1", "cause=first"} {
			if !strings.Contains(text, want) {
				t.Errorf("the log lacks %s:\n%s", want, text)
			}
		}
	})
}

func TestReceiveErrors(t *testing.T) {
	t.Run("a transient one is tried again with backoff", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			src := newFake(t, leases())
			src.add("a", "")
			src.endWhen = 1
			src.recvErr = func() error {
				if src.receives <= 5 {
					return errors.New("network")
				}
				return nil
			}
			start := time.Now()
			err := Run(t.Context(), src, ackwise.HandlerFunc(
				func(context.Context, *ackwise.Delivery) error { return nil }),
				Options{Rand: fullDelay})
			if !errors.Is(err, errEnded) || len(src.left) != 1 {
				t.Errorf("Run = %v, left %v", err, src.left)
			}
			want := (100 + 200 + 400 + 800 + 1600) * time.Millisecond
			if got := time.Since(start); got != want {
				t.Errorf("took %s, want %s", got, want)
			}
		})
	})
	for _, final := range []error{ackwise.ErrClosed, errEnded} {
		t.Run("a final one is returned: "+final.Error(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, leases())
				src.recvErr = func() error { return fmt.Errorf("wrapped: %w", final) }
				err := Run(t.Context(), src, ackwise.HandlerFunc(
					func(context.Context, *ackwise.Delivery) error { return nil }), Options{})
				if !errors.Is(err, final) {
					t.Errorf("Run = %v, want %v", err, final)
				}
			})
		})
	}
	t.Run("an ended source is worked off with its retries", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ds := []*ackwise.Delivery{{Message: ackwise.Message{ID: "a", Key: "k"}},
				{Message: ackwise.Message{ID: "b", Key: "k"}}}
			src, err := newPushed(ds)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			l, err := newLoop(t.Context(), src, Options{NoDeadLetters: true}, false)
			if err != nil {
				t.Fatal(err)
			}
			l.settle = src.note
			l.handle = single(ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
				if n++; n < 5 {
					return errors.New("not yet")
				}
				return nil
			}))
			if err := l.run(t.Context()); err != nil || n != 6 {
				t.Errorf("run = %v after %d calls, want nil after 6", err, n)
			}
		})
	})
}

func TestRevokedDeliveriesAreReleasedOrGetTheirGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 8 {
			src.add(id(i), "")
		}
		ended := make(chan error, 8)
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if d.ID == id(0) { // ends within the grace
				wait(context.WithoutCancel(ctx), 4*time.Second)
				return nil
			}
			err := wait(ctx, time.Hour)
			ended <- err
			return err
		}
		o := Options{Concurrency: 2, MaxInFlight: 8, RevokeGrace: 5 * time.Second}
		stop := runFor(t, src, ackwise.HandlerFunc(h), o)
		synctest.Wait()
		start := time.Now()
		src.locked(func() {
			for _, m := range src.msgs {
				m.due = start.Add(time.Hour) // not again during the test
				m.d.MarkRevoked()
			}
		})
		wait(t.Context(), 200*time.Millisecond)
		src.locked(func() {
			for i := 2; i < 8; i++ {
				if got := src.outcomes[id(i)]; !slices.Equal(got, []ackwise.Outcome{ackwise.OutcomeRelease}) {
					t.Errorf("%s unstarted: %v, want release", id(i), got)
				}
			}
		})
		if err := <-ended; !errors.Is(err, ackwise.ErrLeaseLost) {
			t.Errorf("cause %v, want ErrLeaseLost", err)
		}
		if got := time.Since(start); got < 5*time.Second || got > 5*time.Second+sweepEvery {
			t.Errorf("the running one was ended after %s, want 5s and at most one look more", got)
		}
		synctest.Wait()
		src.locked(func() {
			if got := src.outcomes[id(0)]; !slices.Equal(got, []ackwise.Outcome{ackwise.OutcomeAck}) {
				t.Errorf("ended in its grace: %v, want ack", got)
			}
			if got := src.outcomes[id(1)]; !slices.Equal(got, []ackwise.Outcome{ackwise.OutcomeRelease}) {
				t.Errorf("interrupted: %v, want release", got)
			}
		})
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestSettlementsAreBatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		for i := range 200 {
			src.add(id(i), "")
		}
		src.endWhen = 200
		slow := slowSettle{src}
		Run(t.Context(), slow, ackwise.HandlerFunc(
			func(context.Context, *ackwise.Delivery) error { return nil }), Options{MaxInFlight: 200})
		if len(src.settles) > 20 || len(src.left) != 200 {
			t.Errorf("%d Settle calls for %d messages, want at most 20", len(src.settles), len(src.left))
		}
	})
}

type slowSettle struct{ *fakeSource }

func (s slowSettle) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	wait(ctx, 10*time.Millisecond)
	return s.fakeSource.Settle(ctx, ss)
}
