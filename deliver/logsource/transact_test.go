package logsource_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

func tokens(ds ...*ackwise.Delivery) []ackwise.LeaseToken {
	var out []ackwise.LeaseToken
	for _, d := range ds {
		out = append(out, d.Token)
	}
	return out
}

// commit writes marks as the member's log does.
func commit(m *memlog.Member) func(context.Context, []logsource.Mark) error {
	return func(ctx context.Context, marks []logsource.Mark) error {
		return errors.Join(m.Commit(ctx, marks)...)
	}
}

// TestTransact acks out of order by transactions, has one fail, and lets another member take over
// from what the transactions wrote alone.
func TestTransact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(6, "")...)
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		ds := receive(t, s, 10, 6)
		boom := errors.New("boom")
		err := s.Transact(t.Context(), tokens(ds[0]),
			func(context.Context, []logsource.Mark) error { return boom })
		if !errors.Is(err, boom) || position(l) != "" {
			t.Fatalf("a failed write: %v, position %q", err, position(l))
		}
		if err := s.Transact(t.Context(), tokens(ds[2], ds[4]), commit(m)); err != nil {
			t.Fatal(err)
		}
		if err := s.Transact(t.Context(), tokens(ds[0]), commit(m)); err != nil {
			t.Fatal(err)
		}
		if got := position(l); got != "1" {
			t.Errorf("position %q, want 1", got)
		}
		if r := settle(s, ds[2], ackwise.OutcomeAck, 0); !r.Already || r.Err != nil {
			t.Errorf("acked again: %+v", r)
		}
		err = s.Transact(t.Context(), tokens(ds[1], ds[0]), commit(m))
		if !errors.Is(err, ackwise.ErrLeaseLost) || position(l) != "1" {
			t.Errorf("with one that is settled: %v, position %q", err, position(l))
		}
		m.Kill()
		s2, m2 := open(t, l, "b", logsource.Options{})
		l.Seize(0, m2)
		var left []string
		for range 3 { // suspects come one by one
			d := receive(t, s2, 10, 1)[0]
			left = append(left, d.ID)
			ack(t, s2, d)
		}
		if got := fmt.Sprint(left); got != "[m1 m3 m5]" {
			t.Errorf("the next owner gets %s", got)
		}
		nothing(t, s2, time.Second)
	})
}

// TestTransactLosesWhatIsNotKnown: after an unknown outcome this member writes nothing more.
func TestTransactLosesWhatIsNotKnown(t *testing.T) {
	for _, cause := range []error{logsource.ErrUnsettled, logsource.ErrFenced} {
		synctest.Test(t, func(t *testing.T) {
			l := memlog.New("orders", 1)
			l.Append(0, msgs(2, "")...)
			s, m := open(t, l, "a", logsource.Options{})
			l.Move(0, m, time.Time{})
			ds := receive(t, s, 10, 2)
			err := s.Transact(t.Context(), tokens(ds[0]),
				func(ctx context.Context, marks []logsource.Mark) error {
					return errors.Join(cause, commit(m)(ctx, marks))
				})
			if !errors.Is(err, cause) {
				t.Fatal(err)
			}
			<-ds[1].Lost()
			if r := settle(s, ds[1], ackwise.OutcomeNack, 0); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
				t.Errorf("settled after that: %+v", r)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			if got := position(l); got != "1" {
				t.Errorf("position %q was written over 1", got)
			}
		})
	}
}

// TestTransactNeedsRoom: what would have to be cut out of the note is not acked at all, and all is
// well once the oldest is settled.
func TestTransactNeedsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(400, "")...)
		s, m := open(t, l, "a", logsource.Options{NoteBytes: logsource.MinNoteBytes})
		l.Move(0, m, time.Time{})
		got := map[string]int{}
		var oldest *ackwise.Delivery
		full := 0
		var held []*ackwise.Delivery
		for len(got) < 400 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			ds, _ := s.Receive(ctx, 7)
			cancel()
			if oldest == nil {
				oldest, ds = ds[0], ds[1:]
			}
			held = append(held, ds...)
			n := len(held)
			for _, d := range held {
				if len(ds) > 0 && len(held)%2 == 0 && d == held[0] {
					continue // leaves holes
				}
				switch err := s.Transact(t.Context(), tokens(d), commit(m)); {
				case errors.Is(err, logsource.ErrNoteFull):
					full++
					continue
				case err != nil:
					t.Fatal(err)
				}
				got[d.ID]++
				held = without(held, d)
			}
			if len(held) == n && oldest != nil { // stuck behind the oldest
				if err := s.Transact(t.Context(), tokens(oldest), commit(m)); err != nil {
					t.Fatal(err)
				}
				got[oldest.ID]++
				oldest = nil
				if r := receive(t, s, 1, 1); true {
					oldest = r[0]
				}
			}
			if oldest != nil && len(got) == 399 {
				ack(t, s, oldest)
				got[oldest.ID]++
			}
		}
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s was acked %d times", id, n)
			}
		}
		t.Logf("%d times the note was full", full)
	})
}

func without(ds []*ackwise.Delivery, d *ackwise.Delivery) []*ackwise.Delivery {
	var out []*ackwise.Delivery
	for _, e := range ds {
		if e != d {
			out = append(out, e)
		}
	}
	return out
}
