package logsource

import (
	"slices"

	"github.com/ackwise/ackwise"
)

// inheritance is what a partition's last owner left, as far as it was not read again yet.
type inheritance struct {
	entries []entry // by position
	spans   []span  // by position
	blind   ackwise.Position
	open    bool // blind has no end
	// replayed: up to here the messages had been settled, and somebody moved the position back.
	replayed ackwise.Position
}

// inherit reads what an assignment brought. Crashes are charged here, once: the result holds
// nothing that is in flight.
func inherit(c *Change, self uint64) (inheritance, error) {
	if len(c.Note) == 0 && c.Position == "" {
		return inheritance{}, nil // nobody was here before
	}
	n, err := decodeNote(c.Note)
	if err != nil {
		// Whoever wrote this may have handed out all there was, and settled what is above the
		// position: it all comes again.
		h := inheritance{blind: c.End, open: c.End == ""}
		if len(c.Note) == 0 {
			err = nil
		}
		return h, err
	}
	h := inheritance{entries: n.entries, spans: n.spans, blind: n.blind, open: n.open}
	if n.open && c.End != "" {
		h.blind, h.open = max(h.blind, c.End), false
	}
	if c.Partial {
		h.blind, h.open = max(h.blind, c.End), h.open || c.End == ""
	}
	for i := range h.entries {
		h.entries[i].takeOver(n, self)
		h.entries[i].wait = max(0, h.entries[i].wait-c.NoteAge)
	}
	if n.base > c.Position {
		h.replayed = n.base
		if k := len(n.spans); k > 0 {
			h.replayed = max(h.replayed, n.spans[k-1].last)
		}
		h.blind = max(h.blind, h.replayed)
		h.spans = nil
	}
	h.forget(c.Position)
	return h, nil
}

// takeOver decides what an entry of the note n means for its next owner.
func (e *entry) takeOver(n *note, self uint64) {
	switch {
	case n.ceiling && !n.clean:
		e.out, e.cause = false, ackwise.CauseUnknown
	case !e.out:
	case n.clean || n.owner == self:
		// The partition moved while the message was in flight, and its consumer lives.
		e.out, e.cause = false, ackwise.CauseRebalanced
	default:
		e.out, e.cause, e.suspect = false, ackwise.CauseConsumerLost, true
		if n.sole {
			e.counts.Crashes++
		}
	}
}

// forget drops what is at or below a position.
func (h *inheritance) forget(pos ackwise.Position) {
	i := 0
	for i < len(h.entries) && h.entries[i].pos <= pos {
		i++
	}
	h.entries = h.entries[i:]
	i = 0
	for i < len(h.spans) && h.spans[i].last <= pos {
		i++
	}
	h.spans = h.spans[i:]
	if h.blind <= pos {
		h.blind = ""
	}
	if h.replayed <= pos {
		h.replayed = ""
	}
}

// find tells what is known of the message at pos: settled, or what its first hand-out here is.
// Positions are asked for in order.
func (h *inheritance) find(pos ackwise.Position) (e entry, settled bool) {
	i, found := slices.BinarySearchFunc(h.entries, pos,
		func(e entry, pos ackwise.Position) int {
			return compare(e.pos, pos)
		})
	if found {
		return h.entries[i], false
	}
	for _, s := range h.spans {
		if s.first <= pos && pos <= s.last {
			return entry{}, true
		}
		if s.first > pos {
			break
		}
	}
	switch {
	case pos <= h.replayed:
		return entry{pos: pos, cause: ackwise.CauseReplayed}, false
	case pos <= h.blind || h.open:
		return entry{pos: pos, cause: ackwise.CauseUnknown}, false
	}
	return entry{pos: pos, cause: ackwise.CauseFirst}, false
}

func compare(a, b ackwise.Position) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
