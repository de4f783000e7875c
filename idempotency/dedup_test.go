package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

func TestDedupRefusesAtStart(t *testing.T) {
	s := openMemory(t, memstore.Options{Name: "payments", Window: time.Hour})
	key := func(d *ackwise.Delivery) string { return d.Key }
	for name, c := range map[string]struct {
		o    idempotency.Options
		want string
	}{
		"no Again": {idempotency.Options{}, "invalid Again: it has to say how long after its first " +
			"delivery a message may come again"},
		"a window that is too short": {idempotency.Options{Again: 14 * 24 * time.Hour},
			"the dedup window is 1h0m0s, and a message may come again after 336h0m0s: its effect " +
				"would be made twice\n  hint: open the store with a window of at least 336h0m0s"},
		"a key without a rule": {idempotency.Options{Again: time.Hour, Key: key}, "invalid Rule"},
		"a ceiling below the lease": {idempotency.Options{Again: time.Hour, Lease: time.Minute,
			MaxHold: time.Second}, "invalid MaxHold: 1s is shorter than the lease, 1m0s"},
		"a lease that is none": {idempotency.Options{Again: time.Hour, Lease: 1}, "invalid Lease"},
		"another rule on the name": {idempotency.Options{Again: time.Hour, Rule: "order number"},
			`dedup store payments is used with the rule "id, body", not "order number"`},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Bind(t.Context(), "id, body"); err != nil {
				t.Fatal(err)
			}
			_, err := idempotency.Dedup(t.Context(), s, (&world{}).handler(), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want it to say %s", err, c.want)
			}
		})
	}
}

func TestDedupRejectsAnEmptyKey(t *testing.T) {
	w := &world{}
	h := dedup(t, openMemory(t, memstore.Options{}), w.handler(), hour)
	v := wantOutcome(t, h.Handle(t.Context(), delivery("")), ackwise.OutcomeDead)
	if !strings.Contains(v.Reason, "invalid dedup key: it is empty") {
		t.Errorf("the reason is %q", v.Reason)
	}
	w.want(t, "", 0)
}

func TestADropIsFinal(t *testing.T) {
	calls := 0
	h := dedup(t, openMemory(t, memstore.Options{}),
		func(context.Context, *ackwise.Delivery) error {
			calls++
			return ackwise.Drop("too old")
		}, hour)
	outcome(t, h, delivery("m1"), ackwise.OutcomeDrop)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	if calls != 1 {
		t.Errorf("the handler was called %d times, want once", calls)
	}
}

// Nobody knows what a handler had done when it panicked, so the next one is told that an effect
// may have been made, and waits for the lease to end.
func TestAPanicLeavesTheClaimToItsLease(t *testing.T) {
	c, takeover := newClock(), false
	s := openMemory(t, memstore.Options{Now: c.now})
	panics := dedup(t, s, func(context.Context, *ackwise.Delivery) error { panic("boom") }, hour)
	func() {
		defer func() {
			if recover() != "boom" {
				t.Error("the panic did not go on")
			}
		}()
		_ = panics.Handle(t.Context(), delivery("m1"))
	}()
	h := dedup(t, s, func(ctx context.Context, _ *ackwise.Delivery) error {
		takeover = idempotency.FromContext(ctx)[0].Takeover
		return nil
	}, hour)
	outcome(t, h, delivery("m1"), ackwise.OutcomeSnooze)
	c.advance(time.Minute)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	if !takeover {
		t.Error("the next handler was not told")
	}
}

// The holder of a takeover fails: the one before it may still have made the effect, and whoever
// comes next has to know that too.
func TestATakeoverThatFailsIsATakeoverAgain(t *testing.T) {
	c, calls := newClock(), 0
	s := openMemory(t, memstore.Options{Now: c.now})
	dead := idempotency.Ask{Key: "m1", Lease: time.Minute}
	if _, err := s.Claim(t.Context(), []idempotency.Ask{dead}); err != nil {
		t.Fatal(err)
	}
	c.advance(time.Minute)
	h := dedup(t, s, func(ctx context.Context, _ *ackwise.Delivery) error {
		if calls++; !idempotency.FromContext(ctx)[0].Takeover {
			t.Errorf("handler %d is not told of the first", calls)
		}
		if calls < 3 {
			return errors.New("fails")
		}
		return nil
	}, hour)
	for _, want := range []ackwise.Outcome{ackwise.OutcomeNack, ackwise.OutcomeNack,
		ackwise.OutcomeAck, ackwise.OutcomeAck} {
		outcome(t, h, delivery("m1"), want)
		c.advance(time.Millisecond)
	}
	if calls != 3 {
		t.Errorf("%d calls, want 3", calls)
	}
}

// bubble runs a test with virtual time.
func bubble(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func TestAClaimIsExtendedWhileItsHandlerWorks(t *testing.T) {
	bubble(t, "ten leases long", func(t *testing.T) {
		w := &world{}
		s := openMemory(t, memstore.Options{})
		slow := dedup(t, s, func(ctx context.Context, d *ackwise.Delivery) error {
			time.Sleep(10 * time.Minute) // virtual
			if ctx.Err() != nil {
				t.Errorf("the context ended: %v", context.Cause(ctx))
			}
			return w.handler()(ctx, d)
		}, hour)
		other := dedup(t, s, w.handler(), hour)
		ended := make(chan error)
		go func() { ended <- slow.Handle(t.Context(), delivery("m1")) }()
		for range 99 {
			synctest.Wait()
			outcome(t, other, delivery("m1"), ackwise.OutcomeSnooze)
			time.Sleep(6 * time.Second) // virtual
		}
		wantOutcome(t, <-ended, ackwise.OutcomeAck)
		outcome(t, other, delivery("m1"), ackwise.OutcomeAck)
		w.want(t, "m1", 1)
	})
	bubble(t, "an outage shorter than the lease is survived", func(t *testing.T) {
		w, k, o := &world{}, &seen{}, hour
		o.Observe = k.observe
		s := &flaky{Store: openMemory(t, memstore.Options{})}
		h := dedup(t, s, func(ctx context.Context, d *ackwise.Delivery) error {
			s.set(func(f *flaky) { f.settleDown = alwaysVerb })
			time.Sleep(52 * time.Second) // virtual; after 20 s, and then every 5 s
			s.set(func(f *flaky) { f.settleDown = nil })
			time.Sleep(2 * time.Minute) // virtual
			return w.handler()(ctx, d)
		}, o)
		outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
		if got := s.faults(t); got != 7 {
			t.Errorf("%d extensions did not come through, want 7", got)
		}
		k.want(t, slices.Repeat([]string{"extend-failed m1"}, 7)...)
	})
}

func TestALostClaimEndsTheHandlersContext(t *testing.T) {
	lost := func(t *testing.T, o idempotency.Options, s *flaky, want time.Duration, cut func()) {
		t.Helper()
		k := &seen{}
		o.Observe = k.observe
		var took time.Duration
		var cause error
		h := dedup(t, s, func(ctx context.Context, _ *ackwise.Delivery) error {
			cut()
			begun := time.Now()
			<-ctx.Done()
			took, cause = time.Since(begun), context.Cause(ctx)
			return cause
		}, o)
		outcome(t, h, delivery("m1"), ackwise.OutcomeNack)
		if !errors.Is(cause, idempotency.ErrFence) || took != want {
			t.Errorf("the context ended after %s with %v, want ErrFence after %s", took, cause, want)
		}
		if !slices.Contains(k.kinds, "lost m1") {
			t.Errorf("observed %v, want the loss among them", k.kinds)
		}
	}
	bubble(t, "taken over", func(t *testing.T) {
		m := openMemory(t, memstore.Options{})
		s := &flaky{Store: m}
		lost(t, hour, s, 20*time.Second, func() {
			// As if this process had stood still for a lease: another one has the key.
			a, err := m.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}})
			if err != nil || a[0].Status != idempotency.Busy {
				t.Fatalf("claim: %+v, %v", a, err)
			}
			c := idempotency.Settlement{Key: "m1", Fence: 1, Verb: idempotency.Release}
			if _, err := m.Settle(t.Context(), []idempotency.Settlement{c}); err != nil {
				t.Fatal(err)
			}
			if _, err := m.Claim(t.Context(), []idempotency.Ask{{Key: "m1",
				Lease: time.Hour}}); err != nil {
				t.Fatal(err)
			}
		})
	})
	bubble(t, "the store is away for the whole lease", func(t *testing.T) {
		s := &flaky{Store: openMemory(t, memstore.Options{})}
		lost(t, hour, s, time.Minute, func() {
			s.set(func(f *flaky) { f.settleDown = alwaysVerb })
		})
		s.faults(t)
	})
	bubble(t, "held for MaxHold", func(t *testing.T) {
		o := hour
		o.MaxHold = 2 * time.Minute
		s := &flaky{Store: openMemory(t, memstore.Options{})}
		lost(t, o, s, 2*time.Minute, func() {})
	})
}

// The loop's context ends when it stops; what was made has to be completed all the same.
func TestTheCompletionOutlivesTheContext(t *testing.T) {
	w := &world{}
	s := openMemory(t, memstore.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	h := dedup(t, s, func(c context.Context, d *ackwise.Delivery) error {
		cancel()
		return w.handler()(c, d)
	}, hour)
	wantOutcome(t, h.Handle(ctx, delivery("m1")), ackwise.OutcomeAck)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	w.want(t, "m1", 1)
}

// One message comes a hundred times, in every way that the design knows of, within the window.
func TestOneMessageAHundredTimes(t *testing.T) {
	const window = 10 * time.Hour
	w, c := &world{}, newClock()
	s := openMemory(t, memstore.Options{Window: window, Now: c.now})
	o := idempotency.Options{Again: window, Lease: time.Minute}
	deliveries := 0
	deliver := func(h ackwise.Handler, want ackwise.Outcome) {
		t.Helper()
		deliveries++
		d := delivery("m1")
		d.Attempt = deliveries
		outcome(t, h, d, want)
	}
	for range 3 { // a process that dies between claim and effect, and the lease's end
		dies := dedup(t, s, func(context.Context, *ackwise.Delivery) error { panic("kill -9") }, o)
		func() {
			defer func() { _ = recover() }()
			deliver(dies, ackwise.OutcomeAck) // never returns
		}()
		next := dedup(t, s, w.handler(), o)
		for range 5 {
			deliver(next, ackwise.OutcomeSnooze)
		}
		c.advance(time.Minute)
	}
	rejects := dedup(t, s, func(context.Context, *ackwise.Delivery) error {
		return ackwise.Reject(errors.New("a bug"))
	}, o)
	deliver(rejects, ackwise.OutcomeDead)
	c.advance(5 * time.Hour) // a dead letter, and its redrive by a mended program
	for range 20 {
		deliver(dedup(t, s, w.handler(), o), ackwise.OutcomeAck) // each by a new process
	}
	done := c.now()
	h := dedup(t, s, w.handler(), o)
	for deliveries < 99 {
		c.advance(10 * time.Minute)
		if c.now().Sub(done) < window {
			deliver(h, ackwise.OutcomeAck)
			continue
		}
		c.advance(done.Add(window - time.Millisecond).Sub(c.now())) // back to the window's edge
		deliver(h, ackwise.OutcomeAck)
	}
	deliver(h, ackwise.OutcomeAck)
	w.want(t, "m1", 1)
	if deliveries != 100 {
		t.Fatalf("%d deliveries, want 100", deliveries)
	}

	// Behind the window it is another effect, which a user is told of before.
	c.advance(window/8 + time.Millisecond)
	outcome(t, h, delivery("m1"), ackwise.OutcomeAck)
	w.want(t, "m1", 2)
	o.Again = window + window/8
	if _, err := idempotency.Dedup(t.Context(), s, w.handler(), o); err == nil {
		t.Error("a window that is too short is not refused at start")
	}
}

// Two consumers get the same messages at once, and half of the handlers fail.
func TestTwoConsumersRaceOnEveryKey(t *testing.T) {
	const consumers = 2
	messages := 200
	if long() {
		messages = 10_000
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	w, at := &world{}, &world{}
	s := openMemory(t, memstore.Options{})
	var wg sync.WaitGroup
	for n := range consumers {
		r := rand.New(rand.NewPCG(seed, uint64(n)))
		h := dedup(t, s, func(_ context.Context, d *ackwise.Delivery) error {
			at.add(d.ID)
			runtime.Gosched()
			if r.IntN(2) == 0 {
				return errors.New("fails")
			}
			w.add(d.ID)
			return nil
		}, hour)
		wg.Go(func() {
			for i := range messages {
				d := delivery(fmt.Sprint(i))
				for h.Handle(t.Context(), d) != nil {
					runtime.Gosched()
				}
			}
		})
	}
	wg.Wait()
	calls := 0
	for i := range messages {
		w.want(t, fmt.Sprint(i), 1)
		calls += at.count(fmt.Sprint(i))
	}
	if calls == messages {
		t.Error("no handler failed: the fault never fired")
	}
}

func TestADuplicateWaitsForARunningBatch(t *testing.T) {
	w, k, o := &world{}, &seen{}, hour
	o.Observe = k.observe
	s := openMemory(t, memstore.Options{})
	if _, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "busy", Lease: time.Hour}}); err != nil {
		t.Fatal(err)
	}
	outcome(t, dedup(t, s, w.handler(), o), delivery("done"), ackwise.OutcomeAck)
	var got []string
	h, err := idempotency.DedupBatch(t.Context(), s, ackwise.BatchHandlerFunc(
		func(ctx context.Context, ds []*ackwise.Delivery) []error {
			errs := make([]error, len(ds))
			claims := idempotency.FromContext(ctx)
			for i, d := range ds {
				got = append(got, d.ID+" "+claims[i].Key)
				if d.ID == "fails" {
					errs[i] = errors.New("fails")
				}
			}
			return errs
		}), o)
	if err != nil {
		t.Fatal(err)
	}
	var ds []*ackwise.Delivery
	for _, id := range []string{"a", "busy", "", "fails", "done", "a", "b"} {
		ds = append(ds, delivery(id))
	}
	want := []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeSnooze, ackwise.OutcomeDead,
		ackwise.OutcomeNack, ackwise.OutcomeAck, ackwise.OutcomeSnooze, ackwise.OutcomeAck}
	errs := h.HandleBatch(t.Context(), ds)
	for i, err := range errs {
		if v := ackwise.OutcomeOf(err); v.Outcome != want[i] {
			t.Errorf("result %d: %s (%v), want %s", i, v.Outcome, err, want[i])
		}
	}
	if want := "[a a fails fails b b]"; fmt.Sprint(got) != want {
		t.Errorf("the handler got %s, want %s", got, want)
	}
	errs = h.HandleBatch(t.Context(), ds)
	for i, want := range []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeSnooze,
		ackwise.OutcomeDead, ackwise.OutcomeNack, ackwise.OutcomeAck, ackwise.OutcomeAck,
		ackwise.OutcomeAck} {
		if v := ackwise.OutcomeOf(errs[i]); v.Outcome != want {
			t.Errorf("second time, result %d: %s (%v), want %s", i, v.Outcome, errs[i], want)
		}
	}
	k.want(t, "busy busy", "duplicate done", "busy a",
		"duplicate a", "busy busy", "duplicate done", "duplicate a", "duplicate b")
}

// The run of a key keeps its order: what stands behind a message that is put off is not handled.
func TestABatchKeepsTheOrderOfAKey(t *testing.T) {
	w := &world{}
	s := openMemory(t, memstore.Options{})
	busy := idempotency.Ask{Key: "k/1", Lease: time.Hour}
	first, err := s.Claim(t.Context(), []idempotency.Ask{busy})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	h, err := idempotency.DedupBatch(t.Context(), s, ackwise.BatchHandlerFunc(
		func(ctx context.Context, ds []*ackwise.Delivery) []error {
			for _, d := range ds {
				got = append(got, d.ID)
				w.add(d.ID)
			}
			return make([]error, len(ds))
		}), hour)
	if err != nil {
		t.Fatal(err)
	}
	var ds []*ackwise.Delivery
	for _, id := range []string{"k/1", "k/2", "other/1", "k/3", "/1", "/2"} {
		d := delivery(id)
		d.Key, _, _ = strings.Cut(id, "/")
		ds = append(ds, d)
	}
	errs := h.HandleBatch(t.Context(), ds)
	if want := "[other/1 /1 /2]"; fmt.Sprint(got) != want {
		t.Errorf("handled %s, want %s", got, want)
	}
	for i, want := range []ackwise.Outcome{ackwise.OutcomeSnooze, ackwise.OutcomeSnooze,
		ackwise.OutcomeAck, ackwise.OutcomeSnooze, ackwise.OutcomeAck, ackwise.OutcomeAck} {
		if v := ackwise.OutcomeOf(errs[i]); v.Outcome != want {
			t.Errorf("result %d: %s (%v), want %s", i, v.Outcome, errs[i], want)
		}
	}
	c := idempotency.Settlement{Key: "k/1", Fence: first[0].Fence, Verb: idempotency.Release}
	if _, err := s.Settle(t.Context(), []idempotency.Settlement{c}); err != nil {
		t.Fatal(err)
	}
	got = nil
	if err := errors.Join(h.HandleBatch(t.Context(), ds)...); err != nil {
		t.Fatal(err)
	}
	if want := "[k/1 k/2 k/3]"; fmt.Sprint(got) != want {
		t.Errorf("handled %s, want %s", got, want)
	}
}

func TestABatchHandlerThatMiscountsMarksNothing(t *testing.T) {
	c, n := newClock(), 1
	s := openMemory(t, memstore.Options{Now: c.now})
	h, err := idempotency.DedupBatch(t.Context(), s, ackwise.BatchHandlerFunc(
		func(_ context.Context, ds []*ackwise.Delivery) []error { return make([]error, n) }), hour)
	if err != nil {
		t.Fatal(err)
	}
	ds := []*ackwise.Delivery{delivery("a"), delivery("b")}
	for i, err := range h.HandleBatch(t.Context(), ds) {
		if err == nil || !strings.Contains(err.Error(), "returned 1 results for 2 deliveries") {
			t.Errorf("result %d: %v", i, err)
		}
	}
	n = 2
	for _, err := range h.HandleBatch(t.Context(), ds) {
		wantOutcome(t, err, ackwise.OutcomeSnooze)
	}
	c.advance(time.Minute)
	if err := errors.Join(h.HandleBatch(t.Context(), ds)...); err != nil {
		t.Fatal(err)
	}
}

func TestFingerprintTellsPartsApart(t *testing.T) {
	b := func(s string) []byte { return []byte(s) }
	all := [][][]byte{{b("ab"), b("c")}, {b("a"), b("bc")}, {b("abc")}, {b("abc"), {}},
		{b("abc"), nil}, {}, {nil}, {{}}}
	seen := make(map[idempotency.Sum]int)
	for i, parts := range all {
		sum := idempotency.Fingerprint(parts...)
		if j, ok := seen[sum]; ok || sum == (idempotency.Sum{}) {
			t.Errorf("parts %d and %d have the same fingerprint, %x", i, j, sum)
		}
		seen[sum] = i
	}
	again := idempotency.Fingerprint(b("ab"), b("c"))
	if i, ok := seen[again]; !ok || i != 0 {
		t.Error("the same parts have two fingerprints")
	}
}
