package ordering

import "slices"

// rank is a place in the order of a key: a number, or a stamp.
type rank struct {
	hi uint64 // the number, or milliseconds
	lo uint64 // 0, or the counter and the place of the node's name
}

// entry is what memory holds of a held message: 40 bytes, no pointer.
type entry struct {
	rank
	ref  uint64 // where its body is
	sum  uint64 // of its body
	size uint32 // its bytes
}

// leafLen is how many entries a leaf holds at most. Those that come in order, or in the very
// opposite of it, fill their leaves; at random they fill two thirds.
const leafLen = 256

// entries is a sorted list in leaves.
type entries struct {
	leaves [][]entry
	len    int
}

type order func(a, b rank) int

// place is where an entry is or belongs.
type place struct{ leaf, at int }

// at returns the entry at a place.
func (l *entries) at(p place) *entry { return &l.leaves[p.leaf][p.at] }

// find returns where a rank is or belongs.
func (l *entries) find(r rank, cmp order) (p place, there bool) {
	leaf, there := slices.BinarySearchFunc(l.leaves, r, func(es []entry, r rank) int {
		return cmp(es[0].rank, r)
	})
	if there || leaf == 0 {
		return place{leaf, 0}, there
	}
	leaf--
	at, there := slices.BinarySearchFunc(l.leaves[leaf], r, func(e entry, r rank) int {
		return cmp(e.rank, r)
	})
	return place{leaf, at}, there
}

// add puts an entry in where find said.
func (l *entries) add(p place, e entry) {
	l.len++
	if len(l.leaves) == 0 {
		l.leaves = append(l.leaves, []entry{e})
		return
	}
	es := l.leaves[p.leaf]
	switch {
	case len(es) < leafLen:
		l.leaves[p.leaf] = slices.Insert(es, p.at, e)
	case p.at == 0: // in the opposite order
		l.leaves = slices.Insert(l.leaves, p.leaf, newLeaf(e))
	case p.at == len(es) && p.leaf == len(l.leaves)-1: // in order
		l.leaves = append(l.leaves, newLeaf(e))
	default:
		half := len(es) / 2
		l.leaves = slices.Insert(l.leaves, p.leaf+1, newLeaf(es[half:]...))
		l.leaves[p.leaf] = es[:half]
		if p.at > half {
			p = place{p.leaf + 1, p.at - half}
		}
		l.leaves[p.leaf] = slices.Insert(l.leaves[p.leaf], p.at, e)
	}
}

func newLeaf(es ...entry) []entry { return append(make([]entry, 0, leafLen), es...) }

// first returns the first entry; nil = there is none.
func (l *entries) first() *entry {
	if l.len == 0 {
		return nil
	}
	return &l.leaves[0][0]
}

// remove takes the entry at a place away.
func (l *entries) remove(p place) {
	l.len--
	es := slices.Delete(l.leaves[p.leaf], p.at, p.at+1)
	if l.leaves[p.leaf] = es; len(es) == 0 {
		l.leaves = slices.Delete(l.leaves, p.leaf, p.leaf+1)
	}
}

// removeFirst takes the first entry away.
func (l *entries) removeFirst() {
	l.len--
	if es := l.leaves[0]; len(es) > 1 {
		l.leaves[0] = es[1:]
		return
	}
	l.leaves[0] = nil
	if l.leaves = l.leaves[1:]; len(l.leaves) == 0 {
		l.leaves = nil
	}
}
