package state

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
	schedule  schedule
	bytes     int64 // of index and schedule
	wakeAt    int64 // registered in State.wake; derived
	subbed    bool  // it has had a subscription: what nobody needs may go
	Published int64
	Again     int64 // repeats that dedup suppressed
}

func (s *State) newTopic(id uint32, name string) *Topic {
	return &Topic{ID: id, Name: name, index: index{chunkLen: s.chunkLen},
		schedule: schedule{limit: s.runLen}}
}

// Kept returns how many messages and bytes the topic's bounds count: what is in line or scheduled,
// and what the subscription that holds most still has out of line.
func (t *Topic) Kept() (messages, bytes int64) {
	messages = int64(t.index.next-t.index.first) + int64(t.schedule.len)
	var held, heldBytes int64
	for _, q := range t.Subs {
		held, heldBytes = max(held, q.entryCount), max(heldBytes, q.entryBytes)
	}
	return messages + held, t.bytes + heldBytes
}

// Scheduled returns how many messages are not due yet.
func (t *Topic) Scheduled() int64 { return int64(t.schedule.len) }

// ProducedAgain is the record of a repeat that dedup suppressed.
func (t *Topic) ProducedAgain() Record { return &producedAgainRecord{Topic: t.ID, Count: 1} }

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
		e := t.index.at(t.index.first, &t.index.head)
		t.bytes -= int64(e.size)
		s.unpin(e.pos, e.size)
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
		e := t.index.at(seq, &t.index.head)
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
