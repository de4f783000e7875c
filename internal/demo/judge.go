package demo

import (
	"cmp"
	"slices"
)

// verdict is what the consumers of a run did, by their own word.
type verdict struct {
	delivered  int // deliveries that a handler began
	duplicates int // of them, those beyond a message's first
	lost       int // flights without an effect
	repeated   int // effects beyond a flight's first
	miles      int64
	violations int
	keys       map[string]bool
	strangers  int // marks of something that was never published
}

// judge reads the marks of all consumers of a run. skips says that a flight may be missing
// (at-most-once); then only going back is a violation.
//
// A violation is a first delivery of a flight, by time of beginning, before an earlier flight of
// its aircraft was ever delivered, or, with skips, after a later one was. Repeats of what was
// delivered before are none.
func judge(flights []flight, marks []mark, skips bool) (verdict, error) {
	v := verdict{keys: map[string]bool{}}
	known := make(map[string]*flight, len(flights))
	for i := range flights {
		known[flights[i].ID] = &flights[i]
	}
	marks = slices.Clone(marks)
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	begun, effects := map[string]int{}, map[string]int{}
	order := order{skips: skips, last: map[string]int{}}
	for _, m := range marks {
		if m.what != markBegin && m.what != markEffect {
			continue
		}
		f := known[m.id]
		if f == nil {
			v.strangers++
			continue
		}
		if m.what == markEffect {
			miles, err := m.number()
			if err != nil {
				return v, err
			}
			v.miles += miles
			effects[m.id]++
			continue
		}
		begun[m.id]++
		if f.Key != "" {
			v.keys[f.Key] = true
			if begun[m.id] == 1 && !order.next(f) {
				v.violations++
			}
		}
	}
	for _, n := range begun {
		v.delivered += n
		v.duplicates += n - 1
	}
	for _, n := range effects {
		v.repeated += n - 1
	}
	v.lost = len(flights) - len(effects)
	return v, nil
}

// order follows the first deliveries of every aircraft.
type order struct {
	skips bool
	last  map[string]int // key → the highest seq that was delivered
}

// next reports whether the first delivery of f comes in its turn.
func (o *order) next(f *flight) bool {
	last := o.last[f.Key]
	o.last[f.Key] = max(last, f.Seq)
	if o.skips {
		return f.Seq > last
	}
	return f.Seq == last+1
}
