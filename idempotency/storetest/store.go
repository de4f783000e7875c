package storetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// patience bounds every wait for something that has to happen, and every test.
const patience = 60 * time.Second

// StoreOptions say which store a test wants.
type StoreOptions struct {
	Name    string        // a name that no test before has used; letters, digits and '-'
	Window  time.Duration // how long keys stay done
	MaxKeys int           // its bound
}

// StoreHarness makes the stores under test.
type StoreHarness struct {
	// Open opens the store of a name, which is empty the first time. It is closed by the test.
	Open func(t *testing.T, o StoreOptions) idempotency.Store
	// Reopen closes a store and opens it again, as a new process would. Nil = it cannot be.
	Reopen func(t *testing.T, s idempotency.Store, o StoreOptions) idempotency.Store
	// Advance moves the clock of every open store. Nil = time is real.
	Advance func(d time.Duration)
	// Shared says that a second Open of a name, while the first is open, is another handle on the
	// same keys, as another process would have it.
	Shared bool
	// Window is the shortest that the store can have, for tests in real time. Default: 400 ms.
	Window time.Duration
	// Excess is how many keys above MaxKeys may be admitted, by a store that counts at intervals.
	// It is never fewer than MaxKeys. Default: 0.
	Excess int
	// Late is how much longer than Window a key may stay done. Default: an eighth of the window,
	// and 1 s where time is real.
	Late time.Duration
}

// RunStore runs the contract of a store. Every test has a store of its own.
func RunStore(t *testing.T, h StoreHarness) {
	for _, c := range []struct {
		name string
		test func(*bench)
	}{
		{"a key goes free, claimed, done", livesOnce},
		{"only one of many gets the claim", isExclusive},
		{"only one of many takes over", isTakenOverOnce},
		{"a released key is claimed again, with a greater fence", releases},
		{"a repeated settlement is answered alike", repeats},
		{"a claim is taken over after its lease, and says so", takesOver},
		{"a claim that ran out and was not taken over still settles", settlesLate},
		{"the former holder is refused, whatever it says", fences},
		{"an extended claim lasts longer", extends},
		{"a fence that never was is refused", refusesFences},
		{"a done key stays done for the window and is free after it", forgets},
		{"the result comes back as it was", keepsResults},
		{"another payload is a conflict", conflicts},
		{"a zero sum fits every payload", fitsZeroSum},
		{"a key twice in a call is claimed once", refusesTwice},
		{"a bad ask is refused alone", refusesAsks},
		{"a bad settlement is refused alone", refusesSettlements},
		{"keys are any UTF-8, told apart byte by byte", tellsKeysApart},
		{"a full store pushes back and forgets nothing", fills},
		{"a full store has room again after the window", emptiesByTime},
		{"a batch is answered in its order", answersInOrder},
		{"nothing asked is nothing answered", answersNothing},
		{"the first rule is kept", binds},
		{"names are apart", separatesNames},
		{"an ended context does nothing", endsWithContext},
		{"a closed store says so", closes},
		{"everything survives a close", survives},
		{"two handles are one store", shares},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			b := &bench{T: t, ctx: ctx, h: h}
			b.o = StoreOptions{Name: newName(), Window: time.Hour, MaxKeys: 10_000}
			c.test(b)
		})
	}
}

func newName() string {
	var b [8]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	return "st-" + hex.EncodeToString(b[:])
}

// bench is one test's store and what the test needs around it.
type bench struct {
	*testing.T
	ctx context.Context
	h   StoreHarness
	o   StoreOptions
}

// open opens the store that the test is about.
func (b *bench) open() idempotency.Store {
	b.Helper()
	s := b.h.Open(b.T, b.o)
	b.Cleanup(func() { _ = s.Close() }) // a test that closes it itself has checked that
	return s
}

// lease is one that the test is going to outlive.
func (b *bench) lease() time.Duration {
	if b.h.Advance == nil {
		return 150 * time.Millisecond
	}
	return time.Minute
}

// long is a lease that no test outlives.
const long = 10 * time.Minute

// shortWindow makes the window of the test's store one that the test is going to outlive.
func (b *bench) shortWindow() {
	if b.h.Advance == nil {
		b.o.Window = b.h.Window
		if b.o.Window == 0 {
			b.o.Window = 400 * time.Millisecond
		}
	}
}

// late is how long after the window's end a key is certainly free.
func (b *bench) late() time.Duration {
	switch {
	case b.h.Late > 0:
		return b.h.Late
	case b.h.Advance == nil:
		return max(time.Second, b.o.Window/8)
	}
	return b.o.Window / 8
}

// pass lets d pass.
func (b *bench) pass(d time.Duration) {
	if b.h.Advance != nil {
		b.h.Advance(d)
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// until waits for d to pass and then polls until ok, where time is real.
func (b *bench) until(d time.Duration, what string, ok func() bool) {
	b.Helper()
	if b.h.Advance != nil {
		b.h.Advance(d)
		if !ok() {
			b.Fatalf("after %s: %s: it is not so", d, what)
		}
		return
	}
	b.poll(what, ok)
}

// poll asks until ok; what takes longer than patience is wrong.
func (b *bench) poll(what string, ok func() bool) {
	b.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-b.ctx.Done():
			b.Fatalf("%s: it is not so, after %s", what, patience)
		case <-tick.C:
		}
	}
}

// claimAll asks and checks only that there is one answer each.
func (b *bench) claimAll(s idempotency.Store, asks ...idempotency.Ask) []idempotency.Answer {
	b.Helper()
	answers, err := s.Claim(b.ctx, asks)
	if err != nil || len(answers) != len(asks) {
		b.Fatalf("claim %d keys: %d answers, %v", len(asks), len(answers), err)
	}
	return answers
}

// ask asks for one key with a lease that lasts.
func (b *bench) ask(s idempotency.Store, key string) idempotency.Answer {
	b.Helper()
	return b.claimAll(s, idempotency.Ask{Key: key, Lease: long})[0]
}

// claim asks for one key, which must be claimed, and returns the answer.
func (b *bench) claim(s idempotency.Store, key string, lease time.Duration) idempotency.Answer {
	b.Helper()
	a := b.claimAll(s, idempotency.Ask{Key: key, Lease: lease})[0]
	if a.Status != idempotency.Claimed || a.Err != nil || a.Fence == 0 {
		b.Fatalf("claim %q: %+v, want it claimed with a fence", key, a)
	}
	return a
}

// want checks what an ask for a key is answered.
func (b *bench) want(s idempotency.Store, key string,
	status idempotency.Status) idempotency.Answer {
	b.Helper()
	a := b.ask(s, key)
	if a.Status != status || a.Err != nil {
		b.Fatalf("claim %q: %s (%v), want %s", key, a.Status, a.Err, status)
	}
	return a
}

// settle settles one claim and returns what the store says of it.
func (b *bench) settle(s idempotency.Store, c idempotency.Settlement) error {
	b.Helper()
	results, err := s.Settle(b.ctx, []idempotency.Settlement{c})
	if err != nil || len(results) != 1 {
		b.Fatalf("settle %q: %d results, %v", c.Key, len(results), err)
	}
	return results[0]
}

// do settles one claim, which must succeed.
func (b *bench) do(s idempotency.Store, key string, fence uint64, verb idempotency.Verb) {
	b.Helper()
	c := idempotency.Settlement{Key: key, Fence: fence, Verb: verb, Lease: long}
	if err := b.settle(s, c); err != nil {
		b.Fatalf("settle %q by verb %d: %v", key, verb, err)
	}
}

// refused checks that all three verbs of a fence are refused.
func (b *bench) refused(s idempotency.Store, key string, fence uint64) {
	b.Helper()
	for _, verb := range []idempotency.Verb{idempotency.Extend, idempotency.Release,
		idempotency.Complete} {
		c := idempotency.Settlement{Key: key, Fence: fence, Verb: verb, Lease: long}
		if err := b.settle(s, c); !errors.Is(err, idempotency.ErrFence) {
			b.Errorf("verb %d of %q by the fence %d: %v, want ErrFence", verb, key, fence, err)
		}
	}
}

// expire claims a key with a short lease, lets it run out, and takes it over.
func (b *bench) expire(s idempotency.Store, key string) (old, now idempotency.Answer) {
	b.Helper()
	old = b.claim(s, key, b.lease())
	b.until(b.lease(), "the claim of "+key+" runs out", func() bool {
		now = b.ask(s, key)
		return now.Status == idempotency.Claimed
	})
	return old, now
}

// wantInvalid checks that an error is an *ackwise.InvalidError.
func (b *bench) wantInvalid(what string, err error) {
	b.Helper()
	if _, ok := errors.AsType[*ackwise.InvalidError](err); !ok {
		b.Errorf("%s: %v, want an *ackwise.InvalidError", what, err)
	}
}

// keys makes n names.
func keys(prefix string, n int) []string {
	all := make([]string, n)
	for i := range all {
		all[i] = fmt.Sprintf("%s/%d", prefix, i)
	}
	return all
}
