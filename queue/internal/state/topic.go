package state

import "slices"

// TopicConfig is what a topic was created with, see queue.TopicOptions.
type TopicConfig struct {
	MaxMessages  int
	MaxBytes     int64
	RetainMillis int64
	RetainBytes  int64
	DedupMillis  int64 // 0 = off
	MaxDedupIDs  int
}

// Topic is a sequence of messages. What it keeps in memory of each is an index entry; bodies stay
// in the log.
type Topic struct {
	ID     uint32
	Name   string
	Config TopicConfig
	Subs   []*Sub // sorted by ID

	index     index
	schedule  []scheduled // a heap by due, then by order of arrival
	bytes     int64       // of index and schedule
	wakeAt    int64       // registered in State.wake; derived
	subbed    bool        // it has had a subscription: what nobody needs may go
	dedup     dedup
	Published int64
	Again     int64 // repeats that dedup suppressed
}

// indexEntry is what memory holds of a message: 24 bytes, no pointer.
type indexEntry struct {
	pos  uint64 // of its Publish record
	lane uint64
	size uint32 // of its Publish record's payload
	sec  uint32 // when it was accepted, engine seconds
}

const chunkLen = 1024

// index holds the entries of the sequences [first, next), in chunks that are freed whole.
type index struct {
	chunks      []*[chunkLen]indexEntry
	base        uint64 // the sequence of chunks[0][0], a multiple of chunkLen
	first, next uint64
}

func (x *index) at(seq uint64) *indexEntry {
	i := seq - x.base
	return &x.chunks[i/chunkLen][i%chunkLen]
}

func (x *index) add(e indexEntry) {
	if x.next-x.base == uint64(len(x.chunks))*chunkLen {
		x.chunks = append(x.chunks, new([chunkLen]indexEntry))
	}
	*x.at(x.next) = e
	x.next++
}

func (x *index) dropFirst() {
	x.first++
	if x.first-x.base == chunkLen {
		x.chunks[0] = nil
		x.chunks = x.chunks[1:]
		x.base += chunkLen
	}
}

// startAt makes an empty index whose next sequence is seq.
func (x *index) startAt(seq uint64) {
	*x = index{base: seq / chunkLen * chunkLen, first: seq, next: seq}
	if seq%chunkLen != 0 {
		x.chunks = append(x.chunks, new([chunkLen]indexEntry))
	}
}

// scheduled is a message that takes its place when it is due.
type scheduled struct {
	due   int64
	order uint64 // arrival, to break ties
	indexEntry
}

func (a scheduled) before(b scheduled) bool {
	if a.due != b.due {
		return a.due < b.due
	}
	return a.order < b.order
}

func (t *Topic) pushScheduled(s scheduled) {
	t.schedule = append(t.schedule, s)
	i := len(t.schedule) - 1
	for i > 0 && t.schedule[i].before(t.schedule[(i-1)/2]) {
		t.schedule[i], t.schedule[(i-1)/2] = t.schedule[(i-1)/2], t.schedule[i]
		i = (i - 1) / 2
	}
}

func (t *Topic) popScheduled() scheduled {
	top, last := t.schedule[0], len(t.schedule)-1
	t.schedule[0] = t.schedule[last]
	t.schedule = t.schedule[:last]
	for i := 0; ; {
		least := i
		for c := 2*i + 1; c <= 2*i+2 && c < last; c++ {
			if t.schedule[c].before(t.schedule[least]) {
				least = c
			}
		}
		if least == i {
			return top
		}
		t.schedule[i], t.schedule[least] = t.schedule[least], t.schedule[i]
		i = least
	}
}

// Kept returns how many messages and bytes the topic's bounds count: what is in line or scheduled,
// and what the subscription that holds most still has out of line.
func (t *Topic) Kept() (messages, bytes int64) {
	messages = int64(t.index.next-t.index.first) + int64(len(t.schedule))
	var held, heldBytes int64
	for _, q := range t.Subs {
		held, heldBytes = max(held, q.entryCount), max(heldBytes, q.entryBytes)
	}
	return messages + held, t.bytes + heldBytes
}

// Scheduled returns how many messages are not due yet.
func (t *Topic) Scheduled() int64 { return int64(len(t.schedule)) }

// ProducedAgain is the record of a repeat that dedup suppressed.
func (t *Topic) ProducedAgain() Record { return &producedAgainRecord{Topic: t.ID, Count: 1} }

// DedupIDs returns how many IDs are remembered.
func (t *Topic) DedupIDs() int64 { return int64(len(t.dedup.byID)) }

// needed returns the first sequence that a subscription has not pulled yet.
func (t *Topic) needed() uint64 {
	if !t.subbed {
		return t.index.first
	}
	low := t.index.next
	for _, q := range t.Subs {
		low = min(low, q.cursor)
	}
	return low
}

// trimTo lets go of the messages before seq that no subscription needs.
func (s *State) trimTo(t *Topic, seq uint64) {
	seq = min(seq, t.needed())
	for t.index.first < seq {
		e := t.index.at(t.index.first)
		t.bytes -= int64(e.size)
		s.unpin(e.pos)
		t.index.dropFirst()
	}
}

// trim lets go of what nobody needs and the topic does not retain at the time of the last record.
func (s *State) trim(t *Topic) {
	if t.Config.RetainMillis == 0 && t.Config.RetainBytes == 0 {
		s.trimTo(t, t.index.next)
		return
	}
	to, _ := t.retainedTo(s.Now)
	s.trimTo(t, to)
	s.wakeTopic(t)
}

// retainedTo returns up to where the topic's retention lets go of what nobody needs, and when it
// will next let go of more (0 = not by time alone).
func (t *Topic) retainedTo(now int64) (seq uint64, next int64) {
	needed, bytes := t.needed(), t.bytes
	seq = t.index.first
	for seq < needed {
		e := t.index.at(seq)
		keepBytes := t.Config.RetainBytes > 0 && bytes <= t.Config.RetainBytes
		end := (int64(e.sec)+1)*1000 + t.Config.RetainMillis
		keepAge := end > now
		switch {
		case t.Config.RetainMillis == 0 && keepBytes:
			return seq, 0
		case t.Config.RetainMillis > 0 && keepAge && (t.Config.RetainBytes == 0 || keepBytes):
			return seq, end
		}
		bytes -= int64(e.size)
		seq++
	}
	return seq, 0
}

// dedup remembers the IDs that producers gave, for the topic's window.
type dedup struct {
	byID  map[string]seenID
	order []string // by time of arrival; order[head:] are in byID
	head  int
}

type seenID struct {
	pos uint64
	sum uint64
	at  int64
}

func (d *dedup) add(id string, s seenID) {
	if d.byID == nil {
		d.byID = make(map[string]seenID)
	}
	d.byID[id] = s
	d.order = append(d.order, id)
}

// live counts what arrived after the time.
func (d *dedup) live(at int64) int {
	i := d.head
	for i < len(d.order) && d.byID[d.order[i]].at <= at {
		i++
	}
	return len(d.order) - i
}

// expire forgets what arrived at or before the time: only by time, never early.
func (d *dedup) expire(at int64) {
	for d.head < len(d.order) {
		id := d.order[d.head]
		if d.byID[id].at > at {
			break
		}
		delete(d.byID, id)
		d.order[d.head] = ""
		d.head++
	}
	if d.head > 1024 && d.head*2 > len(d.order) {
		d.order = slices.Clone(d.order[d.head:])
		d.head = 0
	}
}
