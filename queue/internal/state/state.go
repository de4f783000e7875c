package state

import (
	"fmt"
	"slices"
	"strings"
)

// State is everything that the log says. It reads no clock and draws no random number: live and at
// replay it moves only by records, each of which carries its time.
type State struct {
	Now    int64  // engine time of the last record, in milliseconds
	OpenNo uint32 // how often the store was opened
	Owner  string // the process that opened it last

	Inode    uint64   // of its directory when it was opened last; 0 = unknown
	Identity [16]byte // what tells its tokens from a copy's; zero = it was never opened

	topics       map[uint32]*Topic
	byName       map[string]*Topic
	subs         map[uint32]*Sub
	sessions     map[uint32]*Session
	byWord       map[string]*Session // by their names
	lastID       uint32              // the last number given to a topic, subscription or session
	gen          uint64              // the last generation given
	order        uint64              // the last order given to a scheduled message
	fence        uint64              // the last fence given to a claim
	ended        []ended
	tables       map[string]map[string]value
	TableLen     int    // bytes of all tables
	tableVersion uint64 // the last version given
	commits      commits
	sets         map[uint32]*Set
	setByName    map[string]*Set
	completed    []completion // a ring by fence; nil = there was none
	chunkLen     uint64       // chunkLen but in tests
	runLen       int          // runLen but in tests

	// Derived, and not part of what is compared.
	index   follower
	pins    pins
	wake    heapOf[wakeItem] // when a subscription or a topic has something to do
	touched []*Sub           // subscriptions that may have more to hand out
}

// follower is told of what an index of the IDs must know, live and at replay alike.
type follower interface {
	// TopicMade is told of a new topic.
	TopicMade(t *Topic)
	// TopicDeleted is told of a topic that is gone.
	TopicDeleted(t *Topic)
	// Accepted is told of a message whose producer gave its ID, on a topic that remembers IDs.
	Accepted(t *Topic, r *Publish, pos uint64)
	// SetMade is told of a new dedup set, and of one with another bound.
	SetMade(x *Set)
	// KeyDone is told of a key that is done at the time of x.Last, by a record at pos. The sum is
	// twice the payload's, and 1 more where the record holds a result.
	KeyDone(x *Set, key string, sum uint64, pos uint64)
}

// Tell makes the state tell an index from now on of all that moves.
func (s *State) Tell(index follower) { s.index = index }

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
func New() *State { return newState(chunkLen, runLen) }

func newState(chunkLen uint64, runLen int) *State {
	return &State{chunkLen: chunkLen, runLen: runLen,
		topics: make(map[uint32]*Topic), byName: make(map[string]*Topic),
		subs: make(map[uint32]*Sub), sessions: make(map[uint32]*Session),
		byWord: make(map[string]*Session), tables: make(map[string]map[string]value),
		sets: make(map[uint32]*Set), setByName: make(map[string]*Set),
		pins: pins{byRegion: make(map[uint64]*pin)}}
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

// InFlight counts what all sessions hold.
func (s *State) InFlight() (n int64) {
	for _, ss := range s.sessions {
		n += int64(ss.InFlight)
	}
	return n
}

// NextID returns the number for the next topic, subscription, session or dedup set.
func (s *State) NextID() uint32 { return s.lastID + 1 }

// Apply moves the state by one record of the log, at replay. Live, the same records are applied
// before they are encoded.
func (s *State) Apply(pos uint64, typ byte, payload []byte) error {
	if typ == typePublish {
		r, err := DecodePublish(payload, nil)
		if err != nil {
			return fmt.Errorf("decode publish record: %w", err)
		}
		return s.ApplyPublish(&r, pos, len(payload))
	}
	r, err := decodeRecord(typ, payload)
	if err != nil {
		return err
	}
	if err := s.Place(r, pos, len(payload)); err != nil {
		return fmt.Errorf("%T at %d does not fit the state: %w", r, pos, err)
	}
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
	s.pin(pos, uint32(size))
	if s.index != nil && r.Given && t.Config.DedupMillis > 0 {
		s.index.Accepted(t, r, pos)
	}
	if r.Due > r.Now {
		s.order++
		t.schedule.push(scheduled{due: r.Due, order: s.order, indexEntry: m})
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

// TableKeys lists the first keys of a table that begin with prefix, sorted, at most max.
func (s *State) TableKeys(table, prefix string, max int) []string {
	var keys []string
	end := "" // behind it no key is wanted any more; "" = not known yet
	cut := func() {
		slices.Sort(keys)
		if len(keys) >= max {
			keys = keys[:max]
			end = keys[max-1]
		}
	}
	for k := range s.tables[table] {
		if !strings.HasPrefix(k, prefix) || end != "" && k > end {
			continue
		}
		if keys = append(keys, k); len(keys)-max >= max {
			cut()
		}
	}
	cut()
	return keys
}

// SubByID returns the subscription of that number, or nil.
func (s *State) SubByID(id uint32) *Sub { return s.subs[id] }
