package state

import (
	"encoding/binary"
	"strings"
	"time"

	"github.com/ackwise/ackwise/idempotency"
)

// setConfig is what a dedup set was made with, see queue.Store.OpenSet.
type setConfig struct {
	WindowMillis int64
	MaxKeys      int
}

// Set is a dedup set: the keys that are claimed, and where the results of done ones stand in the
// log. The keys that are done are an index of the log, as message IDs are, and not part of the
// state; the follower keeps them.
type Set struct {
	ID     uint32
	Name   string
	Rule   string // by which its keys and sums are made; "" = none was bound
	config setConfig

	state   *State
	claims  map[string]claim
	results index // of the records that hold results
	bytes   int64 // of those records
	last    int64 // time of the last completion whose key may still be done; 0 = there is none
	wakeAt  int64 // registered in State.wake; derived
}

// claim is a claim that was not settled.
type claim struct {
	fence    uint64
	sum      uint64 // of the payload, see sumOf
	call     uint64 // the call that made it; 0 = one that is never repeated
	until    int64  // when its lease ends
	takeover bool
}

// sumOf folds a fingerprint into 63 bits. Only the zero one becomes zero.
func sumOf(sum idempotency.Sum) uint64 {
	if sum == (idempotency.Sum{}) {
		return 0
	}
	low, high := binary.LittleEndian.Uint64(sum[:8]), binary.LittleEndian.Uint64(sum[8:])
	return max((low^high)&^(1<<63), 1)
}

// sumsDiffer reports whether two sums are of different payloads.
func sumsDiffer(a, b uint64) bool { return a != b && a != 0 && b != 0 }

const (
	// resultSlackMillis is how much longer than its key a result is kept, so that who was told that
	// a key is done can read it.
	resultSlackMillis = 60_000
	// setParts is how many times in its window a set looks for what it can let go of.
	setParts = 8
	// setWakeMillis bounds how often that is.
	setWakeMillis = 1000
	// letGoMax bounds what one expireSetRecord lets go of.
	letGoMax = 1 << 16
	// completedLen is how many completions are remembered by their fences, so that a repeat is
	// answered alike.
	completedLen = 1 << 16
)

// completion is a completed claim: its fence and a hash of its key and set.
type completion struct{ fence, key uint64 }

// Set returns the dedup set of that name, or nil.
func (s *State) Set(name string) *Set { return s.setByName[name] }

// Sets returns all dedup sets, in the order of their numbers.
func (s *State) Sets() []*Set { return sortedSets(s.sets) }

// WindowMillis is how long a key stays done.
func (x *Set) WindowMillis() int64 { return x.config.WindowMillis }

// MaxKeys bounds the keys that are claimed or done.
func (x *Set) MaxKeys() int { return x.config.MaxKeys }

// Claims counts the claims that are not settled: those that are held, and those that ran out and
// are remembered for a window.
func (x *Set) Claims() int { return len(x.claims) }

// Claims counts the claims of all dedup sets that are not settled.
func (s *State) Claims() (n int64) {
	for _, x := range s.sets {
		n += int64(len(x.claims))
	}
	return n
}

// ResultBytes counts the bytes of the records that hold results.
func (x *Set) ResultBytes() int64 { return x.bytes }

// Last is when the last key was done.
func (x *Set) Last() int64 { return x.last }

// Claimed returns the fence of the claim of a key, be it held or not.
func (x *Set) Claimed(key string) (fence uint64, known bool) {
	c, known := x.claims[key]
	return c.fence, known
}

// DoneAs reports what KeyDone was told of a done key by its sum: whether it was with the payload of
// an ask, and whether the record holds a result.
func (x *Set) DoneAs(ask idempotency.Sum, sum uint64) (same, kept bool) {
	return !sumsDiffer(sumOf(ask), sum>>1), sum&1 != 0
}

// Look tells of a key that is not done whether it is claimed. The zero status means that nobody
// holds it.
func (x *Set) Look(now int64, ask *idempotency.Ask) idempotency.Answer {
	c, known := x.claims[ask.Key]
	switch {
	case known && sumsDiffer(sumOf(ask.Sum), c.sum):
		return idempotency.Answer{Status: idempotency.Conflict}
	case known && c.until > now:
		return idempotency.Answer{Status: idempotency.Busy,
			Wait: time.Duration(c.until-now) * time.Millisecond}
	}
	return idempotency.Answer{}
}

// Claim decides on an ask for a key that is not done, and carries it out. What says so, already
// applied, is added to records, which are those of one call. A call that is repeated, because its
// answer was lost, has the same number and gets what it got.
func (x *Set) Claim(now int64, call uint64, ask *idempotency.Ask, records []Record) (
	[]Record, idempotency.Answer) {
	if len(records) == 0 {
		records = append(records, &claimsRecord{Now: now, Set: x.ID, Call: call,
			First: x.state.fence + 1})
	}
	r := records[0].(*claimsRecord)
	answer := x.Look(now, ask)
	c := x.claims[ask.Key]
	switch {
	case answer.Status == idempotency.Busy && call != 0 && c.call == call && c.fence < r.First:
		answer = idempotency.Answer{Status: idempotency.Claimed, Fence: c.fence,
			Takeover: c.takeover}
	case answer.Status == 0:
		x.state.Now = max(x.state.Now, now)
		r.Asks = append(r.Asks, asked{key: strings.Clone(ask.Key), sum: sumOf(ask.Sum),
			until: now + ask.Lease.Milliseconds()})
		c = x.claim(r, len(r.Asks)-1)
		x.state.wakeSet(x)
		answer = idempotency.Answer{Status: idempotency.Claimed, Fence: c.fence,
			Takeover: c.takeover}
	}
	if len(r.Asks) == 0 {
		records = records[:0]
	}
	return records, answer
}

// claim carries out the i-th claim of a record.
func (x *Set) claim(r *claimsRecord, i int) claim {
	ask := &r.Asks[i]
	old, known := x.claims[ask.key]
	c := claim{fence: r.First + uint64(i), sum: ask.sum, call: r.Call, until: ask.until}
	if known {
		// Whoever asks again because it never heard the answer has made no effect.
		c.takeover = old.call == 0 || old.call != r.Call || old.takeover
		if c.sum == 0 {
			c.sum = old.sum
		}
	}
	x.claims[ask.key] = c
	x.state.fence = max(x.state.fence, c.fence)
	return c
}

// Completed reports whether the claim of that fence is known to have made the key done.
func (x *Set) Completed(key string, fence uint64) bool {
	all, i := x.state.completed, fence%completedLen
	return fence != 0 && i < uint64(len(all)) && all[i] == completion{fence, x.hash(key)}
}

func (x *Set) hash(key string) uint64 { return laneHash(key) ^ uint64(x.ID)<<32 }

func (s *State) rememberCompletion(c completion) {
	if s.completed == nil {
		s.completed = make([]completion, completedLen)
	}
	s.completed[c.fence%completedLen] = c
}

// done makes a key done whose record stands at pos; kept says that the record holds its result. A
// fence of 0 is a key that was done without a claim.
func (s *State) done(x *Set, key string, sum uint64, at placed) {
	s.Now = max(s.Now, at.now)
	x.last = at.now
	if at.kept {
		x.results.add(indexEntry{pos: at.pos, size: uint32(at.size), sec: uint32(at.now / 1000)})
		x.bytes += int64(at.size)
		s.pin(at.pos, uint32(at.size))
	}
	delete(x.claims, key)
	if s.index != nil {
		s.index.KeyDone(x, key, sum, at.pos)
	}
}

// placed says where and when a record was put into the log, and whether it holds a result.
type placed struct {
	now  int64
	pos  uint64
	size int
	kept bool
}

// resultsTo returns up to which of its results a set lets go of at the time now.
func (x *Set) resultsTo(now int64) uint64 {
	seq := x.results.first
	for end := min(x.results.next, seq+letGoMax); seq < end; seq++ {
		e := x.results.at(seq, &x.results.head)
		if (int64(e.sec)+1)*1000+x.config.WindowMillis+resultSlackMillis > now {
			break
		}
	}
	return seq
}

// abandoned reports whether a claim ran out a window ago.
func (x *Set) abandoned(c claim, now int64) bool { return c.until+x.config.WindowMillis <= now }

// forgets reports whether all keys of the set are free again at the time now.
func (x *Set) forgets(now int64) bool {
	return x.last != 0 && x.last+x.config.WindowMillis <= now
}

// wakeSet registers when the set next looks for what it can let go of.
func (s *State) wakeSet(x *Set) {
	s.wakeSetAt(x, s.Now+max(x.config.WindowMillis/setParts, setWakeMillis))
}

func (s *State) wakeSetAt(x *Set, at int64) {
	idle := len(x.claims) == 0 && x.results.first == x.results.next && x.last == 0
	if idle || x.wakeAt != 0 {
		return
	}
	x.wakeAt = at
	s.wake.push(wakeItem{at: at, set: x})
}

// tickSet lets go of what is over at the time now, and registers when it looks again.
func (s *State) tickSet(x *Set, now int64) []Record {
	next := now + max(x.config.WindowMillis/setParts, setWakeMillis)
	defer func() { s.wakeSetAt(x, next) }()
	r := &expireSetRecord{Now: now, Set: x.ID, To: x.resultsTo(now)}
	if r.To-x.results.first == letGoMax {
		next = now + 1 // there is more
	}
	over := r.To > x.results.first || x.forgets(now)
	for _, c := range x.claims {
		if over {
			break
		}
		over = x.abandoned(c, now)
	}
	if !over {
		return nil
	}
	r.apply(s)
	return []Record{r}
}
