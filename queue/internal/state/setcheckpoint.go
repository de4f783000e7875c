package state

import (
	"cmp"
	"maps"
	"slices"
)

func sortedSets(sets map[uint32]*Set) []*Set {
	return slices.SortedFunc(maps.Values(sets),
		func(a, b *Set) int { return cmp.Compare(a.ID, b.ID) })
}

// snapshotSets notes the dedup sets, at the state's end. A state without any has no such part, and
// is what programs that know none read and write.
func (s *State) snapshotSets(n *Snapshot, b []byte) []byte {
	if len(s.sets) == 0 {
		return b
	}
	n.Sets = true
	b = putUint(putUint(b, s.fence), uint64(len(s.sets)))
	for _, x := range s.Sets() {
		b = putJSON(putString(putUint(b, x.ID), x.Name), x.config)
		b = putInt(putString(b, x.Rule), x.last)
		b = x.results.snapshot(n, b)
		claims := maps.Clone(x.claims)
		b = n.stream(putUint(b, uint64(len(claims))), putClaims(claims))
	}
	return n.stream(b, putCompletions(slices.Clone(s.completed)))
}

func putClaims(claims map[string]claim) func(write func([]byte)) {
	return func(write func([]byte)) {
		var b []byte
		for _, key := range slices.Sorted(maps.Keys(claims)) {
			c := claims[key]
			b = putUint(putUint(putUint(putString(b[:0], key), c.fence), c.sum), c.call)
			write(putBool(putInt(b, c.until), c.takeover))
		}
	}
}

func putCompletions(all []completion) func(write func([]byte)) {
	return func(write func([]byte)) {
		all = slices.DeleteFunc(all, func(c completion) bool { return c.fence == 0 })
		b := putUint(nil, uint64(len(all)))
		for _, c := range all {
			b = putUint(putUint(b, c.fence), c.key)
		}
		write(b)
	}
}

// decodeSets reads what snapshotSets noted.
func (s *State) decodeSets(d *decoder) {
	if d.err != nil || len(d.b) == 0 && d.left == 0 {
		return
	}
	s.fence = d.uint()
	n := d.count()
	if n == 0 {
		d.fail()
	}
	for range n {
		x := s.newSet(d.u32(), d.string())
		d.json(&x.config)
		x.Rule, x.last = d.string(), d.int()
		d.index(&x.results, func(e *indexEntry) {
			x.bytes += int64(e.size)
			s.pin(e.pos, e.size)
		})
		for range d.count() {
			key := d.string()
			x.claims[key] = claim{fence: d.uint(), sum: d.uint(), call: d.uint(), until: d.int(),
				takeover: d.bool()}
		}
	}
	for range d.count() {
		if c := (completion{d.uint(), d.uint()}); c.fence != 0 {
			s.rememberCompletion(c)
		}
	}
}
