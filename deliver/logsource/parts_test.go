package logsource

import (
	"reflect"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// TestTheLatestAreRemembered, in whatever order they are asked for, and no more than that.
func TestTheLatestAreRemembered(t *testing.T) {
	r := memory{most: 3}
	for i := range uint64(8) {
		r.put(token{epoch: 1, ord: i}, ackwise.OutcomeNack)
	}
	for _, i := range []uint64{7, 5, 6, 6, 0, 4, 5} {
		if _, ok := r.find(token{epoch: 1, ord: i}); ok != (i >= 5) {
			t.Errorf("the settlement %d of 8 is remembered: %v", i, ok)
		}
	}
}

// TestWhatIsSettledIsLetGo: a message that stays keeps nothing of its neighbours in memory.
func TestWhatIsSettledIsLetGo(t *testing.T) {
	c := filled(t, Options{Owner: 1}, 200, Change{})
	claims := c.take(200, time.Time{})
	for _, cl := range claims[1:] {
		c.settle(&ackwise.Settlement{Token: cl.m.handed.delivery.Token}, time.Time{})
		if !reflect.DeepEqual(cl.m, &msg{}) {
			t.Fatal("a settled message is kept")
		}
	}
	tr := &c.parts[0].tracker
	c.settle(&ackwise.Settlement{Token: claims[0].m.handed.delivery.Token}, time.Time{})
	for i := range 150 { // slots move to the front of their memory
		tr.add(pos(2_000_000+i), i > 0)
	}
	for _, s := range tr.slots[len(tr.slots):cap(tr.slots)] {
		if s != (slot{}) {
			t.Fatalf("the memory behind the window holds %s", s.pos)
		}
	}
}

// TestWhatANoteWeighs: counts and delays are measured as such, in a window and in lists.
func TestWhatANoteWeighs(t *testing.T) {
	c := filled(t, Options{Owner: 1, NoteBytes: 8192}, 300, Change{})
	for i, cl := range c.take(200, time.Time{}) {
		s := ackwise.Settlement{Token: cl.m.handed.delivery.Token}
		switch i % 4 {
		case 1:
			s.Outcome, s.Delay = ackwise.OutcomeNack, time.Hour
		case 2:
			s.Outcome, s.Reason = ackwise.OutcomeAck, ""
		default:
			continue
		}
		c.settle(&s, time.Time{})
	}
	p := c.parts[0]
	n, spelled := p.snapshot(1, false, time.Time{}), p.snapshot(1, false, time.Time{})
	spelled.spell()
	entries, loose, far := n.weigh()
	e, l, f := spelled.weigh()
	if entries != 150 || loose != 50 || entries != e || loose != l ||
		far != pos(1_000_100+199) || f > far {
		t.Errorf("window: %d %d %s; lists: %d %d %s", entries, loose, far, e, l, f)
	}
}

// TestDistance: only positions that are decimal numbers of one length have one.
func TestDistance(t *testing.T) {
	for _, c := range []struct {
		from, to ackwise.Position
		want     uint64
		ok       bool
	}{
		{"07", "07", 0, true}, {"007", "120", 113, true}, {"199", "200", 1, true},
		{"a1", "a2", 0, false}, {"0a", "0b", 0, false}, {"9", "10", 0, false}, {"2", "1", 0, false},
		{"1:7", "1:8", 0, false},
		{"0000000000000000001", "9999999999999999999", 0, false}, // more than 63 bits
		{"10000000000000000000001", "10000000000000000000003", 2, true},
	} {
		if d, ok := distance(c.from, c.to); ok != c.ok || ok && d != c.want {
			t.Errorf("from %s to %s: %d, %v", c.from, c.to, d, ok)
		}
	}
}

// TestWhatIsEstimated between two notes: how far the next one reaches, and what takes more of it.
func TestWhatIsEstimated(t *testing.T) {
	c := filled(t, Options{Owner: 1, NoteBytes: 3072}, 100, Change{})
	claims := c.take(50, time.Time{})
	p := c.parts[0]
	if p.noteFar != claims[49].m.pos {
		t.Errorf("it reaches to %q, want %s", p.noteFar, claims[49].m.pos)
	}
	for i, o := range []ackwise.Outcome{ackwise.OutcomeNack, ackwise.OutcomeSnooze,
		ackwise.OutcomeRelease} {
		token := claims[i].m.handed.delivery.Token
		c.settle(&ackwise.Settlement{Token: token, Outcome: o}, time.Time{})
		if p.loose != i+1 {
			t.Errorf("after %s: %d are not plain, want %d", o, p.loose, i+1)
		}
	}
}

// TestSlotsThatMoved leave nothing behind the window.
func TestSlotsThatMoved(t *testing.T) {
	var tr tracker
	for i := range 64 {
		tr.add(pos(i), false)
	}
	for i := range uint64(40) {
		tr.settle(i)
	}
	tr.add(pos(64), false)
	if len(tr.room) != 64 || len(tr.slots) != 25 || tr.slots[24].pos != pos(64) ||
		tr.slots[0].pos != pos(40) {
		t.Fatalf("%d slots in %d", len(tr.slots), len(tr.room))
	}
	for _, s := range tr.room[25:] {
		if s != (slot{}) {
			t.Fatalf("%s is kept", s.pos)
		}
	}
}
