package dynamostreams

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/pause"
)

// polled wants one change of a kind from the log.
func polled(t *testing.T, l *stream, most int, want logsource.ChangeKind) logsource.Change {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	changes, err := l.Poll(ctx, most)
	if err != nil || len(changes) != 1 || changes[0].Kind != want {
		t.Fatalf("%+v, %v, want kind %d", changes, err, want)
	}
	return changes[0]
}

func rowOf(t *testing.T, l *stream, shard string) row {
	t.Helper()
	all, _, err := l.rows.load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return all[shard]
}

// A shard that was read to its end, and goes to another member before all of that was given out, is
// not done: the other one reads on.
func TestAShardThatMovesIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		for range 3 {
			f.put("a", "x")
		}
		f.roll(0)
		db, streams := clients(&wire{f: f})
		l, err := join(t.Context(), options(newBook()), db, streams)
		if err != nil {
			t.Fatal(err)
		}
		id := polled(t, l, 10, logsource.Assigned).Partition
		first := polled(t, l, 1, logsource.Records).Records[0].Position
		pause.For(t.Context(), time.Second)
		synctest.Wait() // its reader has read all of it
		if err := l.rows.ask(t.Context(), rowOf(t, l, id), "another"); err != nil {
			t.Fatal(err)
		}
		pause.For(t.Context(), l.o.Lease)
		polled(t, l, 10, logsource.Revoked)
		marks := []logsource.Mark{{Partition: id, Position: first}}
		if err := l.Commit(t.Context(), marks)[0]; err != nil {
			t.Fatal(err)
		}
		l.Release(id)
		pause.For(t.Context(), l.o.Lease/2)
		synctest.Wait()
		if r := rowOf(t, l, id); r.done || r.position != first || r.owner != "another" {
			t.Errorf("done %v, position %s, owner %s: two changes are not settled", r.done,
				r.position, r.owner)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What the source says of a stay here that is over means nothing for the next one, of which it does
// not know yet; and a lease whose source is answered that it is lost is not kept.
func TestAnOldStayIsNotTheNewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		f.put("a", "2")
		db, streams := clients(&wire{f: f})
		l, err := join(t.Context(), options(newBook()), db, streams)
		if err != nil {
			t.Fatal(err)
		}
		pause.For(t.Context(), time.Second)
		synctest.Wait() // the lease is taken, and Poll has not told it
		id := f.shards[0].id
		old := logsource.Mark{Partition: id, Position: "0211"}
		if err := l.Commit(t.Context(), []logsource.Mark{old})[0]; !errors.Is(err, logsource.ErrFenced) {
			t.Errorf("the mark of an old stay: %v", err)
		}
		l.Release(id)
		polled(t, l, 10, logsource.Assigned)
		rs := polled(t, l, 10, logsource.Records).Records
		for i, fenced := range []bool{false, true} {
			err := l.Commit(t.Context(), []logsource.Mark{{Partition: id, Position: rs[1-i].Position}})[0]
			if errors.Is(err, logsource.ErrFenced) != fenced {
				t.Errorf("commit %d: %v", i, err)
			}
		}
		polled(t, l, 10, logsource.Lost)
		polled(t, l, 10, logsource.Assigned) // it comes anew
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Two members that were given one name are two: only one of them gets a lease.
func TestTwoMembersOfOneName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		o := options(newBook())
		o.Log.Consumer = "worker"
		var ls []*stream
		for range 2 {
			db, streams := clients(&wire{f: f})
			l, err := join(t.Context(), o, db, streams)
			if err != nil {
				t.Fatal(err)
			}
			l.stop()
			ls = append(ls, l)
		}
		seen := rowOf(t, ls[0], f.shards[0].id)
		got := 0
		for _, l := range ls {
			_, err := l.rows.acquire(t.Context(), seen, l.me, time.Minute)
			if err == nil {
				got++
			} else if passed(err) != nil {
				t.Fatal(err)
			}
		}
		if got != 1 {
			t.Errorf("%d members have the lease", got)
		}
	})
}

// What a group has begun with at the oldest, and was trimmed before anything of the shard was
// settled, is named.
func TestTrimmedBeforeTheFirstSettlement(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "gone")
		left := f.put("b", "left")
		j := open(t, f, nil)
		if _, err := j.Receive(t.Context(), 1); err != nil {
			t.Fatal(err)
		}
		j.close(t)
		f.trim(1, 0)
		j = open(t, f, nil)
		var loss *TrimmedError
		want := TrimmedError{Table: "orders", Shard: f.shards[0].id,
			Before: digits(f.shards[0].records[0].sequence)}
		if err := j.fails(t); !errors.As(err, &loss) || *loss != want {
			t.Errorf("%v, want %v", err, &want)
		}
		j.close(t)
		j = open(t, f, func(o *SourceOptions) { o.OnTrimmed = TrimmedSkip })
		defer j.close(t)
		if got := j.get(t, 1)[0]; got != left {
			t.Errorf("got %s, want %s", got, left)
		}
	})
}

// A server that does not take a child's first sequence number, since no change has it, gives the
// child from its oldest change on, and that is told.
func TestAFirstNumberThatIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.noFirst = true
		want := []string{f.put("a", "1")}
		f.roll(0)
		want = append(want, f.put("a", "2"), f.put("a", "3"))
		f.roll(0)
		want = append(want, f.put("a", "4"))
		j := open(t, f, nil)
		defer j.close(t)
		if got := j.get(t, 4); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
		told := j.has("start-unchecked")
		if len(told) != 2 || told[0].ID != f.shards[1].id || told[1].ID != f.shards[2].id ||
			!isInvalid(told[0].Err) {
			t.Errorf("told %v", told)
		}
	})
}

// A disabled stream has not ended for a group that has a shard which is not listed any more.
func TestADisabledStreamWithALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		j := open(t, f, nil)
		j.get(t, 1)
		j.close(t)
		f.put("a", "gone")
		f.mu.Lock()
		f.status, f.shards = "DISABLED", nil
		f.mu.Unlock()
		j = open(t, f, nil)
		defer j.close(t)
		var loss *TrimmedError
		if err := j.fails(t); !errors.As(err, &loss) {
			t.Errorf("%v, want a loss", err)
		}
	})
}

// A list of shards that lacks one for a moment is no gap.
func TestAListThatIsBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		j := open(t, f, func(o *SourceOptions) { o.OnTrimmed = TrimmedSkip })
		defer j.close(t)
		j.get(t, 1)
		pause.For(t.Context(), time.Second)
		f.mu.Lock()
		f.hidden = 1 // what rolls now is not listed, its child is
		f.mu.Unlock()
		want := []string{}
		f.roll(0)
		want = append(want, f.put("a", "2"))
		f.roll(0)
		want = append(want, f.put("a", "3"))
		if got := j.get(t, 2); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
		if told := j.has("trimmed"); len(told) > 0 {
			t.Errorf("told %v", told)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.hidden != 0 {
			t.Error("no list was behind: the test shows nothing")
		}
	})
}

// A shard that is not found is gone only where a list says so that was made after that: this
// member's own list may be older than the shard.
func TestAShardThatIsNotFoundYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		first := open(t, f, nil)
		first.get(t, 1)
		second := open(t, f, func(o *SourceOptions) {
			o.List, o.OnTrimmed = time.Hour, TrimmedSkip
		})
		defer second.close(t)
		pause.For(t.Context(), time.Second)
		f.roll(0)
		pause.For(t.Context(), time.Minute) // the first one has found the child
		id := f.put("a", "2")
		f.mu.Lock()
		left := 1
		f.fault = func(operation string) faultKind {
			if operation != "GetShardIterator" || left == 0 {
				return works
			}
			left--
			return misses
		}
		f.mu.Unlock()
		first.close(t)
		if got := second.get(t, 1)[0]; got != id {
			t.Errorf("got %s, want %s", got, id)
		}
		if told := second.has("trimmed"); len(told) > 0 {
			t.Errorf("told %v", told)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if left > 0 {
			t.Error("nothing was missed: the test shows nothing")
		}
	})
}

// A server that gives no iterator has not said that the shard is over.
func TestNoIteratorIsNoEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		id := f.put("a", "1")
		f.noIterator = 2
		j := open(t, f, nil)
		defer j.close(t)
		if got := j.get(t, 1)[0]; got != id {
			t.Errorf("got %s, want %s", got, id)
		}
	})
}

// The lag is the age of the oldest change that this member has and that is not settled.
func TestLag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		o := options(newBook())
		db, streams := clients(&wire{f: f})
		s, err := openWith(t.Context(), o, db, streams)
		if err != nil {
			t.Fatal(err)
		}
		lag := func() time.Duration {
			t.Helper()
			records, oldest, err := s.Lag(t.Context())
			if err != nil || records != -1 || oldest.IsZero() {
				t.Fatalf("lag %d, %v, %v", records, oldest, err)
			}
			return time.Since(oldest).Round(time.Second)
		}
		// Its reader may have found already that there is nothing.
		if _, oldest, err := s.Lag(t.Context()); err != nil ||
			!oldest.IsZero() && !oldest.Equal(time.Now()) {
			t.Errorf("a lag of %v, %v before anything was read", oldest, err)
		}
		pause.For(t.Context(), time.Minute)
		if got := lag(); got > 2*time.Second {
			t.Errorf("a lag of %s with nothing to do", got)
		}
		f.put("a", "1")
		pause.For(t.Context(), 10*time.Second)
		f.put("b", "2")
		pause.For(t.Context(), 10*time.Second)
		if got := lag(); got != 20*time.Second {
			t.Errorf("a lag of %s, want 20 s", got)
		}
		for _, want := range []time.Duration{10 * time.Second, 0} {
			ds, err := s.Receive(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			s.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token}})
			if got := lag(); got != want {
				t.Errorf("a lag of %s, want %s", got, want)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What was settled out of order by an earlier owner, and is read again at a shard's end, does not
// keep its children back.
func TestAnEndThatWasSettledBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		first := f.put("a", "1")
		f.put("b", "2")
		f.put("c", "3")
		f.roll(0)
		child := f.put("a", "4")
		j := open(t, f, nil)
		var ds []*ackwise.Delivery
		for len(ds) < 3 {
			more, err := j.Receive(t.Context(), 3)
			if err != nil {
				t.Fatal(err)
			}
			ds = append(ds, more...)
		}
		for _, d := range ds[1:] {
			res := j.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}})
			if res[0].Err != nil {
				t.Fatal(res[0].Err)
			}
		}
		j.close(t)
		j = open(t, f, func(o *SourceOptions) { o.ReadRecords = 1 })
		defer j.close(t)
		if got := j.get(t, 2); got[0] != first || got[1] != child {
			t.Errorf("got %q", got)
		}
	})
}
