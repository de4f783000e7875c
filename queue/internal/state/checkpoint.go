package state

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// Snapshot notes the whole state. It takes as long as the windows of the subscriptions are, not as
// long as the lines and schedules. Equal states give equal bytes, however they came about: this is
// what checkpoints hold and what Verify compares.
func (s *State) Snapshot() *Snapshot {
	n := &Snapshot{}
	b := putInt(nil, s.Now)
	b = putString(putUint(b, s.OpenNo), s.Owner)
	b = putString(putUint(b, s.Inode), s.Identity[:])
	b = putUint(b, s.lastID)
	b = putUint(b, s.gen)
	b = putUint(b, s.order)
	b = putUint(b, s.tableVersion)
	b = putUint(b, uint64(len(s.topics)))
	for _, id := range slices.Sorted(maps.Keys(s.topics)) {
		b = s.snapshotTopic(n, b, s.topics[id])
	}
	b = putUint(b, uint64(len(s.sessions)))
	for _, ss := range s.Sessions() {
		b = putUint(putUint(b, ss.ID), ss.Sub.ID)
		b = putString(putString(b, ss.Word), ss.Name)
		b = putString(putBool(b, ss.Foreign), ss.Process)
		b = putUint(putUint(b, uint64(ss.InFlight)), uint64(ss.alone))
	}
	b = n.stream(b, putEnded(slices.Clone(s.ended)))
	b = s.snapshotTables(n, b)
	order := slices.Concat(s.commits.order[s.commits.next:], s.commits.order[:s.commits.next])
	b = n.stream(putUint(b, uint64(len(order))), func(write func([]byte)) {
		var b []byte
		for _, id := range order {
			b = putString(b[:0], id)
			write(b)
		}
	})
	n.stream(s.snapshotSets(n, b), nil)
	return n
}

func putEnded(all []ended) func(write func([]byte)) {
	return func(write func([]byte)) {
		count := uint64(0)
		for i := range all {
			if all[i].gen != 0 {
				count++
			}
		}
		b := putUint(nil, count)
		for i := range all {
			if e := &all[i]; e.gen != 0 {
				b = putUint(putUint(putUint(b, e.gen), e.next), e.sub)
				b = putBool(append(b, byte(e.how), byte(e.cause)), e.told)
			}
		}
		write(b)
	}
}

// snapshotTables notes the tables. A value is never changed, only replaced.
func (s *State) snapshotTables(n *Snapshot, b []byte) []byte {
	b = putUint(b, uint64(len(s.tables)))
	for _, name := range slices.Sorted(maps.Keys(s.tables)) {
		table := maps.Clone(s.tables[name])
		b = n.stream(putUint(putString(b, name), uint64(len(table))), func(write func([]byte)) {
			for _, key := range slices.Sorted(maps.Keys(table)) {
				v := table[key]
				write(putUint(putString(putString(nil, key), v.bytes), v.version))
			}
		})
	}
	return b
}

func (s *State) snapshotTopic(n *Snapshot, b []byte, t *Topic) []byte {
	b = putJSON(putString(putUint(b, t.ID), t.Name), t.Config)
	b = putInt(putInt(putBool(b, t.subbed), t.Published), t.Again)
	b = t.index.snapshot(n, b)
	b = t.schedule.snapshot(n, b)
	b = putUint(b, uint64(len(t.Subs)))
	for _, q := range t.Subs {
		b = q.snapshot(n, b)
	}
	return b
}

func (q *Sub) snapshot(n *Snapshot, b []byte) []byte {
	b = putJSON(putString(putUint(b, q.ID), q.Name), q.Config)
	b = putUint(b, q.cursor)
	for _, v := range []int64{q.Accepted, q.Acked, q.Dropped, q.Failures, q.Crashes} {
		b = putInt(b, v)
	}
	b = putUint(b, uint64(len(q.DroppedFor)))
	for _, reason := range slices.Sorted(maps.Keys(q.DroppedFor)) {
		b = putInt(putString(b, reason), q.DroppedFor[reason])
	}
	b = putUint(b, uint64(len(q.Causes)))
	for _, v := range q.Causes {
		b = putInt(b, v)
	}
	slots := q.slotsBySeq()
	b = putUint(b, uint64(len(slots)))
	for _, slot := range slots {
		b = n.room(q.encodeEntry(b, q.entry(slot)))
	}
	var shut []*lane
	for _, l := range q.lanes {
		if l.mode != laneOpen {
			shut = append(shut, l)
		}
	}
	slices.SortFunc(shut, func(x, y *lane) int { return cmp.Compare(x.hash, y.hash) })
	b = putUint(b, uint64(len(shut)))
	for _, l := range shut {
		b = putInt(append(putUint(b, l.hash), byte(l.mode)), l.since)
		dead := uint64(0)
		if l.dead >= 0 {
			dead = q.entry(l.dead).seq + 1
		}
		b = putUint(b, dead)
	}
	return q.snapshotPast(n, b)
}

func (q *Sub) encodeEntry(b []byte, e *entry) []byte {
	for _, v := range []uint64{e.seq, e.pos, e.hash, e.lane, e.gen, e.run} {
		b = putUint(b, v)
	}
	b = putInt(putInt(b, e.due), e.since)
	for _, v := range []uint32{e.size, e.sec, e.handouts, e.failures, e.crashes, e.redrives,
		e.epoch, e.session} {
		b = putUint(b, v)
	}
	b = append(b, byte(e.place), byte(e.cause), byte(e.ended))
	return putBool(putBool(b, e.suspect), e.alone)
}

func (d *decoder) entry() entry {
	e := entry{seq: d.uint(), pos: d.uint(), hash: d.uint(), lane: d.uint(), gen: d.uint(),
		run: d.uint(),
		due: d.int(), since: d.int(), size: d.u32(), sec: d.u32(), handouts: d.u32(),
		failures: d.u32(), crashes: d.u32(), redrives: d.u32(), epoch: d.u32(), session: d.u32(),
		heap: -1, prev: -1, next: -1}
	e.place, e.cause, e.ended = Place(d.byte()), ackwise.Cause(d.byte()), End(d.byte())
	e.suspect, e.alone = d.bool(), d.bool()
	if e.place >= places {
		d.fail()
	}
	return e
}

func (q *Sub) snapshotPast(n *Snapshot, b []byte) []byte {
	b = putUint(b, uint64(len(q.past)))
	for _, seq := range slices.Sorted(maps.Keys(q.past)) {
		p := q.past[seq]
		b = putString(putInt(putUint(b, seq), p.firstSeen), p.error)
		b = putUint(b, uint64(len(p.attempts)))
		for _, a := range p.attempts {
			b = putInt(putUint(b, uint64(a.Number)), a.Time.UnixMilli())
			b = putString(append(putString(b, a.Consumer), byte(a.Cause)), a.Outcome)
			b = putInt(putString(b, a.Error), int64(a.Duration))
		}
		b = n.room(b)
	}
	return b
}

// decode reads into an empty state what Snapshot noted.
func (s *State) decode(d *decoder) error {
	s.Now, s.OpenNo, s.Owner, s.Inode = d.int(), d.u32(), d.string(), d.uint()
	d.identity(&s.Identity)
	s.lastID, s.gen = d.u32(), d.uint()
	s.order, s.tableVersion = d.uint(), d.uint()
	for range d.count() {
		s.decodeTopic(d)
	}
	for range d.count() {
		ss := &Session{ID: d.u32(), Sub: s.subs[d.u32()], Word: d.string(), Name: d.string(),
			Foreign: d.bool(), Process: d.string(), InFlight: int(d.uint()), alone: int(d.uint())}
		if d.err == nil && ss.Sub == nil {
			return fmt.Errorf("decode checkpoint: session %d: %w", ss.ID, errUnknownNumber)
		}
		s.sessions[ss.ID], s.byWord[ss.Word] = ss, ss
	}
	for range d.count() {
		s.remember(ended{gen: d.uint(), next: d.uint(), sub: d.u32(), how: End(d.byte()),
			cause: ackwise.Cause(d.byte()), told: d.bool()})
	}
	for range d.count() {
		name := d.string()
		for range d.count() {
			put := &TablePut{Table: name, Key: d.string(), Value: slices.Clone(d.bytes()),
				Version: d.uint()}
			if put.Value == nil {
				put.Value = []byte{}
			}
			put.apply(s)
		}
	}
	for range d.count() {
		s.commits.add(d.string())
	}
	s.fence = uint64(s.OpenNo) << openShift
	s.decodeSets(d)
	if err := d.done(); err != nil {
		return fmt.Errorf("decode checkpoint: %w", err)
	}
	return s.decoded()
}

// decoded makes what is derived, once everything is read.
func (s *State) decoded() error {
	for _, t := range s.topics {
		for _, q := range t.Subs {
			for slot := range int32(len(q.slab) * slabLen) {
				e := q.entry(slot)
				if e.place == InFlight && s.sessions[e.session] == nil {
					return fmt.Errorf("decode checkpoint: message %d: %w", e.seq, errUnknownNumber)
				}
			}
			s.wakeSub(q)
		}
		s.wakeTopic(t)
	}
	for _, x := range s.sets {
		s.wakeSet(x)
	}
	return nil
}

func (s *State) decodeTopic(d *decoder) {
	t := s.newTopic(d.u32(), d.string())
	d.json(&t.Config)
	t.subbed, t.Published, t.Again = d.bool(), d.int(), d.int()
	d.index(&t.index, func(e *indexEntry) {
		t.bytes += int64(e.size)
		s.pin(e.pos, e.size)
	})
	d.schedule(&t.schedule, func(m *scheduled) {
		t.bytes += int64(m.size)
		s.pin(m.pos, m.size)
	})
	for range d.count() {
		q := s.decodeSub(d, t)
		t.Subs = append(t.Subs, q)
		s.subs[q.ID] = q
	}
	s.topics[t.ID], s.byName[t.Name] = t, t
}

func (s *State) decodeSub(d *decoder, t *Topic) *Sub {
	q := newSub(d.u32(), d.string(), t, SubConfig{})
	d.json(&q.Config)
	if q.cursor = d.uint(); q.cursor < t.index.first || q.cursor > t.index.next {
		d.fail()
	}
	for _, n := range []*int64{&q.Accepted, &q.Acked, &q.Dropped, &q.Failures, &q.Crashes} {
		*n = d.int()
	}
	for range d.count() {
		reason := d.string()
		q.DroppedFor[reason] = d.int()
	}
	for i := range min(d.count(), len(q.Causes)) {
		q.Causes[i] = d.int()
	}
	for range d.count() {
		e := d.entry()
		if _, twice := q.bySeq[e.seq]; twice {
			d.fail()
		}
		if d.err != nil {
			return q
		}
		s.restore(q, e)
	}
	for range d.count() {
		l := q.laneOf(d.uint())
		l.mode, l.since = laneMode(d.byte()), d.int()
		if dead := d.uint(); dead > 0 {
			slot, ok := q.bySequence(dead - 1)
			if !ok {
				d.fail()
				return q
			}
			l.dead = slot
		}
	}
	for range d.count() {
		seq := d.uint()
		p := &past{firstSeen: d.int(), error: d.string()}
		for range d.count() {
			p.attempts = append(p.attempts, ackwise.Attempt{Number: int(d.uint()),
				Time: time.UnixMilli(d.int()).UTC(), Consumer: d.string(),
				Cause: ackwise.Cause(d.byte()), Outcome: d.string(), Error: d.string(),
				Duration: time.Duration(d.int())})
		}
		q.past[seq] = p
	}
	for _, slot := range q.slotsBySeq() {
		s.offer(q, slot)
	}
	return q
}

// restore puts a decoded entry where it belongs; what is ready is offered when all are there.
func (s *State) restore(q *Sub, e entry) {
	slot := q.newSlot()
	*q.entry(slot) = e
	q.bySeq[e.seq] = slot
	q.at[e.place]++
	q.entryCount++
	q.entryBytes += int64(e.size)
	s.pin(e.pos, e.size)
	if e.lane != 0 && e.place != Dead {
		l := q.laneOf(e.lane)
		q.link(l, slot)
		if e.place == InFlight {
			l.leased++
		}
	}
	switch e.place {
	case Delayed:
		q.delayed.push(q, slot)
	case InFlight:
		q.leased.push(q, slot)
	case Ready, Parked, Dead, places:
	}
}
