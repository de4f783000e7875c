package state

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ackwise/ackwise"
)

var seedFlag = flag.Uint64("seed", 0, "run only the simulation of this seed")

// sim drives a State with random commands, and a second State with the encoded records of the
// first. Its oracles are its own lists: what was published, handed out and settled.
type sim struct {
	t    *testing.T
	rng  *rand.Rand
	live *State
	copy *State // moved by the bytes of live's records alone
	now  int64
	pos  uint64

	published int
	held      map[uint64][]HandOut // by session
	lost      []HandOut            // hand-outs whose lease is gone, for late settlements
	lostSub   []*Sub
	keys      map[uint64]string   // key by log position
	finished  map[string]int      // SUB/POS → 1 when acked or dropped
	dead      map[string]bool     // SUB/POS of what was settled as dead and not brought back
	line      map[string][]uint64 // topic → positions of what was not scheduled, as published
	fired     map[string]int
}

func newSim(t *testing.T, seed uint64) *sim {
	chunk, run := uint64(1+seed%9), 2+int(seed%5)
	s := &sim{t: t, rng: rand.New(rand.NewPCG(seed, 1)), live: newState(chunk, run),
		copy: newState(chunk, run), now: 1000, pos: 512,
		held: make(map[uint64][]HandOut), keys: make(map[uint64]string),
		finished: make(map[string]int), dead: make(map[string]bool), line: make(map[string][]uint64),
		fired: make(map[string]int)}
	s.do(&Open{Now: s.now, Number: 1})
	return s
}

// log carries the records' bytes to the copy.
func (s *sim) log(records ...Record) {
	s.t.Helper()
	for _, r := range records {
		s.pos += 64
		if err := s.copy.Apply(s.pos, r.Type(), r.Append(nil)); err != nil {
			s.t.Fatalf("%T does not apply to the copy: %v", r, err)
		}
	}
}

func (s *sim) do(r Record) {
	s.t.Helper()
	if err := s.live.Do(r); err != nil {
		s.t.Fatalf("%T: %v", r, err)
	}
	s.log(r)
}

func (s *sim) publish(t *Topic) {
	key := ""
	if s.rng.IntN(4) > 0 {
		key = string(rune('a' + s.rng.IntN(5)))
	}
	s.published++
	r := &Publish{Now: s.now, Topic: t.ID, Given: s.rng.IntN(2) == 0,
		Message: ackwise.Message{ID: fmt.Sprint("m", s.published), Key: key}}
	if s.rng.IntN(5) == 0 {
		r.Due = s.now + s.rng.Int64N(500)
		s.fired["scheduled"]++
	}
	b := r.Append(nil)
	s.pos += 64
	if r.Due <= s.now {
		s.line[t.Name] = append(s.line[t.Name], s.pos)
	}
	s.keys[s.pos] = key
	if err := s.live.ApplyPublish(r, s.pos, len(b)); err != nil {
		s.t.Fatal(err)
	}
	if err := s.copy.Apply(s.pos, r.Type(), b); err != nil {
		s.t.Fatal(err)
	}
}

func (s *sim) session(q *Sub) *Session {
	for _, ss := range s.live.Sessions() {
		if ss.Sub == q && s.rng.IntN(2) == 0 {
			return ss
		}
	}
	id := s.live.NextID()
	s.do(&OpenSession{Now: s.now, ID: id, Sub: q.ID, Word: fmt.Sprint("s", id), Name: "c",
		Foreign: s.rng.IntN(2) == 0})
	ss := s.live.Session(fmt.Sprint("s", id))
	ss.Connected = s.rng.IntN(4) > 0
	return ss
}

func (s *sim) receive(q *Sub) {
	s.sweep()
	ss := s.session(q)
	records, out := s.live.HandOut(s.now, Ask{Session: ss, Max: 1 + s.rng.IntN(6), MaxBytes: 1 << 20,
		Lease: 100, Synced: s.pos + 1})
	s.log(records...)
	suspects := 0
	for _, h := range out {
		if h.Suspect {
			suspects++
		}
		if n := s.finished[fmt.Sprint(q.Name, h.Pos)]; n > 0 {
			s.t.Fatalf("message at %d is handed out on %s after it was finished", h.Pos, q.Name)
		}
	}
	s.checkOrder(q, out)
	for _, h := range s.held[uint64(ss.ID)] {
		if h.Suspect {
			suspects++
		}
	}
	if suspects > 0 && len(out)+len(s.held[uint64(ss.ID)]) > 1 {
		s.t.Fatalf("a suspect is in flight beside others: %v %v", s.held[uint64(ss.ID)], out)
	}
	s.held[uint64(ss.ID)] = append(s.held[uint64(ss.ID)], out...)
	s.fired["handed out"] += len(out)
}

// checkOrder holds what was handed out against the test's own list: on an ordered subscription, all
// earlier messages of the key are finished, before it in the same run, or skipped dead letters.
func (s *sim) checkOrder(q *Sub, out []HandOut) {
	if !q.Config.Ordered {
		return
	}
	now := make(map[uint64]bool)
	for _, h := range out {
		key := s.keys[h.Pos]
		for _, pos := range s.line[q.Topic.Name] {
			if pos >= h.Pos || !slices.Contains(s.line[q.Topic.Name], h.Pos) {
				break
			}
			name := fmt.Sprint(q.Name, pos)
			if key == "" || s.keys[pos] != key || s.finished[name] > 0 || now[pos] ||
				!q.Config.Hold && s.dead[name] {
				continue
			}
			s.t.Fatalf("%s: key %s goes on with %d before %d is done", q.Name, key, h.Pos, pos)
		}
		now[h.Pos] = true
		s.fired["in order"]++
	}
}

var outcomes = []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeAck, ackwise.OutcomeAck,
	ackwise.OutcomeNack, ackwise.OutcomeSnooze, ackwise.OutcomeRelease, ackwise.OutcomeExtend,
	ackwise.OutcomeDead, ackwise.OutcomeDrop}

// settle settles a random hand-out, held or lost, and repeats the settlement.
func (s *sim) settle() {
	var q *Sub
	var h HandOut
	if len(s.lost) > 0 && s.rng.IntN(3) == 0 {
		i := s.rng.IntN(len(s.lost))
		h, q = s.lost[i], s.lostSub[i]
		s.fired["late"]++
	} else {
		for _, ss := range s.live.Sessions() {
			if list := s.held[uint64(ss.ID)]; len(list) > 0 {
				i := s.rng.IntN(len(list))
				h, q = list[i], ss.Sub
				break
			}
		}
	}
	if q == nil || s.live.subs[q.ID] != q {
		return
	}
	st := ackwise.Settlement{Outcome: outcomes[s.rng.IntN(len(outcomes))], Reason: "r"}
	until := int64(0)
	switch st.Outcome {
	case ackwise.OutcomeNack, ackwise.OutcomeSnooze:
		until = s.now + s.rng.Int64N(3)*50
	case ackwise.OutcomeExtend:
		until = s.now + 100
	case ackwise.OutcomeAck, ackwise.OutcomeRelease, ackwise.OutcomeDead, ackwise.OutcomeDrop:
	}
	before := q.Causes[ackwise.CauseAckLost]
	records, already, err := s.live.Settle(s.now, settling(q, h, st, until), nil)
	s.log(records...)
	if q.Causes[ackwise.CauseAckLost] > before {
		s.fired["ack-lost"]++
	}
	key := fmt.Sprint(q.Name, h.Pos)
	finishes := st.Outcome == ackwise.OutcomeAck || st.Outcome == ackwise.OutcomeDrop
	if err == nil && !already && finishes {
		if s.finished[key]++; s.finished[key] > 1 {
			s.t.Fatalf("message at %d was finished twice", h.Pos)
		}
	}
	if err == nil && st.Outcome != ackwise.OutcomeExtend {
		again, same, err := s.live.Settle(s.now, settling(q, h, st, until), nil)
		if err != nil || !same || again != nil {
			s.t.Fatalf("repeated %v: already %v, %v", st.Outcome, same, err)
		}
		other := ackwise.Settlement{Outcome: ackwise.OutcomeDrop, Reason: "r"}
		if st.Outcome == ackwise.OutcomeDrop {
			other.Outcome = ackwise.OutcomeAck
		}
		_, same, err = s.live.Settle(s.now, settling(q, h, other, until), nil)
		if err == nil || same {
			s.t.Fatalf("%v after %v was accepted", other.Outcome, st.Outcome)
		}
	}
	if err == nil && !already {
		s.dead[key] = st.Outcome == ackwise.OutcomeDead
	}
	if errors.Is(err, ackwise.ErrRunOrder) {
		s.fired["run order"]++
	}
	s.sweep()
}

// settleBatch settles what a session holds in one call, as a consumer of batches does: nearly all
// of it with one outcome, some of it twice.
func (s *sim) settleBatch() {
	all := s.live.Sessions()
	if len(all) == 0 {
		return
	}
	ss := all[s.rng.IntN(len(all))]
	most := s.rng.IntN(2)
	var records []Record
	settled := 0
	for _, h := range s.held[uint64(ss.ID)] {
		plain := []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeRelease}
		st := ackwise.Settlement{Outcome: plain[most]}
		switch s.rng.IntN(8) {
		case 0:
			st = ackwise.Settlement{Outcome: ackwise.OutcomeNack, Reason: "r"}
		case 1:
			st.Outcome = plain[1-most]
		}
		for range 1 + s.rng.IntN(2) {
			var already bool
			var err error
			records, already, err = s.live.Settle(s.now, settling(ss.Sub, h, st, s.now), records)
			if err != nil || already {
				continue
			}
			settled++
			if st.Outcome == ackwise.OutcomeAck {
				s.finished[fmt.Sprint(ss.Sub.Name, h.Pos)]++
			}
		}
	}
	if len(records) < settled {
		s.fired["in one record"]++
	}
	s.log(records...)
	s.sweep()
}

func settling(q *Sub, h HandOut, st ackwise.Settlement, until int64) Settling {
	return Settling{Sub: q, Seq: h.Seq, Gen: h.Gen, Outcome: st.Outcome, Reason: st.Reason,
		Until: until}
}

// sweep moves hand-outs that are no longer in flight from held to lost.
func (s *sim) sweep() {
	for id, list := range s.held {
		ss := s.live.sessions[uint32(id)]
		kept := list[:0]
		for _, h := range list {
			var q *Sub
			for _, other := range s.live.subs {
				if slot, ok := other.bySequence(h.Seq); ok && other.entry(slot).gen == h.Gen {
					q = other
				}
			}
			if ss != nil && q != nil {
				if slot, _ := q.bySequence(h.Seq); q.entry(slot).place == InFlight {
					kept = append(kept, h)
					continue
				}
			}
			if q != nil && len(s.lost) < 50 {
				s.lost, s.lostSub = append(s.lost, h), append(s.lostSub, q)
			}
		}
		s.held[id] = kept
	}
}

func (s *sim) step() {
	topics := s.live.Topics()
	t := topics[s.rng.IntN(len(topics))]
	q := t.Subs[s.rng.IntN(len(t.Subs))]
	switch n := s.rng.IntN(100); {
	case n < 30:
		s.publish(t)
	case n < 50:
		s.receive(q)
	case n < 74:
		s.settle()
	case n < 80:
		s.settleBatch()
	case n < 88:
		s.now += s.rng.Int64N(80)
		s.log(s.live.Tick(s.now)...)
	case n < 92:
		if all := s.live.Sessions(); len(all) > 0 {
			how := []End{EndLost, EndRestarted, EndRebalanced, EndExpired}[s.rng.IntN(4)]
			s.do(&EndSession{Now: s.now, ID: all[0].ID, How: how})
			s.fired[how.word()]++
		}
		s.sweep()
	case n < 98:
		s.bringBack(q)
	default:
		s.do(&TablePut{Table: "t", Key: "k", Value: []byte{byte(n)}, Version: s.live.NextTableVersion()})
	}
}

// bringBack redrives or drops the oldest dead letter.
func (s *sim) bringBack(q *Sub) {
	letters := s.live.DeadLetters(q)
	if len(letters) == 0 {
		return
	}
	d := letters[0]
	var r Record
	if s.rng.IntN(4) == 0 {
		r, _ = s.live.DropDead(s.now, q, d.Seq, "poison")
		s.finished[fmt.Sprint(q.Name, d.Pos)]++
		s.fired["dropped dead"]++
	} else {
		r, _ = s.live.Redrive(s.now, q, d.Seq, s.rng.IntN(2) == 0)
		s.dead[fmt.Sprint(q.Name, d.Pos)] = false
		s.fired["redriven"]++
	}
	s.log(r)
}

func (s *sim) check() {
	s.t.Helper()
	live := s.live.Encode(nil)
	if !bytes.Equal(live, s.copy.Encode(nil)) {
		s.t.Fatalf("the copy differs: %v", Differences(s.live, s.copy))
	}
	decoded := newState(s.live.chunkLen, s.live.runLen)
	err := decoded.Load(iotest.HalfReader(bytes.NewReader(live)), int64(len(live)))
	if err != nil {
		s.t.Fatal(err)
	}
	if !bytes.Equal(live, decoded.Encode(nil)) {
		s.t.Fatalf("the decoded checkpoint differs: %v", Differences(s.live, decoded))
	}
	if pinned, again := s.live.pins.all(), decoded.pins.all(); !maps.Equal(pinned, again) {
		s.t.Fatalf("pinned %v, made anew %v", pinned, again)
	}
	if s.rng.IntN(2) == 0 {
		s.copy = decoded // from here on it goes on from the checkpoint
	}
	for _, t := range s.live.Topics() {
		s.checkTopic(t, decoded.Topic(t.Name))
	}
	for id, q := range s.live.subs {
		s.checkSub(q, decoded.subs[id])
	}
}

func (p *pins) all() map[uint64]pin {
	all := make(map[uint64]pin)
	for region, pin := range p.byRegion {
		all[region] = *pin
	}
	return all
}

// checkTopic holds what is in line and scheduled, and where a start would find it, against what a
// state made anew says, entry for entry.
func (s *sim) checkTopic(t, again *Topic) {
	s.t.Helper()
	var r, other reader
	for range 8 {
		if t.index.first == t.index.next {
			break
		}
		seq := t.index.first + s.rng.Uint64N(t.index.next-t.index.first)
		e := *t.index.at(seq, &r)
		if e != *again.index.at(seq, &other) {
			s.t.Fatalf("%s: message %d is %v, made anew %v", t.Name, seq, e,
				again.index.at(seq, &other))
		}
		want := seq
		for from := t.index.first; from < seq; from++ {
			if t.index.at(from, &r).pos >= e.pos {
				want = from
				break
			}
		}
		if got := t.StartAt(0, e.pos); got != want {
			s.t.Fatalf("%s: a start at %d begins at message %d, want %d", t.Name, e.pos, got, want)
		}
		s.fired["read at random"]++
	}
	if len(t.index.frozen) > 0 {
		s.fired["frozen"]++
		if t.index.first%t.index.chunkLen != 0 {
			s.fired["frozen and cut"]++
		}
	}
	for _, r := range t.schedule.runs {
		s.fired["run"]++
		if r.left+1 < s.live.runLen {
			s.fired["run begun"]++
		}
		if r.left+1 > s.live.runLen {
			s.fired["run merged"]++
		}
	}
}

// checkSub recounts what a subscription counts, and compares what is on offer with what a state
// made anew from the same bytes offers.
func (s *sim) checkSub(q, again *Sub) {
	s.t.Helper()
	sum := q.Acked + q.Dropped
	for p := range places {
		sum += q.Count(p)
	}
	if q.Accepted != sum {
		s.t.Fatalf("%s: accepted %d, the rest sums to %d", q.Name, q.Accepted, sum)
	}
	var at [places]int64
	for slot := range q.bySeq {
		at[q.entry(q.bySeq[slot]).place]++
	}
	if at != q.at {
		s.t.Fatalf("%s: counted %v, recounted %v", q.Name, q.at, at)
	}
	if q.ready.seqs(q) != again.ready.seqs(again) || q.suspect.seqs(q) != again.suspect.seqs(again) {
		s.t.Fatalf("%s: offers %s and %s, made anew %s and %s", q.Name, q.ready.seqs(q),
			q.suspect.seqs(q), again.ready.seqs(again), again.suspect.seqs(again))
	}
	if !q.Config.Ordered {
		return
	}
	leases := make(map[uint64]map[uint64]bool)
	for _, slot := range q.leased.slots {
		e := q.entry(slot)
		if e.lane == 0 {
			continue
		}
		if leases[e.lane] == nil {
			leases[e.lane] = make(map[uint64]bool)
		}
		if leases[e.lane][e.run] = true; len(leases[e.lane]) > 1 {
			s.t.Fatalf("%s: two live leases of one key", q.Name)
		}
	}
	for _, l := range q.lanes {
		if l.mode == laneParked && l.dead < 0 {
			s.t.Fatalf("%s: a parked key has no dead letter", q.Name)
		}
	}
}

func (h *slotHeap) seqs(q *Sub) string {
	set := make(map[uint64]bool)
	for _, slot := range h.slots {
		set[q.entry(slot).seq] = true
	}
	return fmt.Sprint(set)
}

// drain lets everything come to an end: with faults over, every message is acked in bounded time.
func (s *sim) drain() {
	for _, ss := range s.live.Sessions() {
		s.do(&EndSession{Now: s.now, ID: ss.ID, How: EndRebalanced})
	}
	for round := 0; ; round++ {
		if round > 5000 {
			s.t.Fatal("no progress once the faults are over")
		}
		s.now += 10
		s.log(s.live.Tick(s.now)...)
		left := int64(0)
		for _, t := range s.live.Topics() {
			for _, q := range t.Subs {
				for _, d := range s.live.DeadLetters(q) {
					r, _ := s.live.Redrive(s.now, q, d.Seq, false)
					s.log(r)
				}
				s.drainSub(q)
				left += q.Accepted - q.Acked - q.Dropped
			}
		}
		if left == 0 {
			return
		}
	}
}

func (s *sim) drainSub(q *Sub) {
	ss := s.session(q)
	for {
		records, out := s.live.HandOut(s.now, Ask{Session: ss, Max: 10, MaxBytes: 1 << 20, Lease: 100,
			Synced: s.pos + 1})
		s.log(records...)
		if len(out) == 0 {
			return
		}
		var acks []Record
		for _, h := range out {
			var err error
			acks, _, err = s.live.Settle(s.now, settling(q, h, ackwise.Settlement{}, 0), acks)
			if err != nil {
				s.t.Fatalf("drain: %v", err)
			}
			s.finished[fmt.Sprint(q.Name, h.Pos)]++
		}
		s.log(acks...)
	}
}

func TestSimulation(t *testing.T) {
	seeds := 60
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		seeds = 3000
	}
	fired := make(map[string]int)
	for seed := range uint64(seeds) {
		if *seedFlag != 0 {
			seed = *seedFlag
		}
		runSimulation(t, seed, fired)
		if t.Failed() || *seedFlag != 0 {
			t.Logf("repeat with: go test ./queue/internal/state -run TestSimulation -seed %d", seed)
			return
		}
	}
	for _, what := range []string{"scheduled", "handed out", "late", "ack-lost", "run order",
		"consumer-lost", "restarted", "rebalanced", "lease-expired", "redriven", "dropped dead", "in order",
		"in one record", "read at random", "frozen", "frozen and cut", "run", "run begun", "run merged"} {
		if fired[what] == 0 {
			t.Errorf("%q never happened", what)
		}
	}
	t.Logf("fired: %v", fired)
}

func runSimulation(t *testing.T, seed uint64, fired map[string]int) {
	defer func() {
		if t.Failed() {
			t.Logf("seed %d", seed)
		}
	}()
	s := newSim(t, seed)
	for i := range 2 {
		s.do(&CreateTopic{Now: s.now, ID: s.live.NextID(), Name: fmt.Sprint("t", i),
			Config: TopicConfig{MaxMessages: 1e6, MaxBytes: 1e9, DedupMillis: 300, MaxDedupIDs: 1e6,
				RetainMillis: int64(i) * 200}})
		top := s.live.Topic(fmt.Sprint("t", i))
		for j := range 3 {
			s.do(&CreateSub{Now: s.now, ID: s.live.NextID(), Topic: top.ID,
				Name: fmt.Sprintf("t%d/s%d", i, j), Start: top.index.first,
				Config: SubConfig{Ordered: j > 0, Hold: j == 2, LeaseMillis: 100,
					MaxParked: 1000, MaxWaiting: 20 + 1000*i}})
		}
	}
	for i := range 400 {
		s.step()
		if i%16 == int(seed%16) { // every step is looked at, by some seed
			s.check()
		}
	}
	s.drain()
	s.check()
	for _, q := range s.live.subs {
		if q.Accepted != q.Acked+q.Dropped {
			t.Fatalf("%s: not all is finished", q.Name)
		}
	}
	for what, n := range s.fired {
		fired[what] += n
	}
}
