package dynamostreams

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// shard is one of the stream's shards, as it is listed.
type shard struct {
	id, parent  string
	first, last ackwise.Position // last is empty while the shard is open
}

// view is what a member knows when it plans.
type view struct {
	rows   map[string]row
	shards map[string]shard // the last complete list of the stream
	listed time.Time        // when that list was made
	held   map[string]bool  // the leases that this member has, or is about to give away
}

// plan is what a member does next. Each part is one conditional write, so that a plan that is out
// of date does no harm.
type plan struct {
	register []row // shards that have no row yet
	gaps     []row // of those: the parent was never seen, and is gone
	acquire  []row
	ask      []row
	remove   []row
	relist   bool // a shard's parent is missing: a list may be behind
	over     int  // leases that would be free, above the most that a member may have
}

// planner decides which leases a member takes. It is pure: the time is an argument, and comes from
// a clock that cannot be set. It trusts no other clock: a lease has run out when this very planner
// has seen its row unchanged for as long as its owner said.
type planner struct {
	me    string
	lease time.Duration
	most  int // leases of one member
	keep  time.Duration

	seen map[string]sighting
	gone map[string]time.Time // shards that are done, and since when they are not listed
	shun map[string]time.Time // shards that were lost, and until when they are left to others
	// orphans are shards whose parent was never seen, and when the list was made that had them first.
	orphans map[string]time.Time
}

type sighting struct {
	fence, beat int64
	at          time.Time
}

func newPlanner(me string, lease time.Duration, most int) *planner {
	return &planner{me: me, lease: lease, most: most, keep: time.Hour,
		seen: map[string]sighting{}, gone: map[string]time.Time{}, shun: map[string]time.Time{},
		orphans: map[string]time.Time{}}
}

// plan looks at what is there, remembers it, and says what to do.
func (p *planner) plan(v view, now time.Time) plan {
	p.look(v.rows, now)
	var out plan
	p.registrations(v, &out)
	p.cleaning(v, &out, now)
	var runnable []row
	for _, r := range sorted(v.rows) {
		if !r.done && gateOpen(r, v) {
			runnable = append(runnable, r)
		}
	}
	p.balance(v, runnable, &out, now)
	return out
}

// look remembers since when each row has been as it is.
func (p *planner) look(all map[string]row, now time.Time) {
	for id, r := range all {
		if s, ok := p.seen[id]; !ok || s.fence != r.fence || s.beat != r.beat {
			p.seen[id] = sighting{fence: r.fence, beat: r.beat, at: now}
		}
	}
	for id := range p.seen {
		if _, ok := all[id]; !ok {
			delete(p.seen, id)
		}
	}
	for id, until := range p.shun {
		if !now.Before(until) {
			delete(p.shun, id)
		}
	}
}

// free reports whether nobody has a row's lease, or its owner said nothing for a whole lease.
func (p *planner) free(r row, now time.Time) bool {
	return r.owner == "" || now.Sub(p.seen[r.shard].at) >= max(p.lease, r.lease)
}

// gateOpen reports whether all that comes before a shard is settled. A parent that has neither a
// row nor a place in the list is older than all that this reader has ever seen.
func gateOpen(r row, v view) bool {
	if r.parent == "" {
		return true
	}
	if parent, ok := v.rows[r.parent]; ok {
		return parent.done
	}
	_, listed := v.shards[r.parent]
	return v.shards != nil && !listed
}

// registrations finds the shards that have no row. They begin at their first change: a newest one
// would pass over what was written before it was looked for. That a parent came and went unseen
// is believed only of a second list: lists of shards may be behind.
func (p *planner) registrations(v view, out *plan) {
	orphans := p.orphans
	p.orphans = map[string]time.Time{}
	for _, s := range inOrder(v.shards) {
		if _, ok := v.rows[s.id]; ok {
			continue
		}
		r := row{shard: s.id, parent: s.parent, first: s.first}
		_, known := v.rows[s.parent]
		_, listed := v.shards[s.parent]
		if s.parent != "" && !known && !listed {
			since, again := orphans[s.id]
			if !again {
				since = v.listed
			}
			p.orphans[s.id] = since
			if v.listed.After(since) {
				out.gaps = append(out.gaps, r)
			} else {
				out.relist = true
			}
			continue
		}
		out.register = append(out.register, r)
	}
}

func inOrder(shards map[string]shard) []shard {
	out := make([]shard, 0, len(shards))
	for _, s := range shards {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b shard) int { return cmp.Compare(a.id, b.id) })
	return out
}

// cleaning finds rows that nothing needs any more: the shard is done, has not been listed for a
// while, and its children have their rows.
func (p *planner) cleaning(v view, out *plan, now time.Time) {
	if v.shards == nil {
		return
	}
	needed := map[string]bool{}
	for id, s := range v.shards {
		if _, ok := v.rows[id]; !ok {
			needed[s.parent] = true
		}
	}
	for _, r := range sorted(v.rows) {
		if _, listed := v.shards[r.shard]; !r.done || listed || needed[r.shard] {
			delete(p.gone, r.shard)
			continue
		}
		since, ok := p.gone[r.shard]
		if !ok {
			p.gone[r.shard] = now
			continue
		}
		if now.Sub(since) >= p.keep {
			out.remove = append(out.remove, r)
		}
	}
}

// balance decides which leases to take and which to ask for: each member that has any gets an equal
// share, and a new one counts itself.
func (p *planner) balance(v view, runnable []row, out *plan, now time.Time) {
	count := map[string]int{p.me: 0}
	var free []row
	for _, r := range runnable {
		switch {
		case v.held[r.shard]:
			count[p.me]++
		case r.owner == p.me:
			// Passed on to this member, or a call whose answer was lost.
			if _, shunned := p.shun[r.shard]; !shunned && count[p.me] < p.most {
				out.acquire = append(out.acquire, r)
				count[p.me]++
			}
		case p.free(r, now):
			if _, shunned := p.shun[r.shard]; !shunned {
				free = append(free, r)
			}
		case r.wanted == p.me:
			count[p.me]++
			count[r.owner] += 0 // it lives
		default:
			count[r.owner]++
		}
	}
	share := (len(runnable) + len(count) - 1) / len(count)
	for i := range free {
		if count[p.me] >= share {
			break
		}
		if count[p.me] >= p.most {
			out.over = len(free) - i
			break
		}
		out.acquire = append(out.acquire, free[(i+p.offset())%len(free)])
		count[p.me]++
	}
	if len(free) == 0 {
		p.asking(runnable, count, out)
	}
}

// offset lets members that begin at the same time begin at different rows.
func (p *planner) offset() int {
	h := fnv.New32a()
	_, _ = h.Write([]byte(p.me)) // never fails
	return int(h.Sum32() % 1024)
}

// asking finds leases of members that have two more than this one.
func (p *planner) asking(runnable []row, count map[string]int, out *plan) {
	for count[p.me] < min(len(runnable)/len(count), p.most) {
		var from *row
		for i := range runnable {
			r := &runnable[i]
			if r.owner == p.me || r.owner == "" || r.wanted != "" || slices.ContainsFunc(out.ask,
				func(a row) bool { return a.shard == r.shard }) {
				continue
			}
			if count[r.owner] > count[p.me]+1 && (from == nil || count[r.owner] > count[from.owner]) {
				from = r
			}
		}
		if from == nil {
			return
		}
		out.ask = append(out.ask, *from)
		count[from.owner]--
		count[p.me]++
	}
}
