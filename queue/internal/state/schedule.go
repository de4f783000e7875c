package state

import (
	"cmp"
	"slices"
)

// scheduled is a message that takes its place when it is due.
type scheduled struct {
	due   int64
	order uint64 // arrival, to break ties
	indexEntry
}

func (a scheduled) before(b scheduled) bool {
	if a.due != b.due {
		return a.due < b.due
	}
	return a.order < b.order
}

func compareScheduled(a, b scheduled) int {
	return cmp.Or(cmp.Compare(a.due, b.due), cmp.Compare(a.order, b.order))
}

// runLen is how many scheduled messages freeze together.
const runLen = 4096

// schedule holds the messages that are not due. The newest are in an open heap; when that is full
// it freezes into a sorted run of compact bytes. The next one due is the least of the heap's top
// and the runs' heads.
type schedule struct {
	limit int
	open  heapOf[scheduled]
	runs  heapOf[*run]
	len   int
}

// run is a sorted part of a schedule: its head, and packed behind it what comes later. The bytes
// never change; what is read is let go by copying the rest.
type run struct {
	head      scheduled
	pack      packer // as of the head
	left      int    // entries behind the head
	rest      []byte
	read      int    // bytes of rest that came before the head, or are the head
	low, high uint64 // no position is lower or higher
}

func (r *run) before(other *run) bool { return r.head.before(other.head) }

func (s *schedule) push(m scheduled) {
	if len(s.open) == s.limit {
		s.freeze()
	}
	s.open.push(m)
	s.len++
}

// top returns the message that is due next.
func (s *schedule) top() (scheduled, bool) {
	switch {
	case len(s.runs) > 0 && (len(s.open) == 0 || s.runs[0].head.before(s.open[0])):
		return s.runs[0].head, true
	case len(s.open) > 0:
		return s.open[0], true
	}
	return scheduled{}, false
}

// pop takes the message that is due next out; there must be one.
func (s *schedule) pop() scheduled {
	s.len--
	if len(s.runs) == 0 || len(s.open) > 0 && s.open[0].before(s.runs[0].head) {
		return s.open.pop()
	}
	r := s.runs[0]
	m := r.head
	if r.left == 0 {
		s.runs.pop()
		return m
	}
	r.next()
	s.runs.fix()
	return m
}

// next moves the head to the next entry. When half of the bytes are read they are let go, so that
// a message of next year does not hold the memory of thousands that are gone.
func (r *run) next() {
	d := decoder{b: r.rest[r.read:]}
	r.head = d.scheduled(r.head, &r.pack)
	r.left--
	if r.read = len(r.rest) - len(d.b); r.read > len(r.rest)/2 {
		r.rest, r.read = slices.Clone(d.b), 0
	}
}

// freeze makes a run of the open heap and of what is left of runs that are nearly read, so that
// there are never many small ones. It depends on what is in the schedule only, not on how the
// heaps lie in memory.
func (s *schedule) freeze() {
	all := slices.Clone(s.open)
	slices.SortFunc(s.runs, func(a, b *run) int { return compareScheduled(a.head, b.head) })
	kept := s.runs[:0] // sorted, and so a heap
	for _, r := range s.runs {
		if 8*r.left >= s.limit || len(all)+r.left >= 2*s.limit {
			kept = append(kept, r)
			continue
		}
		r.each(func(m *scheduled) { all = append(all, *m) })
	}
	clear(s.runs[len(kept):])
	s.runs = kept
	slices.SortFunc(all, compareScheduled)
	s.runs.push(newRun(all))
	s.open = s.open[:0]
}

func newRun(all []scheduled) *run {
	r := &run{head: all[0], left: len(all) - 1, low: all[0].pos, high: all[0].pos}
	r.pack.put(nil, &r.head.indexEntry)
	data := make([]byte, 0, 20*len(all))
	p, last := r.pack, r.head
	for i := range all[1:] {
		m := &all[1+i]
		data = putInt(putUint(data, uint64(m.due-last.due)), int64(m.order-last.order))
		data = p.put(data, &m.indexEntry)
		r.low, r.high = min(r.low, m.pos), max(r.high, m.pos)
		last = *m
	}
	r.rest = slices.Clone(data)
	return r
}

// scheduled reads an entry of a run that stands behind the last one.
func (d *decoder) scheduled(last scheduled, p *packer) scheduled {
	m := scheduled{due: last.due + int64(d.uint()), order: last.order + uint64(d.int())}
	m.indexEntry = d.unpack(p)
	return m
}

// each calls fn with the entries of the run, in order.
func (r *run) each(fn func(*scheduled)) {
	d, m, p := decoder{b: r.rest[r.read:]}, r.head, r.pack
	fn(&m)
	for range r.left {
		m = d.scheduled(m, &p)
		fn(&m)
	}
}

// each calls fn with every message that is scheduled, in no order. Runs in which skip finds
// nothing of interest are left out.
func (s *schedule) each(skip func(*run) bool, fn func(*scheduled)) {
	for _, r := range s.runs {
		if skip == nil || !skip(r) {
			r.each(fn)
		}
	}
	for i := range s.open {
		fn(&s.open[i])
	}
}

// snapshot writes the schedule down: equal ones as equal bytes.
func (s *schedule) snapshot(n *Snapshot, b []byte) []byte {
	open := slices.SortedFunc(slices.Values(s.open), compareScheduled)
	b = putUint(b, uint64(len(open)))
	for i := range open {
		b = putScheduled(b, &open[i])
	}
	runs := slices.SortedFunc(slices.Values(s.runs), func(x, y *run) int {
		return compareScheduled(x.head, y.head)
	})
	b = putUint(b, uint64(len(runs)))
	for _, r := range runs {
		b = putInt(putScheduled(b, &r.head), int64(r.pack.gap))
		rest := r.rest[r.read:]
		b = putUint(putUint(b, uint64(r.left)), uint64(len(rest)))
		b = n.stream(b, func(write func([]byte)) { write(rest) })
	}
	return b
}

func putScheduled(b []byte, m *scheduled) []byte {
	b = putUint(putInt(b, m.due), m.order)
	return putUint(putUint(putUint(putUint(b, m.pos), m.lane), m.size), m.sec)
}

func (d *decoder) oneScheduled() scheduled {
	return scheduled{due: d.int(), order: d.uint(),
		indexEntry: indexEntry{pos: d.uint(), lane: d.uint(), size: d.u32(), sec: d.u32()}}
}

// schedule reads what snapshot wrote, and calls fn with each message.
func (d *decoder) schedule(s *schedule, fn func(*scheduled)) {
	for n := d.count(); n > 0 && d.err == nil; n-- {
		m := d.oneScheduled()
		s.open = append(s.open, m) // sorted, and so a heap
		fn(&m)
	}
	for n := d.count(); n > 0 && d.err == nil; n-- {
		r := &run{head: d.oneScheduled()}
		r.pack = packer{last: r.head.indexEntry, gap: uint64(d.int())}
		r.left = d.count()
		r.rest = slices.Clone(d.bytes())
		if n := len(s.runs); !r.check() || n > 0 && !s.runs[n-1].before(r) {
			d.fail()
			return
		}
		r.low, r.high = r.head.pos, r.head.pos
		r.each(func(m *scheduled) {
			r.low, r.high = min(r.low, m.pos), max(r.high, m.pos)
			fn(m)
		})
		s.len += 1 + r.left
		s.runs = append(s.runs, r)
	}
	s.len += len(s.open)
}

// check reports whether the run's bytes are entries, as many as it says.
func (r *run) check() bool {
	d, m, p := decoder{b: r.rest}, r.head, r.pack
	for n := r.left; n > 0 && d.err == nil; n-- {
		m = d.scheduled(m, &p)
	}
	return d.done() == nil
}
