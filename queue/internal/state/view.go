package state

import (
	"fmt"
	"slices"

	"github.com/ackwise/ackwise"
)

// Seen is what can be told of one message of a subscription without its body.
type Seen struct {
	Seq, Pos  uint64
	Size      uint32
	Place     Place
	Counts    ackwise.Counts
	Cause     ackwise.Cause
	Epoch     int
	Due       int64 // Delayed, InFlight
	Since     int64 // InFlight, Dead
	Consumer  string
	FirstSeen int64
	Error     string
	History   []ackwise.Attempt
	Parked    int64 // Dead: how many wait behind it
	lane      uint64
}

func (s *State) seen(q *Sub, e *entry) Seen {
	v := Seen{Seq: e.seq, Pos: e.pos, Size: e.size, Place: e.place, Counts: e.counts(),
		Cause: e.cause, Epoch: int(e.epoch), Due: e.due, Since: e.since, lane: e.lane}
	if e.place == InFlight {
		if ss := s.sessions[e.session]; ss != nil {
			v.Consumer = ss.Name
		}
	}
	if p := q.past[e.seq]; p != nil {
		v.FirstSeen, v.Error, v.History = p.firstSeen, p.error, slices.Clone(p.attempts)
	}
	if l := q.lanes[e.lane]; e.place == Dead && l != nil && q.bySeq[e.seq] == l.dead {
		v.Parked = l.depth
	}
	return v
}

// Walk calls fn with the unfinished messages of a subscription in the order of the log, scheduled
// ones last, until fn returns false. What waits in the topic's line is Ready.
func (s *State) Walk(q *Sub, fn func(Seen) bool) {
	for _, slot := range q.slotsBySeq() {
		if !fn(s.seen(q, q.entry(slot))) {
			return
		}
	}
	t := q.Topic
	on := true
	t.index.each(q.cursor, nil, func(seq uint64, e *indexEntry) bool {
		on = fn(Seen{Seq: seq, Pos: e.pos, Size: e.size, Place: Ready, Cause: ackwise.CauseFirst})
		return on
	})
	t.schedule.each(func(*run) bool { return !on }, func(m *scheduled) {
		on = on && fn(Seen{Pos: m.pos, Size: m.size, Place: Delayed, Cause: ackwise.CauseFirst,
			Due: m.due})
	})
}

// DeadLetters returns the dead letters of a subscription, the oldest message first.
func (s *State) DeadLetters(q *Sub) []Seen {
	var all []Seen
	for _, slot := range q.slotsBySeq() {
		if e := q.entry(slot); e.place == Dead {
			all = append(all, s.seen(q, e))
		}
	}
	return all
}

// Redrive brings a dead letter back.
func (s *State) Redrive(now int64, q *Sub, seq uint64, redo bool) (Record, bool) {
	r := &redriveRecord{Now: now, Sub: q.ID, Seq: seq, Redo: redo}
	return s.applied(r)
}

// DropDead drops a dead letter.
func (s *State) DropDead(now int64, q *Sub, seq uint64, reason string) (Record, bool) {
	return s.applied(&dropDeadRecord{Now: now, Sub: q.ID, Seq: seq, Reason: reason})
}

func (s *State) applied(r Record) (Record, bool) {
	if r.check(s) != nil {
		return nil, false
	}
	r.apply(s)
	return r, true
}

// Do applies a record that the caller made.
func (s *State) Do(r Record) error {
	if err := r.check(s); err != nil {
		return err
	}
	r.apply(s)
	return nil
}

// Held calls fn with the generation of every message that a session holds.
func (s *State) Held(ss *Session, fn func(seq, gen uint64)) {
	for _, slot := range slices.Clone(ss.Sub.leased.slots) {
		if e := ss.Sub.entry(slot); e.session == ss.ID {
			fn(e.seq, e.gen)
		}
	}
}

// ParkedKey is a key that waits behind a dead letter, or that drains.
type ParkedKey struct {
	Head  Seen // the dead letter, or the message that is being drained
	Mode  string
	Depth int64
	Since int64
}

// ParkedKeys returns the keys that are parked or draining, the longest lines first.
func (s *State) ParkedKeys(q *Sub) []ParkedKey {
	var all []ParkedKey
	for _, l := range q.lanes {
		k := ParkedKey{Mode: "parked", Depth: l.depth, Since: l.since}
		switch {
		case l.mode == laneParked && l.dead >= 0:
			k.Head = s.seen(q, q.entry(l.dead))
		case l.mode == laneDraining && l.head >= 0:
			k.Mode, k.Head = "draining", s.seen(q, q.entry(l.head))
		default:
			continue
		}
		all = append(all, k)
	}
	slices.SortFunc(all, func(a, b ParkedKey) int {
		if a.Depth != b.Depth {
			return compare(b.Depth, a.Depth)
		}
		return compare(a.Head.Seq, b.Head.Seq)
	})
	return all
}

// OldestWaiting returns when the oldest message that waits for a hand-out or is in flight was
// accepted, in engine seconds; 0 = none waits.
func (q *Sub) OldestWaiting() int64 {
	oldest := int64(0)
	for _, slot := range q.bySeq {
		e := q.entry(slot)
		if e.place != Parked && e.place != Dead && (oldest == 0 || int64(e.sec) < oldest) {
			oldest = int64(e.sec)
		}
	}
	if oldest == 0 && q.cursor < q.Topic.index.next {
		oldest = int64(q.Topic.index.at(q.cursor, &q.line).sec)
	}
	return oldest
}

// StartAt returns the sequence of the oldest kept message that is accepted at or after an engine
// second (pos 0), or that stands at or after a position.
func (t *Topic) StartAt(sec int64, pos uint64) uint64 {
	found := t.index.next
	t.index.each(0, func(c *chunk) bool {
		return pos > 0 && c.high < pos || pos == 0 && int64(c.sec) < sec
	}, func(seq uint64, e *indexEntry) bool {
		if pos > 0 && e.pos < pos || pos == 0 && int64(e.sec) < sec {
			return true
		}
		found = seq
		return false
	})
	return found
}

// Line returns the sequences of the topic's line: first kept, and next.
func (t *Topic) Line() (first, next uint64) { return t.index.first, t.index.next }

// FirstPos returns the position of the oldest kept message; ok = false where none is kept.
func (t *Topic) FirstPos() (pos uint64, ok bool) {
	if t.index.first == t.index.next {
		return 0, false
	}
	return t.index.at(t.index.first, &t.index.head).pos, true
}

// Differences names, for a person, the first things in which two encoded states are not equal.
func Differences(a, b *State) []string {
	var out []string
	add := func(what string, x, y int64) {
		if x != y {
			out = append(out, fmt.Sprintf("%s: %d and %d", what, x, y))
		}
	}
	add("number of topics", int64(len(a.topics)), int64(len(b.topics)))
	add("last generation", int64(a.gen), int64(b.gen))
	add("bytes of tables", int64(a.TableLen), int64(b.TableLen))
	for _, t := range a.Topics() {
		u := b.Topic(t.Name)
		if u == nil {
			out = append(out, "topic "+t.Name+" is in one only")
			continue
		}
		add("topic "+t.Name+": kept", int64(t.index.next-t.index.first),
			int64(u.index.next-u.index.first))
		add("topic "+t.Name+": scheduled", t.Scheduled(), u.Scheduled())
		for _, q := range t.Subs {
			r := u.Sub(q.Name)
			if r == nil {
				out = append(out, "subscription "+t.Name+"/"+q.Name+" is in one only")
				continue
			}
			what := t.Name + "/" + q.Name
			add(what+": accepted", q.Accepted, r.Accepted)
			add(what+": acked", q.Acked, r.Acked)
			add(what+": dropped", q.Dropped, r.Dropped)
			for p, word := range [...]string{"ready", "delayed", "in flight", "parked", "dead"} {
				add(what+": "+word, q.at[p], r.at[p])
			}
		}
	}
	add("number of dedup sets", int64(len(a.sets)), int64(len(b.sets)))
	for _, x := range a.Sets() {
		y := b.Set(x.Name)
		if y == nil {
			out = append(out, "dedup set "+x.Name+" is in one only")
			continue
		}
		add("dedup set "+x.Name+": claims", int64(len(x.claims)), int64(len(y.claims)))
		add("dedup set "+x.Name+": bytes of results", x.bytes, y.bytes)
	}
	if len(out) == 0 {
		out = append(out, "the counters agree, the details of single messages do not")
	}
	return slices.Clip(out)
}
