package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// world is where effects are made: the tests judge by what is in it, never by a store.
type world struct {
	mu      sync.Mutex // guards effects
	effects map[string]int
}

func (w *world) add(id string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.effects == nil {
		w.effects = make(map[string]int)
	}
	w.effects[id]++
}

func (w *world) count(id string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.effects[id]
}

// handler makes the effect of each message.
func (w *world) handler() ackwise.HandlerFunc {
	return func(_ context.Context, d *ackwise.Delivery) error {
		w.add(d.ID)
		return nil
	}
}

// want checks how often the effect of a message was made.
func (w *world) want(t *testing.T, id string, n int) {
	t.Helper()
	if got := w.count(id); got != n {
		t.Errorf("the effect of %s was made %d times, want %d", id, got, n)
	}
}

// flaky is a store whose calls fail while down says so. It counts what it failed.
type flaky struct {
	idempotency.Store

	mu         sync.Mutex                        // guards the fields below
	claimDown  func() error                      // nil = up
	settleDown func(verb idempotency.Verb) error // nil = up; asked before the store is
	answerDown func(verb idempotency.Verb) error // nil = up; asked after the store has settled
	failed     int
}

func (f *flaky) set(change func(f *flaky)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(f)
}

func (f *flaky) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	f.mu.Lock()
	down := f.claimDown
	f.mu.Unlock()
	if down != nil {
		if err := down(); err != nil {
			f.set(func(f *flaky) { f.failed++ })
			return nil, err
		}
	}
	return f.Store.Claim(ctx, asks)
}

func (f *flaky) Settle(ctx context.Context, ss []idempotency.Settlement) ([]error, error) {
	f.mu.Lock()
	before, after := f.settleDown, f.answerDown
	f.mu.Unlock()
	if before != nil {
		if err := before(ss[0].Verb); err != nil {
			f.set(func(f *flaky) { f.failed++ })
			return nil, err
		}
	}
	results, err := f.Store.Settle(ctx, ss)
	if after != nil {
		if err := after(ss[0].Verb); err != nil {
			f.set(func(f *flaky) { f.failed++ })
			return nil, err
		}
	}
	return results, err
}

// faults returns how many calls failed.
func (f *flaky) faults(t *testing.T) int {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed == 0 {
		t.Error("no call of the store failed: the fault never fired")
	}
	return f.failed
}

var errDown = errors.New("the store is away")

func always() error                     { return errDown }
func alwaysVerb(idempotency.Verb) error { return errDown }
func onlyVerb(v idempotency.Verb) func(idempotency.Verb) error {
	return func(verb idempotency.Verb) error {
		if verb == v {
			return errDown
		}
		return nil
	}
}

func delivery(id string) *ackwise.Delivery {
	return &ackwise.Delivery{Message: ackwise.Message{ID: id, Body: []byte("body of " + id)}}
}

// hour is what most tests allow between a message's first and last delivery.
var hour = idempotency.Options{Again: time.Hour, Lease: time.Minute}

// dedup makes the handler under test.
func dedup(t *testing.T, s idempotency.Store, h ackwise.HandlerFunc,
	o idempotency.Options) ackwise.Handler {
	t.Helper()
	made, err := idempotency.Dedup(t.Context(), s, h, o)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// wantOutcome checks what a handler's error says of its message, and returns the verdict.
func wantOutcome(t *testing.T, err error, want ackwise.Outcome) ackwise.Verdict {
	t.Helper()
	v := ackwise.OutcomeOf(err)
	if v.Outcome != want {
		t.Fatalf("outcome %s (%v), want %s", v.Outcome, err, want)
	}
	return v
}

// outcome handles a delivery and checks what comes of it.
func outcome(t *testing.T, h ackwise.Handler, d *ackwise.Delivery, want ackwise.Outcome) {
	t.Helper()
	wantOutcome(t, h.Handle(t.Context(), d), want)
}

// outcomeOf is outcome, and returns the handler's error.
func outcomeOf(t *testing.T, h ackwise.Handler, d *ackwise.Delivery, want ackwise.Outcome) error {
	t.Helper()
	err := h.Handle(t.Context(), d)
	wantOutcome(t, err, want)
	return err
}

// seen collects what Observe is told.
type seen struct {
	mu    sync.Mutex // guards kinds
	kinds []string
}

func (s *seen) observe(e ackwise.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kinds = append(s.kinds, e.Kind+" "+e.ID)
}

func (s *seen) want(t *testing.T, want ...string) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if got := fmt.Sprint(s.kinds); got != fmt.Sprint(want) {
		t.Errorf("observed %s, want %s", got, want)
	}
}
