package state

import (
	"maps"
	"slices"

	"github.com/ackwise/ackwise"
)

// SubConfig is what a subscription was created with, see queue.SubscriptionOptions.
type SubConfig struct {
	Ordered     bool
	Hold        bool
	LeaseMillis int64
	MaxParked   int
	MaxWaiting  int
}

// Place is where a message is on a subscription, as the books count it.
type Place uint8

// The places. Ready, in the books, is Ready here plus what has not been pulled yet; delayed
// there is Delayed here plus what the topic has scheduled.
const (
	Ready Place = iota
	Delayed
	InFlight
	Parked
	Dead
	places
)

// entry is a message that a subscription has pulled out of the topic's line and that is not
// finished. It holds no pointer; past attempts are in Sub.past.
type entry struct {
	seq, pos   uint64
	hash       uint64 // of its key; 0 = none
	lane       uint64 // the hash where the subscription is ordered, else 0
	gen        uint64 // generation of the last hand-out; 0 = never handed out
	run        uint64 // first generation of the key run it was last handed out in
	due        int64  // Delayed: when it is ready. InFlight: when the lease runs out
	since      int64  // InFlight: when it was handed out. Dead: when it died
	size, sec  uint32
	handouts   uint32
	failures   uint32
	crashes    uint32
	redrives   uint32
	epoch      uint32
	session    uint32
	heap       int32 // its place in the one heap it is in; -1 = in none
	prev, next int32 // neighbours in its lane; -1 = none
	place      Place
	cause      ackwise.Cause // of the next hand-out; InFlight: of this one
	ended      End           // how the last hand-out ended
	suspect    bool          // run it alone: it was in flight when its consumer died
	alone      bool          // InFlight: it was handed out as a suspect
}

// laneMode says what a key of a holding subscription is doing.
type laneMode uint8

const (
	laneOpen     laneMode = iota
	laneParked            // behind a dead letter
	laneDraining          // the dead letter is back or gone; the parked ones follow one by one
)

// lane is the line of one key on an ordered subscription: its entries in order of sequence. The
// dead letter of a parked lane is not among them.
type lane struct {
	hash       uint64
	head, tail int32 // slots; -1 = none
	dead       int32 // slot of the dead letter, while laneParked; else -1
	leased     int32 // entries in flight
	depth      int64 // entries in the line
	since      int64 // when it was parked
	mode       laneMode
}

// Sub is the state of one subscription.
type Sub struct {
	ID     uint32
	Name   string
	Topic  *Topic
	Config SubConfig

	cursor  uint64 // the next sequence to pull
	line    reader // of the topic's line, at the cursor; derived
	slab    [][]entry
	free    []int32
	bySeq   map[uint64]int32
	lanes   map[uint64]*lane
	idle    []*lane  // forgotten, for the next keys; derived
	ready   slotHeap // by sequence: what may be handed out now
	suspect slotHeap // of those, the suspects
	delayed slotHeap // by due
	leased  slotHeap // by deadline
	past    map[uint64]*past

	// Derived and live only, not part of what is compared.
	wakeAt  int64    // registered in State.wake
	drainer *Session // takes nothing new until it is idle and can run a suspect alone
	touched bool     // in State.touched

	entryCount, entryBytes int64
	at                     [places]int64 // entries by place
	Accepted, Acked        int64
	Dropped                int64
	DroppedFor             map[string]int64
	Causes                 [32]int64
	Failures, Crashes      int64
}

// past is what is known of a message's ended attempts.
type past struct {
	firstSeen int64
	attempts  []ackwise.Attempt
	error     string // the last error or reason
}

// slabLen is how many entries are made at once: few, for there may be many subscriptions that hold
// one message each.
const slabLen = 32

func newSub(id uint32, name string, t *Topic, c SubConfig) *Sub {
	return &Sub{ID: id, Name: name, Topic: t, Config: c, bySeq: make(map[uint64]int32),
		lanes: make(map[uint64]*lane), past: make(map[uint64]*past),
		delayed: slotHeap{byDue: true}, leased: slotHeap{byDue: true},
		DroppedFor: make(map[string]int64)}
}

func (q *Sub) entry(slot int32) *entry { return &q.slab[slot/slabLen][slot%slabLen] }

func (q *Sub) bySequence(seq uint64) (int32, bool) {
	slot, ok := q.bySeq[seq]
	return slot, ok
}

func (q *Sub) newSlot() int32 {
	if n := len(q.free); n > 0 {
		slot := q.free[n-1]
		q.free = q.free[:n-1]
		return slot
	}
	base := int32(len(q.slab) * slabLen)
	q.slab = append(q.slab, make([]entry, slabLen))
	for i := int32(slabLen - 1); i > 0; i-- {
		q.free = append(q.free, base+i)
	}
	return base
}

// Count returns how many messages are in a place, as the books count them.
func (q *Sub) Count(p Place) int64 {
	n := q.at[p]
	switch p {
	case Ready:
		n += int64(q.Topic.index.next - q.cursor)
	case Delayed:
		n += q.Topic.Scheduled()
	case InFlight, Parked, Dead, places:
	}
	return n
}

func (q *Sub) move(e *entry, to Place) {
	q.at[e.place]--
	q.at[to]++
	e.place = to
}

// pullTo makes entries of the messages up to the sequence to.
func (s *State) pullTo(q *Sub, to uint64) {
	for ; q.cursor < to; q.cursor++ {
		e := *q.Topic.index.at(q.cursor, &q.line)
		s.insert(q, q.cursor, e)
		s.pin(e.pos, e.size)
	}
	s.trim(q.Topic)
}

func (s *State) insert(q *Sub, seq uint64, ix indexEntry) int32 {
	slot := q.newSlot()
	e := q.entry(slot)
	*e = entry{seq: seq, pos: ix.pos, hash: ix.lane, lane: ix.lane, size: ix.size, sec: ix.sec,
		heap: -1, prev: -1, next: -1, cause: ackwise.CauseFirst}
	if !q.Config.Ordered {
		e.lane = 0
	}
	q.bySeq[seq] = slot
	q.at[Ready]++
	q.entryCount++
	q.entryBytes += int64(e.size)
	if e.lane != 0 {
		l := q.laneOf(e.lane)
		q.link(l, slot)
		if l.mode != laneOpen {
			q.move(e, Parked)
		}
	}
	s.offer(q, slot)
	return slot
}

func (q *Sub) laneOf(hash uint64) *lane {
	l := q.lanes[hash]
	if l == nil {
		if n := len(q.idle); n > 0 {
			l, q.idle = q.idle[n-1], q.idle[:n-1]
		} else {
			l = new(lane)
		}
		*l = lane{hash: hash, head: -1, tail: -1, dead: -1}
		q.lanes[hash] = l
	}
	return l
}

// maxIdle bounds the lanes that are kept for the next keys.
const maxIdle = 256

// forget lets go of a lane in which nothing is left.
func (q *Sub) forget(l *lane) {
	delete(q.lanes, l.hash)
	if len(q.idle) < maxIdle {
		q.idle = append(q.idle, l)
	}
}

// link puts an entry into its lane's line, by sequence. Nearly always that is the end; what comes
// back from the dead letters goes to the head.
func (q *Sub) link(l *lane, slot int32) {
	e := q.entry(slot)
	before := l.tail
	for before >= 0 && q.entry(before).seq > e.seq {
		before = q.entry(before).prev
	}
	e.prev = before
	if before >= 0 {
		e.next = q.entry(before).next
		q.entry(before).next = slot
	} else {
		e.next = l.head
		l.head = slot
	}
	if e.next >= 0 {
		q.entry(e.next).prev = slot
	} else {
		l.tail = slot
	}
	l.depth++
}

func (q *Sub) unlink(l *lane, slot int32) {
	e := q.entry(slot)
	if e.prev >= 0 {
		q.entry(e.prev).next = e.next
	} else {
		l.head = e.next
	}
	if e.next >= 0 {
		q.entry(e.next).prev = e.prev
	} else {
		l.tail = e.prev
	}
	e.prev, e.next = -1, -1
	l.depth--
}

// offer puts an entry among those that may be handed out, if it may: it is ready, and where it has
// a key it is the head of its lane and nothing of the lane is in flight.
func (s *State) offer(q *Sub, slot int32) {
	e := q.entry(slot)
	if e.place != Ready || e.heap >= 0 {
		return
	}
	if e.lane != 0 {
		l := q.lanes[e.lane]
		if l.head != slot || l.leased > 0 || l.mode == laneParked {
			return
		}
	}
	if e.suspect {
		q.suspect.push(q, slot)
	} else {
		q.ready.push(q, slot)
	}
	s.Touch(q)
}

// unheap takes an entry out of whatever heap it is in.
func (q *Sub) unheap(slot int32) {
	e := q.entry(slot)
	switch {
	case e.heap < 0:
	case e.place == Delayed:
		q.delayed.remove(q, slot)
	case e.place == InFlight:
		q.leased.remove(q, slot)
	case e.suspect:
		q.suspect.remove(q, slot)
	default:
		q.ready.remove(q, slot)
	}
}

// settleLane lets a lane go on after one of its entries left it or changed: it forgets an empty
// one, takes the next parked message of a draining one, and offers the head.
func (s *State) settleLane(q *Sub, hash uint64) {
	if hash == 0 {
		return
	}
	l := q.lanes[hash]
	if l.mode != laneParked && l.head < 0 {
		q.forget(l)
		return
	}
	if l.head < 0 || l.mode == laneParked {
		return
	}
	if head := q.entry(l.head); l.mode == laneDraining && head.place == Parked {
		q.move(head, Ready)
	}
	q.unofferRest(l)
	s.offer(q, l.head)
}

// unofferRest takes back the offer of an entry that is no longer the head of its lane, because a
// redriven one was put before it.
func (q *Sub) unofferRest(l *lane) {
	if second := q.entry(l.head).next; second >= 0 && q.entry(second).place == Ready {
		q.unheap(second)
	}
}

// park makes a lane wait behind its dead letter.
func (q *Sub) park(l *lane, dead int32, now int64) {
	l.mode, l.dead, l.since = laneParked, dead, now
	for slot := l.head; slot >= 0; slot = q.entry(slot).next {
		if e := q.entry(slot); e.place == Ready || e.place == Delayed {
			q.unheap(slot)
			q.move(e, Parked)
		}
	}
}

// pullRest makes entries of the messages before the topic's line that other subscriptions have
// pulled and not finished: they are kept, and so a subscription that begins at the oldest gets
// them.
func (s *State) pullRest(q *Sub) {
	rest := make(map[uint64]indexEntry)
	for _, other := range q.Topic.Subs {
		for _, slot := range other.bySeq {
			if e := other.entry(slot); e.seq < q.cursor {
				rest[e.seq] = indexEntry{pos: e.pos, lane: e.hash, size: e.size, sec: e.sec}
			}
		}
	}
	for _, seq := range slices.Sorted(maps.Keys(rest)) {
		s.insert(q, seq, rest[seq])
		s.pin(rest[seq].pos, rest[seq].size)
	}
	q.Accepted += int64(len(rest))
}

// finish lets go of an entry that nobody needs any more.
func (s *State) finish(q *Sub, slot int32) {
	e := q.entry(slot)
	q.unheap(slot)
	hash := e.lane
	if hash != 0 {
		l := q.lanes[hash]
		switch {
		case e.place != Dead:
			q.unlink(l, slot)
		case l != nil && l.dead == slot:
			l.mode, l.dead = laneDraining, -1
		default:
			hash = 0 // a skipped dead letter has no place in a lane
		}
	}
	q.at[e.place]--
	q.entryCount--
	q.entryBytes -= int64(e.size)
	delete(q.bySeq, e.seq)
	delete(q.past, e.seq)
	s.unpin(e.pos, e.size)
	q.free = append(q.free, slot)
	s.settleLane(q, hash)
}

// slotsBySeq returns the slots of all entries, by sequence. Most lie sorted already, as slots are
// mostly given in that order.
func (q *Sub) slotsBySeq() []int32 {
	free := make([]bool, len(q.slab)*slabLen)
	for _, slot := range q.free {
		free[slot] = true
	}
	slots := make([]int32, 0, len(q.bySeq))
	for slot, free := range free {
		if !free {
			slots = append(slots, int32(slot))
		}
	}
	slices.SortFunc(slots, func(a, b int32) int {
		return compare(q.entry(a).seq, q.entry(b).seq)
	})
	return slots
}

func compare[T int64 | uint64 | uint32](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
