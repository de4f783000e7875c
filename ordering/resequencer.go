package ordering

import (
	"cmp"
	"container/heap"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
)

// HeaderLate marks a message that came when its key had gone on without it: its number was given
// up, or a later stamp was let go before. Its value is "true".
const HeaderLate = "ackwise-late"

// ResequencerOptions configure a Resequencer. The zero value is ready to use.
type ResequencerOptions struct {
	// ByStamp orders by ackwise.HeaderStamp in place of ackwise.HeaderSequence. Nothing is ever
	// missing then; a message is held for Wait, and the order is right where none comes later than
	// that behind a later stamp. Default: false, by number.
	ByStamp bool
	// Wait is how long a message is held with ByStamp. Default: 10 s.
	Wait time.Duration
	// First is the number that a key begins with. Default: 1.
	First uint64
	// Policy says what a missing number does to a key. It may depend on the key. Default: every
	// key waits.
	Policy func(key string) Policy
	// DropLate drops what comes late, and counts it. Default: false, it is let go at once, marked
	// with HeaderLate.
	DropLate bool
	// MaxHeld bounds the messages held. At it, what is not the next of its key is pushed back: the
	// caller puts it off, and sees to it that the next one is not kept behind it. Default: 1 million.
	MaxHeld int
	// MaxKeys bounds the keys that hold messages, likewise. Default: 100,000.
	MaxKeys int
	// MaxJump bounds how far ahead of the next number of its key a message may be: one further
	// ahead is refused, since its number must be wrong. Default: 1 million.
	MaxJump uint64
	// Remember is how many numbers back a key remembers the sums of bodies, so that a number that
	// comes again with another body is told from a plain repeat. Default: 16.
	Remember int
	// Ask is how long after a number was missed, and how often from then on, it is asked where it
	// is. Default: 5 s.
	Ask time.Duration
}

func (o *ResequencerOptions) fill() error {
	o.Wait = cmp.Or(o.Wait, 10*time.Second)
	o.First = cmp.Or(o.First, 1)
	o.MaxHeld = cmp.Or(o.MaxHeld, 1_000_000)
	o.MaxKeys = cmp.Or(o.MaxKeys, 100_000)
	o.MaxJump = cmp.Or(o.MaxJump, 1_000_000)
	o.Remember = cmp.Or(o.Remember, 16)
	o.Ask = cmp.Or(o.Ask, 5*time.Second)
	if o.Policy == nil {
		o.Policy = func(string) Policy { return Policy{} }
	}
	return errors.Join(atLeast("Wait", o.Wait, time.Millisecond), atLeast("MaxHeld", o.MaxHeld, 1),
		atLeast("MaxKeys", o.MaxKeys, 1), atLeast("Remember", o.Remember, 1),
		atLeast("Ask", o.Ask, time.Millisecond))
}

// Arrival is a message as the resequencer sees it.
type Arrival struct {
	Key    string
	Number uint64        // with its number
	Stamp  ackwise.Stamp // or with its stamp
	Sum    uint64        // of its body
	Size   int           // its bytes
	Ref    uint64        // where its body is: the caller's own
}

// Verdict says what becomes of an arrival.
type Verdict uint8

// The five verdicts.
const (
	VerdictTaken     Verdict = iota // held until Next gives it back, maybe at once
	VerdictDuplicate                // it was here before, with the same body: let it go
	VerdictLate                     // its key went on without it: marked, or dropped
	VerdictFull                     // no room, for it or for its node's name: put it off
	VerdictRefused                  // its order must be wrong; the error says why
)

// Resequencer puts the messages of each key in order. It is a pure state machine for one goroutine:
// it knows no clock, holds no body, and keeps nothing over a restart but the rows that it writes
// for its caller, one a key.
//
//	Learn ─▶ Arrive ─▶ Next … ─▶ (the caller makes it durable, with Row) ─▶ Moved
//	         Missing ─▶ (the caller asks) ─▶ Answer ─▶ Next …
type Resequencer struct {
	opt   ResequencerOptions
	lanes map[string]*lane
	ready []*lane // with something that may go
	held  int
	keys  int // that hold something
	gaps  wakes
	queue fifo   // ByStamp: what is held, as it came
	names names  // of the nodes, in stamps
	count Report // its counters
}

// lane is what memory holds of a key.
type lane struct {
	key    string
	next   uint64   // by number: the next one
	gone   rank     // by stamp: the last that was let go
	until  rank     // by stamp: up to where it may go
	since  int64    // when next was missed, milliseconds; 0 = it is not
	floor  uint64   // below it, what was given up is forgotten
	given  spans    // up
	sums   []uint64 // of the numbers below next, the last one last; 0 = given up
	held   entries
	queued bool        // in ready
	state  Whereabouts // of next
	wake   int64       // when to look at its gap
	slot   int         // in gaps, from 1; 0 = not there
}

// NewResequencer returns a resequencer that knows no key yet.
func NewResequencer(o ResequencerOptions) (*Resequencer, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	return &Resequencer{opt: o, lanes: map[string]*lane{}, names: newNames(),
		count: Report{GivenUp: map[Whereabouts]uint64{}}}, nil
}

// Read reads the order that a message carries. A message without a key has none, and is not for a
// resequencer. A missing or malformed header is a *SequenceError.
func (r *Resequencer) Read(m *ackwise.Message) (Arrival, error) {
	a := Arrival{Key: m.Key, Sum: sumOf(m.Body), Size: len(m.Body)}
	name := ackwise.HeaderSequence
	if r.opt.ByStamp {
		name = ackwise.HeaderStamp
	}
	text, there := m.Header(name)
	if !there {
		return a, &SequenceError{Key: m.Key, Reason: "it has no header " + name}
	}
	var err error
	if r.opt.ByStamp {
		if a.Stamp, err = ackwise.ParseStamp(string(text)); err == nil && a.Stamp.IsZero() {
			err = errors.New("it is zero")
		}
	} else {
		a.Number, err = strconv.ParseUint(string(text), 10, 64)
		if err == nil && a.Number == 0 {
			err = errors.New("it is zero")
		}
	}
	if err != nil {
		return a, &SequenceError{Key: m.Key, Reason: fmt.Sprintf("its header %s, %.40q, cannot be "+
			"read: %v", name, text, err)}
	}
	return a, nil
}

// sumOf is a fingerprint of a body, never 0. A nil body and an empty one differ.
func sumOf(body []byte) uint64 {
	if body == nil {
		return 1
	}
	h := sha256.Sum256(body)
	return max(binary.BigEndian.Uint64(h[:]), 2)
}

// Knows reports whether a key's row was learnt.
func (r *Resequencer) Knows(key string) bool { return r.lanes[key] != nil }

// Learn takes a key up: row is what Row returned last, nil for a key that is new.
func (r *Resequencer) Learn(now time.Time, key string, row []byte) error {
	l := &lane{key: key, next: r.opt.First, floor: r.opt.First}
	if row != nil {
		if err := r.decodeRow(l, row); err != nil {
			return fmt.Errorf("read row of key %.80q: %w", key, err)
		}
	}
	r.lanes[key] = l
	if l.since != 0 {
		// What was sent meanwhile gets its time to come.
		l.wake = now.UnixMilli() + r.opt.Ask.Milliseconds()
	}
	return nil
}

// maxIdle is how many keys that hold nothing stay in memory.
const maxIdle = 1 << 16

// Trim lets keys go that hold nothing, and names of nodes that are not used, where there are many.
// The caller calls it when all rows are durable, and learns the keys again.
func (r *Resequencer) Trim() {
	many := len(r.names.at) >= r.names.sweepAt
	if len(r.lanes)-r.keys <= maxIdle && !many {
		return
	}
	for key, l := range r.lanes {
		if l.held.len == 0 {
			delete(r.lanes, key)
		}
	}
	if many {
		r.forgetNames()
	}
}

// Arrive decides about a message of a key that was learnt. Its Ref is the caller's until Moved.
func (r *Resequencer) Arrive(now time.Time, a Arrival) (Verdict, error) {
	v, err := r.arrive(now.UnixMilli(), &a)
	switch v {
	case VerdictTaken:
	case VerdictDuplicate:
		r.count.Duplicates++
	case VerdictLate:
		r.count.Late++
	case VerdictFull:
		r.count.PushedBack++
	case VerdictRefused:
		r.count.Refused++
	}
	return v, err
}

func (r *Resequencer) arrive(now int64, a *Arrival) (Verdict, error) {
	l := r.lanes[a.Key]
	if r.opt.ByStamp && r.names.full(a.Stamp.Node) {
		return VerdictFull, nil
	}
	at := r.rankOf(a)
	if r.opt.ByStamp {
		if r.compare(at, l.gone) <= 0 {
			return VerdictLate, nil
		}
	} else if a.Number < l.next {
		return r.past(l, a)
	}
	i, there := l.held.find(at, r.compare)
	switch {
	case there && l.held.at(i).sum != a.Sum:
		return VerdictRefused, conflict(a)
	case there:
		return VerdictDuplicate, nil
	case !r.opt.ByStamp && a.Number-l.next >= r.opt.MaxJump:
		return VerdictRefused, &SequenceError{Key: a.Key, Number: a.Number, Reason: fmt.Sprintf(
			"it jumps: the next number is %d, and %d ahead is too far (MaxJump)", l.next,
			a.Number-l.next)}
	case (r.held >= r.opt.MaxHeld || l.held.len == 0 && r.keys >= r.opt.MaxKeys) &&
		(r.opt.ByStamp || a.Number != l.next):
		return VerdictFull, nil
	}
	r.hold(l, i, entry{rank: at, ref: a.Ref, sum: a.Sum, size: uint32(a.Size)}, now)
	return VerdictTaken, nil
}

// Restore holds a message again after a restart, whatever the bounds are; since when it was held is
// its now. held is false where it has gone already, or is held.
func (r *Resequencer) Restore(now time.Time, a Arrival) (held bool) {
	l, at := r.lanes[a.Key], r.rankOf(&a)
	if r.opt.ByStamp && r.compare(at, l.gone) <= 0 || !r.opt.ByStamp && a.Number < l.next {
		return false
	}
	i, there := l.held.find(at, r.compare)
	if !there {
		r.hold(l, i, entry{rank: at, ref: a.Ref, sum: a.Sum, size: uint32(a.Size)},
			now.UnixMilli())
	}
	return !there
}

// hold takes a message in.
func (r *Resequencer) hold(l *lane, at place, e entry, now int64) {
	l.held.add(at, e)
	r.held++
	if l.held.len == 1 {
		r.keys++
	}
	if r.opt.ByStamp {
		r.queue.push(waiting{lane: l, rank: e.rank, at: now})
		return
	}
	r.look(l, now)
}

// past decides about a number that the key has passed.
func (r *Resequencer) past(l *lane, a *Arrival) (Verdict, error) {
	if a.Number < r.opt.First {
		return VerdictRefused, &SequenceError{Key: a.Key, Number: a.Number,
			Reason: fmt.Sprintf("numbers begin with %d", r.opt.First)}
	}
	if a.Number < l.floor {
		return VerdictLate, nil // nobody knows any more: rather twice than never
	}
	back := uint64(len(l.sums)) - (l.next - a.Number) // huge where it is further back
	if _, given := l.given.find(a.Number); given {
		l.given, l.floor = l.given.remove(a.Number, l.floor)
		if back < uint64(len(l.sums)) {
			l.sums[back] = a.Sum
		}
		return VerdictLate, nil
	}
	if back >= uint64(len(l.sums)) {
		r.count.Unchecked++
		return VerdictDuplicate, nil
	}
	if l.sums[back] != a.Sum {
		return VerdictRefused, conflict(a)
	}
	return VerdictDuplicate, nil
}

func conflict(a *Arrival) error {
	return &SequenceError{Key: a.Key, Number: a.Number,
		Reason: "it was here before with another body: its producer gave it twice"}
}

func (r *Resequencer) rankOf(a *Arrival) rank {
	if !r.opt.ByStamp {
		return rank{hi: a.Number}
	}
	return rank{hi: uint64(a.Stamp.Millis),
		lo: uint64(a.Stamp.Counter)<<32 | r.names.place(a.Stamp.Node)}
}

func (r *Resequencer) stampOf(at rank) ackwise.Stamp {
	if at == (rank{}) {
		return ackwise.Stamp{}
	}
	return ackwise.Stamp{Millis: int64(at.hi), Counter: uint32(at.lo >> 32),
		Node: r.names.all[uint32(at.lo)]}
}

// compare orders ranks: by number, or as stamps are ordered.
func (r *Resequencer) compare(a, b rank) int {
	if a.hi != b.hi || a.lo>>32 != b.lo>>32 || !r.opt.ByStamp {
		return cmp.Or(cmp.Compare(a.hi, b.hi), cmp.Compare(a.lo, b.lo))
	}
	return r.stampOf(a).Compare(r.stampOf(b))
}

// look finds out whether the key may go on or waits for a number, after either has changed.
func (r *Resequencer) look(l *lane, now int64) {
	first := l.held.first()
	switch {
	case first == nil || first.hi == l.next:
		l.since, l.state = 0, Unknown
		r.unwake(l)
		if first != nil {
			r.queueUp(l)
		}
	case l.slot == 0: // the wait begins, or goes on after a restart
		if l.since == 0 {
			l.since = now
			l.wake = now + min(r.opt.Ask.Milliseconds(), r.patience(l))
		}
		heap.Push(&r.gaps, l)
	}
}

// patience is how long a key waits before something has to be done, at the least.
func (r *Resequencer) patience(l *lane) int64 {
	return r.opt.Policy(l.key).limit(l.state)
}

func (r *Resequencer) queueUp(l *lane) {
	if !l.queued {
		l.queued = true
		r.ready = append(r.ready, l)
	}
}

func (r *Resequencer) unwake(l *lane) {
	if l.slot != 0 {
		heap.Remove(&r.gaps, l.slot-1)
	}
}

// Next takes the next message out that may go; false = none may at this time. What is taken out
// has gone: the caller makes it and the key's row durable together.
func (r *Resequencer) Next(now time.Time) (Arrival, bool) {
	ms := now.UnixMilli()
	r.release(ms)
	for len(r.ready) > 0 {
		l := r.ready[0]
		e := l.held.first()
		if e == nil || !r.mayGo(l, e) {
			l.queued = false
			r.ready = r.ready[1:]
			continue
		}
		a := Arrival{Key: l.key, Ref: e.ref, Sum: e.sum, Size: int(e.size)}
		if r.opt.ByStamp {
			a.Stamp, l.gone = r.stampOf(e.rank), e.rank
		} else {
			a.Number = e.hi
			l.pass(e.sum, r.opt.Remember)
		}
		l.held.removeFirst()
		r.held--
		r.count.Released++
		if l.held.len == 0 {
			r.keys--
		}
		if !r.opt.ByStamp {
			r.look(l, ms)
		}
		return a, true
	}
	r.ready = nil
	return Arrival{}, false
}

func (r *Resequencer) mayGo(l *lane, e *entry) bool {
	if r.opt.ByStamp {
		return r.compare(e.rank, l.until) <= 0
	}
	return e.hi == l.next
}

// pass moves the key on by one number.
func (l *lane) pass(sum uint64, remember int) {
	if l.next++; len(l.sums) >= remember {
		l.sums = slices.Delete(l.sums, 0, len(l.sums)-remember+1)
	}
	l.sums = append(l.sums, sum)
}

// release lets the keys go on up to what has waited long enough, by stamp.
func (r *Resequencer) release(now int64) {
	for {
		w := r.queue.first()
		if w == nil || w.at+r.opt.Wait.Milliseconds() > now {
			return
		}
		if r.compare(w.rank, w.lane.until) > 0 {
			w.lane.until = w.rank
		}
		if w.lane.held.len > 0 {
			r.queueUp(w.lane)
		}
		r.queue.removeFirst()
	}
}

// Moved says where the body of a held message is from now on. One that is not held is left out.
func (r *Resequencer) Moved(a Arrival) {
	l := r.lanes[a.Key]
	if l == nil {
		return
	}
	if i, there := l.held.find(r.rankOf(&a), r.compare); there {
		l.held.at(i).ref = a.Ref
	}
}

// Untake undoes that a message was taken, where its body could not be kept: it comes again. One
// that is not held is left out.
func (r *Resequencer) Untake(now time.Time, a Arrival) {
	l := r.lanes[a.Key]
	if l == nil {
		return
	}
	i, there := l.held.find(r.rankOf(&a), r.compare)
	if !there {
		return
	}
	l.held.remove(i)
	r.held--
	if l.held.len == 0 {
		r.keys--
	}
	if !r.opt.ByStamp {
		r.look(l, now.UnixMilli())
	}
}

// IsHeld reports whether a message of a known key is held.
func (r *Resequencer) IsHeld(a Arrival) bool {
	_, there := r.lanes[a.Key].held.find(r.rankOf(&a), r.compare)
	return there
}
