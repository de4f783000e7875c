package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// The mistakes that deduplicating consumers make, each as a test that it is not made here.

// D1: the key is kept before the effect is made, and a failure makes the redelivery vanish.
func TestD1AFailedEffectIsMadeAgain(t *testing.T) {
	w, c, fails := &world{}, newClock(), 3
	s := openMemory(t, memstore.Options{Now: c.now})
	h := dedup(t, s, func(ctx context.Context, d *ackwise.Delivery) error {
		if fails > 0 {
			fails--
			return errors.New("no connection")
		}
		return w.handler()(ctx, d)
	}, hour)
	for range 3 {
		outcome(t, h, delivery("m1"), ackwise.OutcomeNack)
	}
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	w.want(t, "m1", 1)
}

// D2: what is noted before it is durable makes the retry vanish. A claim is such a note.
func TestD2AClaimAloneIsNotDone(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Now: c.now})
	if _, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}}); err != nil {
		t.Fatal(err) // by a process that then dies
	}
	h := dedup(t, s, w.handler(), hour)
	outcome(t, h, delivery("m1"), ackwise.OutcomeSnooze)
	c.advance(time.Minute)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	w.want(t, "m1", 1)
}

// D3: the duplicate is dropped while the first is still running, and then the first fails.
func TestD3ADuplicateOfARunningMessageIsPutOff(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Now: c.now})
	working, goOn := make(chan struct{}), make(chan struct{})
	first := dedup(t, s, func(context.Context, *ackwise.Delivery) error {
		close(working)
		<-goOn
		return errors.New("fails in the end")
	}, hour)
	second := dedup(t, s, w.handler(), hour)
	ended := make(chan error)
	go func() { ended <- first.Handle(t.Context(), delivery("m1")) }()
	<-working
	err := outcomeOf(t, second, delivery("m1"), ackwise.OutcomeSnooze)
	if got := ackwise.OutcomeOf(err).Delay; got != 5*time.Second {
		t.Errorf("put off for %s, want BusyDelay, 5 s, since the claim lasts longer", got)
	}
	c.advance(58 * time.Second)
	err = outcomeOf(t, second, delivery("m1"), ackwise.OutcomeSnooze)
	if got := ackwise.OutcomeOf(err).Delay; got != 2*time.Second {
		t.Errorf("put off for %s, want 2 s: the claim lasts no longer", got)
	}
	w.want(t, "m1", 0)
	close(goOn)
	wantOutcome(t, <-ended, ackwise.OutcomeNack)
	outcome(t, second, delivery("m1"), ackwise.OutcomeAck)
	w.want(t, "m1", 1)
}

// D4: a bound in size evicts keys before their time, and the window is a lie.
func TestD4AFullStoreForgetsNothing(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Window: time.Hour, MaxKeys: 8, Now: c.now})
	h := dedup(t, s, w.handler(), hour)
	for i := range 8 {
		outcome(t, h, delivery(fmt.Sprint(i)), ackwise.OutcomeAck)
	}
	err := outcomeOf(t, h, delivery("one more"), ackwise.OutcomeNack)
	if v := ackwise.OutcomeOf(err); !errors.Is(err, ackwise.ErrFull) || !v.After || v.Delay <= 0 {
		t.Errorf("a full store: %v, want ErrFull and a delay", err)
	}
	c.advance(time.Hour - time.Millisecond)
	for i := range 8 {
		outcome(t, h, delivery(fmt.Sprint(i)), ackwise.OutcomeAck)
		w.want(t, fmt.Sprint(i), 1)
	}
	w.want(t, "one more", 0)
	c.advance(time.Hour/8 + time.Millisecond)
	outcome(t, h, delivery("one more"), ackwise.OutcomeAck)
	w.want(t, "one more", 1)
}

// D5: keys never expire.
func TestD5KeysExpire(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Window: time.Hour, MaxKeys: 100, Now: c.now})
	h := dedup(t, s, w.handler(), hour)
	for day := range 50 {
		for i := range 100 {
			outcome(t, h, delivery(fmt.Sprintf("%d/%d", day, i)), ackwise.OutcomeAck)
		}
		c.advance(time.Hour + time.Hour/8)
	}
	// Claims whose owners died do so as well.
	for day := range 50 {
		for i := range 100 {
			a, err := s.Claim(t.Context(), []idempotency.Ask{{Key: fmt.Sprintf("dead %d/%d", day, i),
				Lease: time.Minute}})
			if err != nil || a[0].Status != idempotency.Claimed {
				t.Fatalf("claim %d of day %d: %+v, %v", i, day, a, err)
			}
		}
		c.advance(time.Hour + time.Hour/8 + time.Minute)
	}
}

// D6: a time-out leaves the key in progress for ever, and the fix lets the effect be made twice.
func TestD6ADeadClaimIsTakenOverAndItsOwnerFenced(t *testing.T) {
	t.Run("x", func(t *testing.T) { synctest.Test(t, deadClaim) })
}

func deadClaim(t *testing.T) {
	s := openMemory(t, memstore.Options{})
	cut := &flaky{Store: s}
	var account fenced
	working, goOn := make(chan struct{}), make(chan struct{})
	var cause error
	old := dedup(t, cut, func(ctx context.Context, d *ackwise.Delivery) error {
		cut.set(func(f *flaky) { f.settleDown = alwaysVerb }) // the network goes
		close(working)
		<-ctx.Done()
		cause = context.Cause(ctx)
		<-goOn // and it does not listen
		return account.withdraw(ctx)
	}, hour)
	fresh := dedup(t, s, func(ctx context.Context, d *ackwise.Delivery) error {
		if !idempotency.FromContext(ctx)[0].Takeover {
			t.Error("the handler is not told that the effect may have been made")
		}
		return account.withdraw(ctx)
	}, hour)
	ended := make(chan error)
	go func() { ended <- old.Handle(t.Context(), delivery("m1")) }()
	<-working
	outcome(t, fresh, delivery("m1"), ackwise.OutcomeSnooze)
	time.Sleep(time.Minute) // virtual
	synctest.Wait()
	if !errors.Is(cause, idempotency.ErrFence) {
		t.Fatalf("the old handler's context ended with %v, want ErrFence", cause)
	}
	outcome(t, fresh, delivery("m1"), ackwise.OutcomeAck)
	cut.set(func(f *flaky) { f.settleDown = nil })
	close(goOn)
	if err := <-ended; !errors.Is(err, errOldFence) {
		t.Errorf("the old handler: %v, want its withdrawal refused by the fence", err)
	}
	outcome(t, fresh, delivery("m1"), ackwise.OutcomeAck)
	if account.withdrawn != 1 {
		t.Errorf("withdrawn %d times, want once", account.withdrawn)
	}
	cut.faults(t)
}

// fenced is a resource that refuses the fences of before.
type fenced struct {
	last      uint64
	withdrawn int
}

var errOldFence = errors.New("an old fence")

func (f *fenced) withdraw(ctx context.Context) error {
	c := idempotency.FromContext(ctx)[0]
	if c.Fence < f.last {
		return errOldFence
	}
	f.last = c.Fence
	f.withdrawn++
	return nil
}

// D7: the key is a checksum of the payload, and equal payloads are taken for duplicates.
func TestD7EqualPayloadsAreTwoMessages(t *testing.T) {
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Now: c.now})
	h := dedup(t, s, w.handler(), hour)
	one, two := delivery("m1"), delivery("m2")
	one.Body, two.Body = []byte("1 EUR"), []byte("1 EUR")
	outcome(t, h, one, ackwise.OutcomeAck)
	outcome(t, h, two, ackwise.OutcomeAck)
	w.want(t, "m1", 1)
	w.want(t, "m2", 1)
	// And what has one ID and two payloads is never taken for one message.
	other := delivery("m1")
	other.Body = []byte("9 EUR")
	v := wantOutcome(t, h.Handle(t.Context(), other), ackwise.OutcomeDead)
	if want := `the dedup key "m1" is known with another payload: one of the two messages has a ` +
		`wrong ID`; v.Reason != want {
		t.Errorf("the reason is %q, want %q", v.Reason, want)
	}
	w.want(t, "m1", 1)
	// A redo is a new epoch of the same message, and made again.
	redone := delivery("m1")
	redone.Body, redone.Epoch = one.Body, 1
	outcome(t, h, redone, ackwise.OutcomeAck)
	w.want(t, "m1", 2)
}

// Two popular helpers lose messages: one keeps the key before the handler has run, the other drops
// what comes while its store is away.
func TestAHandlersErrorDoesNotMakeTheRedeliveryVanish(t *testing.T) {
	for name, first := range map[string]error{
		"error":       errors.New("fails"),
		"retry after": ackwise.RetryAfter(errors.New("busy"), time.Second),
		"snooze":      ackwise.Snooze(time.Second),
		"reject":      ackwise.Reject(errors.New("poison")), // and then redriven
	} {
		t.Run(name, func(t *testing.T) {
			w, c, calls := &world{}, newClock(), 0
			s := openMemory(t, memstore.Options{Now: c.now})
			h := dedup(t, s, func(ctx context.Context, d *ackwise.Delivery) error {
				if calls++; calls == 1 {
					return first
				}
				return w.handler()(ctx, d)
			}, hour)
			if err := h.Handle(t.Context(), delivery("m1")); !errors.Is(err, first) {
				t.Errorf("the handler's error became %v", err)
			}
			outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
			w.want(t, "m1", 1)
		})
	}
}

func TestAnOutageOfTheStoreDropsNothing(t *testing.T) {
	t.Run("before the effect", func(t *testing.T) {
		w, c := &world{}, newClock()
		s := &flaky{Store: openMemory(t, memstore.Options{Now: c.now}), claimDown: always}
		h := dedup(t, s, w.handler(), hour)
		for range 3 {
			err := outcomeOf(t, h, delivery("m1"), ackwise.OutcomeNack)
			if !errors.Is(err, errDown) || ackwise.OutcomeOf(err).After {
				t.Errorf("while the store is away: %v, want its error and the loop's own backoff", err)
			}
		}
		w.want(t, "m1", 0)
		s.faults(t)
		s.set(func(f *flaky) { f.claimDown = nil })
		outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
		w.want(t, "m1", 1)
	})
	for name, down := range map[string]func(f *flaky){
		"after the effect":  func(f *flaky) { f.settleDown = onlyVerb(idempotency.Complete) },
		"before its answer": func(f *flaky) { f.answerDown = onlyVerb(idempotency.Complete) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { outageAfterTheEffect(t, down) })
		})
	}
}

func outageAfterTheEffect(t *testing.T, down func(f *flaky)) {
	w, o, k := &world{}, hour, &seen{}
	o.Observe = k.observe
	s := &flaky{Store: openMemory(t, memstore.Options{})}
	h := dedup(t, s, w.handler(), o)
	s.set(down)
	begun := time.Now()
	err := outcomeOf(t, h, delivery("m1"), ackwise.OutcomeNack)
	want := `complete "m1": its effect was made, its completion is not known: the store is away`
	if err.Error() != want {
		t.Errorf("the error is %q, want %q", err, want)
	}
	if got, want := s.faults(t), 5; got != want {
		t.Errorf("tried %d times, want %d", got, want)
	}
	if got, want := time.Since(begun), 1700*time.Millisecond; got != want {
		t.Errorf("tried for %s, want %s", got, want)
	}
	s.set(func(f *flaky) { f.settleDown, f.answerDown = nil, nil })
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck) // the handler remembers that it was made
	w.want(t, "m1", 1)
	k.want(t, "unknown m1", "duplicate m1")
}
