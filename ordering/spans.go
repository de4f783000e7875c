package ordering

import "slices"

// span is a run of numbers that were given up.
type span struct{ first, last uint64 }

// maxSpans bounds the spans of a key. Of what is below the dropped ones it is no longer known
// whether it was given up.
const maxSpans = 32

// spans are sorted and apart.
type spans []span

func (s spans) find(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s, n, func(x span, n uint64) int {
		switch {
		case x.last < n:
			return -1
		case x.first > n:
			return 1
		}
		return 0
	})
}

// add notes a number that is greater than all before. Dropped spans raise the floor.
func (s spans) add(n, floor uint64) (spans, uint64) {
	if k := len(s); k > 0 && s[k-1].last+1 == n {
		s[k-1].last = n
		return s, floor
	}
	return append(s, span{n, n}).bound(floor)
}

// remove takes a number away that is there.
func (s spans) remove(n, floor uint64) (spans, uint64) {
	i, _ := s.find(n)
	x := s[i]
	switch {
	case x.first == x.last:
		return slices.Delete(s, i, i+1), floor
	case x.first == n:
		s[i].first++
	case x.last == n:
		s[i].last--
	default:
		s[i].last = n - 1
		return slices.Insert(s, i+1, span{n + 1, x.last}).bound(floor)
	}
	return s, floor
}

func (s spans) bound(floor uint64) (spans, uint64) {
	if len(s) <= maxSpans {
		return s, floor
	}
	return slices.Delete(s, 0, 1), s[0].last + 1
}
