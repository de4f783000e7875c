package ordering

// maxNames bounds the names of producers that are in use at a time, in stamps.
const maxNames = 1 << 16

// names gives the name of each node a place, so that a rank is two numbers. A place whose name is
// no longer used is given again.
type names struct {
	all     []string
	at      map[string]uint64
	free    []uint64
	sweepAt int // so many names are looked through
}

func newNames() names { return names{at: map[string]uint64{}, sweepAt: maxNames / 2} }

// full reports whether there is no room for a name that is not there.
func (n *names) full(name string) bool {
	_, there := n.at[name]
	return !there && len(n.at) >= maxNames
}

// place returns the place of a name, whatever the bound is.
func (n *names) place(name string) uint64 {
	at, there := n.at[name]
	if there {
		return at
	}
	if k := len(n.free); k > 0 {
		at, n.free = n.free[k-1], n.free[:k-1]
		n.all[at] = name
	} else {
		at = uint64(len(n.all))
		n.all = append(n.all, name)
	}
	n.at[name] = at
	return at
}

// keep forgets the names that are not used.
func (n *names) keep(used []bool) {
	for name, at := range n.at {
		if !used[at] {
			delete(n.at, name)
			n.all[at] = ""
			n.free = append(n.free, at)
		}
	}
	// Not again before many more have come.
	n.sweepAt = max(maxNames/2, (len(n.at)+maxNames)/2)
}

// forgetNames lets go the names that no key uses.
func (r *Resequencer) forgetNames() {
	used := make([]bool, len(r.names.all))
	mark := func(at rank) {
		if at != (rank{}) {
			used[uint32(at.lo)] = true
		}
	}
	for _, l := range r.lanes {
		mark(l.gone)
		mark(l.until)
		for _, es := range l.held.leaves {
			for i := range es {
				mark(es[i].rank)
			}
		}
	}
	for i, chunk := range r.queue.chunks {
		if i == 0 {
			chunk = chunk[r.queue.head:]
		}
		for j := range chunk {
			mark(chunk[j].rank)
		}
	}
	r.names.keep(used)
}
