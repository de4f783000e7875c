package deliver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

func ExampleOptions_RetrySpan() {
	span, _ := Options{MaxFailures: 4, RetryBudget: RetryBudget{Off: true}}.RetrySpan()
	_, bounded := Options{MaxFailures: Unlimited}.RetrySpan()
	fmt.Println(span, bounded)
	// Output: 7s false
}

func TestRetrySpan(t *testing.T) {
	off := RetryBudget{Off: true}
	for _, tc := range []struct {
		name    string
		o       Options
		want    time.Duration
		bounded bool
	}{
		{"the default", Options{}, 511*time.Second + 9*5*time.Minute, true},
		{"without a retry budget", Options{RetryBudget: off}, 511 * time.Second, true},
		{"at the cap", Options{RetryBudget: off, MaxFailures: 5,
			Backoff: Backoff{First: time.Second, Cap: 3 * time.Second}}, 9 * time.Second, true},
		{"a constant delay", Options{RetryBudget: off, MaxFailures: 1e9,
			Backoff: Backoff{Factor: 1}}, (1e9 - 1) * time.Second, true},
		{"one attempt", Options{MaxFailures: 1}, 0, true},
		{"at most once", Options{Guarantee: AtMostOnce, NoDeadLetters: true}, 0, true},
		{"for ever", Options{MaxFailures: Unlimited}, 0, false},
		{"no dead letters", Options{NoDeadLetters: true}, 0, false},
		{"longer than can be said", Options{MaxFailures: Unlimited - 1}, 1<<63 - 1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got, bounded := tc.o.RetrySpan(); got != tc.want || bounded != tc.bounded {
				t.Errorf("got %s, %t, want %s, %t", got, bounded, tc.want, tc.bounded)
			}
		})
	}
}

// TestRetrySpanIsWhatTheLoopTakes lets a message fail until it is dead, each delay as long as it
// can be and each one stretched.
func TestRetrySpanIsWhatTheLoopTakes(t *testing.T) {
	for _, o := range []Options{{},
		{MaxFailures: 7, Backoff: Backoff{First: time.Minute, Factor: 1.5, Cap: 3 * time.Minute}},
		{MaxFailures: 20, RetryBudget: RetryBudget{Off: true}}} {
		t.Run(fmt.Sprint(o.MaxFailures), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				span, bounded := o.RetrySpan()
				src := newFake(t, leases())
				src.add("a", "")
				src.endWhen = 1
				start := time.Now()
				var last time.Duration
				o.Rand = fullDelay
				err := Run(t.Context(), src, ackwise.HandlerFunc(
					func(context.Context, *ackwise.Delivery) error {
						last = time.Since(start)
						return errors.New("down")
					}), o)
				if !errors.Is(err, errEnded) {
					t.Fatalf("Run = %v", err)
				}
				stretched := span
				if !o.RetryBudget.Off { // nothing was stretched here
					retries := cmp.Or(o.MaxFailures, 10) - 1
					stretched -= time.Duration(retries) * 5 * time.Minute
				}
				if !bounded || last.Round(time.Millisecond) != stretched {
					t.Errorf("the last attempt came after %s, RetrySpan says %s, %t", last,
						stretched, bounded)
				}
			})
		})
	}
}
