package queue

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/vfs"
)

const testLease = time.Minute

// openSet makes the dedup set "set".
func openSet(t *testing.T, s *Store, window time.Duration, maxKeys int) {
	t.Helper()
	if err := s.OpenSet(t.Context(), "set", window, maxKeys); err != nil {
		t.Fatal(err)
	}
}

func claimAll(t *testing.T, s *Store, call uint64, keys ...string) []idempotency.Answer {
	t.Helper()
	asks := make([]idempotency.Ask, len(keys))
	for i, key := range keys {
		asks[i] = idempotency.Ask{Key: key, Lease: testLease}
	}
	answers, err := s.ClaimCall(t.Context(), "set", call, asks)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

// claim asks for one key and checks what it is answered.
func claim(t *testing.T, s *Store, key string, want idempotency.Status) idempotency.Answer {
	t.Helper()
	a := claimAll(t, s, 0, key)[0]
	if a.Status != want || a.Err != nil {
		t.Fatalf("claim %s: %+v, want %s", key, a, want)
	}
	return a
}

func settleClaim(t *testing.T, s *Store, c idempotency.Settlement) error {
	t.Helper()
	errs, err := s.SettleClaims(t.Context(), "set", []idempotency.Settlement{c})
	if err != nil {
		t.Fatal(err)
	}
	return errs[0]
}

// complete claims a key and completes it.
func complete(t *testing.T, s *Store, key string, result []byte) uint64 {
	t.Helper()
	a := claim(t, s, key, idempotency.Claimed)
	err := settleClaim(t, s, idempotency.Settlement{Key: key, Fence: a.Fence,
		Verb: idempotency.Complete, Result: result})
	if err != nil {
		t.Fatalf("complete %s: %v", key, err)
	}
	return a.Fence
}

// inBubble runs a test on a store in memory, in virtual time.
func inBubble(t *testing.T, o Options, fn func(t *testing.T, mem *vfs.Mem, s *Store) *Store) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := fn(t, mem, openMem(t, mem, o))
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

func TestClaimsEndAtTheirEdges(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		first := claim(t, s, "a", idempotency.Claimed)
		time.Sleep(testLease - time.Millisecond) // virtual
		if a := claim(t, s, "a", idempotency.Busy); a.Wait != time.Millisecond {
			t.Errorf("it is to wait %s, want 1ms", a.Wait)
		}
		time.Sleep(time.Millisecond) // virtual
		second := claim(t, s, "a", idempotency.Claimed)
		if !second.Takeover || second.Fence <= first.Fence {
			t.Errorf("after the lease: %+v", second)
		}
		if err := settleClaim(t, s, idempotency.Settlement{Key: "a", Fence: second.Fence,
			Verb: idempotency.Complete}); err != nil {
			t.Fatal(err)
		}
		done := time.Now()
		time.Sleep(time.Hour - time.Millisecond) // virtual
		a := claim(t, s, "a", idempotency.Done)
		if !a.Time.Equal(done) {
			t.Errorf("done at %s, want %s", a.Time, done)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{})
		claim(t, s, "a", idempotency.Done)
		time.Sleep(time.Millisecond) // virtual
		if third := claim(t, s, "a", idempotency.Claimed); third.Takeover ||
			third.Fence <= second.Fence {
			t.Errorf("after the window: %+v", third)
		}
		return s
	})
}

// A claim that nobody asks for again is remembered for a window after its end, and then let go, by
// a record.
func TestAbandonedClaimsAreLetGo(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		for i := range 50 {
			claim(t, s, fmt.Sprint("old", i), idempotency.Claimed)
		}
		complete(t, s, "done", []byte("result"))
		time.Sleep(testLease + time.Hour - time.Second) // virtual
		if a := claim(t, s, "old0", idempotency.Claimed); !a.Takeover {
			t.Errorf("taken over at the end of the window: %+v", a)
		}
		time.Sleep(20 * time.Minute) // virtual
		s.mu.Lock()
		x := s.st.Set("set")
		if x.Claims() != 1 || x.ResultBytes() != 0 || x.Last() != 0 ||
			s.dedup.byID[x.ID].Count(s.clock.now()) != 0 {
			t.Errorf("%d claims, %d bytes of results are left", x.Claims(), x.ResultBytes())
		}
		s.mu.Unlock()
		if a := claim(t, s, "old1", idempotency.Claimed); a.Takeover {
			t.Errorf("after the window: %+v", a)
		}
		time.Sleep(3 * time.Hour) // virtual
		s.mu.Lock()
		if next := s.st.NextWake(); x.Claims() != 0 || next != 0 {
			t.Errorf("%d claims are left, and the store wakes at %d", x.Claims(), next)
		}
		s.mu.Unlock()
		return s
	})
}

func TestAFullSetPushesBack(t *testing.T) {
	inBubble(t, Options{bucketIDs: 64}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 10)
		for i := range 8 {
			complete(t, s, fmt.Sprint("done", i), nil)
		}
		held := claim(t, s, "held", idempotency.Claimed)
		claim(t, s, "held too", idempotency.Claimed)
		full := func(key string) {
			t.Helper()
			a := claimAll(t, s, 0, key)[0]
			if !errors.Is(a.Err, ackwise.ErrFull) || a.Status != 0 {
				t.Fatalf("claim %s: %+v, want ErrFull", key, a)
			}
		}
		full("new")
		claim(t, s, "done3", idempotency.Done) // what is known goes on
		_, err := s.Commit(t.Context(), Commit{Once: map[string][]idempotency.Ask{
			"set": {{Key: "new"}}}})
		if !errors.Is(err, ackwise.ErrFull) {
			t.Errorf("a transaction: %v, want ErrFull", err)
		}
		if err := settleClaim(t, s, idempotency.Settlement{Key: "held", Fence: held.Fence,
			Verb: idempotency.Complete}); err != nil {
			t.Errorf("complete what is held: %v", err)
		}
		full("new")
		time.Sleep(testLease) // virtual
		full("new")           // a claim that ran out still counts
		openSet(t, s, time.Hour, 12)
		claim(t, s, "new", idempotency.Claimed)
		openSet(t, s, time.Hour, 10)
		full("newer")
		time.Sleep(time.Hour * 9 / 8) // virtual
		claim(t, s, "newer", idempotency.Claimed)
		claim(t, s, "done0", idempotency.Claimed) // forgotten by time
		return s
	})
}

func TestARepeatedClaimGetsWhatItGot(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		complete(t, s, "done", nil)
		claim(t, s, "other's", idempotency.Claimed)
		keys := []string{"a", "done", "b", "a", "other's"}
		first := claimAll(t, s, 7, keys...)
		if first[0].Status != idempotency.Claimed || first[3].Status != idempotency.Busy {
			t.Fatalf("%+v", first)
		}
		if again := claimAll(t, s, 7, keys...); !slices.EqualFunc(again, first, sameAnswer) {
			t.Errorf("the call again: %+v, want %+v", again, first)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{})
		if again := claimAll(t, s, 7, keys...); !slices.EqualFunc(again, first, sameAnswer) {
			t.Errorf("the call at the next owner: %+v, want %+v", again, first)
		}
		if a := claimAll(t, s, 8, "a")[0]; a.Status != idempotency.Busy {
			t.Errorf("another call: %+v", a)
		}
		time.Sleep(testLease) // virtual
		if a := claimAll(t, s, 7, "a")[0]; a.Status != idempotency.Claimed || a.Takeover {
			t.Errorf("the call again after its lease: %+v, nobody made an effect", a)
		}
		time.Sleep(testLease) // virtual
		if a := claimAll(t, s, 8, "a")[0]; a.Status != idempotency.Claimed || !a.Takeover {
			t.Errorf("another call after the lease: %+v, want a takeover", a)
		}
		return s
	})
}

func sameAnswer(a, b idempotency.Answer) bool {
	return a.Status == b.Status && a.Fence == b.Fence && a.Takeover == b.Takeover &&
		errors.Is(a.Err, b.Err)
}

// Settlements of one key in one call see each other, and those with results keep their place.
func TestSettlementsOfACallComeInTheirOrder(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		f := claimAll(t, s, 0, "a", "b", "c")
		errs, err := s.SettleClaims(t.Context(), "set", []idempotency.Settlement{
			{Key: "a", Fence: f[0].Fence, Verb: idempotency.Extend, Lease: time.Minute},
			{Key: "a", Fence: f[0].Fence, Verb: idempotency.Complete},
			{Key: "b", Fence: f[1].Fence, Verb: idempotency.Release},
			{Key: "b", Fence: f[1].Fence, Verb: idempotency.Complete, Result: []byte("late")},
			{Key: "c", Fence: f[2].Fence, Verb: idempotency.Complete, Result: []byte{}},
			{Key: "c", Fence: f[2].Fence, Verb: idempotency.Release},
			{Key: "a", Fence: f[0].Fence, Verb: idempotency.Complete, Result: []byte("again")}})
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []error{nil, nil, nil, idempotency.ErrFence, nil,
			idempotency.ErrFence, nil} {
			if !errors.Is(errs[i], want) {
				t.Errorf("settlement %d: %v, want %v", i, errs[i], want)
			}
		}
		if a := claim(t, s, "a", idempotency.Done); a.Result != nil {
			t.Errorf("the result of a is %q, want none", a.Result)
		}
		claim(t, s, "b", idempotency.Claimed)
		if a := claim(t, s, "c", idempotency.Done); a.Result == nil || len(a.Result) > 0 {
			t.Errorf("the result of c is %v, want an empty one", a.Result)
		}
		return s
	})
}

// A completion returns when it is synced, and what another one is told of it does not come before.
func TestCompletionsWaitForTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := vfs.NewFaults(vfs.NewMem())
		s := openMem(t, faults, Options{})
		openSet(t, s, time.Hour, 100)
		hold := make(chan struct{})
		blocked := &vfs.Fault{Op: vfs.OpSync, N: 1, Block: hold}
		faults.Set(blocked)
		f := claim(t, s, "a", idempotency.Claimed) // written, which is enough
		finished := make(chan string, 3)
		go func() { // ends when the sync is let go
			errs, err := s.SettleClaims(t.Context(), "set", []idempotency.Settlement{
				{Key: "a", Fence: f.Fence, Verb: idempotency.Complete}})
			finished <- fmt.Sprint("completed ", errs, err)
		}()
		synctest.Wait()
		if faults.Fired(blocked) == 0 {
			t.Fatal("no sync was blocked")
		}
		go func() { // ends when the sync is let go
			answers, err := s.Claim(t.Context(), "set",
				[]idempotency.Ask{{Key: "a", Lease: testLease}})
			finished <- fmt.Sprint("asked ", answers[0].Status, err)
		}()
		go func() { // ends when the sync is let go
			errs, err := s.SettleClaims(t.Context(), "set", []idempotency.Settlement{
				{Key: "a", Fence: f.Fence, Verb: idempotency.Complete}})
			finished <- fmt.Sprint("again ", errs, err)
		}()
		synctest.Wait()
		select {
		case what := <-finished:
			t.Errorf("before the sync: %s", what)
		default:
		}
		close(hold)
		got := []string{<-finished, <-finished, <-finished}
		slices.Sort(got)
		want := []string{"again [<nil>] <nil>", "asked done <nil>", "completed [<nil>] <nil>"}
		if !slices.Equal(got, want) {
			t.Errorf("after the sync: %q, want %q", got, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// Results outlive checkpoints and compaction with their keys, and pin nothing afterwards.
func TestResultsAreKeptForTheWindow(t *testing.T) {
	o := Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 40}
	inBubble(t, o, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 10_000)
		result := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "%03d ", i), 50) }
		for i := range 40 {
			complete(t, s, fmt.Sprint("key", i), result(i))
			for j := range 40 { // much that is dead at once
				complete(t, s, fmt.Sprintf("other%d-%d-%s", i, j, strings.Repeat("x", 400)), nil)
			}
			if i%10 == 9 {
				if err := s.takeCheckpoint(); err != nil {
					t.Fatal(err)
				}
			}
		}
		sparse := 0
		for _, segment := range s.log.Segments() {
			if segment.Sparse {
				sparse++
			}
		}
		if sparse == 0 {
			t.Error("nothing was compacted")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, o)
		verify(t, s)
		time.Sleep(time.Hour - time.Second) // virtual
		for i := range 40 {
			if a := claim(t, s, fmt.Sprint("key", i), idempotency.Done); !bytes.Equal(a.Result,
				result(i)) {
				t.Errorf("key%d: %q", i, a.Result)
			}
		}
		time.Sleep(time.Hour) // virtual
		for range 2 {
			publishOne(t, s)
			if err := s.takeCheckpoint(); err != nil {
				t.Fatal(err)
			}
		}
		if n, bytes := s.st.Live(0, s.log.End()); n > 2 {
			t.Errorf("%d records, %d bytes live after the window", n, bytes)
		}
		return s
	})
}

func publishOne(t *testing.T, s *Store) {
	t.Helper()
	if s.st.Topic("orders") == nil {
		if err := s.CreateTopic(t.Context(), "orders", TopicOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, s, ackwise.Message{Topic: "orders", Body: make([]byte, 1<<15)})
}

// A directory without dedup sets stays one of the first format; with one it is of the second.
func TestSetsMakeANewFormat(t *testing.T) {
	version := func(mem *vfs.Mem, s *Store) uint32 {
		t.Helper()
		f, err := mem.Open("/store/" + checkpointName(s.marks[len(s.marks)-1].pos))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 12)
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint32(b[8:])
	}
	inBubble(t, Options{}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		publishOne(t, s)
		if err := s.takeCheckpoint(); err != nil {
			t.Fatal(err)
		}
		if v := version(mem, s); v != 1 {
			t.Errorf("without a set: version %d, want 1", v)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{})
		openSet(t, s, time.Hour, 10)
		synctest.Wait()
		if v := version(mem, s); v != 2 {
			t.Errorf("with a set: version %d, want 2 at once", v)
		}
		return s
	})
}

// What is out of a window leaves the disk also where nobody does anything any more: by time alone
// for a set, and with a checkpoint for a topic.
func TestAnIdleStoreRemovesItsBuckets(t *testing.T) {
	inBubble(t, Options{bucketIDs: 64}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		openSet(t, s, 10*time.Minute, 10_000)
		for i := range 200 {
			complete(t, s, fmt.Sprint("key", i), nil)
			synctest.Wait()
		}
		if synctest.Wait(); len(bucketFiles(t, mem)) == 0 {
			t.Fatal("no bucket was written")
		}
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if n := len(bucketFiles(t, mem)); n > 0 {
			t.Errorf("%d buckets of a set are there an hour after a window of ten minutes", n)
		}
		err := s.CreateTopic(t.Context(), "orders", TopicOptions{DedupWindow: 10 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 200 {
			publish(t, s, ackwise.Message{Topic: "orders", ID: fmt.Sprint("m", i)})
			synctest.Wait()
		}
		if synctest.Wait(); len(bucketFiles(t, mem)) == 0 {
			t.Fatal("no bucket was written")
		}
		time.Sleep(time.Hour)            // virtual
		openSet(t, s, 10*time.Minute, 1) // a record of that time
		if err := s.takeCheckpoint(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := len(bucketFiles(t, mem)); n > 0 {
			t.Errorf("%d buckets of a topic are there after a checkpoint", n)
		}
		return s
	})
}

// A tick that comes while the store is being closed moves nothing: it would be in no record.
func TestNothingTicksAfterClose(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, mem *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Second, 100)
		if err := s.takeCheckpoint(); err != nil {
			t.Fatal(err)
		}
		complete(t, s, "a", nil)
		closing := func(is bool) { // what Close does first
			s.mu.Lock()
			defer s.mu.Unlock()
			s.isClosed = is
		}
		closing(true)
		time.Sleep(3 * time.Second) // virtual
		closing(false)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		return openMem(t, mem, Options{}) // which is verified
	})
}

func TestSetsAreBounded(t *testing.T) {
	inBubble(t, Options{}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		name := func(i int) string { return fmt.Sprint("set", i) }
		for i := range 1024 {
			if err := s.OpenSet(t.Context(), name(i), time.Hour, 10); err != nil {
				t.Fatalf("set %d: %v", i, err)
			}
		}
		err := s.OpenSet(t.Context(), "more", time.Hour, 10)
		if !errors.Is(err, ackwise.ErrFull) || !strings.Contains(err.Error(), "1024") {
			t.Errorf("one more: %v, want ErrFull", err)
		}
		if err := s.OpenSet(t.Context(), name(7), time.Hour, 20); err != nil {
			t.Errorf("one that is there: %v", err)
		}
		return s
	})
}

// A call with too many keys is refused before work is done for any of them.
func TestTooManyKeysCostNothing(t *testing.T) {
	s := openMem(t, vfs.NewMem(), Options{MaxBatch: 10})
	openSet(t, s, time.Hour, 100)
	const many = 10_000
	for what, call := range map[string]func() error{
		"claim": func() error {
			return errOf(s.Claim(t.Context(), "set", make([]idempotency.Ask, many)))
		},
		"settle": func() error {
			return errOf(s.SettleClaims(t.Context(), "set", make([]idempotency.Settlement, many)))
		},
		"once": func() error {
			return errOf(s.Commit(t.Context(), Commit{Once: map[string][]idempotency.Ask{
				"set": make([]idempotency.Ask, many)}}))
		},
	} {
		var err error
		if n := testing.AllocsPerRun(3, func() { err = call() }); n > many/10 {
			t.Errorf("%s: %.0f allocations for %d keys", what, n, many)
		}
		if !errors.Is(err, ackwise.ErrTooLarge) {
			t.Errorf("%s: %v, want ErrTooLarge", what, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

func TestSetsRefuseWhatCannotBe(t *testing.T) {
	inBubble(t, Options{MaxBatch: 3}, func(t *testing.T, _ *vfs.Mem, s *Store) *Store {
		openSet(t, s, time.Hour, 100)
		ctx := t.Context()
		invalid := func(what string, err error, says ...string) {
			t.Helper()
			if _, ok := errors.AsType[*ackwise.InvalidError](err); !ok {
				t.Errorf("%s: %v, want an *ackwise.InvalidError", what, err)
			}
			for _, part := range says {
				if !strings.Contains(fmt.Sprint(err), part) {
					t.Errorf("%s: %q does not say %q", what, err, part)
				}
			}
		}
		invalid("another window", s.OpenSet(ctx, "set", time.Minute, 100), "1h0m0s", "1m0s")
		invalid("no window", s.OpenSet(ctx, "new", 0, 100), "Window")
		invalid("no keys", s.OpenSet(ctx, "new", time.Hour, 0), "MaxKeys")
		invalid("no name", s.OpenSet(ctx, "", time.Hour, 1))
		invalid("no rule", s.BindSet(ctx, "set", ""), "rule")
		invalid("a key twice", s.checkOnce(&Commit{Once: map[string][]idempotency.Ask{
			"set": {{Key: "a"}, {Key: "a"}}}}))
		_, err := s.Commit(ctx, Commit{Once: map[string][]idempotency.Ask{"set": {{}}}})
		invalid("an empty key", err, "empty")
		_, err = s.Claim(ctx, "sett", nil)
		if e, ok := errors.AsType[*ackwise.NotFoundError](err); !ok || e.Nearest != "set" {
			t.Errorf("a set that is not there: %v", err)
		}
		if _, err := s.Claim(ctx, "set", make([]idempotency.Ask, 4)); !errors.Is(err,
			ackwise.ErrTooLarge) {
			t.Errorf("too many: %v", err)
		}
		if err := errors.Join(s.BindSet(ctx, "set", "id"), s.BindSet(ctx, "set", "id")); err != nil {
			t.Error(err)
		}
		err = s.BindSet(ctx, "set", "body")
		if e, ok := errors.AsType[*idempotency.RuleError](err); !ok || e.Kept != "id" ||
			e.Got != "body" {
			t.Errorf("another rule: %v", err)
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := s.SettleClaims(ended, "set", nil); !errors.Is(err, context.Canceled) {
			t.Errorf("an ended context: %v", err)
		}
		return s
	})
}
