package state

import (
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

func (r *dueRecord) check(s *State) error {
	t := s.topics[r.Topic]
	return fits(t != nil && r.Count <= t.schedule.len)
}
func (r *dueRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	t := s.topics[r.Topic]
	for range r.Count {
		t.index.add(t.schedule.pop().indexEntry)
	}
	for _, q := range t.Subs {
		s.Touch(q)
	}
	s.trim(t)
}

func (r *pullRecord) check(s *State) error {
	q := s.subs[r.Sub]
	return fits(q != nil && r.To >= q.cursor && r.To <= q.Topic.index.next)
}
func (r *pullRecord) apply(s *State) { s.pullTo(s.subs[r.Sub], r.To) }

func (r *leaseRecord) check(s *State) error {
	q, ss := s.subs[r.Sub], s.sessions[r.Session]
	if q == nil || ss == nil || ss.Sub != q {
		return errUnknownNumber
	}
	for _, seq := range r.Seqs {
		slot, ok := q.bySequence(seq)
		if !ok || q.entry(slot).place != Ready {
			return errUnknownNumber
		}
	}
	return nil
}
func (r *leaseRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q, ss := s.subs[r.Sub], s.sessions[r.Session]
	for i, seq := range r.Seqs {
		slot, _ := q.bySequence(seq)
		e := q.entry(slot)
		q.unheap(slot)
		q.move(e, InFlight)
		gen := r.Gen + uint64(i)
		if before := s.remembered(e.gen); before != nil {
			before.next = gen
		}
		e.gen, e.run = gen, gen-uint64(r.Runs[i])
		e.session, e.since, e.due = ss.ID, r.Now, r.Deadline
		if e.alone = e.suspect; e.alone {
			ss.alone++
		}
		e.handouts++
		q.Causes[e.cause]++
		if e.lane != 0 {
			q.lanes[e.lane].leased++
		}
		q.leased.push(q, slot)
		ss.InFlight++
	}
	s.gen = max(s.gen, r.Gen+uint64(len(r.Seqs))-1)
	s.wakeSub(q)
}

// end ends a hand-out: it is no longer in flight, and what comes next decides its place.
func (s *State) end(q *Sub, slot int32, how End, reason string) {
	e := q.entry(slot)
	if e.place == InFlight {
		q.unheap(slot)
		if e.lane != 0 {
			q.lanes[e.lane].leased--
		}
		if ss := s.sessions[e.session]; ss != nil {
			ss.InFlight--
			if e.alone {
				ss.alone--
			}
		}
		e.alone = false
		q.tell(s, e, how, reason)
	} else { // a late settlement of a hand-out that was lost
		q.unheap(slot)
		q.retell(e, how, reason)
	}
	e.ended = how
	s.remember(ended{gen: e.gen, sub: q.ID, how: how, cause: e.cause})
}

// historyLen is how many attempts a history keeps: the newest.
const historyLen = 50

// tell adds the attempt that just ended to the history. An ack needs none: the message is done.
func (q *Sub) tell(s *State, e *entry, how End, reason string) {
	if how == EndAck || how == EndDrop {
		return
	}
	p := q.past[e.seq]
	if p == nil {
		p = &past{firstSeen: e.since}
		q.past[e.seq] = p
	}
	consumer := ""
	if ss := s.sessions[e.session]; ss != nil {
		consumer = ss.Name
	}
	if len(p.attempts) == historyLen {
		p.attempts = slices.Delete(p.attempts, 0, 1)
	}
	p.attempts = append(p.attempts, ackwise.Attempt{Number: int(e.handouts),
		Time: time.UnixMilli(e.since).UTC(), Consumer: consumer, Cause: e.cause,
		Outcome: how.word(), Error: reason,
		Duration: time.Duration(s.Now-e.since) * time.Millisecond})
	if reason != "" {
		p.error = reason
	} else if how.loss() && how != EndTakenBack && how != EndRebalanced {
		p.error = "the consumer did not settle: " + how.word()
	}
}

// retell corrects how the last attempt ended, after a late settlement.
func (q *Sub) retell(e *entry, how End, reason string) {
	if p := q.past[e.seq]; p != nil && len(p.attempts) > 0 {
		last := &p.attempts[len(p.attempts)-1]
		last.Outcome, last.Error = how.word(), reason
		p.error = reason
	}
}

func (r *settleRecord) check(s *State) error {
	q := s.subs[r.Sub]
	if q == nil {
		return errUnknownNumber
	}
	_, ok := q.bySequence(r.Seq)
	return fits(ok)
}
func (r *settleRecord) apply(s *State) {
	q := s.subs[r.Sub]
	slot, _ := q.bySequence(r.Seq)
	s.settle(q, slot, r)
}

func (r *settleManyRecord) check(s *State) error {
	q := s.subs[r.Sub]
	if q == nil || !plain(r.Outcome) || !distinct(r.Seqs) {
		return errUnknownNumber
	}
	for _, seq := range r.Seqs {
		if _, ok := q.bySequence(seq); !ok {
			return errUnknownNumber
		}
	}
	return nil
}
func (r *settleManyRecord) apply(s *State) {
	q := s.subs[r.Sub]
	one := &settleRecord{Now: r.Now, Sub: r.Sub, Outcome: r.Outcome}
	for _, seq := range r.Seqs {
		slot, _ := q.bySequence(seq)
		s.settle(q, slot, one)
	}
}

// plain reports whether an outcome needs neither a reason nor a time.
func plain(o ackwise.Outcome) bool {
	return o == ackwise.OutcomeAck || o == ackwise.OutcomeRelease
}

// distinct reports whether no sequence is there twice. They nearly always ascend.
func distinct(seqs []uint64) bool {
	ascend := func(seqs []uint64) bool {
		for i := 1; i < len(seqs); i++ {
			if seqs[i] <= seqs[i-1] {
				return false
			}
		}
		return true
	}
	return ascend(seqs) || ascend(slices.Sorted(slices.Values(seqs)))
}

// settle ends the hand-out of an entry, or extends it, as the record says.
func (s *State) settle(q *Sub, slot int32, r *settleRecord) {
	s.Now = max(s.Now, r.Now)
	e := q.entry(slot)
	if r.Outcome == ackwise.OutcomeExtend {
		e.due = r.Until
		q.leased.fix(q, int(e.heap))
		s.wakeSub(q)
		return
	}
	how := endOf(r.Outcome)
	s.end(q, slot, how, r.Reason)
	switch how {
	case EndAck:
		q.Acked++
		s.finish(q, slot)
	case EndDrop:
		q.drop(r.Reason)
		s.finish(q, slot)
	case EndDead:
		s.die(q, slot, r.Now)
	case EndNack:
		e.failures++
		q.Failures++
		e.suspect = false
		s.requeue(q, slot, how, r.Until)
	case EndSnooze:
		e.suspect = false
		s.requeue(q, slot, how, r.Until)
	case EndRelease:
		s.requeue(q, slot, how, 0)
	case EndNone, EndExpired, EndLost, EndRestarted, EndRebalanced, EndTakenBack:
	}
}

// maxReasons bounds the reasons that drops are counted under; what comes later is "other".
const maxReasons = 64

func (q *Sub) drop(reason string) {
	q.Dropped++
	if _, known := q.DroppedFor[reason]; !known && len(q.DroppedFor) >= maxReasons {
		reason = "other"
	}
	q.DroppedFor[reason]++
}

// requeue puts an entry whose hand-out ended back into its place: ready, or delayed until then.
func (s *State) requeue(q *Sub, slot int32, how End, until int64) {
	e := q.entry(slot)
	e.cause = how.cause()
	e.due = until
	switch {
	case e.lane != 0 && q.lanes[e.lane].mode == laneParked:
		q.move(e, Parked)
	case until > s.Now:
		q.move(e, Delayed)
		q.delayed.push(q, slot)
		s.wakeSub(q)
	default:
		q.move(e, Ready)
		s.offer(q, slot)
	}
	s.settleLane(q, e.lane)
}

// die makes an entry a dead letter. On a holding subscription its key is parked behind it.
func (s *State) die(q *Sub, slot int32, now int64) {
	e := q.entry(slot)
	q.move(e, Dead)
	e.since, e.suspect = now, false
	if e.lane == 0 {
		return
	}
	l := q.lanes[e.lane]
	q.unlink(l, slot)
	if q.Config.Hold {
		q.park(l, slot, now)
	}
	s.settleLane(q, e.lane)
}

func (r *wakeRecord) check(s *State) error {
	q := s.subs[r.Sub]
	return fits(q != nil && r.Count <= len(q.delayed.slots))
}
func (r *wakeRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q := s.subs[r.Sub]
	for range r.Count {
		slot, _ := q.delayed.top()
		q.unheap(slot)
		q.move(q.entry(slot), Ready)
		s.offer(q, slot)
	}
}

func (r *expireRecord) check(s *State) error {
	q := s.subs[r.Sub]
	if q == nil {
		return errUnknownNumber
	}
	for _, seq := range r.Seqs {
		if slot, ok := q.bySequence(seq); !ok || q.entry(slot).place != InFlight {
			return errUnknownNumber
		}
	}
	return nil
}
func (r *expireRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q := s.subs[r.Sub]
	for _, seq := range r.Seqs {
		slot, _ := q.bySequence(seq)
		if e := q.entry(slot); e.place == InFlight { // else taken back with its run
			q.charge(e)
			s.lose(q, slot, EndExpired)
		}
	}
}

// charge spends from a message's crash budget. From then on it runs alone.
func (q *Sub) charge(e *entry) {
	e.crashes++
	q.Crashes++
	e.suspect = true
}

// lose ends a hand-out that nobody settled. The rest of its key run, which was not begun, is taken
// back with it.
func (s *State) lose(q *Sub, slot int32, how End) {
	e := q.entry(slot)
	next := e.next
	for next >= 0 && q.entry(next).place == InFlight && how == EndExpired {
		s.end(q, next, EndTakenBack, "")
		q.entry(next).cause = EndTakenBack.cause()
		q.move(q.entry(next), Ready)
		next = q.entry(next).next
	}
	s.end(q, slot, how, "")
	s.requeue(q, slot, how, 0)
}

func (r *EndSession) check(s *State) error { return fits(s.sessions[r.ID] != nil) }
func (r *EndSession) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	ss := s.sessions[r.ID]
	q := ss.Sub
	var held []int32
	for _, slot := range q.leased.slots {
		if e := q.entry(slot); e.session == ss.ID {
			held = append(held, slot)
		}
	}
	slices.SortFunc(held, func(a, b int32) int { return compare(q.entry(a).seq, q.entry(b).seq) })
	for _, slot := range held {
		e := q.entry(slot)
		switch {
		case !r.How.cause().Crash():
		case len(held) == 1:
			q.charge(e)
		default:
			e.suspect = true
		}
		s.lose(q, slot, r.How)
	}
	s.forgetSession(ss)
}

func (r *redriveRecord) check(s *State) error { return checkDead(s, r.Sub, r.Seq) }
func (r *redriveRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q := s.subs[r.Sub]
	slot, _ := q.bySequence(r.Seq)
	e := q.entry(slot)
	e.redrives++
	e.failures, e.crashes = 0, 0
	e.cause = ackwise.CauseRedriven
	if r.Redo {
		e.epoch++
		e.cause = ackwise.CauseRedone
	}
	q.move(e, Ready)
	if e.lane != 0 {
		l := q.laneOf(e.lane)
		if l.dead == slot {
			l.mode, l.dead = laneDraining, -1
		}
		q.link(l, slot)
		s.settleLane(q, e.lane)
		return
	}
	s.offer(q, slot)
}

func (r *dropDeadRecord) check(s *State) error { return checkDead(s, r.Sub, r.Seq) }
func (r *dropDeadRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q := s.subs[r.Sub]
	slot, _ := q.bySequence(r.Seq)
	q.drop(r.Reason)
	s.finish(q, slot)
}

func checkDead(s *State, sub uint32, seq uint64) error {
	q := s.subs[sub]
	if q == nil {
		return errUnknownNumber
	}
	slot, ok := q.bySequence(seq)
	return fits(ok && q.entry(slot).place == Dead)
}
