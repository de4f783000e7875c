package ddbstore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
)

// hands is a clock that a test moves.
type hands struct{ passed atomic.Int64 }

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func (h *hands) now() time.Time          { return noon.Add(time.Duration(h.passed.Load())) }
func (h *hands) advance(d time.Duration) { h.passed.Add(int64(d)) }

// openFake opens a store whose clock is the test's.
func openFake(t *testing.T, f *fake, h *hands, o Options) *Store {
	t.Helper()
	o.Table = "ackwise"
	if o.Name == "" {
		o.Name = "store"
	}
	s, err := Open(t.Context(), fakeTables{fake: f}, o)
	if err != nil {
		t.Fatal(err)
	}
	s.now = h.now
	return s
}

func TestStore(t *testing.T) {
	f, h := newFake(t), &hands{}
	storetest.RunStore(t, storetest.StoreHarness{
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			return openFake(t, f, h, Options{Name: o.Name, Window: o.Window, MaxKeys: o.MaxKeys,
				MaxSkew: time.Millisecond})
		},
		Advance: h.advance,
		Late:    time.Hour/8 + 2*time.Millisecond, // a bucket, MaxSkew, and what is rounded
	})
}

func TestTable(t *testing.T) {
	f, h := newFake(t), &hands{}
	n := 0
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table {
			n++
			table, err := OpenTable(t.Context(), fakeTables{fake: f},
				TableOptions{Table: "ackwise", Name: fmt.Sprint("t", n)})
			if err != nil {
				t.Fatal(err)
			}
			table.now = h.now
			return table
		},
		Advance: h.advance,
	})
}

func ask(t *testing.T, s *Store, key string) idempotency.Answer {
	t.Helper()
	answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: key, Lease: time.Minute}})
	if err != nil {
		t.Fatal(err)
	}
	return answers[0]
}

func settle(t *testing.T, s *Store, c idempotency.Settlement) error {
	t.Helper()
	results, err := s.Settle(t.Context(), []idempotency.Settlement{c})
	if err != nil {
		t.Fatal(err)
	}
	return results[0]
}

// A lease is judged by what the asker has seen itself: neither the holder's clock nor the asker's
// own, set an hour ahead, makes two owners.
func TestAClaimIsTakenOverByItsWitnessOnly(t *testing.T) {
	f, h := newFake(t), &hands{}
	holder := openFake(t, f, h, Options{})
	held := ask(t, holder, "m1")
	h.advance(time.Hour) // nobody was there to see it pass
	late := openFake(t, f, h, Options{})
	if a := ask(t, late, "m1"); a.Status != idempotency.Busy || a.Wait != time.Minute {
		t.Fatalf("a claim that this handle has not seen before: %+v, want a whole lease's wait", a)
	}
	h.advance(50 * time.Second)
	if err := settle(t, holder, idempotency.Settlement{Key: "m1", Fence: held.Fence,
		Verb: idempotency.Extend, Lease: time.Minute}); err != nil {
		t.Fatal(err)
	}
	h.advance(59 * time.Second)
	if a := ask(t, late, "m1"); a.Status != idempotency.Busy {
		t.Fatalf("a claim that was extended meanwhile: %+v, want busy", a)
	}
	h.advance(time.Minute - time.Millisecond)
	if a := ask(t, late, "m1"); a.Status != idempotency.Busy || a.Wait != time.Millisecond {
		t.Fatalf("a millisecond before the lease's end: %+v, want busy", a)
	}
	h.advance(time.Millisecond)
	a := ask(t, late, "m1")
	if a.Status != idempotency.Claimed || !a.Takeover || a.Fence <= held.Fence {
		t.Fatalf("seen unchanged for a whole lease: %+v, want a takeover", a)
	}
	if err := settle(t, holder, idempotency.Settlement{Key: "m1", Fence: held.Fence,
		Verb: idempotency.Complete}); !errors.Is(err, idempotency.ErrFence) {
		t.Errorf("the former holder completes: %v, want ErrFence", err)
	}
}

// The holder speaks, or another witness is faster, between an asker's look and its takeover.
func TestATakeoverWantsTheClaimUnchanged(t *testing.T) {
	for _, what := range []string{"extend", "take over"} {
		t.Run(what, func(t *testing.T) {
			f, h := newFake(t), &hands{}
			holder, other := openFake(t, f, h, Options{}), openFake(t, f, h, Options{})
			late := openFake(t, f, h, Options{})
			held := ask(t, holder, "m1")
			ask(t, other, "m1")
			ask(t, late, "m1")
			h.advance(time.Minute)
			puts, between := 0, 0
			f.fail = func(call string, after bool) error {
				if call != "put" || after {
					return nil
				}
				if puts++; puts != 2 { // the first one is for a missing key, the second takes over
					return nil
				}
				between++
				if what == "extend" {
					return settle(t, holder, idempotency.Settlement{Key: "m1", Fence: held.Fence,
						Verb: idempotency.Extend, Lease: time.Minute})
				}
				if a := ask(t, other, "m1"); a.Status != idempotency.Claimed {
					t.Errorf("the faster witness: %+v, want the claim", a)
				}
				return nil
			}
			if a := ask(t, late, "m1"); a.Status != idempotency.Busy || between != 1 {
				t.Errorf("the late one: %+v after %d words in between, want busy", a, between)
			}
		})
	}
}

// The window ends by the slowest clock that MaxSkew allows, and not by TTL.
func TestTheWindowAllowsForSkew(t *testing.T) {
	f, h, ahead := newFake(t), &hands{}, &hands{}
	s := openFake(t, f, h, Options{Window: time.Hour, MaxSkew: time.Minute})
	other := openFake(t, f, ahead, Options{Window: time.Hour, MaxSkew: time.Minute})
	a := ask(t, s, "m1")
	if err := settle(t, s, idempotency.Settlement{Key: "m1", Fence: a.Fence,
		Verb: idempotency.Complete}); err != nil {
		t.Fatal(err)
	}
	h.advance(time.Hour)
	ahead.advance(time.Hour + time.Minute - time.Millisecond)
	if a := ask(t, other, "m1"); a.Status != idempotency.Done {
		t.Errorf("within the window by the slower clock: %s, want done", a.Status)
	}
	if expires := f.items[s.pk("m1")].number("expires"); expires < noon.Add(2*time.Hour).Unix() {
		t.Errorf("TTL may take the item at %s, before its end is certain", time.Unix(expires, 0))
	}
	ahead.advance(time.Millisecond)
	if b := ask(t, other, "m1"); b.Status != idempotency.Claimed || b.Fence <= a.Fence {
		t.Errorf("past its time, though the item is there: %+v, want claimed", b)
	}
}

// Of every write whose answer is lost and which the client makes again, the outcome is known.
func TestAnswersAreLost(t *testing.T) {
	f, h := newFake(t), &hands{}
	s := openFake(t, f, h, Options{})
	lost := 0
	f.fail = func(call string, after bool) error {
		if !after || call == "get" {
			return nil
		}
		lost++
		return errors.New("lost")
	}
	a := ask(t, s, "m1")
	if a.Status != idempotency.Claimed || a.Takeover {
		t.Fatalf("claimed twice, the first answer lost: %+v, want claimed", a)
	}
	if b := ask(t, s, "m1"); b.Status != idempotency.Busy {
		t.Fatalf("another ask: %+v, want busy", b)
	}
	h.advance(time.Minute)
	over := ask(t, s, "m1")
	if over.Status != idempotency.Claimed || !over.Takeover {
		t.Fatalf("taken over twice, the first answer lost: %+v, want a takeover", over)
	}
	for _, verb := range []idempotency.Verb{idempotency.Extend, idempotency.Complete} {
		if err := settle(t, s, idempotency.Settlement{Key: "m1", Fence: over.Fence, Verb: verb,
			Lease: time.Minute}); err != nil {
			t.Errorf("verb %d, the answer lost: %v", verb, err)
		}
	}
	b := ask(t, s, "m2")
	if err := settle(t, s, idempotency.Settlement{Key: "m2", Fence: b.Fence,
		Verb: idempotency.Release}); err != nil {
		t.Errorf("release, the answer lost: %v", err)
	}
	if ask(t, s, "m1").Status != idempotency.Done || ask(t, s, "m2").Status != idempotency.Claimed {
		t.Error("m1 is not done, or m2 not free")
	}
	if lost < 7 {
		t.Errorf("%d answers were lost, want 7 or more", lost)
	}
}

// Being asked for less is being full, of the one ask; anything else fails the call.
func TestErrorsOfTheService(t *testing.T) {
	for _, c := range []struct {
		err  error
		want error // of the answer; nil = the call fails
	}{
		{&types.ProvisionedThroughputExceededException{}, ackwise.ErrFull},
		{&types.ThrottlingException{}, ackwise.ErrFull},
		{&types.RequestLimitExceeded{}, ackwise.ErrFull},
		{&types.ResourceNotFoundException{}, nil},
		{&types.InternalServerError{}, nil},
		{errors.New("connection reset"), nil},
	} {
		f, h := newFake(t), &hands{}
		s := openFake(t, f, h, Options{})
		failed := 0
		f.fail = func(call string, after bool) error {
			if call == "put" && failed == 0 {
				failed++
				return c.err
			}
			return nil
		}
		answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}})
		switch {
		case c.want == nil && (answers != nil || !errors.Is(err, c.err)):
			t.Errorf("%v: answers %+v, error %v, want the call to fail with it", c.err, answers, err)
		case c.want != nil && (err != nil || !errors.Is(answers[0].Err, c.want) ||
			answers[0].Status != 0):
			t.Errorf("%v: answers %+v, error %v, want %v", c.err, answers, err, c.want)
		}
		if failed != 1 {
			t.Errorf("%v: it was never returned", c.err)
		}
		if a := ask(t, s, "m1"); a.Status != idempotency.Claimed {
			t.Errorf("%v: afterwards %+v, want claimed", c.err, a)
		}
	}
}

// A claim whose answer is lost, and whose later tries are throttled, is held: the ask is not told
// that the store is full. Where it cannot be known whether it is, the call fails.
func TestThrottledAfterALostAnswer(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		f, h := newFake(t), &hands{}
		s := openFake(t, f, h, Options{})
		throttled := 0
		f.fail = func(call string, after bool) error {
			if call == "put" && after || call == "get" && unknown {
				throttled++
				return &types.ProvisionedThroughputExceededException{}
			}
			return nil
		}
		answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}})
		f.fail = nil
		switch held := f.items[s.pk("m1")].number("fence"); {
		case unknown && (answers != nil || !errors.Is(err, ackwise.ErrFull) || throttled != 2):
			t.Errorf("reads throttled too: %+v, %v, want the call to fail", answers, err)
		case unknown:
		case err != nil || throttled != 1:
			t.Errorf("%v after %d refusals", err, throttled)
		case answers[0].Status != idempotency.Claimed || int64(answers[0].Fence) != held:
			t.Errorf("answered %+v, and the key is held by fence %d", answers[0], held)
		}
	}
}

// A swap whose answer is lost is sent once, and is never ErrChanged, which says that it wrote
// nothing: also where another one has built on it meanwhile.
func TestLostSwapIsSentOnce(t *testing.T) {
	for _, c := range []struct {
		name      string
		swap      []byte
		meanwhile bool   // somebody swaps on top before the answer is lost
		want      string // what is there afterwards
	}{
		{"a value", []byte("old+a"), false, "old+a"},
		{"a removal", nil, false, ""},
		{"a value, built on", []byte("old+a"), true, "old+a+b"},
		{"a removal, built on", nil, true, "+b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			table, err := OpenTable(t.Context(), fakeTables{fake: f},
				TableOptions{Table: "ackwise", Name: "t"})
			if err != nil {
				t.Fatal(err)
			}
			if err := table.Put(t.Context(), "k", []byte("old")); err != nil {
				t.Fatal(err)
			}
			onTop := func([]byte) ([]byte, error) { return []byte(c.want), nil }
			sent, lost := 0, errors.New("connection reset")
			f.fail = func(call string, after bool) error {
				if call == "get" {
					return nil
				}
				if !after {
					sent++
					return nil
				}
				f.fail = nil
				if c.meanwhile {
					if _, err := idempotency.Apply(t.Context(), table, "k", onTop); err != nil {
						t.Error(err)
					}
				}
				f.fail = func(string, bool) error { sent++; return nil }
				return lost
			}
			_, err = idempotency.Apply(t.Context(), table, "k",
				func([]byte) ([]byte, error) { return c.swap, nil })
			if !errors.Is(err, lost) || errors.Is(err, idempotency.ErrChanged) || sent != 1 {
				t.Errorf("sent %d times: %v, want the one error of unknown outcome", sent, err)
			}
			if e, err := table.Get(t.Context(), "k"); err != nil || string(e.Data) != c.want {
				t.Errorf("afterwards there is %q, %v, want %q", e.Data, err, c.want)
			}
		})
	}
}

// Some settlements of a call may fail; the call fails where all of them do.
func TestSettlementsFailOneByOne(t *testing.T) {
	f, h := newFake(t), &hands{}
	s := openFake(t, f, h, Options{Concurrency: 1})
	var claims []idempotency.Settlement
	for _, key := range []string{"m1", "m2"} {
		claims = append(claims, idempotency.Settlement{Key: key, Fence: ask(t, s, key).Fence,
			Verb: idempotency.Complete})
	}
	broken := errors.New("connection reset")
	fail := 1
	f.fail = func(call string, after bool) error {
		if !after && fail > 0 {
			fail--
			return broken
		}
		return nil
	}
	results, err := s.Settle(t.Context(), claims)
	if err != nil || !errors.Is(errors.Join(results...), broken) {
		t.Errorf("one of two fails: %v, %v", results, err)
	}
	fail = 2
	if results, err = s.Settle(t.Context(), claims); !errors.Is(err, broken) {
		t.Errorf("both fail: %v, %v, want the call to fail", results, err)
	}
	results, err = s.Settle(t.Context(), claims)
	if err = errors.Join(append(results, err)...); err != nil {
		t.Errorf("repeated: %v", err)
	}
}

func TestOpenNamesWhatIsMissing(t *testing.T) {
	f := newFake(t)
	for _, c := range []struct {
		api   fakeTables
		store string // what Open names; "" = nothing is missing
		table string // what OpenTable names
	}{
		{fakeTables{fake: f}, "", ""},
		{fakeTables{fake: f, noIndex: true}, "", "the index graves"},
		{fakeTables{fake: f, noTTL: true}, "TTL on", "TTL on"},
		{fakeTables{fake: f, otherKey: true}, "the key (pk S), it has (id S)", "the key (pk S)"},
	} {
		_, err := Open(t.Context(), c.api, Options{Table: "ackwise", Name: "n"})
		named(t, err, c.store)
		_, err = OpenTable(t.Context(), c.api, TableOptions{Table: "ackwise", Name: "n"})
		named(t, err, c.table)
	}
	_, err := Open(t.Context(), fakeTables{fake: f}, Options{Table: "ackwise", Name: "n",
		Window: time.Hour})
	named(t, err, "a window of 24h0m0s, not 1h0m0s")
	_, err = Open(t.Context(), fakeTables{fake: f}, Options{MaxKeys: -1, Window: -1})
	for _, field := range []string{"Table", "dedup store", "MaxKeys", "Window"} {
		if err == nil || !strings.Contains(err.Error(), "invalid "+field) {
			t.Errorf("open with bad options: %v, want %s named", err, field)
		}
	}
}

func named(t *testing.T, err error, what string) {
	t.Helper()
	if what == "" {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if _, ok := errors.AsType[*ackwise.HintError](err); !ok || !strings.Contains(err.Error(), what) {
		t.Errorf("%v, want a hint that names %q", err, what)
	}
}

// The count is kept by several handles, within its slack, and forgets whole buckets by time.
func TestCount(t *testing.T) {
	f, h := newFake(t), &hands{}
	o := Options{MaxKeys: 2000, Window: time.Hour, MaxSkew: time.Minute}
	s, other := openFake(t, f, h, o), openFake(t, f, h, o)
	claim := func(s *Store, prefix string, n int) (full int) {
		t.Helper()
		asks := make([]idempotency.Ask, n)
		for i := range asks {
			asks[i] = idempotency.Ask{Key: fmt.Sprint(prefix, i), Lease: time.Hour}
		}
		answers, err := s.Claim(t.Context(), asks)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range answers {
			if errors.Is(a.Err, ackwise.ErrFull) {
				full++
			}
		}
		return full
	}
	if full := claim(s, "a", 1500); full != 0 {
		t.Errorf("%d of 1500 keys do not fit into 2000", full)
	}
	if full := claim(other, "b", 10); full != 0 { // it adds them, and reads what s has added
		t.Errorf("%d of 10 keys do not fit beside 1500 into 2000", full)
	}
	if full := claim(other, "c", 1000); full < 479 || full > 510 {
		t.Errorf("%d of 1000 keys are refused, want 510, or less by those at once under way", full)
	}
	if full := claim(other, "d", 10); full != 10 {
		t.Errorf("%d of 10 keys are refused by a full store, want all", full)
	}
	h.advance(2 * time.Hour)
	if full := claim(other, "e", 10); full != 0 {
		t.Errorf("%d of 10 keys are refused after the window, want none", full)
	}
}

// An addition that DynamoDB refuses stays to be made, and is not asked for again at once.
func TestCountKeepsWhatWasRefused(t *testing.T) {
	f, h := newFake(t), &hands{}
	s := openFake(t, f, h, Options{MaxKeys: 10})
	other := openFake(t, f, h, Options{MaxKeys: 10})
	refused := 0
	f.fail = func(call string, after bool) error {
		if call != "update" {
			return nil
		}
		refused++
		return &types.ProvisionedThroughputExceededException{}
	}
	admit := func(s *Store, prefix string) (admitted int) {
		for i := range 20 {
			if a := ask(t, s, fmt.Sprint(prefix, i)); a.Status == idempotency.Claimed {
				admitted++
			}
		}
		return admitted
	}
	if n := admit(s, "a"); n != 10 || refused != 1 {
		t.Errorf("%d of 10 keys are claimed, with %d additions refused, want 1", n, refused)
	}
	f.fail = nil
	h.advance(refresh)
	if n := admit(s, "b"); n != 0 {
		t.Errorf("%d keys more are claimed in a full store", n)
	}
	// The other handle knows of them with the first key that it adds itself.
	if n := admit(other, "c"); n > 1 {
		t.Errorf("another handle claims %d keys more, want 1 at most", n)
	}
}

// A claim that is known by its nonce, since its answer was lost, is counted as any other.
func TestCountKnowsLostClaims(t *testing.T) {
	f, h := newFake(t), &hands{}
	s := openFake(t, f, h, Options{MaxKeys: 10})
	lost := 0
	f.fail = func(call string, after bool) error {
		if call != "put" || !after {
			return nil
		}
		lost++
		return errors.New("lost")
	}
	for i := range 11 {
		a := ask(t, s, fmt.Sprint(i))
		if full := errors.Is(a.Err, ackwise.ErrFull); full != (i == 10) {
			t.Errorf("key %d of 10 that fit: %+v", i, a)
		}
	}
	if lost != 10 {
		t.Errorf("%d answers were lost, want 10", lost)
	}
}

func TestWatchIsBounded(t *testing.T) {
	w := newWatch(3)
	for i := range 10 {
		w.left(fmt.Sprint(i), claim{fence: 1, lease: time.Minute}, noon)
	}
	if len(w.seen) != 3 {
		t.Errorf("%d claims are watched, want 3", len(w.seen))
	}
	if left := w.left("9", claim{fence: 1, lease: time.Minute}, noon.Add(time.Second)); left !=
		59*time.Second {
		t.Errorf("the newest has %s left, want 59s", left)
	}
	for key := range w.seen {
		w.forget(key)
	}
	if left := w.left("9", claim{fence: 1, lease: time.Minute}, noon.Add(time.Second)); left !=
		time.Minute {
		t.Errorf("a forgotten one has %s left, want all of it", left)
	}
}

// A context that ends says so.
func TestContextEnds(t *testing.T) {
	f, h := newFake(t), &hands{}
	s := openFake(t, f, h, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	f.fail = func(string, bool) error { cancel(); return ctx.Err() }
	if _, err := s.Claim(ctx, []idempotency.Ask{{Key: "m1", Lease: time.Minute}}); !errors.Is(err,
		context.Canceled) {
		t.Errorf("claim as the context ends: %v", err)
	}
}
