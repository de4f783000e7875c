package logsource

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// member is the state of all partitions that this source has. It is pure: the time is an argument,
// and what is to be written or observed is returned.
type member struct {
	opts     Options
	parts    []*partition // in the order of their assignment
	epochs   uint64
	turn     int // where the next Receive begins, so that no partition starves
	inFlight int
	exact    bool                // see partition.exact
	alone    *msg                // a suspect in flight: nothing is handed out beside it
	ghosts   map[token]time.Time // lost hand-outs whose handlers may run on, and until when
	settled  memory
	seen     []ackwise.Event // to be observed
}

func newMember(o Options) *member {
	return &member{opts: o, ghosts: map[token]time.Time{},
		settled: memory{most: o.MaxRemembered}}
}

// observe notes what happened to a partition.
func (c *member) observe(kind, partition string, now time.Time, err error) {
	c.seen = append(c.seen, ackwise.Event{
		Kind: kind, Time: now, Pipeline: c.opts.Pipeline, ID: partition, Err: err})
}

func (c *member) byName(name string) *partition {
	for _, p := range c.parts {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (c *member) byEpoch(epoch uint64) *partition {
	for _, p := range c.parts {
		if p.epoch == epoch {
			return p
		}
	}
	return nil
}

// apply takes in one change.
func (c *member) apply(ch *Change, now time.Time) error {
	p := c.byName(ch.Partition)
	switch ch.Kind {
	case Assigned:
		if p != nil {
			c.lose(p, now)
		}
		c.epochs++
		p, err := newPartition(ch, c.epochs, &c.opts)
		if p.exact = c.exact; !p.exact { // what the last owner left takes room already
			n := p.snapshot(0, false, now)
			data, size := n.encode(c.opts.NoteBytes)
			p.measure(n, data, size)
		}
		c.parts = append(c.parts, p)
		c.observe("assigned", p.name, now, nil)
		if err != nil {
			c.observe("note-unreadable", p.name, now, err)
		}
	case Revoked:
		if p != nil {
			c.revoke(p, ch.Deadline, ch.Deadline)
			c.observe("revoked", p.name, now, nil)
		}
	case Lost:
		if p != nil {
			c.lose(p, now)
		}
	case Records:
		if p != nil {
			return p.read(ch.Records, now)
		}
	}
	return nil
}

// dirty reports whether a partition has something to write.
func (c *member) dirty() bool {
	return slices.ContainsFunc(c.parts, func(p *partition) bool { return p.version != p.written })
}

// revoke stops hand-outs of a partition; what is in flight may end until the deadline. A last write
// that fails is repeated until giveUp.
func (c *member) revoke(p *partition, deadline, giveUp time.Time) {
	p.leaving, p.deadline, p.giveUp = true, deadline, giveUp
	for m := range p.tracker.all {
		if m.state == held {
			m.handed.delivery.MarkRevoked()
		}
	}
}

// lose drops a partition of which nothing can be written any more.
func (c *member) lose(p *partition, now time.Time) {
	p.lost = true
	c.settled.forget(p.epoch)
	c.remove(p, now)
	c.observe("lost", p.name, now, nil)
}

// remove forgets a partition; what is in flight there is lost.
func (c *member) remove(p *partition, now time.Time) {
	for m := range p.tracker.all {
		if m.state != held {
			continue
		}
		m.handed.delivery.MarkLost()
		if m.handed.given && len(c.ghosts) < c.opts.MaxRemembered {
			c.ghosts[m.handed.token] = now.Add(c.opts.LostGrace)
		}
		c.inFlight--
		if c.alone == m {
			c.alone = nil
		}
	}
	p.epoch = 0 // no token names it any more
	c.parts = slices.DeleteFunc(c.parts, func(q *partition) bool { return q == p })
}

// claim is a hand-out that waits for its note.
type claim struct {
	p *partition
	m *msg
}

// take claims up to most messages. Where unwritten says so, they are given out only after a write.
func (c *member) take(most int, now time.Time) []claim {
	if c.alone != nil {
		return nil
	}
	suspects := false
	for _, p := range c.parts {
		p.wake(now)
		suspects = suspects || len(p.suspects) > 0 && !p.leaving
	}
	if suspects {
		return c.takeSuspect(now)
	}
	var claims []claim
	for idle := 0; len(claims) < most && idle < len(c.parts); c.turn++ {
		p := c.parts[c.turn%len(c.parts)]
		m := p.next(false, now)
		if m == nil {
			idle++
			continue
		}
		idle = 0
		claims = append(claims, claim{p, m})
	}
	c.inFlight += len(claims)
	for _, p := range c.parts {
		p.endTake()
		if full := p.full(); full != p.noteFull {
			p.noteFull = full
			if full {
				c.observe("note-full", p.name, now, nil)
			}
		}
	}
	return claims
}

// takeSuspect hands out one suspect, once nothing else is in flight. Until then nothing is, so
// that it gets its turn.
func (c *member) takeSuspect(now time.Time) []claim {
	if c.inFlight > 0 {
		return nil
	}
	for _, p := range c.parts {
		if m := p.next(true, now); m != nil {
			c.alone = m
			c.inFlight++
			return []claim{{p, m}}
		}
	}
	return nil
}

// unwritten reports whether the claims may be given out only after the next write: it brings the
// notes of their partitions, and one that still says of a message that it is its member's only one.
func (c *member) unwritten(claims []claim) bool {
	for _, cl := range claims {
		if c.opts.Journal == JournalHandOuts || cl.m.pos > cl.p.ceiling {
			return true
		}
	}
	return false
}

// stale returns why a note that says that a message is its member's only one could not be replaced,
// though it is no longer the only one.
func (c *member) stale(r *round) error {
	for _, p := range c.parts {
		if err := r.fault(p); err != nil && p.soleNoted && c.inFlight > 1 {
			return err
		}
	}
	return nil
}

// takeBack undoes claims that were not given out.
func (c *member) takeBack(claims []claim, now time.Time) {
	for _, cl := range claims {
		if cl.p.epoch == 0 || cl.m.state != held {
			continue
		}
		cl.p.takeBack(cl.m, now)
		c.ended(cl.m)
	}
}

func (c *member) ended(m *msg) {
	c.inFlight--
	if c.alone == m {
		c.alone = nil
	}
}

// settle carries out one settlement. p is the partition whose note has to tell of it, or nil.
func (c *member) settle(s *ackwise.Settlement, now time.Time) (
	res ackwise.SettleResult, p *partition) {
	t, ok := decodeToken(s.Token)
	if !ok || t.owner != c.opts.Owner {
		return ackwise.SettleResult{Err: ackwise.ErrBadToken}, nil
	}
	if len(c.ghosts) > 0 {
		delete(c.ghosts, t)
	}
	p = c.byEpoch(t.epoch)
	m := p.holds(t)
	if m == nil {
		return c.settledBefore(t, s.Outcome, p)
	}
	switch {
	case s.Outcome > ackwise.OutcomeDrop:
		return ackwise.SettleResult{Err: &ackwise.InvalidError{
			Field: "outcome", Value: s.Outcome.String(), Reason: "no such outcome"}}, nil
	case s.Outcome == ackwise.OutcomeDrop && s.Reason == "":
		return ackwise.SettleResult{Err: &ackwise.InvalidError{
			Field: "reason", Reason: "a drop needs one"}}, nil
	case s.Outcome == ackwise.OutcomeExtend:
		return ackwise.SettleResult{}, nil // a hand-out lasts until it is settled
	case m.handed.writing:
		return ackwise.SettleResult{Err: errTransacting}, nil
	}
	if final := s.Outcome == ackwise.OutcomeAck || s.Outcome == ackwise.OutcomeDead ||
		s.Outcome == ackwise.OutcomeDrop; final && m.behind() {
		return ackwise.SettleResult{Err: ackwise.ErrRunOrder}, nil
	}
	p.settle(m, s, now)
	c.ended(m)
	c.settled.put(t, s.Outcome)
	return ackwise.SettleResult{}, p
}

// settledBefore answers the settlement of a hand-out that is not held.
func (c *member) settledBefore(t token, o ackwise.Outcome, p *partition) (
	ackwise.SettleResult, *partition) {
	switch before, ok := c.settled.find(t); {
	case !ok:
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}, nil
	case before != o:
		return ackwise.SettleResult{Err: ackwise.ErrSettled}, nil
	}
	return ackwise.SettleResult{Already: true}, p
}

// write is one note on its way.
type write struct {
	p       *partition
	version uint64
	sole    bool
	ceiling ackwise.Position
	final   bool
}

// marks returns what has to be written now: what has changed, what leaves, and a note that says
// "sole" though more is in flight by now.
func (c *member) marks(now time.Time) ([]Mark, []write) {
	maps.DeleteFunc(c.ghosts, func(_ token, until time.Time) bool { return !now.Before(until) })
	total := c.inFlight + len(c.ghosts)
	var marks []Mark
	var writes []write
	for _, p := range c.parts {
		final := p.done(now)
		ceiling := p.ceiling
		if c.opts.Journal == JournalCeiling {
			ceiling = p.lastRead
		}
		if p.version == p.written && !final && ceiling == p.ceiling &&
			!(p.soleNoted && c.inFlight > 1) {
			continue
		}
		n := p.snapshot(total, final, now)
		data, size := n.encode(c.opts.NoteBytes)
		p.measure(n, data, size)
		marks = append(marks, Mark{Partition: p.name, Position: n.base, Note: data})
		writes = append(writes, write{p: p, version: p.version, sole: n.sole,
			ceiling: ceiling, final: final})
	}
	return marks, writes
}

// idle reports whether nothing that was read waits to be settled.
func (c *member) idle() bool {
	for _, p := range c.parts {
		if p.open > 0 {
			return false
		}
	}
	return true
}

// done reports whether a leaving partition has nothing more to wait for.
func (p *partition) done(now time.Time) bool {
	return p.leaving && (p.inFlight == 0 || !now.Before(p.deadline))
}

// wrote takes in the result of one write. It reports whether the partition is to be released.
func (c *member) wrote(w *write, err error, fenced bool, now time.Time) (release bool) {
	p := w.p
	if p.epoch == 0 {
		return false // lost meanwhile
	}
	switch {
	case fenced:
		c.lose(p, now)
		return false
	case err != nil:
		c.observe("commit-failed", p.name, now, err)
		// The next owner will take what is open here for lost: nothing better can be had.
		release = w.final && !now.Before(p.giveUp)
	default:
		p.written, p.soleNoted, p.ceiling = w.version, w.sole, w.ceiling
		release = w.final
	}
	if release {
		if err != nil || p.version != w.version {
			p.lost = true // what was settled since the note was made is not in it
			c.settled.forget(p.epoch)
		}
		c.remove(p, now)
		c.observe("released", p.name, now, nil)
	}
	return release
}

// pauses returns the partitions to be paused or resumed, and remembers that they are.
func (c *member) pauses(now time.Time) (pause, resume []string) {
	n := max(1, len(c.parts))
	messages := min(c.opts.PartitionMessages, max(1, c.opts.TotalMessages/n))
	bytes := min(c.opts.PartitionBytes, max(1, c.opts.TotalBytes/n))
	for _, p := range c.parts {
		c.tellStuck(p, messages, now)
		switch {
		case !p.paused && (p.window() >= messages || p.bytes >= bytes || p.leaving):
			p.paused = true
			pause = append(pause, p.name)
			if !p.leaving {
				c.observe("paused", p.name, now, nil)
			}
		case p.paused && !p.leaving && p.window() <= messages*7/8 && p.bytes <= bytes/8*7:
			p.paused = false
			resume = append(resume, p.name)
			c.observe("resumed", p.name, now, nil)
		}
	}
	return pause, resume
}

// tellStuck reports, once, the message for which a full window waits: most of what is in it is
// settled.
func (c *member) tellStuck(p *partition, messages int, now time.Time) {
	settled := p.window() - p.open
	switch full := p.window() >= messages; {
	case !full:
		p.stuck = false
	case !p.stuck && settled >= messages/2:
		p.stuck = true
		m := p.tracker.at(p.tracker.first)
		c.seen = append(c.seen, ackwise.Event{Kind: "stuck", Time: now,
			Pipeline: c.opts.Pipeline, ID: m.message.ID, Key: m.message.Key,
			Attempt: m.counts.HandOuts, Cause: m.cause,
			Err: fmt.Errorf("partition %s waits for it, with %d settled behind", p.name, settled)})
	}
}

// nextDue returns when the first delayed message is due; zero = none is.
func (c *member) nextDue() time.Time {
	var first time.Time
	for _, p := range c.parts {
		if len(p.delayed) > 0 && !p.leaving &&
			(first.IsZero() || p.delayed[0].due.Before(first)) {
			first = p.delayed[0].due
		}
	}
	return first
}

// nextLeave returns when the first leaving partition's drain is over; zero = none leaves.
func (c *member) nextLeave(now time.Time) time.Time {
	var first time.Time
	for _, p := range c.parts {
		at := p.deadline
		if p.leaving && p.inFlight == 0 {
			at = now
		}
		if p.leaving && (first.IsZero() || at.Before(first)) {
			first = at
		}
	}
	return first
}
