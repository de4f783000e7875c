package logsource_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

func msg(id, key string) ackwise.Message {
	return ackwise.Message{ID: id, Topic: "orders", Key: key, Body: []byte(id)}
}

func msgs(n int, key string) []ackwise.Message {
	var out []ackwise.Message
	for i := range n {
		out = append(out, msg(fmt.Sprint("m", i), key))
	}
	return out
}

// open makes a source of a new member, which gets all partitions that nobody has.
func open(t *testing.T, l *memlog.Log, name string, o logsource.Options) (
	*logsource.Source, *memlog.Member) {
	t.Helper()
	m := l.Join(name)
	s, err := logsource.New(m, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, m
}

func receive(t *testing.T, s *logsource.Source, most, want int) []*ackwise.Delivery {
	t.Helper()
	synctest.Wait() // whatever was appended has been read
	ds, err := s.Receive(t.Context(), most)
	if err != nil || len(ds) != want {
		t.Fatalf("received %d, %v; want %d", len(ds), err, want)
	}
	return ds
}

// nothing checks that a Receive finds nothing for a while.
func nothing(t *testing.T, s *logsource.Source, d time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	if ds, err := s.Receive(ctx, 10); len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("received %d, %v; want none", len(ds), err)
	}
}

func settle(s *logsource.Source, d *ackwise.Delivery, o ackwise.Outcome,
	delay time.Duration) ackwise.SettleResult {
	return s.Settle(context.Background(), []ackwise.Settlement{
		{Token: d.Token, Outcome: o, Delay: delay, Reason: "reason"}})[0]
}

func ack(t *testing.T, s *logsource.Source, ds ...*ackwise.Delivery) {
	t.Helper()
	for _, d := range ds {
		if r := settle(s, d, ackwise.OutcomeAck, 0); r.Err != nil || r.Already {
			t.Fatalf("ack %s: %+v", d.ID, r)
		}
	}
}

func position(l *memlog.Log) string {
	pos, _ := l.Committed(0)
	return strings.TrimLeft(string(pos), "0")
}

func TestPositionWaitsForTheOldest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(4, "")...)
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		ds := receive(t, s, 10, 4)
		ack(t, s, ds[1], ds[3])
		if got := position(l); got != "" {
			t.Errorf("position %q, want none", got)
		}
		ack(t, s, ds[0])
		if got := position(l); got != "2" {
			t.Errorf("position %q, want 2", got)
		}
		ack(t, s, ds[2])
		if got := position(l); got != "4" {
			t.Errorf("position %q, want 4", got)
		}
	})
}

func TestSettleTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(1, "")...)
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		d := receive(t, s, 1, 1)[0]
		if r := settle(s, d, ackwise.OutcomeExtend, time.Hour); r.Err != nil || !r.Deadline.IsZero() {
			t.Errorf("extend: %+v", r)
		}
		ack(t, s, d)
		if r := settle(s, d, ackwise.OutcomeAck, 0); r.Err != nil || !r.Already {
			t.Errorf("the same again: %+v", r)
		}
		if r := settle(s, d, ackwise.OutcomeNack, 0); !errors.Is(r.Err, ackwise.ErrSettled) {
			t.Errorf("another outcome: %+v", r)
		}
		for _, bad := range []ackwise.LeaseToken{"", "?", d.Token[:9], "AAAAAAAAAAEBAQE"} {
			r := s.Settle(t.Context(), []ackwise.Settlement{{Token: bad}})[0]
			if !errors.Is(r.Err, ackwise.ErrBadToken) {
				t.Errorf("token %q: %v", bad, r.Err)
			}
		}
	})
}

// TestRetryHoldsItsKeyOnly: a nacked message waits in place, and only its key waits with it.
func TestRetryHoldsItsKeyOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msg("a1", "a"), msg("a2", "a"), msg("b1", "b"))
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		ds := receive(t, s, 10, 3)
		if ds[0].ID != "a1" || ds[1].ID != "a2" || ds[2].ID != "b1" {
			t.Fatalf("got %s, %s, %s", ds[0].ID, ds[1].ID, ds[2].ID)
		}
		if r := settle(s, ds[1], ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrRunOrder) {
			t.Errorf("acked before the first of its run: %+v", r)
		}
		settle(s, ds[0], ackwise.OutcomeNack, time.Minute)
		settle(s, ds[1], ackwise.OutcomeRelease, 0)
		ack(t, s, ds[2])
		start := time.Now()
		nothing(t, s, 59*time.Second)
		d := receive(t, s, 10, 1)[0]
		if d.ID != "a1" || time.Since(start) != time.Minute {
			t.Errorf("got %s after %s", d.ID, time.Since(start))
		}
		if d.Cause != ackwise.CauseFailed || d.Attempt != 2 || d.Counts.Failures != 1 ||
			len(d.History) != 1 || d.History[0].Error != "reason" {
			t.Errorf("got %+v", d)
		}
		ack(t, s, d)
		ack(t, s, receive(t, s, 10, 1)[0])
		if got := position(l); got != "3" {
			t.Errorf("position %q, want 3", got)
		}
	})
}

// TestRevocation drains: what runs may end and is written, then the partition goes, and the next
// owner knows what was in flight.
func TestRevocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(5, "")...)
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		b, mb := open(t, l, "b", logsource.Options{})
		ds := receive(t, a, 4, 4)
		if settle(a, ds[0], ackwise.OutcomeNack, time.Hour); ds[0].Cause != ackwise.CauseFirst {
			t.Errorf("cause %s", ds[0].Cause)
		}
		l.Move(0, mb, time.Now().Add(10*time.Second))
		synctest.Wait()
		<-ds[1].Revoked()
		ack(t, a, ds[1])
		settle(a, ds[2], ackwise.OutcomeRelease, 0)
		if l.Owner(0) != ma {
			t.Fatal("the partition went while a message was in flight")
		}
		nothing(t, a, 9*time.Second) // the fifth is not handed out any more
		if l.Owner(0) != ma {
			t.Fatal("the partition went before its deadline")
		}
		got := receive(t, b, 10, 3) // ds[3] is still with a handler of a
		if l.Owner(0) != mb {
			t.Fatal("the partition did not go")
		}
		<-ds[3].Lost()
		if r := settle(a, ds[3], ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
			t.Errorf("late ack: %v", r.Err)
		}
		want := []string{"m2 rebalanced 2", "m3 rebalanced 2", "m4 first 1"}
		for i, d := range got {
			if s := fmt.Sprint(d.ID, " ", d.Cause, " ", d.Attempt); s != want[i] || d.Suspect {
				t.Errorf("got %s, suspect %v; want %s", s, d.Suspect, want[i])
			}
		}
		ack(t, b, got...)
		d := receive(t, b, 10, 1)[0] // the failed one, once its delay is over
		if d.ID != "m0" || d.Cause != ackwise.CauseFailed || d.Counts.Failures != 1 {
			t.Errorf("got %s %s %+v", d.ID, d.Cause, d.Counts)
		}
		ack(t, b, d)
		if got := position(l); got != "5" {
			t.Errorf("position %q, want 5", got)
		}
	})
}

func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(2, "")...)
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		b, mb := open(t, l, "b", logsource.Options{})
		ds := receive(t, a, 10, 2)
		l.Seize(0, mb)
		synctest.Wait()
		<-ds[0].Lost()
		if r := settle(a, ds[0], ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
			t.Errorf("late ack: %v", r.Err)
		}
		for range 2 { // suspects, one by one
			d := receive(t, b, 10, 1)[0]
			if d.Cause != ackwise.CauseConsumerLost || !d.Suspect || d.Counts.Crashes != 0 {
				t.Errorf("got %s, suspect %v, %+v", d.Cause, d.Suspect, d.Counts)
			}
			ack(t, b, d)
		}
	})
}

// TestFencedWrite: a member that was not told yet that it lost a partition learns it by writing.
func TestFencedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(2, "")...)
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		d := receive(t, a, 1, 1)[0]
		ma.Kill()
		if r := settle(a, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
			t.Errorf("ack: %+v", r)
		}
		if r := settle(a, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
			t.Errorf("the same again: %+v", r)
		}
		if _, err := a.Receive(t.Context(), 1); !errors.Is(err, ackwise.ErrClosed) {
			t.Errorf("receive: %v", err)
		}
	})
}

// TestStuckMessagePausesItsPartition, and no other.
func TestStuckMessagePausesItsPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var seen []string
		l := memlog.New("orders", 2)
		s, m := open(t, l, "a", logsource.Options{PartitionMessages: 20, PollMessages: 5,
			Observe: func(e ackwise.Event) { seen = append(seen, e.Kind+" "+e.ID) }})
		l.Rebalance(0, time.Time{})
		l.Append(0, msgs(100, "")...)
		var stuck *ackwise.Delivery
		for n := 0; ; n++ {
			synctest.Wait()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			ds, err := s.Receive(ctx, 1)
			cancel()
			if err != nil {
				if n < 20 || n > 25 {
					t.Errorf("%d handed out of a window of 20 and polls of 5", n)
				}
				break
			}
			if n > 0 {
				ack(t, s, ds...)
			} else {
				stuck = ds[0]
			}
		}
		l.Append(1, msgs(100, "")...)
		for range 100 {
			ack(t, s, receive(t, s, 1, 1)...)
		}
		ack(t, s, stuck)
		for range 70 {
			ack(t, s, receive(t, s, 1, 1)...)
		}
		text := strings.Join(seen, ",")
		if !strings.Contains(text, "paused orders/0") ||
			!strings.Contains(text, "resumed orders/0") || strings.Count(text, "stuck") != 1 ||
			!strings.Contains(text, "stuck m0") {
			t.Errorf("observed %s", text)
		}
		if l.Owner(0) != m {
			t.Error("the partition moved")
		}
	})
}

// TestFullNoteHoldsBack: no more is handed out at a time than a note can name.
func TestFullNoteHoldsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full := 0
		l := memlog.New("orders", 1)
		l.Append(0, msgs(500, "")...)
		s, m := open(t, l, "a", logsource.Options{NoteBytes: 256,
			Observe: func(e ackwise.Event) {
				if e.Kind == "note-full" {
					full++
				}
			}})
		l.Move(0, m, time.Time{})
		total, most := 0, 0
		for total < 500 {
			var held []*ackwise.Delivery
			for {
				synctest.Wait()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				ds, err := s.Receive(ctx, 100)
				cancel()
				if err != nil {
					break
				}
				held = append(held, ds...)
			}
			most = max(most, len(held))
			total += len(held)
			ack(t, s, held...)
		}
		// 60 bytes of such a note are for neighbours, four in each.
		if most < 200 || most > 300 || full == 0 {
			t.Errorf("at most %d in flight, told %d times", most, full)
		}
	})
}

func TestFailedWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(2, "")...)
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		synctest.Wait()
		l.FailCommits(1)
		if ds, err := a.Receive(t.Context(), 1); !errors.Is(err, memlog.ErrInjected) {
			t.Fatalf("received %d, %v", len(ds), err)
		}
		d := receive(t, a, 1, 1)[0]
		if d.Attempt != 1 || d.Cause != ackwise.CauseFirst {
			t.Errorf("attempt %d, %s: a hand-out that was not journalled counts", d.Attempt, d.Cause)
		}
		l.FailCommits(1)
		if r := settle(a, d, ackwise.OutcomeAck, 0); !errors.Is(r.Err, memlog.ErrInjected) {
			t.Errorf("ack: %+v", r)
		}
		if r := settle(a, d, ackwise.OutcomeAck, 0); r.Err != nil || !r.Already || position(l) != "1" {
			t.Errorf("ack again: %+v, position %s", r, position(l))
		}
	})
}

// TestFailedLastWrite is repeated while there is time, and the partition does not go before.
func TestFailedLastWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(2, "")...)
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		ack(t, a, receive(t, a, 1, 1)...)
		b, mb := open(t, l, "b", logsource.Options{})
		l.FailCommits(1)
		l.Move(0, mb, time.Now().Add(time.Minute))
		synctest.Wait()
		if l.Owner(0) != ma {
			t.Fatal("the partition went unwritten")
		}
		if d := receive(t, b, 1, 1)[0]; d.ID != "m1" || l.Owner(0) != mb {
			t.Errorf("got %s", d.ID)
		}
	})
}

func TestCancelledReceiveStrandsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(1, "")...)
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		synctest.Wait()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for range 20 {
			if ds, err := s.Receive(ctx, 1); err == nil {
				for _, d := range ds { // the write was faster
					settle(s, d, ackwise.OutcomeRelease, 0)
				}
			}
		}
		ack(t, s, receive(t, s, 1, 1)...)
	})
}

func TestLazyCommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(1, "")...)
		s, m := open(t, l, "a", logsource.Options{CommitEvery: time.Second})
		l.Move(0, m, time.Time{})
		ack(t, s, receive(t, s, 1, 1)...)
		if got := position(l); got != "" {
			t.Errorf("position %q at once", got)
		}
		nothing(t, s, time.Second+time.Millisecond)
		if got := position(l); got != "1" {
			t.Errorf("position %q after CommitEvery", got)
		}
	})
}

// TestClose gives all back: the next owner hears of no crash.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(3, "")...)
		a, ma := open(t, l, "a", logsource.Options{CommitEvery: time.Hour})
		l.Move(0, ma, time.Time{})
		ds := receive(t, a, 2, 2)
		ack(t, a, ds[1])
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		<-ds[0].Lost()
		b, mb := open(t, l, "b", logsource.Options{})
		l.Move(0, mb, time.Time{})
		got := receive(t, b, 9, 2)
		if got[0].ID != "m0" || got[0].Cause != ackwise.CauseRebalanced || got[0].Suspect ||
			got[1].ID != "m2" || got[1].Cause != ackwise.CauseFirst {
			t.Errorf("got %s %s, %s %s", got[0].ID, got[0].Cause, got[1].ID, got[1].Cause)
		}
	})
}

// TestCloseWritesAgain: what is refused while the group moves on is written all the same.
func TestCloseWritesAgain(t *testing.T) {
	for name, c := range map[string]struct {
		refusals int
		want     ackwise.Cause
	}{
		"refused for a while": {3, ackwise.CauseRebalanced},
		"refused for good":    {1000, ackwise.CauseConsumerLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := memlog.New("orders", 1)
				l.Append(0, msgs(2, "")...)
				a, ma := open(t, l, "a", logsource.Options{})
				l.Move(0, ma, time.Time{})
				d := receive(t, a, 1, 1)[0]
				l.FailCommits(c.refusals)
				start, good := time.Now(), c.want == ackwise.CauseRebalanced
				err := a.Close()
				if good != (err == nil) || !good && !errors.Is(err, memlog.ErrInjected) {
					t.Errorf("close: %v", err)
				}
				if took := time.Since(start); took > 10*time.Second {
					t.Errorf("it took %v", took)
				}
				<-d.Lost()
				l.FailCommits(-1000)
				b, mb := open(t, l, "b", logsource.Options{})
				l.Move(0, mb, time.Time{})
				if got := receive(t, b, 1, 1)[0]; got.Cause != c.want {
					t.Errorf("%s, want %s", got.Cause, c.want)
				}
			})
		})
	}
}

// TestForeignPosition: what nobody of us has journalled is unknown up to the partition's end at the
// assignment, and what an operator moved back is replayed.
func TestForeignPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		all := l.Append(0, msgs(4, "")...)
		l.SetCommitted(0, "000000000001", []byte("somebody else's"))
		a, ma := open(t, l, "a", logsource.Options{})
		l.Move(0, ma, time.Time{})
		ds := receive(t, a, 9, 3)
		l.Append(0, msg("new", ""))
		ds = append(ds, receive(t, a, 9, 1)...)
		for i, d := range ds {
			want := ackwise.CauseUnknown
			if d.Position > all {
				want = ackwise.CauseFirst
			}
			if d.Cause != want {
				t.Errorf("%d: cause %s, want %s", i, d.Cause, want)
			}
		}
		ack(t, a, ds...)
		a.Close()
		_, note := l.Committed(0)
		l.SetCommitted(0, "000000000003", note)
		b, mb := open(t, l, "b", logsource.Options{})
		l.Move(0, mb, time.Time{})
		for _, d := range receive(t, b, 9, 2) {
			if d.Cause != ackwise.CauseReplayed {
				t.Errorf("%s: cause %s", d.ID, d.Cause)
			}
		}
	})
}

// ended is a log that says io.EOF where others wait.
type ended struct{ *memlog.Member }

func (e ended) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	changes, err := e.Member.Poll(short, most)
	if errors.Is(err, context.DeadlineExceeded) {
		err = io.EOF
	}
	return changes, err
}

// TestEnd: a log that has ended is told only once all that was read is settled.
func TestEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(1, "")...)
		m := l.Join("a")
		l.Move(0, m, time.Time{})
		s, err := logsource.New(ended{m}, logsource.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		d := receive(t, s, 1, 1)[0]
		nothing(t, s, 5*time.Second)
		settle(s, d, ackwise.OutcomeNack, time.Minute)
		ack(t, s, receive(t, s, 1, 1)...)
		if _, err := s.Receive(t.Context(), 1); !errors.Is(err, io.EOF) {
			t.Errorf("got %v", err)
		}
	})
}

func TestNewRefuses(t *testing.T) {
	_, err := logsource.New(nil, logsource.Options{NoteBytes: 1, MaxDelay: -1, CommitEvery: -1})
	for _, field := range []string{"NoteBytes", "MaxDelay", "CommitEvery"} {
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%v: want %s", err, field)
		}
	}
}
