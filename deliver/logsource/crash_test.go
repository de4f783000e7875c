package logsource

import (
	"errors"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// hand gives a member two partitions with one message each.
func hand(t *testing.T, o Options) *member {
	t.Helper()
	c := newMember(o.withDefaults())
	for _, name := range []string{"a", "b"} {
		for _, ch := range []Change{{Kind: Assigned, Partition: name},
			{Partition: name, Records: []Record{{Position: "1"}}}} {
			if err := c.apply(&ch, time.Time{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return c
}

// flush writes all that has changed, and keeps the notes.
func flush(c *member, notes map[string][]byte) {
	marks, writes := c.marks(time.Time{})
	for i, m := range marks {
		notes[m.Partition] = m.Note
		c.wrote(&writes[i], nil, false, time.Time{})
	}
}

func crashes(t *testing.T, data []byte) int {
	t.Helper()
	h, err := inherit(&Change{Note: data}, 99)
	if err != nil || len(h.entries) != 1 || !h.entries[0].suspect {
		t.Fatalf("got %+v, %v", h, err)
	}
	return h.entries[0].counts.Crashes
}

// TestOnlyASoleDeliveryIsCharged, over all partitions of a member, in whatever order they came.
func TestOnlyASoleDeliveryIsCharged(t *testing.T) {
	c, notes := hand(t, Options{Owner: 1}), map[string][]byte{}
	first := c.take(1, time.Time{})
	flush(c, notes)
	if got := crashes(t, notes["a"]); len(first) != 1 || got != 1 {
		t.Errorf("alone: %d crashes charged", got)
	}
	if second := c.take(1, time.Time{}); len(second) != 1 || !c.unwritten(second) {
		t.Fatal("nothing more to hand out")
	}
	flush(c, notes)
	for name, data := range notes {
		if got := crashes(t, data); got != 0 {
			t.Errorf("%s, one of two: %d crashes charged", name, got)
		}
	}
}

// TestLostHandlersMayRunOn: while one may, what is in flight elsewhere is not the only suspect.
func TestLostHandlersMayRunOn(t *testing.T) {
	for _, settled := range []bool{false, true} {
		c, notes := hand(t, Options{Owner: 1}), map[string][]byte{}
		d := c.take(1, time.Time{})[0].m.handed
		d.given = true
		flush(c, notes)
		if err := c.apply(&Change{Kind: Lost, Partition: "a"}, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if settled {
			s := ackwise.Settlement{Token: d.delivery.Token}
			if r, _ := c.settle(&s, time.Time{}); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
				t.Errorf("late ack: %v", r.Err)
			}
		}
		c.take(1, time.Time{})
		flush(c, notes)
		if got := crashes(t, notes["b"]); got != map[bool]int{false: 0, true: 1}[settled] {
			t.Errorf("lost handler has settled: %v, crashes charged: %d", settled, got)
		}
	}
}

// TestSettledAfterTheLastNote is too late, though nobody was told yet.
func TestSettledAfterTheLastNote(t *testing.T) {
	c := hand(t, Options{Owner: 1})
	cl := c.take(1, time.Time{})[0]
	c.revoke(cl.p, time.Time{}, time.Time{})
	_, writes := c.marks(time.Time{})
	s := ackwise.Settlement{Token: cl.m.handed.delivery.Token}
	if r, _ := c.settle(&s, time.Time{}); r.Err != nil {
		t.Fatal(r.Err)
	}
	if !c.wrote(&writes[0], nil, false, time.Time{}) || !cl.p.lost {
		t.Error("the settlement counts as written")
	}
	if r, _ := c.settle(&s, time.Time{}); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
		t.Errorf("again: %+v", r)
	}
}

// TestOldToken: a token of an earlier hand-out settles nothing, also when it is not remembered.
func TestOldToken(t *testing.T) {
	c := hand(t, Options{Owner: 1, MaxRemembered: 1})
	ds := c.take(2, time.Time{})
	nack := ackwise.Settlement{Token: ds[0].m.handed.delivery.Token, Outcome: ackwise.OutcomeNack}
	ack := ackwise.Settlement{Token: ds[1].m.handed.delivery.Token}
	c.settle(&nack, time.Time{})
	c.settle(&ack, time.Time{}) // the nack is forgotten
	if again := c.take(2, time.Time{}); len(again) != 1 {
		t.Fatalf("%d handed out", len(again))
	}
	if r, _ := c.settle(&nack, time.Time{}); !errors.Is(r.Err, ackwise.ErrLeaseLost) {
		t.Errorf("old token: %+v", r)
	}
}

// TestMovedBack: what had been settled in or out of order is replayed.
func TestMovedBack(t *testing.T) {
	data, _ := (&note{base: "5", owner: 1, clean: true, spans: []span{{"7", "8"}}}).encode(4096)
	h, err := inherit(&Change{Position: "2", Note: data}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, pos := range []ackwise.Position{"3", "5", "7", "8"} {
		if e, settled := h.find(pos); settled || e.cause != ackwise.CauseReplayed {
			t.Errorf("%s: settled %v, %s", pos, settled, e.cause)
		}
	}
	if e, _ := h.find("9"); e.cause != ackwise.CauseFirst {
		t.Errorf("9: %s", e.cause)
	}
}

// TestBadRecord: a record without a position is refused; reading on would pass it.
func TestBadRecord(t *testing.T) {
	c := hand(t, Options{})
	err := c.apply(&Change{Partition: "a", Records: []Record{{Position: ""}}}, time.Time{})
	if _, ok := errors.AsType[*ackwise.InvalidError](err); !ok {
		t.Errorf("got %v", err)
	}
}

// TestFullNoteDoesNotBlockRetries: what the note names already needs no room, and goes on also when
// a message in front of it waits for room.
func TestFullNoteDoesNotBlockRetries(t *testing.T) {
	o := Options{Owner: 1, NoteBytes: 256}
	c, notes := newMember(o.withDefaults()), map[string][]byte{}
	var recs []Record
	for i := range 100 {
		r := Record{Position: pos(i + 1)}
		if i < 2 {
			r.Message.Key = "k"
		}
		recs = append(recs, r)
	}
	for _, ch := range []Change{{Kind: Assigned, Partition: "a"}, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	var held []claim
	for more := []claim{{}}; len(more) > 0; flush(c, notes) {
		more = c.take(100, time.Time{})
		held = append(held, more...)
	}
	for i, cl := range held {
		s := ackwise.Settlement{Token: cl.m.handed.delivery.Token, Outcome: ackwise.OutcomeNack}
		if i == 0 {
			s.Outcome = ackwise.OutcomeAck // the next of its key is new, and in front of all others
		}
		c.settle(&s, time.Time{})
	}
	flush(c, notes)
	for done := 1; done < 100; {
		claims := c.take(10, time.Time{})
		if len(claims) == 0 {
			t.Fatalf("stuck after %d of 100", done)
		}
		for _, cl := range claims {
			s := ackwise.Settlement{Token: cl.m.handed.delivery.Token}
			c.settle(&s, time.Time{})
			done++
		}
		flush(c, notes)
	}
}

// TestThousandsInFlight: a note of Kafka's size names all that are in flight, also those between
// which some are settled, and its next owner knows each.
func TestThousandsInFlight(t *testing.T) {
	o := Options{Owner: 1, NoteBytes: 3072}
	c, notes := newMember(o.withDefaults()), map[string][]byte{}
	var recs []Record
	for i := range 8192 {
		recs = append(recs, Record{Position: pos(1_000_000 + i)})
	}
	for _, ch := range []Change{{Kind: Assigned, Partition: "a"}, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	held := map[ackwise.Position]bool{}
	settled := map[ackwise.Position]bool{}
	for more := []claim{{}}; len(more) > 0; flush(c, notes) {
		more = c.take(1000, time.Time{})
		for i, cl := range more {
			held[cl.m.pos] = true
			if i%7 == 3 {
				settled[cl.m.pos] = true
				c.settle(&ackwise.Settlement{Token: cl.m.handed.delivery.Token}, time.Time{})
			}
		}
	}
	if len(held) < 7000 || len(held) == len(recs) {
		t.Fatalf("%d handed out", len(held))
	}
	h, err := inherit(&Change{Note: notes["a"]}, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range recs {
		e, done := h.find(r.Position)
		want := ackwise.CauseFirst
		if held[r.Position] && !settled[r.Position] {
			want = ackwise.CauseConsumerLost
		}
		suspect := want != ackwise.CauseFirst
		if done != settled[r.Position] || !done && (e.cause != want || e.suspect != suspect) {
			t.Fatalf("%s: handed out %v, settled %v: %+v, %v",
				r.Position, held[r.Position], settled[r.Position], e, done)
		}
	}
}
