package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

func keepsResults(b *bench) {
	s := b.open()
	for i, result := range [][]byte{nil, []byte("a"), {0, 255, '\n', '\'', 0},
		bytes.Repeat([]byte{7}, idempotency.MaxResultBytes)} {
		key := fmt.Sprintf("m%d", i)
		a := b.claim(s, key, long)
		c := idempotency.Settlement{Key: key, Fence: a.Fence, Verb: idempotency.Complete,
			Result: result}
		if err := b.settle(s, c); err != nil {
			b.Fatalf("complete with %d bytes: %v", len(result), err)
		}
		if got := b.want(s, key, idempotency.Done); !bytes.Equal(got.Result, result) {
			b.Errorf("a result of %d bytes came back as %d others", len(result), len(got.Result))
		}
	}
}

func conflicts(b *bench) {
	s := b.open()
	one, two := idempotency.Sum{1}, idempotency.Sum{15: 2}
	ask := func(sum idempotency.Sum, want idempotency.Status) idempotency.Answer {
		b.Helper()
		a := b.claimAll(s, idempotency.Ask{Key: "m1", Sum: sum, Lease: long})[0]
		if a.Status != want || a.Err != nil {
			b.Fatalf("claim with the sum %x: %s (%v), want %s", sum, a.Status, a.Err, want)
		}
		return a
	}
	a := ask(one, idempotency.Claimed)
	ask(two, idempotency.Conflict)
	ask(one, idempotency.Busy)
	b.do(s, "m1", a.Fence, idempotency.Release)
	a = ask(two, idempotency.Claimed) // a released key knows no payload
	b.do(s, "m1", a.Fence, idempotency.Complete)
	ask(one, idempotency.Conflict)
	ask(two, idempotency.Done)

	got := b.claimAll(s, idempotency.Ask{Key: "m2", Sum: one, Lease: b.lease()})[0]
	if got.Status != idempotency.Claimed {
		b.Fatalf("claim m2: %+v", got)
	}
	b.expire(s, "clock")
	got = b.claimAll(s, idempotency.Ask{Key: "m2", Sum: two, Lease: long})[0]
	if got.Status != idempotency.Conflict {
		b.Errorf("another payload after a claim that ran out: %s, want conflict: the effect of "+
			"the first may have been made", got.Status)
	}
}

func fitsZeroSum(b *bench) {
	s := b.open()
	sum := idempotency.Sum{1}
	for _, c := range []struct {
		key         string
		first, then idempotency.Sum
	}{{"m1", sum, idempotency.Sum{}}, {"m2", idempotency.Sum{}, sum},
		{"m3", idempotency.Sum{}, idempotency.Sum{}}} {
		ask := func(sum idempotency.Sum, want idempotency.Status) idempotency.Answer {
			b.Helper()
			a := b.claimAll(s, idempotency.Ask{Key: c.key, Sum: sum, Lease: long})[0]
			if a.Status != want {
				b.Fatalf("claim %s with the sum %x: %s (%v), want %s", c.key, sum, a.Status, a.Err,
					want)
			}
			return a
		}
		a := ask(c.first, idempotency.Claimed)
		ask(c.then, idempotency.Busy)
		b.do(s, c.key, a.Fence, idempotency.Complete)
		ask(c.then, idempotency.Done)
	}
}

func refusesTwice(b *bench) {
	s := b.open()
	got := b.claimAll(s, idempotency.Ask{Key: "m1", Lease: long},
		idempotency.Ask{Key: "m2", Lease: long}, idempotency.Ask{Key: "m1", Lease: long},
		idempotency.Ask{Key: "m1", Lease: long})
	b.wantStatuses(got, "claimed claimed busy busy")
	b.do(s, "m1", got[0].Fence, idempotency.Complete)
	got = b.claimAll(s, idempotency.Ask{Key: "m1", Lease: long},
		idempotency.Ask{Key: "m1", Lease: long})
	b.wantStatuses(got, "done done")
}

// wantStatuses checks the statuses of a call's answers; a refused ask is "none".
func (b *bench) wantStatuses(got []idempotency.Answer, want string) {
	b.Helper()
	words := make([]string, len(got))
	for i, a := range got {
		words[i] = a.Status.String()
	}
	if all := strings.Join(words, " "); all != want {
		b.Fatalf("the answers are %s, want %s", all, want)
	}
}

func refusesAsks(b *bench) {
	s := b.open()
	longest := strings.Repeat("k", idempotency.MaxKeyBytes)
	got := b.claimAll(s,
		idempotency.Ask{Key: "before", Lease: long},
		idempotency.Ask{Key: "", Lease: long},
		idempotency.Ask{Key: longest + "k", Lease: long},
		idempotency.Ask{Key: "not \xff UTF-8", Lease: long},
		idempotency.Ask{Key: "no lease"},
		idempotency.Ask{Key: "short lease", Lease: time.Millisecond - 1},
		idempotency.Ask{Key: longest, Lease: long})
	b.wantStatuses(got, "claimed none none none none none claimed")
	for i, a := range got[1:6] {
		b.wantInvalid(fmt.Sprintf("ask %d", i+1), a.Err)
	}
	b.want(s, "no lease", idempotency.Claimed)
}

func refusesSettlements(b *bench) {
	s := b.open()
	a, c := b.claim(s, "m1", long), b.claim(s, "m2", long)
	results, err := s.Settle(b.ctx, []idempotency.Settlement{
		{Key: "m1", Fence: a.Fence, Verb: idempotency.Complete,
			Result: make([]byte, idempotency.MaxResultBytes+1)},
		{Key: "m1", Fence: a.Fence},
		{Key: "m1", Fence: a.Fence, Verb: idempotency.Extend + 1},
		{Key: "m1", Fence: a.Fence, Verb: idempotency.Extend},
		{Key: "", Fence: a.Fence, Verb: idempotency.Complete},
		{Key: "m2", Fence: c.Fence, Verb: idempotency.Complete}})
	if err != nil || len(results) != 6 {
		b.Fatalf("settle: %d results, %v", len(results), err)
	}
	for i, err := range results[:5] {
		b.wantInvalid(fmt.Sprintf("settlement %d", i), err)
	}
	if results[5] != nil {
		b.Errorf("the good settlement: %v", results[5])
	}
	b.want(s, "m1", idempotency.Busy)
	b.want(s, "m2", idempotency.Done)
}

func tellsKeysApart(b *bench) {
	s := b.open()
	all := []string{"a", "A", "a ", " a", "a\x00", "a\x00b", "\x00", "a\n", "a'b", `a"b`, `a\b`, "a%",
		"a_", "a:b", "a{b}", "a/b", "é", "e\u0301", "日本", "\U0001F600", "$1", "null", "0", "00"}
	for _, key := range all {
		b.do(s, key, b.claim(s, key, long).Fence, idempotency.Complete)
	}
	for _, key := range all {
		b.want(s, key, idempotency.Done)
	}
	b.want(s, "b", idempotency.Claimed)
}

// fill claims keys until the store pushes back and returns the fences of what it admitted.
func (b *bench) fill(s idempotency.Store) map[string]uint64 {
	b.Helper()
	admitted := make(map[string]uint64)
	for _, key := range keys("fill", b.o.MaxKeys+b.h.Excess+1) {
		a := b.ask(s, key)
		switch {
		case a.Status == idempotency.Claimed && a.Err == nil:
			admitted[key] = a.Fence
		case a.Status == 0 && errors.Is(a.Err, ackwise.ErrFull):
			if len(admitted) < b.o.MaxKeys {
				b.Fatalf("full at %d keys, want %d", len(admitted), b.o.MaxKeys)
			}
			return admitted
		default:
			b.Fatalf("claim %d of at most %d keys: %+v, want it claimed or ErrFull", len(admitted)+1,
				b.o.MaxKeys, a)
		}
	}
	b.Fatalf("%d keys are admitted, want at most %d and %d more", len(admitted), b.o.MaxKeys,
		b.h.Excess)
	return nil
}

func fills(b *bench) {
	b.o.MaxKeys = 16
	s := b.open()
	admitted := b.fill(s)
	i := 0
	for key, fence := range admitted { // half of them done, half of them held
		if i++; i%2 == 0 {
			b.do(s, key, fence, idempotency.Complete)
			admitted[key] = 0
		}
	}
	if a := b.ask(s, "one more"); !errors.Is(a.Err, ackwise.ErrFull) || a.Status != 0 {
		b.Errorf("claim in a full store: %+v, want ErrFull: what is done still counts", a)
	}
	some := ""
	for key, fence := range admitted {
		if fence == 0 {
			b.want(s, key, idempotency.Done)
			continue
		}
		b.want(s, key, idempotency.Busy)
		some = key
	}
	// What is admitted is settled as ever, and what is given back leaves room.
	got := b.claimAll(s, idempotency.Ask{Key: some, Lease: long},
		idempotency.Ask{Key: "one more", Lease: long})
	b.wantStatuses(got, "busy none")
	for key, fence := range admitted {
		if fence != 0 {
			b.do(s, key, fence, idempotency.Release)
		}
	}
	b.poll("there is room for one more", func() bool {
		return b.ask(s, "one more").Status == idempotency.Claimed
	})
}

func emptiesByTime(b *bench) {
	b.o.MaxKeys = 16
	b.shortWindow()
	s := b.open()
	for key, fence := range b.fill(s) {
		b.do(s, key, fence, idempotency.Complete)
	}
	b.until(b.o.Window+b.late(), "there is room again", func() bool {
		return b.ask(s, "one more").Status == idempotency.Claimed
	})
}

func answersInOrder(b *bench) {
	s := b.open()
	const n = 100
	all, sum := keys("m", n), idempotency.Sum{1}
	var settled []idempotency.Settlement
	for i, key := range all { // a fifth each: free, busy, done, conflict, refused
		if i%5 == 0 || i%5 == 4 {
			continue
		}
		a := b.claimAll(s, idempotency.Ask{Key: key, Sum: sum, Lease: long})[0]
		if i%5 != 1 {
			settled = append(settled, idempotency.Settlement{Key: key, Fence: a.Fence,
				Verb: idempotency.Complete, Result: []byte(key)})
		}
	}
	results, err := s.Settle(b.ctx, settled)
	if err != nil || len(results) != len(settled) || errors.Join(results...) != nil {
		b.Fatalf("complete %d keys: %v, %v", len(settled), results, err)
	}
	asks := make([]idempotency.Ask, n)
	for i, key := range all {
		asks[i] = idempotency.Ask{Key: key, Sum: sum, Lease: long}
		switch i % 5 {
		case 3:
			asks[i].Sum = idempotency.Sum{2}
		case 4:
			asks[i].Key = ""
		}
	}
	want := []idempotency.Status{idempotency.Claimed, idempotency.Busy, idempotency.Done,
		idempotency.Conflict, 0}
	got := b.claimAll(s, asks...)
	for i, a := range got {
		if a.Status != want[i%5] || (a.Err != nil) != (i%5 == 4) {
			b.Errorf("answer %d: %+v, want %s", i, a, want[i%5])
		}
		if i%5 == 2 && string(a.Result) != all[i] {
			b.Errorf("answer %d has the result %q, want its own, %q", i, a.Result, all[i])
		}
	}
	b.settlesInOrder(s, all, got)
}

// settlesInOrder settles what answersInOrder has claimed, every other with a fence that is wrong.
func (b *bench) settlesInOrder(s idempotency.Store, all []string, got []idempotency.Answer) {
	b.Helper()
	var batch []idempotency.Settlement
	for i := 0; i < len(all); i += 5 {
		c := idempotency.Settlement{Key: all[i], Fence: got[i].Fence, Verb: idempotency.Complete}
		if len(batch)%2 == 1 {
			c.Fence += 1_000_000
		}
		batch = append(batch, c)
	}
	results, err := s.Settle(b.ctx, batch)
	if err != nil || len(results) != len(batch) {
		b.Fatalf("settle %d claims: %d results, %v", len(batch), len(results), err)
	}
	for i, err := range results {
		if wrong := i%2 == 1; errors.Is(err, idempotency.ErrFence) != wrong || !wrong && err != nil {
			b.Errorf("settlement %d: %v, want ErrFence: %t", i, err, wrong)
		}
	}
}

func answersNothing(b *bench) {
	s := b.open()
	if answers, err := s.Claim(b.ctx, nil); len(answers) > 0 || err != nil {
		b.Errorf("claim nothing: %v, %v", answers, err)
	}
	if results, err := s.Settle(b.ctx, nil); len(results) > 0 || err != nil {
		b.Errorf("settle nothing: %v, %v", results, err)
	}
}

func binds(b *bench) {
	s := b.open()
	for range 2 {
		if err := s.Bind(b.ctx, "id, body"); err != nil {
			b.Fatalf("bind: %v", err)
		}
	}
	err := s.Bind(b.ctx, "order number")
	wrong, ok := errors.AsType[*idempotency.RuleError](err)
	if !ok {
		b.Fatalf("bind with another rule: %v, want a *RuleError", err)
	}
	if wrong.Kept != "id, body" || wrong.Got != "order number" || wrong.Store == "" {
		b.Errorf("the refusal is %+v, want both rules and the store's name", wrong)
	}
	if err := s.Bind(b.ctx, "id, body"); err != nil {
		b.Errorf("bind with the kept rule after a refusal: %v", err)
	}
	b.wantInvalid("bind with no rule", s.Bind(b.ctx, ""))
}

func separatesNames(b *bench) {
	s := b.open()
	b.o.Name = newName()
	other := b.open()
	b.do(s, "m1", b.claim(s, "m1", long).Fence, idempotency.Complete)
	b.claim(other, "m1", long)
	b.want(s, "m1", idempotency.Done)
	for i, each := range []idempotency.Store{s, other} {
		if err := each.Bind(b.ctx, fmt.Sprintf("rule %d", i)); err != nil {
			b.Errorf("bind store %d by a rule of its own: %v", i, err)
		}
	}
}

func endsWithContext(b *bench) {
	s := b.open()
	a := b.claim(s, "held", long)
	ctx, cancel := context.WithCancel(b.ctx)
	cancel()
	if answers, err := s.Claim(ctx, []idempotency.Ask{{Key: "m1", Lease: long}}); err == nil {
		b.Errorf("claim with an ended context: %v and no error", answers)
	}
	if results, err := s.Settle(ctx, []idempotency.Settlement{{Key: "held", Fence: a.Fence,
		Verb: idempotency.Complete}}); err == nil {
		b.Errorf("settle with an ended context: %v and no error", results)
	}
	if err := s.Bind(ctx, "rule"); err == nil {
		b.Error("bind with an ended context: no error")
	}
	b.want(s, "m1", idempotency.Claimed)
	b.want(s, "held", idempotency.Busy)
}

func closes(b *bench) {
	s := b.open()
	if err := s.Close(); err != nil {
		b.Fatalf("close: %v", err)
	}
	if _, err := s.Claim(b.ctx, []idempotency.Ask{{Key: "m1", Lease: long}}); !errors.Is(err,
		ackwise.ErrClosed) {
		b.Errorf("claim in a closed store: %v, want ErrClosed", err)
	}
	if _, err := s.Settle(b.ctx, []idempotency.Settlement{{Key: "m1", Fence: 1,
		Verb: idempotency.Release}}); !errors.Is(err, ackwise.ErrClosed) {
		b.Errorf("settle in a closed store: %v, want ErrClosed", err)
	}
	if err := s.Bind(b.ctx, "rule"); !errors.Is(err, ackwise.ErrClosed) {
		b.Errorf("bind a closed store: %v, want ErrClosed", err)
	}
}

func survives(b *bench) {
	if b.h.Reopen == nil {
		b.Skip("this store does not outlive its process")
	}
	s := b.open()
	if err := s.Bind(b.ctx, "id, body"); err != nil {
		b.Fatal(err)
	}
	sum := idempotency.Sum{1}
	held := b.claimAll(s, idempotency.Ask{Key: "held", Sum: sum, Lease: long})[0]
	ran := b.claim(s, "ran out", b.lease())
	done := b.claimAll(s, idempotency.Ask{Key: "done", Sum: sum, Lease: long})[0]
	c := idempotency.Settlement{Key: "done", Fence: done.Fence, Verb: idempotency.Complete,
		Result: []byte("result")}
	if err := b.settle(s, c); err != nil {
		b.Fatal(err)
	}
	free := b.claim(s, "free", long)
	b.do(s, "free", free.Fence, idempotency.Release)

	s = b.h.Reopen(b.T, s, b.o)
	b.Cleanup(func() { _ = s.Close() })
	if got := b.want(s, "done", idempotency.Done); string(got.Result) != "result" {
		b.Errorf("the result is %q after a close", got.Result)
	}
	b.want(s, "held", idempotency.Busy)
	for _, key := range []string{"held", "done"} {
		a := b.claimAll(s, idempotency.Ask{Key: key, Sum: idempotency.Sum{2}, Lease: long})[0]
		if a.Status != idempotency.Conflict {
			b.Errorf("%s with another payload after a close: %s, want conflict", key, a.Status)
		}
	}
	b.do(s, "held", held.Fence, idempotency.Complete)
	if a := b.claim(s, "free", long); a.Fence <= free.Fence {
		b.Errorf("the fence after a close is %d, want more than %d", a.Fence, free.Fence)
	}
	var over idempotency.Answer
	b.until(b.lease(), "the claim of a process that is gone runs out", func() bool {
		over = b.ask(s, "ran out")
		return over.Status == idempotency.Claimed
	})
	if !over.Takeover || over.Fence <= ran.Fence {
		b.Errorf("taken over after a close: %+v, want a takeover and a fence above %d", over,
			ran.Fence)
	}
	b.refused(s, "ran out", ran.Fence)
	err := s.Bind(b.ctx, "another")
	if _, ok := errors.AsType[*idempotency.RuleError](err); !ok {
		b.Errorf("bind with another rule after a close: %v, want a *RuleError", err)
	}
}

func shares(b *bench) {
	if !b.h.Shared {
		b.Skip("one process at a time holds this store")
	}
	s, other := b.open(), b.open()
	if err := s.Bind(b.ctx, "id, body"); err != nil {
		b.Fatal(err)
	}
	err := other.Bind(b.ctx, "another")
	if _, ok := errors.AsType[*idempotency.RuleError](err); !ok {
		b.Errorf("bind with another rule through another handle: %v, want a *RuleError", err)
	}
	a := b.claim(s, "m1", long)
	b.want(other, "m1", idempotency.Busy)
	b.do(other, "m1", a.Fence, idempotency.Complete)
	b.want(s, "m1", idempotency.Done)
	for _, key := range keys("race", 10) {
		if won := b.race([]idempotency.Store{s, other}, key); len(won) != 1 {
			b.Fatalf("%d of those who raced for %q have it, want 1", len(won), key)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatalf("close one of two handles: %v", err)
	}
	b.want(other, "m1", idempotency.Done)
}
