package state

import (
	"cmp"
	"slices"

	"github.com/ackwise/ackwise"
)

// HandOut is one message of a Lease record, with what its delivery says.
type HandOut struct {
	Seq, Gen, Pos uint64
	Size          uint32
	Counts        ackwise.Counts
	Cause         ackwise.Cause
	Epoch         int
	Suspect       bool
	History       []ackwise.Attempt
}

// Ask is what a session wants handed out.
type Ask struct {
	Session  *Session
	Max      int    // messages
	MaxBytes int    // of payloads; the first message may be larger
	Lease    int64  // milliseconds
	Synced   uint64 // only what stands in the log before it
}

// HandOut chooses messages for a session, in the order of the log, and hands them out. It returns
// the records that say so, already applied.
func (s *State) HandOut(now int64, a Ask) ([]Record, []HandOut) {
	q := a.Session.Sub
	if q.at[Dead] >= int64(q.Config.MaxParked) || a.Session.alone > 0 {
		return nil, nil
	}
	if _, waiting := q.suspect.top(); waiting {
		if a.Session.InFlight == 0 {
			slot, _ := q.suspect.top()
			q.drainer = nil
			return s.lease(now, a, []int32{slot}, nil)
		}
		if s.drains(q, a.Session) {
			return nil, nil
		}
	}
	records := make([]Record, 0, 2)
	if pull := s.pullFor(q, a); pull != nil {
		records = append(records, pull)
	}
	slots := q.choose(a)
	if len(slots) == 0 {
		return records, nil
	}
	return s.lease(now, a, slots, records)
}

// CanHandOut reports whether HandOut would do something for the session: hand out, or pull.
func (s *State) CanHandOut(ss *Session, synced uint64) bool {
	q := ss.Sub
	if q.at[Dead] >= int64(q.Config.MaxParked) || ss.alone > 0 {
		return false
	}
	if len(q.suspect.slots) > 0 && (ss.InFlight == 0 || s.drains(q, ss)) {
		return ss.InFlight == 0
	}
	return len(q.ready.slots) > 0 ||
		q.entryCount < int64(q.Config.MaxWaiting) && q.lineSynced(synced)
}

// lineSynced reports whether the next message of the topic's line is durable.
func (q *Sub) lineSynced(synced uint64) bool {
	return q.cursor < q.Topic.index.next && q.Topic.index.at(q.cursor, &q.line).pos < synced
}

// LineUnsynced reports whether the next message of the topic's line only waits for its sync.
func (q *Sub) LineUnsynced(synced uint64) bool {
	return q.cursor < q.Topic.index.next && !q.lineSynced(synced)
}

// drains reports whether the session takes nothing new so that it can run a suspect alone: one
// session of a subscription does at a time, and the others go on.
func (s *State) drains(q *Sub, ss *Session) bool {
	if q.drainer == nil || s.sessions[q.drainer.ID] != q.drainer || q.drainer.alone > 0 {
		q.drainer = ss
	}
	return q.drainer == ss
}

// pullMax bounds what one HandOut pulls where most of it waits behind busy keys. The caller asks
// again while it gets records but no hand-out.
const pullMax = 16384

// pullFor takes as much of the topic's line into the subscription as the session asks for.
func (s *State) pullFor(q *Sub, a Ask) Record {
	from := q.cursor
	for len(q.ready.slots) < a.Max && q.entryCount < int64(q.Config.MaxWaiting) &&
		q.cursor-from < pullMax {
		to := q.cursor
		end := min(q.Topic.index.next, to+uint64(a.Max-len(q.ready.slots)))
		for to < end && q.Topic.index.at(to, &q.line).pos < a.Synced {
			to++
		}
		if to == q.cursor {
			break
		}
		s.pullTo(q, to)
	}
	if q.cursor == from {
		return nil
	}
	return &pullRecord{Sub: q.ID, To: q.cursor}
}

// choose takes what comes next: first one message of each key, then the rest of their runs.
func (q *Sub) choose(a Ask) []int32 {
	var slots []int32
	bytes := 0
	room := func(e *entry) bool {
		return len(slots) < a.Max && (len(slots) == 0 || bytes+int(e.size) <= a.MaxBytes)
	}
	for {
		slot, ok := q.ready.top()
		if !ok || !room(q.entry(slot)) {
			break
		}
		q.unheap(slot)
		slots = append(slots, slot)
		bytes += int(q.entry(slot).size)
	}
	for i := 0; i < len(slots) && q.Config.Ordered; i++ {
		e := q.entry(slots[i])
		if e.lane == 0 || e.next < 0 || q.lanes[e.lane].mode != laneOpen {
			continue
		}
		// Appending the next of the run makes this loop come to it, and so to the whole run.
		if next := q.entry(e.next); next.place == Ready && !next.suspect && room(next) {
			slots = append(slots, e.next)
			bytes += int(next.size)
		}
	}
	return slots
}

// lease hands the messages of slots out, and adds the record that says so.
func (s *State) lease(now int64, a Ask, slots []int32, records []Record) ([]Record, []HandOut) {
	q := a.Session.Sub
	slices.SortFunc(slots, func(x, y int32) int { return cmp.Compare(q.entry(x).seq, q.entry(y).seq) })
	r := &leaseRecord{Now: now, Sub: q.ID, Session: a.Session.ID, Deadline: now + a.Lease,
		Gen: s.gen + 1, Seqs: make([]uint64, len(slots)), Runs: make([]uint32, len(slots))}
	for i, slot := range slots {
		e := q.entry(slot)
		r.Seqs[i] = e.seq
		e.run = r.Gen + uint64(i)
		if e.prev >= 0 { // only the head of a lane is on offer: what is before it goes along
			e.run = q.entry(e.prev).run
		}
		r.Runs[i] = uint32(r.Gen + uint64(i) - e.run)
	}
	r.apply(s)
	out := make([]HandOut, len(slots))
	for i, slot := range slots {
		e := q.entry(slot)
		out[i] = HandOut{Seq: e.seq, Gen: e.gen, Pos: e.pos, Size: e.size, Counts: e.counts(),
			Cause: e.cause, Epoch: int(e.epoch), Suspect: e.suspect}
		if p := q.past[e.seq]; p != nil {
			out[i].History = slices.Clone(p.attempts)
		}
	}
	return append(records, r), out
}

func (e *entry) counts() ackwise.Counts {
	return ackwise.Counts{HandOuts: int(e.handouts), Failures: int(e.failures),
		Crashes: int(e.crashes), Redrives: int(e.redrives)}
}

// Settling is a settlement of the hand-out Gen of the message Seq.
type Settling struct {
	Sub      *Sub
	Seq, Gen uint64
	Outcome  ackwise.Outcome
	Reason   string
	Until    int64 // when a nacked or snoozed message is ready, or an extended lease ends
}

// Settle carries out one settlement, if it may. What says so, already applied, is added to records:
// to the last of them where that has the same to say, so that a batch of acks is one record.
func (s *State) Settle(now int64, x Settling, records []Record) (
	_ []Record, already bool, _ error) {
	q := x.Sub
	slot, here := q.bySequence(x.Seq)
	if !here || q.entry(slot).gen != x.Gen {
		return s.settleOld(x, records)
	}
	e := q.entry(slot)
	if e.place != InFlight && (!e.ended.loss() || !lateAllowed(x.Outcome)) {
		return s.settleOld(x, records)
	}
	if err := q.runOrder(e, x.Outcome); err != nil {
		return records, false, err
	}
	r := settleRecord{Now: now, Sub: q.ID, Seq: x.Seq, Outcome: x.Outcome, Until: x.Until,
		Reason: ackwise.CutError(x.Reason)}
	s.settle(q, slot, &r)
	if !plain(r.Outcome) || r.Reason != "" {
		single := r // a copy, so that the others stay off the heap
		return append(records, &single), false, nil
	}
	if n := len(records); n > 0 {
		many, ok := records[n-1].(*settleManyRecord)
		if ok && many.Now == now && many.Sub == q.ID && many.Outcome == r.Outcome {
			many.Seqs = append(many.Seqs, r.Seq)
			return records, false, nil
		}
	}
	return append(records, &settleManyRecord{Now: now, Sub: q.ID, Outcome: r.Outcome,
		Seqs: []uint64{r.Seq}}), false, nil
}

// lateAllowed says which settlements count after the lease was lost, while nobody else holds the
// message: those that say what became of it.
func lateAllowed(o ackwise.Outcome) bool {
	switch o {
	case ackwise.OutcomeAck, ackwise.OutcomeNack, ackwise.OutcomeDead, ackwise.OutcomeDrop:
		return true
	case ackwise.OutcomeSnooze, ackwise.OutcomeRelease, ackwise.OutcomeExtend:
	}
	return false
}

// runOrder refuses to settle a message of a key run before an earlier one of the run is done, and
// to let a key go on behind its dead letter.
func (q *Sub) runOrder(e *entry, o ackwise.Outcome) error {
	if e.lane == 0 || o == ackwise.OutcomeRelease || o == ackwise.OutcomeExtend {
		return nil
	}
	if e.prev >= 0 && q.entry(e.prev).run == e.run {
		return ackwise.ErrRunOrder
	}
	l := q.lanes[e.lane]
	if l.mode == laneParked && (e.place == InFlight || o == ackwise.OutcomeDead) {
		return ackwise.ErrRunOrder
	}
	return nil
}

// settleOld answers a settlement of a hand-out that has ended.
func (s *State) settleOld(x Settling, records []Record) ([]Record, bool, error) {
	old := s.remembered(x.Gen)
	switch {
	case old == nil || old.sub != x.Sub.ID:
		return records, false, ackwise.ErrLeaseLost
	case !old.how.loss() && old.how == endOf(x.Outcome):
		return records, true, nil
	case !old.how.loss():
		return records, false, ackwise.ErrSettled
	case x.Outcome == ackwise.OutcomeAck && old.next != 0 && !old.told &&
		old.how != EndTakenBack:
		r := &ackLostRecord{Sub: x.Sub.ID, Gen: x.Gen}
		r.apply(s)
		return append(records, r), false, ackwise.ErrLeaseLost
	}
	return records, false, ackwise.ErrLeaseLost
}

// CanSettle reports why a settlement in a transaction would be refused. A transaction is fenced
// more strictly than a single settlement: its effects count only while it still holds the lease.
func (s *State) CanSettle(x Settling) error {
	q := x.Sub
	slot, here := q.bySequence(x.Seq)
	if here && q.entry(slot).gen == x.Gen && q.entry(slot).place == InFlight {
		return q.runOrder(q.entry(slot), x.Outcome)
	}
	if old := s.remembered(x.Gen); old != nil && !old.how.loss() {
		return ackwise.ErrSettled
	}
	return ackwise.ErrLeaseLost
}

// SettledAs reports whether a hand-out is known to have ended with this outcome.
func (s *State) SettledAs(sub uint32, gen uint64, o ackwise.Outcome) bool {
	old := s.remembered(gen)
	return old != nil && old.sub == sub && old.how == endOf(o)
}
