package storetest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise/idempotency"
)

func livesOnce(b *bench) {
	s := b.open()
	a := b.claim(s, "m1", long)
	if a.Takeover {
		b.Error("the first claim of a key says that it is a takeover")
	}
	busy := b.want(s, "m1", idempotency.Busy)
	if busy.Wait <= 0 || busy.Wait > long {
		b.Errorf("a busy key says to wait %s, want more than nothing and at most %s", busy.Wait, long)
	}
	b.do(s, "m1", a.Fence, idempotency.Complete)
	if done := b.want(s, "m1", idempotency.Done); done.Time.IsZero() || done.Fence != 0 {
		b.Errorf("done: %+v, want the time of its completion and no fence", done)
	}
	if got := s.Window(); got != b.o.Window {
		b.Errorf("the window is %s, want %s", got, b.o.Window)
	}
}

// race has many claim one key at once and returns those that got it.
func (b *bench) race(s []idempotency.Store, key string) []idempotency.Answer {
	b.Helper()
	const racers = 8
	answers := make([]idempotency.Answer, racers)
	errs := make([]error, racers)
	begin := make(chan struct{})
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			<-begin
			got, err := s[i%len(s)].Claim(b.ctx, []idempotency.Ask{{Key: key, Lease: long}})
			if errs[i] = err; err == nil && len(got) == 1 {
				answers[i] = got[0]
			}
		})
	}
	close(begin)
	wg.Wait()
	var won []idempotency.Answer
	for i, a := range answers {
		switch {
		case errs[i] != nil:
			b.Fatalf("claim %q beside others: %v", key, errs[i])
		case a.Status == idempotency.Claimed:
			won = append(won, a)
		case a.Status != idempotency.Busy:
			b.Errorf("claim %q beside others: %+v, want claimed or busy", key, a)
		}
	}
	return won
}

func isExclusive(b *bench) {
	s := b.open()
	for _, key := range keys("race", 20) {
		if won := b.race([]idempotency.Store{s}, key); len(won) != 1 {
			b.Fatalf("%d of those who raced for %q have it, want 1", len(won), key)
		}
	}
}

func isTakenOverOnce(b *bench) {
	s := b.open()
	old := b.claim(s, "m1", b.lease())
	var won []idempotency.Answer
	b.until(b.lease(), "somebody takes over", func() bool {
		won = b.race([]idempotency.Store{s}, "m1")
		return len(won) > 0
	})
	if len(won) != 1 || !won[0].Takeover || won[0].Fence <= old.Fence {
		b.Fatalf("taken over: %+v, want one takeover with a fence above %d", won, old.Fence)
	}
	b.refused(s, "m1", old.Fence)
	b.do(s, "m1", won[0].Fence, idempotency.Complete)
}

func releases(b *bench) {
	s := b.open()
	var last uint64
	for range 5 {
		a := b.claim(s, "m1", long)
		if a.Takeover || a.Fence <= last {
			b.Fatalf("claim of a released key: %+v after the fence %d", a, last)
		}
		b.do(s, "m1", a.Fence, idempotency.Release)
		last = a.Fence
	}
	a := b.claim(s, "m1", long)
	b.refused(s, "m1", last)
	b.do(s, "m1", a.Fence, idempotency.Complete)
	b.want(s, "m1", idempotency.Done)
}

func repeats(b *bench) {
	s := b.open()
	a := b.claim(s, "done", long)
	c := idempotency.Settlement{Key: "done", Fence: a.Fence, Verb: idempotency.Complete,
		Result: []byte("first")}
	for range 3 {
		if err := b.settle(s, c); err != nil {
			b.Fatalf("complete it again: %v", err)
		}
		c.Result = []byte("second")
	}
	if got := b.want(s, "done", idempotency.Done); string(got.Result) != "first" {
		b.Errorf("the result is %q, want that of the first completion", got.Result)
	}
	for _, verb := range []idempotency.Verb{idempotency.Release, idempotency.Extend} {
		c := idempotency.Settlement{Key: "done", Fence: a.Fence, Verb: verb, Lease: long}
		if err := b.settle(s, c); !errors.Is(err, idempotency.ErrFence) {
			b.Errorf("verb %d of a key that is done: %v, want ErrFence", verb, err)
		}
	}
	b.want(s, "done", idempotency.Done)

	a = b.claim(s, "free", long)
	for range 3 {
		b.do(s, "free", a.Fence, idempotency.Release)
	}
	for _, verb := range []idempotency.Verb{idempotency.Complete, idempotency.Extend} {
		c := idempotency.Settlement{Key: "free", Fence: a.Fence, Verb: verb, Lease: long}
		if err := b.settle(s, c); !errors.Is(err, idempotency.ErrFence) {
			b.Errorf("verb %d of a released claim: %v, want ErrFence", verb, err)
		}
	}
	b.want(s, "free", idempotency.Claimed)
}

func takesOver(b *bench) {
	s := b.open()
	b.claim(s, "kept", long)
	old, now := b.expire(s, "m1")
	if !now.Takeover || now.Fence <= old.Fence {
		b.Errorf("taken over: %+v, want a takeover with a fence above %d", now, old.Fence)
	}
	b.want(s, "kept", idempotency.Busy)
	b.want(s, "m1", idempotency.Busy)
	b.do(s, "m1", now.Fence, idempotency.Complete)
	b.want(s, "m1", idempotency.Done)
	if b.h.Advance == nil {
		return
	}
	a := b.claim(s, "edge", time.Minute)
	b.h.Advance(time.Minute - 10*time.Millisecond)
	b.want(s, "edge", idempotency.Busy)
	b.h.Advance(10 * time.Millisecond)
	if got := b.want(s, "edge", idempotency.Claimed); !got.Takeover || got.Fence <= a.Fence {
		b.Errorf("taken over at the lease's end: %+v", got)
	}
}

func settlesLate(b *bench) {
	s := b.open()
	for _, c := range []struct {
		key    string
		verb   idempotency.Verb
		status idempotency.Status
	}{
		{"late-complete", idempotency.Complete, idempotency.Done},
		{"late-release", idempotency.Release, idempotency.Claimed},
		{"late-extend", idempotency.Extend, idempotency.Busy},
	} {
		// The other key, claimed later, is the clock: when it has run out, so has this one.
		a := b.claim(s, c.key, b.lease())
		b.expire(s, c.key+"-clock")
		b.do(s, c.key, a.Fence, c.verb)
		b.want(s, c.key, c.status)
	}
}

func fences(b *bench) {
	s := b.open()
	old, now := b.expire(s, "m1")
	b.refused(s, "m1", old.Fence)
	b.want(s, "m1", idempotency.Busy)
	b.do(s, "m1", now.Fence, idempotency.Complete)
	b.refused(s, "m1", old.Fence)
	b.want(s, "m1", idempotency.Done)
}

func extends(b *bench) {
	s := b.open()
	a := b.claim(s, "m1", b.lease())
	b.do(s, "m1", a.Fence, idempotency.Extend) // by ten minutes
	b.expire(s, "clock")
	if got := b.want(s, "m1", idempotency.Busy); got.Wait <= b.lease() {
		b.Errorf("an extended claim lasts %s more, want more than %s", got.Wait, b.lease())
	}
	// An extension is from now on: it also makes a long claim short.
	c := idempotency.Settlement{Key: "m1", Fence: a.Fence, Verb: idempotency.Extend,
		Lease: b.lease()}
	if err := b.settle(s, c); err != nil {
		b.Fatalf("shorten the claim: %v", err)
	}
	b.until(b.lease(), "the shortened claim runs out", func() bool {
		return b.ask(s, "m1").Status == idempotency.Claimed
	})
}

func refusesFences(b *bench) {
	s := b.open()
	a := b.claim(s, "m1", long)
	b.refused(s, "m1", a.Fence+1000)
	b.refused(s, "m1", 0)
	b.want(s, "m1", idempotency.Busy)
	for _, verb := range []idempotency.Verb{idempotency.Complete, idempotency.Extend} {
		c := idempotency.Settlement{Key: "never claimed", Fence: 1, Verb: verb, Lease: long}
		if err := b.settle(s, c); !errors.Is(err, idempotency.ErrFence) {
			b.Errorf("verb %d of a key that was never claimed: %v, want ErrFence", verb, err)
		}
	}
	b.want(s, "never claimed", idempotency.Claimed)
}

// forgets completes keys at several moments, since a store drops what was completed in one bucket
// together: none of them may go before its own window is over.
func forgets(b *bench) {
	b.shortWindow()
	s := b.open()
	type done struct {
		key   string
		fence uint64
		begun time.Time // before its completion
	}
	const n = 5
	step, all := b.o.Window/20, make([]done, n)
	for i := range all {
		a := b.claim(s, fmt.Sprintf("m%d", i), long)
		all[i] = done{fmt.Sprintf("m%d", i), a.Fence, time.Now()}
		b.do(s, all[i].key, a.Fence, idempotency.Complete)
		b.pass(step)
	}
	if b.h.Advance != nil {
		b.h.Advance(b.o.Window - n*step - 10*time.Millisecond)
		for _, d := range all {
			b.want(s, d.key, idempotency.Done)
			b.h.Advance(step)
		}
		b.h.Advance(10*time.Millisecond + b.late())
	}
	for _, d := range all {
		var again idempotency.Answer
		b.until(0, "the window of "+d.key+" is over", func() bool {
			again = b.ask(s, d.key)
			return again.Status == idempotency.Claimed
		})
		// A server's clock and this one may run apart a little.
		if got := time.Since(d.begun); b.h.Advance == nil &&
			got < b.o.Window-b.o.Window/100-time.Millisecond {
			b.Errorf("%s was done for %s only, want the window of %s", d.key, got, b.o.Window)
		}
		if again.Takeover || again.Fence <= d.fence {
			b.Errorf("claimed after the window: %+v, want no takeover, and a fence above %d", again,
				d.fence)
		}
		b.do(s, d.key, again.Fence, idempotency.Complete)
		if b.h.Advance != nil { // else the next window may be over by now
			b.want(s, d.key, idempotency.Done)
		}
	}
}
