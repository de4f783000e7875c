package logsource

import (
	"math/rand/v2"
	"reflect"
	"strconv"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// TestAWindowIsWhatItSpells: a note that is made of the window at once says what one does that is
// made of entries and spans, and both say what happened.
func TestAWindowIsWhatItSpells(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	dense := 0
	for round := range 60 {
		p := randomPartition(t, rnd, round%2 == 0)
		now := time.Time{}.Add(time.Hour)
		n := p.snapshot(p.inFlight, false, now)
		data, _ := n.encode(64 << 10)
		spelled := p.snapshot(p.inFlight, false, now)
		spelled.spell()
		names := len(spelled.entries)
		if data[2]&flagDense != 0 {
			dense++
		}
		got, err := decodeNote(data)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got.entries, spelled.entries) ||
			!reflect.DeepEqual(joined(p, got.spans), joined(p, spelled.spans)) {
			t.Fatalf("round %d:\n%+v\n%+v\nwant\n%+v\n%+v", round, got.entries, got.spans,
				spelled.entries, spelled.spans)
		}
		open := 0
		for m := range p.tracker.all {
			if m.noted() {
				open++
			}
		}
		if names != open {
			t.Fatalf("round %d: %d are named of %d", round, names, open)
		}
	}
	if dense == 0 || dense == 60 {
		t.Errorf("%d notes of 60 are dense", dense)
	}
}

// joined lists what is settled, one by one: gaps in the numbers cut spans in two, or do not.
func joined(p *partition, spans []span) (settled []ackwise.Position) {
	for i := range p.tracker.slots {
		for _, s := range spans {
			if pos := p.tracker.slots[i].pos; s.first <= pos && pos <= s.last {
				settled = append(settled, pos)
			}
		}
	}
	return settled
}

// randomPartition is one in which much has happened to some 20 or 200 messages.
func randomPartition(t *testing.T, rnd *rand.Rand, gaps bool) *partition {
	o := Options{Owner: 1, NoteBytes: 64 << 10}
	c := newMember(o.withDefaults())
	size, at := 20+180*rnd.IntN(2), 1_000_000
	var recs []Record
	for range size {
		at++
		if gaps {
			at += rnd.IntN(3)
		}
		recs = append(recs, Record{Position: pos(at),
			Message: ackwise.Message{Key: strconv.Itoa(rnd.IntN(size))}})
	}
	for _, ch := range []Change{{Kind: Assigned, Partition: "a"}, {Partition: "a", Records: recs}} {
		if err := c.apply(&ch, time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Time{}
	var out []claim
	for range 5 {
		out = append(out, c.take(size/4, now)...)
		var kept []claim
		for _, cl := range out {
			s := ackwise.Settlement{Token: cl.m.handed.delivery.Token, Delay: time.Minute}
			switch rnd.IntN(12) {
			case 0:
				s.Outcome = ackwise.OutcomeNack
			case 1:
				s.Outcome = ackwise.OutcomeRelease
			case 2:
				c.takeBack([]claim{cl}, now)
				continue
			case 3, 4, 5, 6:
				s.Outcome = ackwise.OutcomeAck
			default:
				kept = append(kept, cl)
				continue
			}
			if res, _ := c.settle(&s, now); res.Err != nil {
				kept = append(kept, cl) // it is behind another of its run
			}
		}
		out, now = kept, now.Add(20*time.Second)
	}
	return c.parts[0]
}
