package ordering

import (
	"container/heap"
	"maps"
	"time"
)

// wakes is a heap of the keys that wait for a number, by when to look at them.
type wakes []*lane

// Len implements heap.Interface.
func (w wakes) Len() int { return len(w) }

// Less implements heap.Interface.
func (w wakes) Less(i, j int) bool { return w[i].wake < w[j].wake }

// Swap implements heap.Interface.
func (w wakes) Swap(i, j int) {
	w[i], w[j] = w[j], w[i]
	w[i].slot, w[j].slot = i+1, j+1
}

// Push implements heap.Interface.
func (w *wakes) Push(x any) {
	l, _ := x.(*lane)
	*w = append(*w, l)
	l.slot = len(*w)
}

// Pop implements heap.Interface.
func (w *wakes) Pop() any {
	l := (*w)[len(*w)-1]
	(*w)[len(*w)-1] = nil
	*w = (*w)[:len(*w)-1]
	l.slot = 0
	return l
}

// askRun is how many numbers of one gap are asked for at a time, before its time is over.
const askRun = 256

// Missing returns the numbers that are to be looked for now, at most max, the longest due first.
// Of a gap whose policy's time is over they are all that max has room for, since each that is lost
// is given up: where Answer gave numbers up, it is worth asking again at once.
func (r *Resequencer) Missing(now time.Time, max int) []Missing {
	var out []Missing
	ms := now.UnixMilli()
	for _, l := range r.dueLanes(ms, max) {
		run := max - len(out)
		if ms-l.since < r.patience(l) {
			run = min(run, askRun)
		}
		end := min(l.held.first().hi, l.next+uint64(run))
		for n := l.next; n < end; n++ {
			out = append(out, Missing{Key: l.key, Number: n})
		}
		if len(out) >= max {
			break
		}
	}
	return out
}

// dueLanes returns the keys that are due, in their order, at most max. They stay where they are.
func (r *Resequencer) dueLanes(now int64, max int) []*lane {
	var due []*lane
	for len(r.gaps) > 0 && r.gaps[0].wake <= now && len(due) < max {
		l, _ := heap.Pop(&r.gaps).(*lane)
		due = append(due, l)
	}
	for _, l := range due {
		heap.Push(&r.gaps, l)
	}
	return due
}

// Answer takes what became known of missing numbers, one state each, and does what their keys'
// policies say. It returns the numbers that were given up, as gaps; their keys' rows have changed.
// The error is a *GapError where a policy says stop.
func (r *Resequencer) Answer(now time.Time, missing []Missing, states []Whereabouts) (
	[]Gap, error) {
	var gaps []Gap
	ms := now.UnixMilli()
	for i := 0; i < len(missing); {
		end := i + 1
		for end < len(missing) && missing[end].Key == missing[i].Key {
			end++
		}
		given, err := r.answer(ms, missing[i:end], states[i:end])
		gaps = append(gaps, given...)
		if err != nil {
			return gaps, err
		}
		i = end
	}
	return gaps, nil
}

// answer does so for one key.
func (r *Resequencer) answer(now int64, missing []Missing, states []Whereabouts) ([]Gap, error) {
	l := r.lanes[missing[0].Key]
	if l == nil {
		return nil, nil
	}
	policy := r.opt.Policy(l.key)
	var gaps []Gap
	for i, m := range missing {
		if l.slot == 0 || m.Number != l.next { // it came meanwhile
			continue
		}
		l.state = states[i]
		if now-l.since < policy.limit(l.state) {
			r.sleep(l, now, policy)
			return gaps, nil
		}
		if policy.GiveUpAfter <= 0 {
			gap := r.gapOf(l)
			r.sleep(l, now, policy)
			return gaps, &GapError{Gap: gap}
		}
		gaps = r.giveUp(l, now, l.next, gaps)
	}
	if l.slot != 0 { // the gap is longer than what was asked for
		l.wake = now
		heap.Fix(&r.gaps, l.slot-1)
	}
	return gaps, nil
}

// sleep looks at a gap again when it is time to ask, or when its policy's time is over.
func (r *Resequencer) sleep(l *lane, now int64, p Policy) {
	l.wake = now + r.opt.Ask.Milliseconds()
	if limit := p.limit(l.state); limit > now-l.since && limit != never {
		l.wake = min(l.wake, l.since+limit)
	}
	heap.Fix(&r.gaps, l.slot-1)
}

// giveUp goes on without the numbers up to last, all of which are missing.
func (r *Resequencer) giveUp(l *lane, now int64, last uint64, gaps []Gap) []Gap {
	for l.next <= last {
		k := len(gaps)
		if k > 0 && gaps[k-1].Last+1 == l.next && gaps[k-1].State == l.state {
			gaps[k-1].Last = l.next
		} else {
			gaps = append(gaps, Gap{Key: l.key, First: l.next, Last: l.next, State: l.state,
				Since: time.UnixMilli(l.since)})
		}
		l.given, l.floor = l.given.add(l.next, l.floor)
		l.pass(0, r.opt.Remember)
		r.count.GivenUp[l.state]++
	}
	r.look(l, now)
	return gaps
}

// GiveUp goes on without the missing numbers of a known key up to last: a person's order. It
// returns them; none where the key waits for none of them.
func (r *Resequencer) GiveUp(now time.Time, key string, last uint64) []Gap {
	l := r.lanes[key]
	if l == nil || l.slot == 0 || last < l.next {
		return nil
	}
	return r.giveUp(l, now.UnixMilli(), min(last, l.held.first().hi-1), nil)
}

// Wake returns when there is something to do without an arrival; zero = never.
func (r *Resequencer) Wake() time.Time {
	if w := r.queue.first(); w != nil {
		return time.UnixMilli(w.at).Add(r.opt.Wait)
	}
	if len(r.gaps) > 0 {
		return time.UnixMilli(r.gaps[0].wake)
	}
	return time.Time{}
}

func (r *Resequencer) gapOf(l *lane) Gap {
	return Gap{Key: l.key, First: l.next, Last: l.held.first().hi - 1, State: l.state,
		Since: time.UnixMilli(l.since)}
}

// Report is what a resequencer does, in figures.
type Report struct {
	Held   int  `json:"held"`             // messages
	Keys   int  `json:"keys"`             // that hold them
	Oldest *Gap `json:"oldest,omitempty"` // what a key has waited for longest; nil = none waits

	Released   uint64                 `json:"released"`    // in order
	Duplicates uint64                 `json:"duplicates"`  // came again and were let go
	Unchecked  uint64                 `json:"unchecked"`   // of them, too long ago to compare bodies
	Late       uint64                 `json:"late"`        // came when their key had gone on
	Refused    uint64                 `json:"refused"`     // whose order must be wrong
	PushedBack uint64                 `json:"pushed_back"` // put off for want of room
	GivenUp    map[Whereabouts]uint64 `json:"given_up"`    // numbers, by where they were
}

// Report returns the figures since the resequencer was made.
func (r *Resequencer) Report() Report {
	out := r.count
	out.Held, out.Keys = r.held, r.keys
	out.GivenUp = make(map[Whereabouts]uint64, len(r.count.GivenUp))
	maps.Copy(out.GivenUp, r.count.GivenUp)
	var oldest *lane
	for _, l := range r.gaps {
		if oldest == nil || l.since < oldest.since {
			oldest = l
		}
	}
	if oldest != nil {
		gap := r.gapOf(oldest)
		out.Oldest = &gap
	}
	return out
}
