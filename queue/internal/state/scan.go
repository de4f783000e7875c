package state

import (
	"cmp"
	"slices"
)

// kept is where a message that is kept stands.
type kept struct {
	Pos  uint64
	Size uint32
}

// Scan returns the kept messages behind a position, by position, at most max: those that wait in
// the topic's line, and those that a subscription has pulled from it and not finished.
func (t *Topic) Scan(after uint64, max int) []kept {
	s := scan{after: after, max: max}
	for _, q := range t.Subs {
		for _, slot := range q.bySeq {
			e := q.entry(slot)
			s.add(kept{e.pos, e.size})
		}
	}
	s.cut()
	t.index.each(0, func(c *chunk) bool { return c.high <= after || s.end != 0 && c.low > s.end },
		func(_ uint64, e *indexEntry) bool {
			s.add(kept{e.pos, e.size})
			return true
		})
	s.cut()
	return s.found
}

// scan keeps the first of many.
type scan struct {
	after uint64
	max   int
	found []kept // sorted up to its last cut
	end   uint64 // behind it nothing is wanted any more; 0 = not known yet
}

func (s *scan) add(k kept) {
	if k.Pos <= s.after || s.end != 0 && k.Pos > s.end {
		return
	}
	if s.found = append(s.found, k); len(s.found) >= 2*s.max {
		s.cut()
	}
}

func (s *scan) cut() {
	slices.SortFunc(s.found, func(a, b kept) int { return cmp.Compare(a.Pos, b.Pos) })
	s.found = slices.Compact(s.found)
	if len(s.found) >= s.max {
		s.found = s.found[:s.max]
		s.end = s.found[s.max-1].Pos
	}
}
