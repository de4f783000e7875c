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
	overtaken  int // effects after one of a later flight of their aircraft
	elsewhere  int // aircraft whose last effect is not of their last flight
	wrong      int // values of a table that are not what one effect of each flight comes to
}

// rules are what a run's judge has to know of it.
type rules struct {
	skips bool // a flight may be missing (at-most-once); then only going back is a violation
	keyed bool // the effects are in a table, which is read: an effect that was there counts as one
}

// judge reads the marks of all consumers of a run.
//
// A violation is a first delivery of a flight, by time of beginning, before an earlier flight of
// its aircraft was ever delivered, or, with skips, after a later one was. Repeats of what was
// delivered before are none.
func judge(flights []Flight, marks []mark, rules rules) (verdict, error) {
	v := verdict{keys: map[string]bool{}}
	known := make(map[string]*Flight, len(flights))
	for i := range flights {
		known[flights[i].ID] = &flights[i]
	}
	marks = slices.Clone(marks)
	slices.SortStableFunc(marks, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	begun, effects, there := map[string]int{}, map[string]int{}, map[string]bool{}
	order := order{skips: rules.skips, last: map[string]int{}, effect: map[string]int{},
		now: map[string]int{}}
	for _, m := range marks {
		f := known[m.id]
		switch {
		case m.what != markBegin && m.what != markEffect && m.what != markRepeat:
		case f == nil:
			v.strangers++
		case m.what == markBegin:
			begun[m.id]++
			if f.Key != "" {
				v.keys[f.Key] = true
			}
			if f.Key != "" && begun[m.id] == 1 && !order.next(f) {
				v.violations++
			}
		case m.what == markEffect || rules.keyed:
			there[m.id] = true
			if order.overtaken(f) {
				v.overtaken++
			}
			if m.what == markRepeat {
				continue
			}
			effects[m.id]++
			miles, err := m.number()
			if err != nil {
				return v, err
			}
			v.miles += miles
		}
	}
	for _, n := range begun {
		v.delivered += n
		v.duplicates += n - 1
	}
	for _, n := range effects {
		v.repeated += n - 1
	}
	v.lost = len(flights) - len(there)
	for i := range flights { // the last of an aircraft is what stays
		if f := &flights[i]; f.Key != "" {
			order.last[f.Key] = max(order.last[f.Key], f.Seq)
		}
	}
	for key, seq := range order.last {
		if order.now[key] != seq {
			v.elsewhere++
		}
	}
	return v, nil
}

// order follows the first deliveries of every aircraft.
type order struct {
	skips  bool
	last   map[string]int // key → the highest seq that was delivered
	effect map[string]int // key → the highest seq that had its effect
	now    map[string]int // key → the seq whose effect came last
}

// overtaken reports whether an effect of f comes after one of a later flight.
func (o *order) overtaken(f *Flight) bool {
	last := o.effect[f.Key]
	o.effect[f.Key], o.now[f.Key] = max(last, f.Seq), f.Seq
	return f.Key != "" && f.Seq < last
}

// next reports whether the first delivery of f comes in its turn.
func (o *order) next(f *Flight) bool {
	last := o.last[f.Key]
	o.last[f.Key] = max(last, f.Seq)
	if o.skips {
		return f.Seq > last
	}
	return f.Seq == last+1
}
