package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

func pushedBatch(ids ...string) []*ackwise.Delivery {
	var ds []*ackwise.Delivery
	for _, id := range ids {
		key, _, _ := strings.Cut(id, "/")
		ds = append(ds, &ackwise.Delivery{Message: ackwise.Message{ID: id, Key: key},
			Attempt: 1, Token: ackwise.LeaseToken("t-" + id)})
	}
	return ds
}

func TestProcessAnswersForEachDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		start := time.Now()
		batch := pushedBatch("a/1", "a/2", "b/1", "b/2", "b/3", "c/1", "d/1", "e/1")
		batch[5].Counts.Crashes = 3
		var mu sync.Mutex // guards letters and tries
		var letters []string
		tries := make(map[string]int)
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			mu.Lock()
			defer mu.Unlock()
			tries[d.ID]++
			switch {
			case d.ID == "a/1" && tries[d.ID] < 3:
				return errors.New("for a while")
			case d.ID == "b/1":
				return errors.New("down")
			case d.ID == "d/1":
				return ackwise.Drop("old")
			case d.ID == "e/1":
				return ackwise.Reject(errors.New("poison"))
			}
			return nil
		}
		o := Options{Rand: fullDelay, DeadLetters: DeadLetterFunc(
			func(_ context.Context, d *ackwise.Delivery, reason string) error {
				mu.Lock()
				defer mu.Unlock()
				letters = append(letters, d.ID)
				return nil
			})}
		ss, err := Process(ctx, batch, ackwise.HandlerFunc(h), o)
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"a/1 ack", "a/2 ack", "b/1 nack", "b/2 release", "b/3 release", "c/1 ack",
			"d/1 drop", "e/1 ack"}
		for i, s := range ss {
			if got := fmt.Sprint(batch[i].ID, " ", s.Outcome); got != want[i] ||
				s.Token != batch[i].Token {
				t.Errorf("%s (token %s), want %s", got, s.Token, want[i])
			}
		}
		slices.Sort(letters)
		if !slices.Equal(letters, []string{"c/1", "e/1"}) || tries["c/1"] != 0 || tries["b/2"] != 0 {
			t.Errorf("dead letters %v, attempts %v", letters, tries)
		}
		if got := time.Since(start); got != 28*time.Second {
			t.Errorf("took %s, want 28s: the deadline less the margin", got)
		}
		if tries["b/1"] != 5 { // at 0, 1, 3, 7 and 15 s
			t.Errorf("b/1 tried %d times, want 5", tries["b/1"])
		}
	})
}

func TestProcessAnswersInTimeForAHandlerThatDoesNotEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		start := time.Now()
		h := func(ctx context.Context, d *ackwise.Delivery) error {
			if d.ID == "a/1" {
				return wait(context.WithoutCancel(ctx), time.Hour)
			}
			err := wait(ctx, time.Hour)
			if !errors.Is(err, ackwise.ErrStopping) {
				t.Errorf("cause %v, want ErrStopping", err)
			}
			return err
		}
		ss, err := Process(ctx, pushedBatch("a/1", "b/1"), ackwise.HandlerFunc(h),
			Options{NoDeadLetters: true})
		if err != nil || len(ss) != 2 {
			t.Fatalf("%v, %v", ss, err)
		}
		for _, s := range ss {
			if s.Outcome != ackwise.OutcomeRelease || s.Reason == "" {
				t.Errorf("%s: %s (%s), want release with a reason", s.Token, s.Outcome, s.Reason)
			}
		}
		if got := time.Since(start); got > 9500*time.Millisecond || got < 8*time.Second {
			t.Errorf("answered after %s of 10s", got)
		}
		wait(t.Context(), 2*time.Hour)
	})
}

func TestProcessRefuses(t *testing.T) {
	one := pushedBatch("a/1")
	for _, tc := range []struct {
		name  string
		batch []*ackwise.Delivery
		o     Options
		want  string
	}{
		{"exactly once", one, Options{Guarantee: ExactlyOnce, NoDeadLetters: true},
			"exactly-once is not possible"},
		{"at most once", one, Options{Guarantee: AtMostOnce, NoDeadLetters: true},
			"at-most-once is not possible"},
		{"no dead letters", one, Options{}, "Options.NoDeadLetters"},
		{"a nil delivery", []*ackwise.Delivery{nil}, Options{NoDeadLetters: true}, "is nil"},
		{"one delivery twice", append(one, one[0]), Options{NoDeadLetters: true}, "twice"},
	} {
		ss, err := Process(t.Context(), tc.batch, ackwise.HandlerFunc(nothing), tc.o)
		if err == nil || !strings.Contains(err.Error(), tc.want) || ss != nil {
			t.Errorf("%s: %v, %v; want an error with %q", tc.name, ss, err, tc.want)
		}
	}
	ss, err := Process(t.Context(), nil, ackwise.HandlerFunc(nothing), Options{NoDeadLetters: true})
	if err != nil || len(ss) != 0 {
		t.Errorf("an empty batch: %v, %v", ss, err)
	}
}
