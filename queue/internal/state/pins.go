package state

import "slices"

// A pinRegion is a part of the log, of 1 MiB. The state counts the live messages of each, so that
// a segment in which none lives can go, and one in which few live can be compacted.
const pinRegion = 20

// pin counts the live messages that begin in a region, and the bytes of their records' payloads.
// A message counts once for the topic's line or schedule and once for each subscription that has
// pulled and not finished it.
type pin struct{ count, bytes int64 }

// pins counts by region. The regions used last are found without a look into the map.
type pins struct {
	byRegion map[uint64]*pin
	recent   [8]struct {
		region uint64
		pin    *pin
	}
}

func (p *pins) of(pos uint64) *pin {
	region := pos >> pinRegion
	r := &p.recent[region%uint64(len(p.recent))]
	if r.pin != nil && r.region == region {
		return r.pin
	}
	found := p.byRegion[region]
	if found == nil {
		found = &pin{}
		p.byRegion[region] = found
	}
	r.region, r.pin = region, found
	return found
}

func (s *State) pin(pos uint64, size uint32) {
	p := s.pins.of(pos)
	p.count++
	p.bytes += int64(size)
}

func (s *State) unpin(pos uint64, size uint32) {
	p := s.pins.of(pos)
	p.bytes -= int64(size)
	if p.count--; p.count == 0 {
		region := pos >> pinRegion
		delete(s.pins.byRegion, region)
		s.pins.recent[region%uint64(len(s.pins.recent))].pin = nil
	}
}

// Pinned reports whether a live message may begin in the positions [from, to).
func (s *State) Pinned(from, to uint64) bool {
	messages, _ := s.Live(from, to)
	return messages > 0
}

// Live returns at most how many messages live in the regions of the positions [from, to), and how
// many bytes their records' payloads hold: one that several subscriptions hold counts for each.
func (s *State) Live(from, to uint64) (messages, bytes int64) {
	if from >= to {
		return 0, 0
	}
	first, last := from>>pinRegion, (to-1)>>pinRegion
	if last-first > uint64(len(s.pins.byRegion)) { // a sparse segment spans far
		for region, p := range s.pins.byRegion {
			if region >= first && region <= last {
				messages, bytes = messages+p.count, bytes+p.bytes
			}
		}
		return messages, bytes
	}
	for region := first; region <= last; region++ {
		if p := s.pins.byRegion[region]; p != nil {
			messages, bytes = messages+p.count, bytes+p.bytes
		}
	}
	return messages, bytes
}

// LivePositions returns the positions of the messages that live in [from, to), sorted. Chunks of
// lines and runs of schedules that lie outside are not looked into.
func (s *State) LivePositions(from, to uint64) []uint64 {
	var all []uint64
	add := func(pos uint64) {
		if pos >= from && pos < to {
			all = append(all, pos)
		}
	}
	for _, t := range s.topics {
		t.schedule.each(func(r *run) bool { return r.high < from || r.low >= to },
			func(m *scheduled) { add(m.pos) })
		t.index.each(0, func(c *chunk) bool { return c.high < from || c.low >= to },
			func(_ uint64, e *indexEntry) bool { add(e.pos); return true })
		for _, q := range t.Subs {
			for _, slot := range q.bySeq {
				add(q.entry(slot).pos)
			}
		}
	}
	for _, x := range s.sets {
		x.results.each(0, func(c *chunk) bool { return c.high < from || c.low >= to },
			func(_ uint64, e *indexEntry) bool { add(e.pos); return true })
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Positions calls fn with the position of every live message, once each.
func (s *State) Positions(fn func(pos uint64) error) error {
	seen := make(map[uint64]bool)
	for _, t := range s.Topics() {
		var err error
		t.index.each(0, nil, func(_ uint64, e *indexEntry) bool {
			err = fn(e.pos)
			return err == nil
		})
		t.schedule.each(nil, func(m *scheduled) {
			if err == nil {
				err = fn(m.pos)
			}
		})
		clear(seen)
		for _, q := range t.Subs {
			for _, slot := range q.slotsBySeq() {
				e := q.entry(slot)
				if err != nil || seen[e.seq] || e.seq >= t.index.first {
					continue
				}
				seen[e.seq] = true
				err = fn(e.pos)
			}
		}
		if err != nil {
			return err
		}
	}
	for _, x := range s.Sets() {
		var err error
		x.results.each(0, nil, func(_ uint64, e *indexEntry) bool {
			err = fn(e.pos)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
