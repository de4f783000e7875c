package logsource

import (
	"container/heap"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// msgState is where a message of a window is.
type msgState uint8

const (
	waiting   msgState = iota // behind another of its key
	ready                     // at the head of its lane, due
	delayed                   // at the head of its lane, not due
	held                      // handed out
	following                 // during a take: behind one of its key that the take hands out
)

// msg is one unsettled message of a window.
type msg struct {
	ord     uint64
	message ackwise.Message
	epoch   int
	state   msgState
	entry             // what the note keeps of it; cause is the next hand-out's, or this one's
	due     time.Time // while delayed
	lane    *lane     // nil without a key
	next    *msg      // the one behind it in its lane
	handed  *handOut  // while held
	history []ackwise.Attempt
}

// handOut is one hand-out in flight. Its delivery may be in a handler's hands, who may change it:
// nothing is read from there.
type handOut struct {
	delivery ackwise.Delivery
	token    token
	at       time.Time
	given    bool // out of the source's hands
	writing  bool // a transaction that settles it is being written
}

// noted reports whether the note has to name the message.
func (m *msg) noted() bool { return m.counts.HandOuts > 0 || m.suspect }

// plain reports whether the message was handed out once and nothing else happened to it.
func (m *msg) plain() bool {
	return m.counts == ackwise.Counts{HandOuts: 1} && m.cause == ackwise.CauseFirst && !m.suspect
}

// lane is a key's queue. Its first messages can be handed out together, as an in-order run; nothing
// more of it is, until all of them are settled or have come back.
type lane struct {
	first, last *msg // nil = it is empty
	held        int  // how many of it are held
}

func (a *lane) append(m *msg) {
	m.lane = a
	if a.first == nil {
		a.first = m
	} else {
		a.last.next = m
	}
	a.last = m
}

// partition is the state of one partition that this member has. It is pure: it does no I/O and
// gets the time as an argument.
//
//	read ──▶ waiting ──▶ ready ◀────── due ──── delayed
//	                      │  ▲                     ▲
//	                   take  release          nack, snooze
//	                      ▼  │                     │
//	                      held ────────────────────┘──▶ settled (ack, dead, drop)
type partition struct {
	name  string
	epoch uint64 // number of this assignment, unique in the source
	opts  *Options

	tracker   tracker
	lanes     map[string]*lane // keys with unsettled messages
	idle      []*lane          // empty ones, for the next keys
	msgs      slab[msg]
	texts     texts.Pages
	fresh     ordQueue // ready, not named by the note
	following ordHeap  // during a take, see follow
	again     ordHeap  // ready, named by the note
	suspects  ordHeap  // ready and suspect
	delayed   dueHeap
	past      inheritance
	lastRead  ackwise.Position
	open      int // messages that are not settled
	bytes     int // of those
	inFlight  int
	// noteSize is what the note's entries take: measured at the last snapshot, estimated since.
	// With exact it is what the whole note takes.
	noteSize int
	noteFar  ackwise.Position // the last one that the note has to name
	loose    int              // entries that are not plain, at most
	exact    bool             // the note keeps what was settled out of order: Source.Transact
	noteFull bool             // reported, and still so

	version   uint64 // grows with whatever the note should tell
	written   uint64 // the version of the last note that was written
	soleNoted bool   // the last note says that its entry in flight is its owner's only one
	ceiling   ackwise.Position

	paused   bool      // as told to the Log
	stuck    bool      // reported, and still so
	lost     bool      // nothing of it can be written any more
	leaving  bool      // revoked
	deadline time.Time // what is in flight then has ended for us
	giveUp   time.Time // not before then is it let go unwritten
}

func newPartition(c *Change, epoch uint64, opts *Options) (*partition, error) {
	past, err := inherit(c, opts.Owner)
	return &partition{
		name: c.Partition, epoch: epoch, opts: opts, past: past,
		tracker: tracker{low: c.Position}, lastRead: c.Position,
		lanes: map[string]*lane{},
	}, err
}

// read takes in the next records. Records at or below what was read before are dropped: the source
// has them already.
func (p *partition) read(records []Record, now time.Time) error {
	for i := range records {
		r := &records[i]
		if len(r.Position) > p.opts.NoteBytes/8 || r.Position == "" {
			return &ackwise.InvalidError{Field: "position", Value: string(r.Position),
				Reason: "it is empty, or longer than an eighth of Options.NoteBytes"}
		}
		if r.Position <= p.lastRead {
			continue
		}
		p.lastRead = r.Position
		p.add(r, now)
	}
	return nil
}

func (p *partition) add(r *Record, now time.Time) {
	e, settled := p.past.find(r.Position)
	low := p.tracker.low
	ord := p.tracker.add(r.Position, settled)
	p.past.forget(p.tracker.low)
	if p.tracker.low != low {
		p.version++
	}
	if settled {
		return
	}
	m := p.msgs.new()
	*m = msg{ord: ord, message: r.Message, epoch: r.Epoch, entry: e}
	if m.message.ID == "" {
		m.message.ID = m.message.Topic + "/" + p.name + "/" + string(r.Position)
	}
	if e.wait > 0 {
		m.due, m.wait = now.Add(min(e.wait, p.opts.MaxDelay)), 0
	}
	if m.noted() {
		p.tracker.touch(ord)
	}
	p.tracker.put(m)
	p.open++
	p.bytes += size(&m.message)
	if key := m.message.Key; key != "" {
		if p.laneOf(key).append(m); m.behind() {
			return
		}
	}
	p.enqueue(m, now)
}

func (p *partition) laneOf(key string) *lane {
	a := p.lanes[key]
	if a != nil {
		return a
	}
	if k := len(p.idle); k > 0 {
		a, p.idle = p.idle[k-1], p.idle[:k-1]
	} else {
		a = new(lane)
	}
	p.lanes[key] = a
	return a
}

// size is what a message counts against the bounds in bytes.
func size(m *ackwise.Message) int {
	n := len(m.ID) + len(m.Topic) + len(m.Key) + len(m.Body)
	for _, h := range m.Headers {
		n += len(h.Name) + len(h.Value)
	}
	return n
}

// enqueue puts the head of a lane where it waits for its hand-out.
func (p *partition) enqueue(m *msg, now time.Time) {
	switch {
	case m.due.After(now):
		m.state = delayed
		heap.Push(&p.delayed, m)
	case m.suspect:
		m.state = ready
		p.suspects.push(m)
	case m.noted():
		m.state = ready
		p.again.push(m)
	default:
		m.state = ready
		p.fresh.push(m)
	}
}

// wake makes ready what is due.
func (p *partition) wake(now time.Time) {
	for len(p.delayed) > 0 && !p.delayed[0].due.After(now) {
		p.enqueue(heap.Pop(&p.delayed).(*msg), now)
	}
}

// next takes the first ready message for a hand-out, or returns nil. A first hand-out needs room in
// the note; one that the note names already does not wait for it.
func (p *partition) next(suspect bool, now time.Time) *msg {
	if p.leaving {
		return nil
	}
	if suspect {
		if len(p.suspects) == 0 {
			return nil
		}
		m := p.suspects.pop()
		p.hold(m, now)
		return m
	}
	fresh := p.firstFresh()
	if fresh != nil && !p.room(fresh) {
		fresh = nil
	}
	m := p.again.first()
	switch {
	case m != nil && (fresh == nil || m.ord < fresh.ord):
		p.again.pop()
		p.hold(m, now)
		return m
	case fresh == nil:
		return nil
	case fresh == p.following.first():
		p.following.pop()
	default:
		p.fresh.pop()
	}
	p.hold(fresh, now)
	p.follow(fresh, now)
	return fresh
}

// firstFresh returns the first message that can be handed out for the first time, nil = none.
func (p *partition) firstFresh() *msg {
	m, f := p.fresh.first(), p.following.first()
	if m == nil || f != nil && f.ord < m.ord {
		return f
	}
	return m
}

// follow lets the message behind m in its lane be taken too, in its turn, before the take ends, so
// that the two are one run. What the note names already is handed out by itself.
func (p *partition) follow(m *msg, now time.Time) {
	next := m.next
	if next != nil && next.state == waiting && !next.noted() && !next.due.After(now) {
		next.state = following
		p.following.push(next)
	}
}

// endTake lets those wait again that could have been taken and were not.
func (p *partition) endTake() {
	for i := range p.following {
		p.following[i].m.state = waiting
		p.following[i] = ordItem{}
	}
	p.following = p.following[:0]
}

// hold makes a hand-out of m.
func (p *partition) hold(m *msg, now time.Time) {
	if !m.noted() {
		p.noteSize += p.cost(m.pos)
		p.noteFar = max(p.noteFar, m.pos)
	}
	p.tracker.touch(m.ord)
	m.state, m.out = held, true
	m.counts.HandOuts++
	m.handed = p.handOut(m, now)
	p.tracker.put(m)
	p.inFlight++
	p.version++
	if m.lane != nil {
		m.lane.held++
	}
}

// room reports whether the note can name m, which is fresh.
func (p *partition) room(m *msg) bool {
	return p.inFlight == 0 && len(p.tracker.touched()) == 0 || p.noteSize == 0 || p.fits(m)
}

// fits reports whether the note has room for a first hand-out of m. A quarter of the note is kept
// for counts that grow; with exact half of it, for entries that become spans too.
func (p *partition) fits(m *msg) bool {
	limit := p.opts.NoteBytes * 3 / 4
	if p.exact {
		limit = p.opts.NoteBytes / 2
	}
	return p.noteSize+p.cost(m.pos) <= limit || !p.exact && p.fitsDense(m)
}

// Of what a dense note takes: an entry that is not plain, and all but the bits, at most.
const (
	looseRoom = 16
	denseRoom = 160
)

// fitsDense reports whether a dense note has room for a first hand-out of m, wherever what is
// before it is settled or not.
func (p *partition) fitsDense(m *msg) bool {
	d, ok := distance(p.tracker.slots[0].pos, max(m.pos, p.noteFar))
	room := (p.opts.NoteBytes - denseRoom) * 5 / 8
	return ok && d < uint64(4*max(0, room-p.loose*looseRoom))
}

// measure takes in how much room a note took.
func (p *partition) measure(n *note, data []byte, entryBytes int) {
	p.noteSize = entryBytes
	entries := 0
	entries, p.loose, p.noteFar = n.weigh()
	switch {
	case p.exact:
		p.noteSize, p.loose, p.noteFar = len(data), 0, ""
	case data[2]&flagDense != 0: // what it would take otherwise
		p.noteSize = min(p.opts.NoteBytes, entryBytes+(entries-p.loose)*p.cost(p.lastRead))
	}
}

// cost is what a first hand-out takes in the note at most: what its position does not have in
// common with all others of the window, its length, and flags.
func (p *partition) cost(pos ackwise.Position) int {
	if p.opts.Journal == JournalCeiling {
		return 0 // it is not named, see snapshot
	}
	low, last := p.tracker.low, p.lastRead
	if len(low) != len(pos) || len(last) != len(pos) {
		return len(pos) + 2
	}
	n := 0
	for n < len(low) && low[n] == last[n] {
		n++
	}
	return len(pos) - n + 2
}

// full reports whether fresh messages wait for room in the note.
func (p *partition) full() bool {
	m := p.fresh.first()
	return !p.leaving && m != nil && !p.room(m)
}

// holds returns the message that a token's hand-out holds; nil = none.
func (p *partition) holds(t token) *msg {
	if p == nil {
		return nil
	}
	m := p.tracker.at(t.ord)
	if m == nil || m.state != held || uint64(m.counts.HandOuts) != t.handOut {
		return nil
	}
	return m
}

func (p *partition) handOut(m *msg, now time.Time) *handOut {
	t := token{p.opts.Owner, p.epoch, m.ord, uint64(m.counts.HandOuts)}
	return &handOut{token: t, at: now, delivery: ackwise.Delivery{
		Message: m.message, Attempt: m.counts.HandOuts, Counts: m.counts, Cause: m.cause,
		History: m.history, Partition: p.name, Position: m.pos, Suspect: m.suspect, Epoch: m.epoch,
		Token: t.encode(&p.texts)}}
}

// takeBack undoes a hand-out that nobody has seen.
func (p *partition) takeBack(m *msg, now time.Time) {
	m.counts.HandOuts--
	p.requeue(m, now)
}

func (p *partition) requeue(m *msg, now time.Time) {
	m.handed, m.out, m.state = nil, false, waiting
	p.inFlight--
	p.version++
	p.tracker.put(m)
	a := m.lane
	if a == nil {
		p.enqueue(m, now)
		return
	}
	a.held-- // the rest of a run waits for its first, and that for the rest to be back
	p.advance(a, now)
}

// advance lets a lane's first message be handed out, once nothing of the lane is held.
func (p *partition) advance(a *lane, now time.Time) {
	if a.held == 0 && a.first.state == waiting {
		p.enqueue(a.first, now)
	}
}

// behind reports whether an earlier message of m's key is not settled.
func (m *msg) behind() bool { return m.lane != nil && m.lane.first != m }

// settle ends the hand-out of m.
func (p *partition) settle(m *msg, s *ackwise.Settlement, now time.Time) {
	delay := min(s.Delay, p.opts.MaxDelay)
	m.due = now
	switch s.Outcome {
	case ackwise.OutcomeNack:
		m.counts.Failures++
		p.loose++
		m.cause, m.due, m.suspect = ackwise.CauseFailed, now.Add(delay), false
	case ackwise.OutcomeSnooze:
		p.loose++
		m.cause, m.due, m.suspect = ackwise.CauseSnoozed, now.Add(delay), false
	case ackwise.OutcomeRelease:
		// Unattempted: a suspect stays one.
		p.loose++
		m.cause = ackwise.CauseReleased
		if p.leaving {
			m.cause = ackwise.CauseRebalanced
		}
	case ackwise.OutcomeAck, ackwise.OutcomeDead, ackwise.OutcomeDrop, ackwise.OutcomeExtend:
		p.finish(m, now)
		return
	}
	p.record(m, s, now)
	p.requeue(m, now)
}

func (p *partition) record(m *msg, s *ackwise.Settlement, now time.Time) {
	a := ackwise.Attempt{Number: m.counts.HandOuts, Time: m.handed.at, Cause: m.cause,
		Consumer: p.opts.Consumer, Outcome: s.Outcome.String(), Duration: now.Sub(m.handed.at)}
	if s.Outcome != ackwise.OutcomeAck {
		a.Error = ackwise.CutError(s.Reason)
	}
	// A new slice: deliveries in other hands share the old one.
	keep := m.history[max(0, len(m.history)-p.opts.MaxHistory+1):]
	m.history = append(append(make([]ackwise.Attempt, 0, len(keep)+1), keep...), a)
}

// finish lets a message go and its key go on.
func (p *partition) finish(m *msg, now time.Time) {
	p.inFlight--
	p.version++
	p.bytes -= size(&m.message)
	p.open--
	p.tracker.settle(m.ord)
	p.past.forget(p.tracker.low)
	a, key := m.lane, m.message.Key
	next := m.next
	*m = msg{} // its neighbours in the slab may stay long, and nothing of it should
	if a == nil {
		return
	}
	a.held--
	if a.first = next; next == nil {
		a.last = nil
		delete(p.lanes, key)
		p.idle = append(p.idle, a)
		return
	}
	p.advance(a, now)
}

// window is how many messages were read and are above the position.
func (p *partition) window() int { return len(p.tracker.slots) }

// snapshot makes the note that is true now. total is what the member's handlers hold, in all
// partitions.
func (p *partition) snapshot(total int, final bool, now time.Time) *note {
	n := &note{base: p.tracker.low, owner: p.opts.Owner, clean: final,
		sole: p.inFlight == 1 && total == 1, blind: p.past.blind, open: p.past.open,
		ceiling: p.opts.Journal == JournalCeiling, exact: p.exact}
	if n.ceiling && !final {
		n.blind = max(n.blind, p.lastRead)
	}
	if n.blind <= n.base {
		n.blind = ""
	}
	n.window, n.now = p.tracker.touched(), now
	n.unread(&p.past, p.lastRead)
	if n.ceiling && !final {
		n.spell() // blind says as much of those that are only in flight
		n.entries = slices.DeleteFunc(n.entries, func(e entry) bool { return e == plainOut(e.pos) })
	}
	return n
}

// dueHeap is a heap of messages by when they are due.
type dueHeap []*msg

func (h dueHeap) Len() int { return len(h) }
func (h dueHeap) Less(i, j int) bool {
	if !h[i].due.Equal(h[j].due) {
		return h[i].due.Before(h[j].due)
	}
	return h[i].ord < h[j].ord
}
func (h dueHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(m any)   { *h = append(*h, m.(*msg)) }
func (h *dueHeap) Pop() any     { return pop((*[]*msg)(h)) }

func pop(h *[]*msg) *msg {
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
}
