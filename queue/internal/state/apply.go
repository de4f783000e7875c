package state

import "github.com/ackwise/ackwise"

// How each record moves the state. What moves messages between places is in moves.go.

func (r *Open) check(*State) error { return nil }
func (r *Open) apply(s *State) {
	s.Now, s.OpenNo, s.Owner = max(s.Now, r.Now), r.Number, r.Process
	s.Inode, s.Identity = r.Inode, r.Identity
	s.gen = uint64(r.Number) << openShift
	s.fence = max(s.fence, s.gen)
}

// openShift leaves 2^40 generations to each of 2^24 terms. A hand-out that was lost with the last
// unsynced group has a generation of its term, which no later one can have again. So it is with the
// fences of claims.
const openShift = 40

func (r *CreateTopic) check(s *State) error { return fits(s.topics[r.ID] == nil) }
func (r *CreateTopic) apply(s *State) {
	s.Now, s.lastID = max(s.Now, r.Now), max(s.lastID, r.ID)
	t := s.newTopic(r.ID, r.Name)
	t.Config = r.Config
	s.topics[r.ID], s.byName[r.Name] = t, t
	if s.index != nil {
		s.index.TopicMade(t)
	}
}

func (r *DeleteTopic) check(s *State) error { return fits(s.topics[r.ID] != nil) }
func (r *DeleteTopic) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	t := s.topics[r.ID]
	for len(t.Subs) > 0 {
		s.dropSub(t.Subs[0])
	}
	t.index.each(0, nil, func(_ uint64, e *indexEntry) bool {
		s.unpin(e.pos, e.size)
		return true
	})
	t.schedule.each(nil, func(m *scheduled) { s.unpin(m.pos, m.size) })
	delete(s.topics, r.ID)
	delete(s.byName, t.Name)
	if s.index != nil {
		s.index.TopicDeleted(t)
	}
}

func (r *CreateSub) check(s *State) error {
	t := s.topics[r.Topic]
	return fits(t != nil && s.subs[r.ID] == nil && r.Start >= t.index.first &&
		r.Start <= t.index.next)
}
func (r *CreateSub) apply(s *State) {
	s.Now, s.lastID = max(s.Now, r.Now), max(s.lastID, r.ID)
	t := s.topics[r.Topic]
	q := newSub(r.ID, r.Name, t, r.Config)
	q.cursor = r.Start
	q.Accepted = int64(t.index.next-r.Start) + t.Scheduled()
	if r.Rest {
		s.pullRest(q)
	}
	t.Subs = append(t.Subs, q)
	t.subbed = true
	s.subs[r.ID] = q
	s.trim(t)
}

func (r *DeleteSub) check(s *State) error { return fits(s.subs[r.ID] != nil) }
func (r *DeleteSub) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	q := s.subs[r.ID]
	s.dropSub(q)
	s.trim(q.Topic)
}

func (s *State) dropSub(q *Sub) {
	for _, slot := range q.bySeq {
		s.unpin(q.entry(slot).pos, q.entry(slot).size)
	}
	for _, ss := range s.Sessions() {
		if ss.Sub == q {
			s.forgetSession(ss)
		}
	}
	for i, other := range q.Topic.Subs {
		if other == q {
			q.Topic.Subs = append(q.Topic.Subs[:i:i], q.Topic.Subs[i+1:]...)
			break
		}
	}
	delete(s.subs, q.ID)
}

func (r *OpenSession) check(s *State) error {
	return fits(s.subs[r.Sub] != nil && s.sessions[r.ID] == nil)
}
func (r *OpenSession) apply(s *State) {
	s.Now, s.lastID = max(s.Now, r.Now), max(s.lastID, r.ID)
	ss := &Session{ID: r.ID, Word: r.Word, Name: r.Name, Sub: s.subs[r.Sub], Foreign: r.Foreign,
		Process: r.Process}
	s.sessions[r.ID], s.byWord[r.Word] = ss, ss
}

func (s *State) forgetSession(ss *Session) {
	delete(s.sessions, ss.ID)
	delete(s.byWord, ss.Word)
}

func (r *TablePut) check(*State) error { return nil }
func (r *TablePut) apply(s *State) {
	t := s.tables[r.Table]
	if old, ok := t[r.Key]; ok {
		s.TableLen -= len(r.Key) + len(old.bytes)
	}
	switch {
	case r.Value == nil && t != nil:
		delete(t, r.Key)
		if len(t) == 0 {
			delete(s.tables, r.Table)
		}
	case r.Value != nil:
		if t == nil {
			t = make(map[string]value)
			s.tables[r.Table] = t
		}
		t[r.Key] = value{bytes: r.Value, version: r.Version}
		s.TableLen += len(r.Key) + len(r.Value)
	}
	s.tableVersion = max(s.tableVersion, r.Version)
}

func (r *trimRecord) check(s *State) error { return fits(s.topics[r.Topic] != nil) }
func (r *trimRecord) apply(s *State) {
	s.Now = max(s.Now, r.Now)
	s.trimTo(s.topics[r.Topic], r.To)
}

func (r *producedAgainRecord) check(s *State) error { return fits(s.topics[r.Topic] != nil) }
func (r *producedAgainRecord) apply(s *State)       { s.topics[r.Topic].Again += int64(r.Count) }

func (r *committedRecord) check(*State) error { return nil }
func (r *committedRecord) apply(s *State)     { s.commits.add(r.ID) }

// commitsLen is how many transactions are remembered by their IDs.
const commitsLen = 1 << 16

// commits remembers the IDs of the last transactions, in order.
type commits struct {
	ids   map[string]bool
	order []string // a ring once it is full
	next  int
}

func (c *commits) add(id string) {
	if c.ids == nil {
		c.ids = make(map[string]bool)
	}
	c.ids[id] = true
	if len(c.order) < commitsLen {
		c.order = append(c.order, id)
		return
	}
	delete(c.ids, c.order[c.next])
	c.order[c.next] = id
	c.next = (c.next + 1) % commitsLen
}

// Commit returns the record that remembers a transaction.
func (s *State) Commit(id string) Record { return &committedRecord{ID: id} }

// Committed reports whether a transaction of this ID was carried out.
func (s *State) Committed(id string) bool { return s.commits.ids[id] }

// NextTableVersion is the version for the next write of a table.
func (s *State) NextTableVersion() uint64 { return s.tableVersion + 1 }

func (r *ackLostRecord) check(s *State) error { return fits(s.subs[r.Sub] != nil) }
func (r *ackLostRecord) apply(s *State) {
	q := s.subs[r.Sub]
	lost := s.remembered(r.Gen)
	if lost == nil || lost.told || lost.next == 0 {
		return
	}
	lost.told = true
	was := lost.how.cause()
	for _, slot := range q.leased.slots {
		if e := q.entry(slot); e.gen == lost.next {
			q.amend(&e.cause, was)
			return
		}
	}
	if after := s.remembered(lost.next); after != nil {
		q.amend(&after.cause, was)
	}
}

// amend moves a hand-out's cause to ack-lost, and both counters with it.
func (q *Sub) amend(cause *ackwise.Cause, was ackwise.Cause) {
	if *cause != was {
		return
	}
	q.Causes[was]--
	q.Causes[ackwise.CauseAckLost]++
	*cause = ackwise.CauseAckLost
}
