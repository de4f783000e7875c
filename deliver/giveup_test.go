package deliver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// givesUp is a source that forgets a message after five hand-outs: the shape of a share group.
func givesUp() ackwise.Features {
	return ackwise.Features{Lease: 30 * time.Second, Extend: true, HandOuts: true, MaxHandOuts: 5}
}

// TestNothingIsGivenUpByTheSource fails, snoozes, and crashes messages more often than the source
// bears: each is handled to its end, or is a dead letter before the source gives it up.
func TestNothingIsGivenUpByTheSource(t *testing.T) {
	failure := errors.New("connection refused")
	for _, tc := range []struct {
		name  string
		outs  int // before this one
		calls func(n int) error
		want  int // calls of the handler
		dead  bool
	}{
		{"failures", 0, func(int) error { return ackwise.RetryAfter(failure, 0) }, 20, true},
		{"snoozes", 0, func(n int) error {
			if n <= 40 {
				return ackwise.Snooze(0)
			}
			return nil
		}, 41, false},
		{"crashes", 2, func(int) error { return nil }, 1, false},
		{"one too many", 3, func(int) error { return nil }, 0, true},
		{"the last one", 4, func(int) error { return nil }, 0, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, givesUp())
				src.endWhen = 1
				m := src.add("m", "")
				m.counts.HandOuts = tc.outs
				n, reason := 0, ""
				Run(t.Context(), src, ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
					n++
					return tc.calls(n)
				}), Options{MaxFailures: 20, MaxHandOuts: Unlimited, DeadLetters: DeadLetterFunc(
					func(_ context.Context, _ *ackwise.Delivery, why string) error {
						reason = why
						return nil
					})})
				if n != tc.want || m.out != "ack" || (reason != "") != tc.dead {
					t.Errorf("%d calls, want %d; it left by %q; dead: %q", n, tc.want, m.out, reason)
				}
			})
		})
	}
}

// TestAnOutageSpendsNoHandOuts: the target is down every other minute, the breaker opens again and
// again, and most of what is held has not started then.
func TestAnOutageSpendsNoHandOuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, givesUp())
		const messages = 300
		for i := range messages {
			src.add(id(i), "")
		}
		src.endWhen = messages
		start := time.Now()
		var w watcher
		Run(t.Context(), src, ackwise.HandlerFunc(func(ctx context.Context, _ *ackwise.Delivery) error {
			if int(time.Since(start)/time.Minute)%2 == 0 {
				return errors.New("connection refused")
			}
			return wait(ctx, 15*time.Second)
		}), Options{MaxFailures: 1000, Rand: fullDelay, Observe: w.see, DeadLetters: DeadLetterFunc(
			func(_ context.Context, d *ackwise.Delivery, why string) error {
				t.Errorf("%s is dead: %s", d.ID, why)
				return nil
			})})
		for _, m := range src.msgs {
			if m.out != "ack" {
				t.Fatalf("%s left by %q after %d hand-outs", m.m.ID, m.out, m.counts.HandOuts)
			}
		}
		if w.count("breaker-open") == 0 {
			t.Error("the breaker did not open")
		}
	})
}

// TestForEverIsRefusedWhereTheSourceGivesUp: without dead letters a message would be lost there.
func TestForEverIsRefusedWhereTheSourceGivesUp(t *testing.T) {
	_, err := newLoop(t.Context(), newFake(t, givesUp()), Options{NoDeadLetters: true}, false)
	hint, ok := errors.AsType[*ackwise.HintError](err)
	if !ok || !strings.Contains(err.Error(), "after 5 hand-outs") || hint.Hint == "" {
		t.Errorf("got %v", err)
	}
}
