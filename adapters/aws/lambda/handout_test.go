package lambda_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/lambda"
	"github.com/ackwise/ackwise/deliver"
)

// TestTopicWithAWideMargin: a margin of most of the time leaves the rest for the work; it is not
// kept twice, which would make dead letters of all that comes.
func TestTopicWithAWideMargin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := &plan{}, &letters{}
		f := function(t, lambda.Options{Handler: p,
			Deliver: deliver.Options{DeadLetters: l, Margin: 8 * time.Second}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if out, err := f.Invoke(ctx, []byte(records(pushed("n1")))); err != nil {
			t.Errorf("answered %s %v", out, err)
		}
		want(t, "handled", p.take(), []string{"n1"})
		want(t, "dead letters", l.got, []string(nil))
	})
}

// TestHandOutsThatWereGivenBack: a hand-out that this process ended itself is no sign of a message
// that kills.
func TestHandOutsThatWereGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		later := func(context.Context) error { return ackwise.Snooze(time.Hour) }
		p, l := &plan{do: map[string]func(context.Context) error{"a": later}}, &letters{}
		f := function(t, lambda.Options{Handler: p,
			Deliver: deliver.Options{DeadLetters: l, MaxHandOuts: 3}})
		for n := 1; n <= 8; n++ {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := f.Invoke(ctx, []byte(records(queued("a", n)))); err != nil {
				t.Fatal(err)
			}
			cancel()
		}
		want(t, "dead letters", l.got, []string(nil))
		want(t, "handled", len(p.take()), 8)
		// What others had, and nobody ended, still counts.
		if answer(t, f, records(queued("a", 12))); len(l.got) != 1 {
			t.Errorf("dead letters: %q", l.got)
		}
	})
}

// TestNothingPassesWhatIsRefused: in a batch with a run of a key, what stands behind a message that
// becomes a dead letter unseen is not handled before that is written, and only once.
func TestNothingPassesWhatIsRefused(t *testing.T) {
	many := strings.Replace(fifo("m1", "G"), `Count":"1"`, `Count":"9"`, 1)
	var mu sync.Mutex // guards got
	var got []string
	l := &letters{}
	f := function(t, lambda.Options{Deliver: deliver.Options{DeadLetters: l, MaxHandOuts: 3,
		Concurrency: 1, BatchSize: 10},
		BatchHandler: ackwise.BatchHandlerFunc(
			func(_ context.Context, ds []*ackwise.Delivery) []error {
				mu.Lock()
				defer mu.Unlock()
				for _, d := range ds {
					got = append(got, fmt.Sprint(d.ID, " after ", len(l.got), " dead"))
				}
				return make([]error, len(ds))
			})})
	want(t, "answer", answer(t, f, records(many, fifo("m2", "G"))), []string{})
	want(t, "handled", got, []string{"m2 after 1 dead"})
}

// A standard queue may give one message twice in one event. Where one of the two fails the message
// stays, whichever it is.
func TestOneMessageTwiceInAnEvent(t *testing.T) {
	for name, fails := range map[string]int{"the first fails": 1, "the second fails": 2} {
		t.Run(name, func(t *testing.T) {
			n := 0
			p := &plan{do: map[string]func(context.Context) error{"a": func(context.Context) error {
				if n++; n == fails {
					return ackwise.Reject(errBroken)
				}
				return nil
			}}}
			f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{Concurrency: 1}})
			want(t, "failed", answer(t, f, records(queued("a", 1), queued("a", 2))), []string{"a"})
		})
	}
}
