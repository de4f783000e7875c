package deliver

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// TestAnOutageBurnsNoBudgets: the target is down for ten minutes. Few attempts are made, nothing
// dies, and all goes on by itself afterwards.
func TestAnOutageBurnsNoBudgets(t *testing.T) {
	for name, f := range map[string]ackwise.Features{"engine": leases(), "log": logLike()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, f)
				const messages = 1000
				for i := range messages {
					src.add(id(i), "")
				}
				src.endWhen = messages
				start := time.Now()
				var attempts atomic.Int64
				var c calls
				h := func(ctx context.Context, d *ackwise.Delivery) error {
					c.begin(d)
					defer c.finish(d)
					if time.Since(start) < 10*time.Minute {
						attempts.Add(1)
						return errors.New("connection refused")
					}
					return nil
				}
				var w watcher
				o := Options{MaxFailures: 10, Rand: fullDelay, Observe: w.see}
				dead := 0
				if !f.Dead {
					o.DeadLetters = DeadLetterFunc(
						func(context.Context, *ackwise.Delivery, string) error { dead++; return nil })
				}
				Run(t.Context(), src, ackwise.HandlerFunc(h), o)
				for _, m := range src.msgs {
					if m.out != "ack" {
						t.Fatalf("%s left by %q", m.m.ID, m.out)
					}
				}
				// 100 until it opens (and what ran beside), then a probe each 30 s at the most.
				if n := attempts.Load(); n < 100 || n > 150 || dead != 0 {
					t.Errorf("%d attempts in the outage, %d dead; want 100 to 150 and 0", n, dead)
				}
				released := 0
				for _, outcomes := range src.outcomes {
					if outcomes[0] == ackwise.OutcomeRelease {
						released++
					}
				}
				if released < 100 {
					t.Errorf("%d given back unattempted when it opened, want most of 256", released)
				}
				if w.count("breaker-open") == 0 || w.count("breaker-closed") != 1 {
					t.Errorf("opened %d times, closed %d", w.count("breaker-open"), w.count("breaker-closed"))
				}
				if got := time.Since(start); got > 16*time.Minute {
					t.Errorf("took %s: it did not recover soon", got)
				}
			})
		})
	}
}

// TestTheRetryBudgetSpacesRetries: a tenth of the load may be retries, not more.
func TestTheRetryBudgetSpacesRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		const messages = 400
		for i := range messages {
			src.add(id(i), "")
		}
		src.endWhen = messages
		start := time.Now()
		perSecond := make(map[int]int)
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if d.Attempt == 1 {
				return errors.New("down")
			}
			perSecond[int(time.Since(start).Seconds())]++
			return nil
		}
		var w watcher
		o := Options{Concurrency: 1, Rand: fullDelay, Breaker: Breaker{Off: true}, Observe: w.see,
			RetryBudget: RetryBudget{PerSecond: 5, Burst: 10, Share: 0.01}}
		Run(t.Context(), src, ackwise.HandlerFunc(h), o)
		for second, n := range perSecond {
			if second > 1 && n > 6 {
				t.Errorf("%d retries in second %d, want at most 6", n, second)
			}
		}
		if w.count("stretched") < 380 {
			t.Errorf("%d stretched", w.count("stretched"))
		}
	})
}
