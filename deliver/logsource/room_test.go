package logsource

import (
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// filled is a member with one partition of so many neighbours, keyless.
func filled(t *testing.T, o Options, n int, assigned Change) *member {
	t.Helper()
	c := newMember(o.withDefaults())
	var recs []Record
	for i := range n {
		recs = append(recs, Record{Position: pos(1_000_100 + i)})
	}
	assigned.Kind, assigned.Partition = Assigned, "a"
	for _, ch := range []Change{assigned, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// TestADelayedMessageKeepsItsPlaceInTheNote: what waits for its retry takes more of a dense note
// than a first hand-out. More is not handed out than the note can name, whatever became of it.
func TestADelayedMessageKeepsItsPlaceInTheNote(t *testing.T) {
	for _, journal := range []Journal{JournalHandOuts, JournalCeiling} {
		empty, _ := (&note{base: pos(1_000_099), owner: 7, clean: true}).encode(256)
		c := filled(t, Options{Owner: 1, NoteBytes: 3072, Journal: journal}, 800,
			Change{Position: pos(1_000_099), Note: empty})
		notes := map[string][]byte{}
		failed := 0
		for {
			claims := c.take(20, time.Time{})
			if len(claims) == 0 {
				break
			}
			flush(c, notes)
			for _, cl := range claims {
				c.settle(&ackwise.Settlement{Token: cl.m.handed.delivery.Token,
					Outcome: ackwise.OutcomeNack, Delay: time.Hour}, time.Time{})
				failed++
			}
			flush(c, notes)
		}
		h, err := inherit(&Change{Note: notes["a"]}, 2)
		if err != nil {
			t.Fatal(err)
		}
		named := 0
		for i := range 800 {
			if e, _ := h.find(pos(1_000_100 + i)); e.counts.Failures == 1 {
				named++
			}
		}
		if failed == 0 || named != failed {
			t.Errorf("journal %v: %d failed, and the note names %d", journal, failed, named)
		}
	}
}

// TestAnInheritedNoteHasItsPlace: what the last owner left takes room from the first take on.
func TestAnInheritedNoteHasItsPlace(t *testing.T) {
	left := &note{owner: 7, clean: true}
	for i := range 280 {
		left.entries = append(left.entries, entry{pos: pos(1_000_100 + i), cause: ackwise.CauseFailed,
			counts: ackwise.Counts{HandOuts: 200 + i, Failures: 200 + i},
			wait:   time.Duration(i) * time.Hour})
	}
	data, _ := left.encode(3072)
	c := filled(t, Options{Owner: 1, NoteBytes: 3072, MaxDelay: 1000 * time.Hour}, 8000,
		Change{Note: data})
	claims, notes := c.take(5000, time.Time{}), map[string][]byte{}
	flush(c, notes)
	h, err := inherit(&Change{Note: notes["a"]}, 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(claims) == 0 {
		t.Error("nothing was handed out")
	}
	for _, cl := range claims {
		e, _ := h.find(cl.m.pos)
		if e.cause == ackwise.CauseUnknown || e.cause == ackwise.CauseFirst {
			t.Errorf("%s was handed out, and is not named", cl.m.pos)
		}
	}
	counted := 0
	for m := range c.parts[0].tracker.all {
		if m.counts.Failures == 0 {
			continue
		}
		counted++
		if e, _ := h.find(m.pos); e.counts.Failures != m.counts.Failures {
			t.Errorf("%d failures of %s are forgotten", m.counts.Failures, m.pos)
		}
	}
	if counted == 0 {
		t.Error("nothing was inherited")
	}
}

// TestOneHandOutOfTwoSpellings: two texts of one token are one hand-out.
func TestOneHandOutOfTwoSpellings(t *testing.T) {
	c := filled(t, Options{Owner: 1}, 3, Change{})
	claims := c.take(2, time.Time{})
	text := claims[1].m.handed.delivery.Token
	other := text[:5] + "\n" + text[5:]
	if a, ok := decodeToken(other); !ok || a != claims[1].m.handed.token {
		t.Fatal("the other spelling is another token")
	}
	acks, err := c.held([]ackwise.LeaseToken{text, other})
	if err == nil {
		_, writes, err := c.intend(acks, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		c.transacted(acks, writes, nil, time.Time{})
		t.Errorf("one hand-out was acked twice: in flight %d, open %d, low %q", c.inFlight,
			c.parts[0].open, c.parts[0].tracker.low)
	}
}

// TestAStuckMessageMakesNoLongNote: one message that is open and thousands settled behind it are
// two parts, and the note of them is short.
func TestAStuckMessageMakesNoLongNote(t *testing.T) {
	o := Options{Owner: 1, NoteBytes: 3072}
	c, notes := newMember(o.withDefaults()), map[string][]byte{}
	var recs []Record
	for i := range 7000 {
		recs = append(recs, Record{Position: pos(1_000_000 + i)})
	}
	for _, ch := range []Change{{Kind: Assigned, Partition: "a"}, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	first := true
	for more := []claim{{}}; len(more) > 0; flush(c, notes) {
		more = c.take(1000, time.Time{})
		for _, cl := range more {
			if first {
				first = false
				continue
			}
			c.settle(&ackwise.Settlement{Token: cl.m.handed.delivery.Token}, time.Time{})
		}
	}
	if n := len(notes["a"]); n > 200 {
		t.Errorf("the note of one open message and one span has %d bytes", n)
	}
}
