package state

// wakeItem says when a subscription, a topic or a dedup set next has something to do by time alone.
// State.wake is a heap of them over all; an owner whose registered time has changed since makes one
// stale, and it is skipped when it is due.
type wakeItem struct {
	at    int64
	sub   *Sub
	topic *Topic
	set   *Set
}

//nolint:unused // heapOf calls it, which the linter does not see.
func (i wakeItem) before(other wakeItem) bool { return i.at < other.at }

// wakeSub registers when the subscription next has something to do.
func (s *State) wakeSub(q *Sub) {
	next := int64(0)
	for _, h := range []*slotHeap{&q.delayed, &q.leased} {
		if slot, ok := h.top(); ok && (next == 0 || q.entry(slot).due < next) {
			next = q.entry(slot).due
		}
	}
	if next != 0 && (q.wakeAt == 0 || next < q.wakeAt) {
		q.wakeAt = next
		s.wake.push(wakeItem{at: next, sub: q})
	}
}

// wakeTopic registers when the topic next has something to do.
func (s *State) wakeTopic(t *Topic) {
	next := int64(0)
	if m, ok := t.schedule.top(); ok {
		next = m.due
	}
	if t.Config.RetainMillis > 0 && t.index.first < t.needed() {
		if _, trim := t.retainedTo(s.Now); trim != 0 && (next == 0 || trim < next) {
			next = trim
		}
	}
	if next != 0 && (t.wakeAt == 0 || next < t.wakeAt) {
		t.wakeAt = next
		s.wake.push(wakeItem{at: next, topic: t})
	}
}

// NextWake returns when Tick has something to do; 0 = never, as things are.
func (s *State) NextWake() int64 {
	if len(s.wake) == 0 {
		return 0
	}
	return s.wake[0].at
}

// tickMax bounds what one Tick does, so that a million messages due at one instant do not hold
// everybody else up.
const tickMax = 4096

// Tick makes what is due by the time now happen, and returns the records that say so. Where more
// is due than one Tick does, NextWake stays due.
func (s *State) Tick(now int64) []Record {
	var records []Record
	for left := tickMax; left > 0 && len(s.wake) > 0 && s.wake[0].at <= now; {
		item := s.wake.pop()
		switch {
		case item.sub != nil && item.at == item.sub.wakeAt:
			item.sub.wakeAt = 0
			if s.subs[item.sub.ID] == item.sub {
				records = append(records, s.wakeDelayed(item.sub, now, &left)...)
				records = append(records, s.expireLeases(item.sub, now, &left)...)
				s.wakeSub(item.sub)
			}
		case item.topic != nil && item.at == item.topic.wakeAt:
			item.topic.wakeAt = 0
			if s.topics[item.topic.ID] == item.topic {
				records = append(records, s.tickTopic(item.topic, now, &left)...)
				s.wakeTopic(item.topic)
			}
		case item.set != nil: // it is registered once at a time
			item.set.wakeAt = 0
			records = append(records, s.tickSet(item.set, now)...)
		}
	}
	return records
}

func (s *State) tickTopic(t *Topic, now int64, left *int) []Record {
	var records []Record
	due := &dueRecord{Now: now, Topic: t.ID}
	for ; *left > 0; *left-- {
		if m, ok := t.schedule.top(); !ok || m.due > now {
			break
		}
		(&dueRecord{Now: now, Topic: t.ID, Count: 1}).apply(s)
		due.Count++
	}
	if due.Count > 0 {
		records = append(records, due)
	}
	if t.Config.RetainMillis > 0 {
		if to, _ := t.retainedTo(now); to > t.index.first {
			trim := &trimRecord{Now: now, Topic: t.ID, To: to}
			trim.apply(s)
			records = append(records, trim)
		}
	}
	return records
}

func (s *State) wakeDelayed(q *Sub, now int64, left *int) []Record {
	wake := &wakeRecord{Now: now, Sub: q.ID}
	for ; *left > 0; *left-- {
		slot, ok := q.delayed.top()
		if !ok || q.entry(slot).due > now {
			break
		}
		(&wakeRecord{Now: now, Sub: q.ID, Count: 1}).apply(s)
		wake.Count++
	}
	if wake.Count == 0 {
		return nil
	}
	return []Record{wake}
}

// expireLeases takes back what living sessions held too long. A session whose consumer is not
// there, because the store's owner changed and it did not come back, ends with its first lease.
func (s *State) expireLeases(q *Sub, now int64, left *int) []Record {
	var records []Record
	for ; *left > 0; *left-- {
		slot, ok := q.leased.top()
		if !ok || q.entry(slot).due > now {
			return records
		}
		e := q.entry(slot)
		var r Record = &expireRecord{Now: now, Sub: q.ID, Seqs: []uint64{e.seq}}
		if ss := s.sessions[e.session]; !ss.Connected {
			r = &EndSession{Now: now, ID: ss.ID, How: EndExpired}
		}
		r.apply(s)
		records = append(records, r)
	}
	return records
}

// Touch notes that a subscription may have more to hand out.
func (s *State) Touch(q *Sub) {
	if !q.touched {
		q.touched = true
		s.touched = append(s.touched, q)
	}
}

// Touched calls fn with each subscription that may have more to hand out since it was last
// forgotten; it is forgotten where fn returns true.
func (s *State) Touched(fn func(*Sub) (forget bool)) {
	kept := s.touched[:0]
	for _, q := range s.touched {
		if q.touched = !fn(q); q.touched {
			kept = append(kept, q)
		}
	}
	clear(s.touched[len(kept):])
	s.touched = kept
}
