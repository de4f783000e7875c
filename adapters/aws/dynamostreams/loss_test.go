package dynamostreams

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/pause"
)

// joined is a source on a fake, and what it has observed.
type joined struct {
	*logsource.Source
	stream *stream

	mu     sync.Mutex // guards events
	events []ackwise.Event
}

func (j *joined) has(kind string) (found []ackwise.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, e := range j.events {
		if e.Kind == kind {
			found = append(found, e)
		}
	}
	return found
}

func open(t *testing.T, f *fake, with func(*SourceOptions)) *joined {
	t.Helper()
	j := &joined{}
	o := options(newBook())
	o.Observe = func(e ackwise.Event) {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.events = append(j.events, e)
	}
	o.Log.Observe = o.Observe
	if with != nil {
		with(&o)
	}
	db, streams := clients(&wire{f: f})
	var err error
	if j.stream, err = join(t.Context(), o, db, streams); err != nil {
		t.Fatal(err)
	}
	if j.Source, err = logsource.New(j.stream, j.stream.o.Log); err != nil {
		t.Fatal(err)
	}
	return j
}

func (j *joined) close(t *testing.T) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

// get receives and acks n messages, and returns their IDs. A Receive that fails is an error.
func (j *joined) get(t *testing.T, n int) (ids []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for len(ids) < n {
		ds, err := j.Receive(ctx, 1)
		if err != nil {
			t.Fatalf("receive after %q: %v", ids, err)
		}
		ids = append(ids, ds[0].ID)
		if res := j.Settle(ctx, []ackwise.Settlement{{Token: ds[0].Token}}); res[0].Err != nil {
			t.Fatal(res[0].Err)
		}
	}
	return ids
}

// fails waits for the error of a Receive, and returns what else was received.
func (j *joined) fails(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	ds, err := j.Receive(ctx, 1)
	if err == nil || ctx.Err() != nil {
		t.Fatalf("receive gives %v, %v; want an error", ds, err)
	}
	return err
}

// quiet sees to it that nothing comes for a while.
func (j *joined) quiet(t *testing.T, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if ds, err := j.Receive(ctx, 1); ctx.Err() == nil {
		t.Errorf("receive gives %v, %v; want nothing", ds, err)
	}
}

// trimmedFake has a shard of which a group has read two changes; the next two are gone, two are
// left, and a second shard is whole.
func trimmedFake(t *testing.T) (f *fake, left []string, loss TrimmedError) {
	t.Helper()
	f = newFake(1)
	for range 2 {
		f.put("a", "read")
	}
	j := open(t, f, nil)
	j.get(t, 2)
	j.close(t)
	after := digits(f.shards[0].records[1].sequence)
	for range 2 {
		f.put("a", "gone")
	}
	f.trim(4, 0)
	left = []string{f.put("a", "left"), f.put("a", "left")}
	return f, left, TrimmedError{Table: "orders", Shard: f.shards[0].id, After: after,
		Before: digits(f.shards[0].records[0].sequence)}
}

// Changes that are gone stop their shard with an error that names the range, again and again; the
// other shards go on. When told, the reader goes on with what is left.
func TestTrimmedIsNamed(t *testing.T) {
	t.Run("stop", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, _, want := trimmedFake(t)
			f.mu.Lock()
			f.shards[0].high = 0
			f.open("", 0, space)
			f.mu.Unlock()
			j := open(t, f, nil)
			defer j.close(t)
			var loss *TrimmedError
			for range 2 {
				err := j.fails(t)
				if !errors.As(err, &loss) || *loss != want {
					t.Fatalf("%v, want %v", err, &want)
				}
				if !strings.Contains(err.Error(), "on_trimmed=skip") {
					t.Errorf("no hint: %v", err)
				}
			}
			id := f.put("b", "of the other shard")
			if got := j.get(t, 1)[0]; got != id {
				t.Errorf("got %s, want %s", got, id)
			}
		})
	})
	t.Run("skip", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			f, left, want := trimmedFake(t)
			j := open(t, f, func(o *SourceOptions) { o.OnTrimmed = TrimmedSkip })
			defer j.close(t)
			if got := j.get(t, 2); strings.Join(got, " ") != strings.Join(left, " ") {
				t.Errorf("got %q, want %q", got, left)
			}
			told := j.has("trimmed")
			var loss *TrimmedError
			if len(told) != 1 || !errors.As(told[0].Err, &loss) || *loss != want {
				t.Errorf("told %v, want %v once", told, &want)
			}
		})
	})
}

// A whole shard that is gone is named too; so is one that came and went while nobody read.
func TestShardsThatAreGone(t *testing.T) {
	for _, skip := range []bool{false, true} {
		name := map[bool]string{false: "stop", true: "skip"}[skip]
		with := func(o *SourceOptions) {
			if skip {
				o.OnTrimmed = TrimmedSkip
			}
		}
		t.Run("unread, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { goneShard(t, with, skip) })
		})
		t.Run("unseen, "+name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { unseenShard(t, with, skip) })
		})
	}
}

func goneShard(t *testing.T, with func(*SourceOptions), skip bool) {
	f := newFake(1)
	f.put("a", "1")
	j := open(t, f, nil)
	j.get(t, 1)
	j.close(t)
	last := digits(f.shards[0].records[0].sequence)
	f.put("a", "gone")
	f.roll(0)
	id := f.put("a", "of the child")
	gone := f.shards[0].id
	f.forget(gone)
	j = open(t, f, with)
	defer j.close(t)
	want := TrimmedError{Table: "orders", Shard: gone, After: last, Gone: true}
	checkLoss(t, j, skip, want, id)
}

func unseenShard(t *testing.T, with func(*SourceOptions), skip bool) {
	f := newFake(1)
	f.put("a", "1")
	j := open(t, f, nil)
	j.get(t, 1)
	f.roll(0)
	pause.For(t.Context(), time.Minute) // the first one is done, and its child known
	j.close(t)
	f.roll(0)
	f.put("a", "gone")
	unseen := f.shards[2].id
	f.roll(0)
	id := f.put("a", "left")
	f.forget(unseen)
	j = open(t, f, with)
	defer j.close(t)
	want := TrimmedError{Table: "orders", Shard: unseen, Gone: true, Unseen: true}
	checkLoss(t, j, skip, want, id)
}

func checkLoss(t *testing.T, j *joined, skip bool, want TrimmedError, next string) {
	t.Helper()
	var loss *TrimmedError
	if !skip {
		for range 2 {
			if err := j.fails(t); !errors.As(err, &loss) || *loss != want {
				t.Fatalf("%v, want %v", err, &want)
			}
		}
		return
	}
	if got := j.get(t, 1)[0]; got != next {
		t.Errorf("got %s, want %s", got, next)
	}
	told := j.has("trimmed")
	if len(told) != 1 || !errors.As(told[0].Err, &loss) || *loss != want {
		t.Errorf("told %v, want %v once", told, &want)
	}
}

// A position at a closed shard's very end has lost nothing, though the stream calls it trimmed.
func TestNothingIsLostAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		j := open(t, f, nil)
		j.get(t, 1)
		j.close(t)
		f.roll(0)
		f.mu.Lock()
		s := f.shards[0]
		s.last = s.records[0].sequence
		s.trimmed = s.last + 1
		f.mu.Unlock()
		id := f.put("a", "2")
		j = open(t, f, nil)
		defer j.close(t)
		if got := j.get(t, 1)[0]; got != id {
			t.Errorf("got %s, want %s", got, id)
		}
	})
}

// A shard that was paused for longer than an iterator lives goes on where it was.
func TestExpiredIterators(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		j := open(t, f, func(o *SourceOptions) { o.Log.PartitionMessages = 2 })
		defer j.close(t)
		var want []string
		want = append(want, "event-"+strings.TrimLeft(digits(f.shards[0].records[0].sequence), "0"))
		for range 6 {
			pause.For(t.Context(), 2*time.Second) // read one by one, up to the window
			want = append(want, f.put("a", "x"))
		}
		pause.For(t.Context(), 20*time.Minute)
		if got := j.get(t, 7); strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %q, want %q", got, want)
		}
		if len(j.has("iterator-expired")) == 0 {
			t.Error("no iterator has expired: the test shows nothing")
		}
	})
}

// A shard that is empty for hours, and rolls over while it is, loses nothing and is asked seldom.
func TestEmptyForHours(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		j := open(t, f, nil)
		defer j.close(t)
		empty := 10 * time.Minute
		if long() {
			empty = 3 * time.Hour
		}
		j.quiet(t, empty)
		f.mu.Lock()
		calls := f.calls["GetRecords"]
		f.mu.Unlock()
		if want := int(empty / time.Second); calls > want+50 || calls < want-100 {
			t.Errorf("%d calls in %s, want one a second", calls, empty)
		}
		f.roll(0)
		j.quiet(t, 2*time.Minute)
		id := f.put("a", "1")
		if got := j.get(t, 1)[0]; got != id {
			t.Errorf("got %s, want %s", got, id)
		}
	})
}

// A new group that begins with the newest gets all that is written once it has begun, whatever
// happens to the first member and the shards before it reads, and nothing older than a minute.
func TestNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(2)
		newest := func(o *SourceOptions) { o.Start = StartNewest }
		for _, key := range []string{"a", "b", "c", "d"} {
			f.put(key, "old")
		}
		f.roll(0)
		f.put("a", "old")
		pause.For(t.Context(), 10*time.Minute)
		db, streams := clients(&wire{f: f})
		o := options(newBook())
		newest(&o)
		l, err := join(t.Context(), o, db, streams)
		if err != nil {
			t.Fatal(err)
		}
		l.stop() // it dies before it has read anything
		want := map[string]bool{}
		for _, key := range []string{"a", "b", "c", "d"} {
			want[f.put(key, "new")] = true
		}
		f.split(0)
		f.split(1)
		for _, key := range []string{"a", "b", "c", "d"} {
			want[f.put(key, "new")] = true
		}
		pause.For(t.Context(), 10*time.Minute)
		j := open(t, f, newest)
		defer j.close(t)
		for _, id := range j.get(t, len(want)) {
			if !want[id] {
				t.Errorf("%s is old, or came twice", id)
			}
			delete(want, id)
		}
		j.quiet(t, time.Minute)
	})
}

// The oldest unsettled change is told when it becomes old, before it is lost.
func TestAgeAlarm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		j := open(t, f, func(o *SourceOptions) {
			o.MaxAge, o.Idle, o.Lease = 20*time.Minute, time.Minute, time.Minute
		})
		defer j.close(t)
		ds, err := j.Receive(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		pause.For(t.Context(), 19*time.Minute)
		if told := j.has("age"); len(told) > 0 {
			t.Errorf("told early: %v", told)
		}
		pause.For(t.Context(), 3*time.Minute)
		var age *AgeError
		if told := j.has("age"); len(told) == 0 || !errors.As(told[0].Err, &age) ||
			age.Shard != f.shards[0].id {
			t.Fatalf("told %v", told)
		}
		j.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token}})
		synctest.Wait() // a look of this very moment may still be telling
		told := len(j.has("age"))
		pause.For(t.Context(), 10*time.Minute)
		if len(j.has("age")) > told {
			t.Error("told of a change that is settled")
		}
	})
}

// A write that was late, of the owner of now, does not take a later one back.
func TestALateWriteIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		j := open(t, f, nil)
		defer j.close(t)
		pause.For(t.Context(), time.Minute)
		j.stream.mu.Lock()
		h := j.stream.order[0]
		w := mark{shard: h.row.shard, me: j.stream.me, fence: h.row.fence}
		j.stream.mu.Unlock()
		write := func(n int64, sequence string) error {
			w.writes = n
			w.position, _ = positionOf(sequence)
			return j.stream.rows.write(t.Context(), w)
		}
		if err := errors.Join(write(8, "20"), write(8, "20"), write(9, "30")); err != nil {
			t.Fatal(err)
		}
		var no *refusal
		if err := write(8, "20"); !errors.As(err, &no) {
			t.Errorf("the late write: %v", err)
		} else if no.there.position != "0230" {
			t.Errorf("position %s", no.there.position)
		}
	})
}

// A stream that is disabled is read to its end, and then the source says so for good.
func TestADisabledStreamEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(2)
		id := f.put("a", "last")
		j := open(t, f, nil)
		defer j.close(t)
		f.mu.Lock()
		f.status = "DISABLED"
		for _, s := range f.shards {
			s.last = f.sequence + 1
		}
		f.mu.Unlock()
		if got := j.get(t, 1)[0]; got != id {
			t.Errorf("got %s, want %s", got, id)
		}
		err := j.fails(t)
		var final interface{ Final() bool }
		if !errors.As(err, &final) || !final.Final() || !strings.Contains(err.Error(), f.arn) {
			t.Errorf("%v", err)
		}
	})
}

// A reader that waits for its shard to be known begins once it is, though nothing else happens.
func TestAReaderBeginsOnceItsShardIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1)
		f.put("a", "1")
		db, streams := clients(&wire{f: f})
		l, err := join(t.Context(), options(newBook()), db, streams)
		if err != nil {
			t.Fatal(err)
		}
		pause.For(t.Context(), time.Second)
		synctest.Wait() // it waits
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, want := range []logsource.ChangeKind{logsource.Assigned, logsource.Records} {
			changes, err := l.Poll(ctx, 10)
			if err != nil || len(changes) != 1 || changes[0].Kind != want {
				t.Fatalf("%+v, %v, want kind %d", changes, err, want)
			}
			synctest.Wait()
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
}
