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
	top   uint64           // from this ordinal on nothing was touched: a note need not look there
}

type slot struct {
	pos     ackwise.Position
	settled bool
	m       *msg // while it is open
}

// add appends a position, which must be above all before, and returns its ordinal.
func (t *tracker) add(pos ackwise.Position, settled bool) uint64 {
	t.slots = append(t.slots, slot{pos: pos, settled: settled})
	ord := t.first + uint64(len(t.slots)) - 1
	if settled {
		t.touch(ord)
	}
	t.advance()
	return ord
}

// put notes the message of an ordinal.
func (t *tracker) put(m *msg) { t.slots[m.ord-t.first].m = m }

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
	if s.settled {
		return false
	}
	s.settled, s.m = true, nil
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
	for n < len(t.slots) && t.slots[n].settled {
		t.low = t.slots[n].pos
		t.slots[n] = slot{} // lets the position go
		n++
	}
	t.slots = t.slots[n:]
	t.first += uint64(n)
}

// spans returns the runs that are settled above low.
func (t *tracker) spans() []span {
	var out []span
	run := false
	for _, s := range t.touched() {
		switch {
		case !s.settled:
			run = false
		case run:
			out[len(out)-1].last = s.pos
		default:
			out = append(out, span{first: s.pos, last: s.pos})
			run = true
		}
	}
	return out
}

// open calls yield with the touched messages that are open, in order.
func (t *tracker) open(yield func(m *msg) bool) {
	touched := t.touched()
	for i := range touched {
		if m := touched[i].m; m != nil && !yield(m) {
			return
		}
	}
}
