package sqs

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// lateGrace is how long a hand-out is remembered after its lease, for an ack that comes too late.
const lateGrace = 10 * time.Minute

// book is what this process holds and remembers. It is pure: no I/O, and the time is an argument.
//
// Of a FIFO queue, groups holds the run of each group: what was received of it and is not settled,
// in order. Only the first of a run may be acked. When one is given back, those behind it go back
// before it: a group of which anything is in flight is handed out to nobody, so that nobody can get
// the later ones as long as the earlier one is still here.
type book struct {
	owner  uint64 // tells our tokens from others'
	fifo   bool
	serial uint64
	held   map[uint64]*entry
	latest map[string]*entry // by the service's message ID
	groups map[string][]*entry
	ended  ring[uint64, ending]
	causes ring[string, known]
	swept  time.Time
}

// entry is one hand-out that is not settled.
type entry struct {
	serial             uint64
	id, receipt, group string
	count              int
	// The service counts from a moment between since, when it was asked, and came, when its answer was
	// here: until deadline, which counts from since, the hand-out is surely this consumer's.
	since, came, deadline time.Time
	delivery              *ackwise.Delivery
	busy                  int  // calls under way that end or extend it
	asked                 bool // a settlement with this outcome was sent, and its answer did not come
	outcome               ackwise.Outcome
}

// ending is how a hand-out ended. follows: with the one before it in its run.
type ending struct {
	outcome ackwise.Outcome
	follows bool
}

// known is a hand-out that this process ended, and what its next one therefore is.
type known struct {
	count int
	cause ackwise.Cause
}

func newBook(owner uint64, fifo bool, remembered int) *book {
	return &book{owner: owner, fifo: fifo, held: map[uint64]*entry{}, latest: map[string]*entry{},
		groups: map[string][]*entry{}, ended: newRing[uint64, ending](remembered),
		causes: newRing[string, known](remembered)}
}

// add takes in what one poll brought, in its order. Older hand-outs of the same messages are lost;
// one that is itself the older one is left out.
func (b *book) add(es []*entry, now time.Time) {
	b.sweep(now)
	for _, e := range es {
		if b.stale(e, es, now) {
			continue
		}
		if old := b.latest[e.id]; old != nil {
			b.lose(old)
		}
		if b.fifo { // it would not be here if the service knew of one of its group in flight
			for _, old := range slices.Clone(b.groups[e.group]) {
				switch {
				case slices.Contains(es, old):
				case old.asked && (old.outcome == ackwise.OutcomeAck || old.outcome == ackwise.OutcomeDrop):
					b.leaveRun(old) // deleted, it seems, and the answer was lost: asked again, it comes
				default:
					b.lose(old)
				}
			}
		}
		b.serial++
		e.serial = b.serial
		e.delivery.Token = b.token(e.serial)
		e.delivery.Cause = b.cause(e)
		b.held[e.serial], b.latest[e.id] = e, e
		if b.fifo {
			b.groups[e.group] = append(b.groups[e.group], e)
		}
	}
}

// stale reports whether an answer came so late that what it brought had been handed out anew, to an
// answer that was faster.
func (b *book) stale(e *entry, es []*entry, now time.Time) bool {
	old := b.latest[e.id]
	return old != nil && e.count < old.count && e.since.Before(old.since) ||
		slices.ContainsFunc(b.groups[e.group], func(old *entry) bool {
			return e.since.Before(old.since) && now.Before(old.deadline) && !old.asked &&
				!slices.Contains(es, old)
		})
}

// open reports whether it is still to be seen how hand-outs of the same messages or groups ended.
// The service may have carried a settlement out and handed out what it freed before its answer is
// here.
func (b *book) open(es []*entry) bool {
	busy := func(e *entry) bool { return e != nil && e.busy > 0 }
	return slices.ContainsFunc(es, func(e *entry) bool {
		return busy(b.latest[e.id]) || slices.ContainsFunc(b.groups[e.group], busy)
	})
}

// cause is why a message is handed out: known where the service has counted nothing before, or
// exactly the hand-out that this process ended.
func (b *book) cause(e *entry) ackwise.Cause {
	before, ok := b.causes.get(e.id)
	switch {
	case e.count == 1 && !ok: // the count is approximate: what was here before is not the first
		return ackwise.CauseFirst
	case ok && before.count == e.count-1:
		return before.cause
	}
	return ackwise.CauseUnknown
}

func (b *book) token(serial uint64) ackwise.LeaseToken {
	raw := binary.BigEndian.AppendUint64(nil, b.owner)
	raw = binary.AppendUvarint(raw, serial)
	return ackwise.LeaseToken(base64.RawURLEncoding.EncodeToString(raw))
}

func (b *book) read(t ackwise.LeaseToken) (serial uint64, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(string(t))
	if err != nil || len(raw) < 9 || binary.BigEndian.Uint64(raw) != b.owner {
		return 0, false
	}
	serial, n := binary.Uvarint(raw[8:])
	return serial, n == len(raw)-8 && b.token(serial) == t
}

// forget takes a hand-out off the books.
func (b *book) forget(e *entry) {
	delete(b.held, e.serial)
	if b.latest[e.id] == e {
		delete(b.latest, e.id)
	}
	b.leaveRun(e)
}

func (b *book) leaveRun(e *entry) {
	if !b.fifo {
		return
	}
	run := slices.DeleteFunc(b.groups[e.group], func(o *entry) bool { return o == e })
	if b.groups[e.group] = run; len(run) == 0 {
		delete(b.groups, e.group)
	}
}

// lose ends a hand-out that is somebody else's by now.
func (b *book) lose(e *entry) {
	b.forget(e)
	b.causes.put(e.id, known{count: e.count})
	e.delivery.MarkLost()
}

// loseRun loses a hand-out with those behind it in its run: nothing may be acked behind one that is
// somebody else's.
func (b *book) loseRun(e *entry) {
	for _, o := range b.behind(e) {
		b.lose(o)
	}
	b.lose(e)
}

// sweep forgets hand-outs whose leases are long over: nobody has settled them.
func (b *book) sweep(now time.Time) {
	if now.Sub(b.swept) < time.Minute {
		return
	}
	b.swept = now
	for _, e := range b.held {
		if now.Sub(e.deadline) > lateGrace {
			b.lose(e)
		}
	}
}

// behind returns the entries of e's run that come after it, last first.
func (b *book) behind(e *entry) []*entry {
	run := b.groups[e.group]
	i := slices.Index(run, e)
	if i < 0 {
		return nil
	}
	rest := slices.Clone(run[i+1:])
	slices.Reverse(rest)
	return rest
}

// judge says what to do with a settlement: nothing (result is the answer), or to carry it out on
// the entry.
func (b *book) judge(s *ackwise.Settlement, now time.Time) (*entry, ackwise.SettleResult) {
	refuse := func(err error) (*entry, ackwise.SettleResult) {
		return nil, ackwise.SettleResult{Err: err}
	}
	serial, ok := b.read(s.Token)
	if !ok {
		return refuse(ackwise.ErrBadToken)
	}
	if old, again := b.ended.get(serial); again {
		switch {
		case old.outcome == s.Outcome && s.Outcome != ackwise.OutcomeExtend:
			return nil, ackwise.SettleResult{Already: true}
		case old.follows:
			return refuse(ackwise.ErrRunOrder)
		}
		return refuse(ackwise.ErrSettled)
	}
	e := b.held[serial]
	if e == nil {
		return refuse(ackwise.ErrLeaseLost)
	}
	switch s.Outcome {
	case ackwise.OutcomeDead:
		return refuse(&ackwise.InvalidError{Field: "outcome", Value: s.Outcome.String(), Reason: "the " +
			"source moves nothing to dead letters: write the dead letter, then ack"})
	case ackwise.OutcomeDrop:
		if s.Reason == "" {
			return refuse(&ackwise.InvalidError{Field: "reason", Reason: "a drop needs one"})
		}
		return b.inOrder(e)
	case ackwise.OutcomeAck:
		return b.inOrder(e)
	case ackwise.OutcomeNack, ackwise.OutcomeSnooze, ackwise.OutcomeRelease, ackwise.OutcomeExtend:
		if !now.Before(e.deadline) { // whoever holds it now must not lose it
			b.loseRun(e)
			return refuse(ackwise.ErrLeaseLost)
		}
		if s.Outcome == ackwise.OutcomeNack || s.Outcome == ackwise.OutcomeSnooze {
			return b.inOrder(e)
		}
		return e, ackwise.SettleResult{}
	}
	return refuse(&ackwise.InvalidError{Field: "outcome", Value: fmt.Sprint(s.Outcome),
		Reason: "no such outcome"})
}

// inOrder lets the first of a run pass, and one that has left it: see add.
func (b *book) inOrder(e *entry) (*entry, ackwise.SettleResult) {
	if slices.Index(b.groups[e.group], e) > 0 {
		return nil, ackwise.SettleResult{Err: ackwise.ErrRunOrder}
	}
	return e, ackwise.SettleResult{}
}

// end notes that a hand-out has ended. What is behind it in its run has ended with it where it was
// given back.
func (b *book) end(e *entry, o ackwise.Outcome, follows bool) {
	b.forget(e)
	b.ended.put(e.serial, ending{outcome: o, follows: follows})
	b.causes.put(e.id, known{count: e.count, cause: o.Again()})
}

// doubt takes back what is known of a message's next cause: its hand-out may have ended by itself
// before the settlement came. After an ack it is known all the same that its handler had succeeded.
func (b *book) doubt(e *entry) {
	if k, ok := b.causes.get(e.id); ok && k.cause != ackwise.CauseAckLost {
		b.causes.put(e.id, known{count: e.count})
	}
}

// ring is a map that forgets the oldest key past its bound.
type ring[K comparable, V any] struct {
	values map[K]V
	keys   []K
	next   int
	most   int
}

func newRing[K comparable, V any](most int) ring[K, V] {
	return ring[K, V]{values: map[K]V{}, most: most}
}

func (r *ring[K, V]) get(k K) (V, bool) {
	v, ok := r.values[k]
	return v, ok
}

func (r *ring[K, V]) put(k K, v V) {
	if _, there := r.values[k]; !there {
		if len(r.keys) < r.most {
			r.keys = append(r.keys, k)
		} else {
			delete(r.values, r.keys[r.next])
			r.keys[r.next] = k
			r.next = (r.next + 1) % r.most
		}
	}
	r.values[k] = v
}
