package logsource

import (
	"errors"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// TestARunIsAckedFromItsFirst: a transaction may ack a run or its beginning, in any order of
// tokens, and nothing behind what stays open.
func TestARunIsAckedFromItsFirst(t *testing.T) {
	c := newMember(Options{Owner: 1}.withDefaults())
	var recs []Record
	for i := range 4 {
		recs = append(recs, Record{Position: pos(i + 1), Message: ackwise.Message{Key: "k"}})
	}
	for _, ch := range []Change{{Kind: Assigned, Partition: "a"}, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	var ts []ackwise.LeaseToken
	for _, cl := range c.take(3, time.Time{}) {
		ts = append(ts, cl.m.handed.token.encode(&c.parts[0].texts))
	}
	for _, bad := range [][]ackwise.LeaseToken{{ts[1]}, {ts[2], ts[0]}, {ts[1], ts[2]}} {
		if _, err := c.held(bad); !errors.Is(err, ackwise.ErrRunOrder) {
			t.Errorf("%v: %v", bad, err)
		}
	}
	for _, good := range [][]ackwise.LeaseToken{{ts[0]}, {ts[1], ts[0]}, {ts[2], ts[0], ts[1]}} {
		if acks, err := c.held(good); err != nil || acks[0].m.pos != pos(1) {
			t.Errorf("%v: %v", good, err)
		}
	}
}

// TestNoSpanIsCutOfATransaction: holes that the note cannot name are ErrNoteFull, and nothing is
// acked.
func TestNoSpanIsCutOfATransaction(t *testing.T) {
	c := newMember(Options{Owner: 1, NoteBytes: MinNoteBytes}.withDefaults())
	var recs []Record
	for i := range 300 { // no neighbours
		recs = append(recs, Record{Position: pos(1_000_000 + 1000*i)})
	}
	empty, _ := (&note{base: pos(999_999), owner: 7, clean: true}).encode(256)
	for _, ch := range []Change{{Kind: Assigned, Partition: "a", Position: pos(999_999), Note: empty},
		{Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	// Single settlements leave holes, which take no room of what may be handed out.
	var last []claim
	for claims := c.take(4, time.Time{}); len(claims) > 0; claims = c.take(4, time.Time{}) {
		for i, cl := range claims[:len(claims)-1] {
			if len(last) > 0 && i%2 == 0 || i%2 == 1 {
				c.settle(&ackwise.Settlement{Token: cl.m.handed.delivery.Token}, time.Time{})
			}
		}
		last = append(last, claims[len(claims)-1])
		flush(c, map[string][]byte{})
	}
	acks, err := c.held([]ackwise.LeaseToken{last[len(last)-2].m.handed.delivery.Token})
	if err != nil {
		t.Fatal(err)
	}
	low := c.parts[0].tracker.low
	_, _, err = c.intend(acks, time.Time{})
	if !errors.Is(err, ErrNoteFull) || c.parts[0].tracker.low != low {
		t.Errorf("%d are open between holes: %v", len(last), err)
	}
}
