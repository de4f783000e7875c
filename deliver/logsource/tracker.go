package logsource

import "github.com/ackwise/ackwise"

// tracker turns settlements in any order into the highest position below which all is settled. It
// is pure: no I/O, no clock. Positions are added as they are read, and get an ordinal each.
//
//	low      first                       first+len(slots)
//	 │         │                           │
//	 ▼         ▼                           ▼
//	 all settled │ open settled open open …   next to be added
type tracker struct {
	low   ackwise.Position // everything at or below is settled
	first uint64           // ordinal of slots[0]
	slots []slot           // the first of them is open
	room  []slot           // the memory that they stand in
	top   uint64           // from this ordinal on nothing was touched: a note need not look there
}

type slot struct {
	pos   ackwise.Position
	state slotState
	m     *msg // while it is open
}

// slotState is what a note has to tell of a slot.
type slotState uint8

const (
	slotFresh   slotState = iota // nothing
	slotOut                      // that it is in flight, handed out once and for the first time
	slotNoted                    // what its message says
	slotSettled                  // that
)

// add appends a position, which must be above all before, and returns its ordinal.
func (t *tracker) add(pos ackwise.Position, done bool) uint64 {
	t.makeRoom()
	ord := t.first + uint64(len(t.slots))
	t.slots = append(t.slots, slot{pos: pos})
	if done {
		t.slots[len(t.slots)-1].state = slotSettled
		t.touch(ord)
	}
	t.advance()
	return ord
}

// makeRoom lets one more slot be appended. Slots move to the front of their memory where they fill
// no more than half of it, so that a window of one length needs no new memory.
func (t *tracker) makeRoom() {
	if len(t.slots) < cap(t.slots) {
		return
	}
	if 2*len(t.slots) >= len(t.room) {
		t.room = make([]slot, max(64, 3*len(t.slots)))
	}
	n := copy(t.room, t.slots)
	clear(t.room[n:])
	t.slots = t.room[:n]
}

// put notes the message of an ordinal, and what a note has to tell of it.
func (t *tracker) put(m *msg) {
	s := &t.slots[m.ord-t.first]
	s.m, s.state = m, slotFresh
	switch {
	case m.state == held && m.plain():
		s.state = slotOut
	case m.noted():
		s.state = slotNoted
	}
}

// at returns the message of an ordinal, nil = none that is open.
func (t *tracker) at(ord uint64) *msg {
	if ord < t.first || ord-t.first >= uint64(len(t.slots)) {
		return nil
	}
	return t.slots[ord-t.first].m
}

// all calls yield with the messages that are open, in order.
func (t *tracker) all(yield func(m *msg) bool) {
	for i := range t.slots {
		if m := t.slots[i].m; m != nil && !yield(m) {
			return
		}
	}
}

// settle marks an ordinal and reports whether it was open: a second settle changes nothing.
func (t *tracker) settle(ord uint64) bool {
	if ord < t.first || ord >= t.first+uint64(len(t.slots)) {
		return false
	}
	s := &t.slots[ord-t.first]
	if s.state == slotSettled {
		return false
	}
	s.state, s.m = slotSettled, nil
	t.touch(ord)
	t.advance()
	return true
}

// touch says that a note has something to tell of an ordinal.
func (t *tracker) touch(ord uint64) { t.top = max(t.top, ord+1) }

// touched returns the slots that a note has to look at.
func (t *tracker) touched() []slot {
	return t.slots[:max(t.top, t.first)-t.first]
}

func (t *tracker) advance() {
	n := 0
	for n < len(t.slots) && t.slots[n].state == slotSettled {
		t.low = t.slots[n].pos
		t.slots[n] = slot{} // lets the position go
		n++
	}
	t.slots = t.slots[n:]
	t.first += uint64(n)
}

// spansOf returns the runs that are settled.
func spansOf(slots []slot) (spans []span) {
	run := false
	for i := range slots {
		s := &slots[i]
		switch {
		case s.state != slotSettled:
			run = false
		case run:
			spans[len(spans)-1].last = s.pos
		default:
			spans = append(spans, span{first: s.pos, last: s.pos})
			run = true
		}
	}
	return spans
}
