package state

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise/idempotency"
)

// setSim drives a dedup set with random commands, beside a model of it that is a few lines.
type setSim struct {
	*sim
	x     *Set
	model map[string]*modelKey
}

// modelKey is what the model knows of a key.
type modelKey struct {
	fence    uint64 // of the last claim
	claimed  bool   // and not settled
	until    int64
	doneAt   int64 // 0 = it is not done
	complete bool  // the last claim was completed
}

func newSetSim(s *sim) *setSim {
	s.do(s.live.MakeSet(s.now, "x", 300, 100))
	return &setSim{sim: s, x: s.live.Set("x"), model: map[string]*modelKey{}}
}

// place carries a record that is to be placed to both states.
func (s *sim) place(r Record) {
	s.t.Helper()
	s.pos += 64
	b := r.Append(nil)
	if err := s.live.Place(r, s.pos, len(b)); err != nil {
		s.t.Fatalf("%T: %v", r, err)
	}
	if err := s.copy.Apply(s.pos, r.Type(), b); err != nil {
		s.t.Fatalf("%T does not apply to the copy: %v", r, err)
	}
}

func (m *setSim) key() (string, *modelKey) {
	key := fmt.Sprint("k", m.rng.IntN(8))
	k := m.model[key]
	if k == nil {
		k = &modelKey{}
		m.model[key] = k
	}
	if k.doneAt != 0 && k.doneAt+m.x.WindowMillis() <= m.now {
		k.doneAt = 0
	}
	return key, k
}

func (m *setSim) step() {
	m.now += m.rng.Int64N(40)
	m.log(m.live.Tick(m.now)...)
	key, k := m.key()
	switch m.rng.IntN(6) {
	case 0, 1, 2:
		if k.doneAt == 0 { // the caller of Claim has looked for done keys
			m.claim(key, k)
		}
	case 3, 4:
		m.settle(key, k)
	case 5:
		if k.doneAt == 0 && !(k.claimed && k.until > m.now) {
			m.place(m.x.Once(m.now, []idempotency.Ask{{Key: key, Sum: idempotency.Sum{1}}}))
			*k = modelKey{fence: k.fence, doneAt: m.now, complete: k.complete}
			m.fired["once"]++
		}
	}
}

func (m *setSim) claim(key string, k *modelKey) {
	m.t.Helper()
	ask := &idempotency.Ask{Key: key, Sum: idempotency.Sum{1}, Lease: 100 * time.Millisecond}
	records, a := m.x.Claim(m.now, 0, ask, nil)
	m.log(records...)
	held := k.claimed && k.until > m.now
	switch {
	case held && a.Status != idempotency.Busy, !held && a.Status != idempotency.Claimed,
		held != (len(records) == 0):
		m.t.Fatalf("%s, held %t, is answered %+v", key, held, a)
	case held:
		m.fired["busy"]++
		return
	case a.Fence <= k.fence:
		m.t.Fatalf("%s got the fence %d after %d", key, a.Fence, k.fence)
	case a.Takeover && !k.claimed, !a.Takeover && k.claimed && k.until+m.x.WindowMillis() > m.now:
		m.t.Fatalf("%s is taken over: %t, claimed before: %t", key, a.Takeover, k.claimed)
	case a.Takeover:
		m.fired["takeover"]++
	}
	*k = modelKey{fence: a.Fence, claimed: true, until: m.now + 100}
	m.fired["claimed"]++
	ask.Sum[0] = 2
	if records, a = m.x.Claim(m.now, 0, ask, nil); a.Status != idempotency.Conflict {
		m.t.Fatalf("another payload of %s is answered %+v", key, a)
	}
	m.log(records...)
}

func (m *setSim) settle(key string, k *modelKey) {
	m.t.Helper()
	fence, known := m.x.Claimed(key)
	if known != k.claimed && !(k.claimed && k.until+m.x.WindowMillis() <= m.now) ||
		known && fence != k.fence {
		m.t.Fatalf("%s: the claim is %t %d, want %+v", key, known, fence, k)
	}
	if got := m.x.Completed(key, k.fence); got != k.complete {
		m.t.Fatalf("%s: completed %t, want %+v", key, got, k)
	}
	if !known {
		return
	}
	c := idempotency.Settlement{Key: key, Fence: fence, Lease: 200 * time.Millisecond,
		Verb: idempotency.Verb(1 + m.rng.IntN(3))}
	if m.rng.IntN(2) == 0 {
		c.Result = []byte("result")
	}
	m.place(m.x.Settle(m.now, []idempotency.Settlement{c}))
	switch c.Verb {
	case idempotency.Complete:
		*k = modelKey{fence: fence, doneAt: m.now, complete: true}
		if c.Result != nil {
			m.fired["result"]++
		}
	case idempotency.Release:
		*k = modelKey{fence: fence}
		m.fired["released"]++
	case idempotency.Extend:
		k.until = m.now + 200
		m.fired["extended"]++
	}
}

// follow notes what an index is told.
type follow struct {
	follower
	done []string
}

func (f *follow) SetMade(*Set) {}
func (f *follow) KeyDone(x *Set, key string, sum, pos uint64) {
	f.done = append(f.done, fmt.Sprint(x.Name, key, sum, pos, x.Last()))
}

func TestSetSimulation(t *testing.T) {
	seeds := 8
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		seeds = 3000
	}
	fired := make(map[string]int)
	for seed := range uint64(seeds) {
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		s := newSim(t, seed)
		var live, copied follow
		s.live.Tell(&live)
		s.copy.Tell(&copied)
		m := newSetSim(s)
		for i := range 400 {
			m.step()
			if i%16 == int(seed%16) {
				s.check()
				s.copy.Tell(&copied) // it may be one that was decoded
			}
		}
		if !slices.Equal(live.done, copied.done) {
			t.Errorf("the index was told %d keys, at replay %d", len(live.done), len(copied.done))
		}
		s.now += 100_000
		for next := s.live.NextWake(); next != 0 && !t.Failed(); next = s.live.NextWake() {
			s.now = max(s.now, next)
			s.log(s.live.Tick(s.now)...)
		}
		if m.x.Claims() != 0 || m.x.ResultBytes() != 0 || m.x.Last() != 0 ||
			s.live.Pinned(0, s.pos+1) {
			t.Errorf("%d claims and %d bytes of results are left", m.x.Claims(), m.x.ResultBytes())
		}
		s.check()
		if t.Failed() {
			t.Fatalf("repeat with: go test ./queue/internal/state -run TestSetSimulation -seed %d",
				seed)
		}
		for what, n := range s.fired {
			fired[what] += n
		}
	}
	for _, what := range []string{"claimed", "busy", "takeover", "result", "released", "extended",
		"once"} {
		if fired[what] == 0 {
			t.Errorf("%q never happened", what)
		}
	}
	t.Logf("fired: %v", fired)
}
