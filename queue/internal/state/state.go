package state

import (
	"fmt"
	"slices"

	"github.com/ackwise/ackwise"
)

// State is everything that the log says. It reads no clock and draws no random number: live and at
// replay it moves only by records, each of which carries its time.
type State struct {
	Now    int64  // engine time of the last record, in milliseconds
	OpenNo uint32 // how often the store was opened
	Owner  string // the process that opened it last

	topics       map[uint32]*Topic
	byName       map[string]*Topic
	subs         map[uint32]*Sub
	sessions     map[uint32]*Session
	byWord       map[string]*Session // by their names
	lastID       uint32              // the last number given to a topic, subscription or session
	gen          uint64              // the last generation given
	order        uint64              // the last order given to a scheduled message
	ended        []ended
	tables       map[string]map[string]value
	TableLen     int    // bytes of all tables
	tableVersion uint64 // the last version given
	commits      commits
	pinned       map[uint64]int64 // live messages by pinRegion of the log

	// Derived, and not part of what is compared.
	wake    wakeHeap // when a subscription or a topic has something to do
	touched []*Sub   // subscriptions that may have more to hand out
}

// Session is a consumer's connection or process.
type Session struct {
	ID       uint32
	Word     string // its unique name
	Name     string // the consumer's name in histories
	Sub      *Sub
	Foreign  bool
	Process  string
	InFlight int
	alone    int // suspects among them: one at most

	// Connected says that its consumer is there now. It is not part of what is compared: nobody
	// is connected to a log.
	Connected bool
}

type value struct {
	bytes   []byte
	version uint64
}

// New returns the state of an empty log.
func New() *State {
	return &State{topics: make(map[uint32]*Topic), byName: make(map[string]*Topic),
		subs: make(map[uint32]*Sub), sessions: make(map[uint32]*Session),
		byWord: make(map[string]*Session), tables: make(map[string]map[string]value),
		pinned: make(map[uint64]int64)}
}

// Topic returns the topic of that name, or nil.
func (s *State) Topic(name string) *Topic { return s.byName[name] }

// Topics returns all topics, sorted by name.
func (s *State) Topics() []*Topic {
	all := make([]*Topic, 0, len(s.topics))
	for _, t := range s.topics {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b *Topic) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return all
}

// Sub returns the topic's subscription of that name, or nil.
func (t *Topic) Sub(name string) *Sub {
	for _, q := range t.Subs {
		if q.Name == name {
			return q
		}
	}
	return nil
}

// Session returns the session of that unique name, or nil.
func (s *State) Session(word string) *Session { return s.byWord[word] }

// Sessions returns all sessions, in the order of their numbers.
func (s *State) Sessions() []*Session {
	all := make([]*Session, 0, len(s.sessions))
	for _, ss := range s.sessions {
		all = append(all, ss)
	}
	slices.SortFunc(all, func(a, b *Session) int { return compare(a.ID, b.ID) })
	return all
}

// NextID returns the number for the next topic, subscription or session.
func (s *State) NextID() uint32 { return s.lastID + 1 }

// A pinRegion is a part of the log, of 1 MiB. The state counts the live messages of each, so that
// a segment in which none lives can go.
const pinRegion = 20

func (s *State) pin(pos uint64) { s.pinned[pos>>pinRegion]++ }

func (s *State) unpin(pos uint64) {
	if s.pinned[pos>>pinRegion]--; s.pinned[pos>>pinRegion] == 0 {
		delete(s.pinned, pos>>pinRegion)
	}
}

// Pinned reports whether a live message may begin in the positions [from, to).
func (s *State) Pinned(from, to uint64) bool {
	for region := from >> pinRegion; region <= (to-1)>>pinRegion; region++ {
		if s.pinned[region] > 0 {
			return true
		}
	}
	return false
}

// Positions calls fn with the position and the size of every live message, once each.
func (s *State) Positions(fn func(pos uint64, size uint32) error) error {
	seen := make(map[uint64]bool)
	for _, t := range s.Topics() {
		for seq := t.index.first; seq < t.index.next; seq++ {
			if err := fn(t.index.at(seq).pos, t.index.at(seq).size); err != nil {
				return err
			}
		}
		for _, m := range t.schedule {
			if err := fn(m.pos, m.size); err != nil {
				return err
			}
		}
		for _, q := range t.Subs {
			for _, slot := range q.slotsBySeq() {
				e := q.entry(slot)
				if seen[e.pos] || e.seq >= t.index.first {
					continue
				}
				seen[e.pos] = true
				if err := fn(e.pos, e.size); err != nil {
					return err
				}
			}
		}
		clear(seen)
	}
	return nil
}

// Apply moves the state by one record of the log, at replay. Live, the same records are applied
// before they are encoded.
func (s *State) Apply(pos uint64, typ byte, payload []byte) error {
	if typ == typePublish {
		r, err := DecodePublish(payload, false)
		if err != nil {
			return fmt.Errorf("decode publish record: %w", err)
		}
		return s.ApplyPublish(r, pos, len(payload))
	}
	r, err := decodeRecord(typ, payload)
	if err != nil {
		return err
	}
	if err := r.check(s); err != nil {
		return fmt.Errorf("%T at %d does not fit the state: %w", r, pos, err)
	}
	r.apply(s)
	return nil
}

// ApplyPublish accepts a message whose record stands at pos and is size bytes long.
func (s *State) ApplyPublish(r *Publish, pos uint64, size int) error {
	t := s.topics[r.Topic]
	if t == nil {
		return fmt.Errorf("publish record at %d: no topic %d", pos, r.Topic)
	}
	s.Now = max(s.Now, r.Now)
	m := indexEntry{pos: pos, lane: laneHash(r.Message.Key), size: uint32(size),
		sec: uint32(r.Now / 1000)}
	t.Published++
	t.bytes += int64(size)
	s.pin(pos)
	if r.Given && t.Config.DedupMillis > 0 {
		t.dedup.expire(r.Now - t.Config.DedupMillis)
		t.dedup.add(r.Message.ID, seenID{pos: pos, sum: sumOf(&r.Message), at: r.Now})
	}
	if r.Due > r.Now {
		s.order++
		t.pushScheduled(scheduled{due: r.Due, order: s.order, indexEntry: m})
		s.wakeTopic(t)
	} else {
		t.index.add(m)
	}
	for _, q := range t.Subs {
		q.Accepted++
		s.Touch(q)
	}
	s.trim(t)
	return nil
}

// Repeat tells what dedup knows of a message at the time now: whether its ID was accepted before,
// where, and whether with the same content. full says that the window holds no further ID.
func (t *Topic) Repeat(now int64, m *ackwise.Message) (pos uint64, seen, same, full bool) {
	if t.Config.DedupMillis == 0 {
		return 0, false, false, false
	}
	e, ok := t.dedup.byID[m.ID]
	if !ok || e.at <= now-t.Config.DedupMillis {
		return 0, false, false, t.dedup.live(now-t.Config.DedupMillis) >= t.Config.MaxDedupIDs
	}
	return e.pos, true, e.sum == sumOf(m), false
}

// ParkedFull reports whether a message of this key is refused because it would be parked on a
// subscription whose quota is reached, and on which.
func (t *Topic) ParkedFull(key string) (sub string, full bool) {
	if key == "" {
		return "", false
	}
	hash := laneHash(key)
	for _, q := range t.Subs {
		if l := q.lanes[hash]; l != nil && l.mode == laneParked && q.quotaReached() {
			return q.Name, true
		}
	}
	return "", false
}

func (q *Sub) quotaReached() bool {
	return q.at[Parked]+q.at[Dead] >= int64(q.Config.MaxParked)
}

// Table reads a table's value; version 0 = absent.
func (s *State) Table(table, key string) (bytes []byte, version uint64) {
	v := s.tables[table][key]
	return v.bytes, v.version
}

// TableKeys lists a table's keys that begin with prefix, sorted.
func (s *State) TableKeys(table, prefix string) []string {
	var keys []string
	for k := range s.tables[table] {
		if len(k) >= len(prefix) && k[:len(prefix)] == prefix {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

// SubByID returns the subscription of that number, or nil.
func (s *State) SubByID(id uint32) *Sub { return s.subs[id] }
