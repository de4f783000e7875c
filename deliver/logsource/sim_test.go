package logsource

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

var simSeed = flag.Uint64("seed", 0, "run the simulation with this seed only")

const (
	simPerPart = 150
	simBudget  = 3 // crashes
)

// world is a log of two partitions, two members, and an oracle that trusts nothing but its own
// lists. Nothing in it runs by itself: one random step follows the other.
//
// Legal faults: a member dies at any moment, also between a write and its hand-outs; writes fail;
// partitions are revoked, or seized without notice, and the old owner learns of it late; handlers
// fail, snooze, release and kill. One is excluded: killing a member from outside, or seizing its
// partition, while its note says that it holds a single message, for that charges the message by
// design: nobody can tell it from a message that killed its process.
type world struct {
	t        *testing.T
	rnd      *rand.Rand
	now      time.Time
	opts     Options
	owners   uint64
	parts    []*simPart
	members  []*simMember
	receives int
	most     int // of one Receive
	rare     int // how much rarer failures are
	fired    map[string]int
	causes   map[ackwise.Cause]int
}

type simPart struct {
	name    string
	msgs    []*simMsg
	pos     ackwise.Position
	note    []byte
	owner   *simMember
	next    int
	revoked bool
}

type simMsg struct {
	part     *simPart
	idx      int
	pos      ackwise.Position
	key      string
	killer   bool
	fails    int // nacks still to come
	claimed  bool
	handOuts int
	done     bool // its handler succeeded, or its dead letter is durable
	dead     bool
}

type simMember struct {
	m    *member
	held []*simHeld
	lost []string // seized, not told yet
}

type simHeld struct {
	d       *ackwise.Delivery
	msg     *simMsg
	receive int // number of the Receive that handed it out
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), now: time.Unix(1e9, 0),
		fired: map[string]int{}, causes: map[ackwise.Cause]int{}}
	w.opts = Options{PollMessages: 16, PartitionMessages: 48, LostGrace: time.Hour,
		NoteBytes: 256 << (seed % 4)}
	if seed%5 == 4 {
		w.opts.Journal = JournalCeiling
	}
	w.most, w.rare = 6, 1
	if seed%6 == 5 { // more in flight than a note names one by one
		w.most, w.rare, w.opts.NoteBytes = 60, 10, 320
		w.opts.PartitionMessages, w.opts.PollMessages = simPerPart, 64
	}
	for i := range 2 {
		p := &simPart{name: fmt.Sprintf("t/%d", i)}
		for j := range simPerPart {
			m := &simMsg{part: p, idx: j, pos: ackwise.Position(fmt.Sprintf("%08d", 3*j+1)),
				killer: j%60 == 31 && w.opts.Journal == JournalHandOuts}
			if k := w.rnd.IntN(8); k > 0 {
				m.key = fmt.Sprint("k", k)
			}
			if w.rnd.IntN(5*w.rare) == 0 {
				m.fails = 1 + w.rnd.IntN(3)
			}
			p.msgs = append(p.msgs, m)
		}
		w.parts = append(w.parts, p)
	}
	w.members = []*simMember{w.start(), w.start()}
	for i, p := range w.parts {
		w.give(p, w.members[i])
	}
	return w
}

func (w *world) start() *simMember {
	o := w.opts
	w.owners++
	o.Owner = w.owners
	return &simMember{m: newMember(o.withDefaults())}
}

func (w *world) give(p *simPart, to *simMember) {
	p.owner, p.revoked, p.next = to, false, 0
	for p.next < len(p.msgs) && p.msgs[p.next].pos <= p.pos {
		p.next++
	}
	end := p.msgs[len(p.msgs)-1].pos
	if err := to.m.apply(&Change{Kind: Assigned, Partition: p.name, Position: p.pos,
		Note: slices.Clone(p.note), End: end}, w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) byName(name string) *simPart {
	return w.parts[slices.IndexFunc(w.parts, func(p *simPart) bool { return p.name == name })]
}

// poll feeds a member a few records of one partition, some of them a second time.
func (w *world) poll(sm *simMember) {
	p := w.parts[w.rnd.IntN(2)]
	if p.owner != sm || p.revoked {
		return
	}
	if q := sm.m.byName(p.name); q == nil || q.window() >= w.opts.PartitionMessages {
		w.fired["window full"]++
		return
	}
	from := max(0, p.next-w.rnd.IntN(3))
	p.next = min(len(p.msgs), p.next+w.rnd.IntN(w.opts.PollMessages))
	var recs []Record
	for _, m := range p.msgs[from:p.next] {
		recs = append(recs, Record{Position: m.pos, Message: ackwise.Message{
			ID: p.name + string(m.pos), Topic: "t", Key: m.key, Body: []byte{byte(m.idx)}}})
	}
	if err := sm.m.apply(&Change{Kind: Records, Partition: p.name, Records: recs},
		w.now); err != nil {
		w.t.Fatal(err)
	}
}

// write commits what has changed. It reports whether all of it was written.
func (w *world) write(sm *simMember, fail bool) bool {
	marks, writes := sm.m.marks(w.now)
	ok := true
	for i, mark := range marks {
		p := w.byName(mark.Partition)
		var err error
		switch {
		case p.owner != sm:
			err = ErrFenced
			w.fired["fenced"]++
		case fail:
			err = errors.New("no")
			w.fired["write failed"]++
		default:
			w.accept(p, &mark)
		}
		ok = ok && err == nil
		if sm.m.wrote(&writes[i], err, errors.Is(err, ErrFenced), w.now) && p.owner == sm {
			w.give(p, w.members[w.rnd.IntN(2)])
		}
	}
	return ok
}

// accept checks the first law of positions: none passes a message that nobody has settled.
func (w *world) accept(p *simPart, mark *Mark) {
	if len(mark.Note) > w.opts.NoteBytes {
		w.t.Fatalf("a note of %d bytes, at most %d", len(mark.Note), w.opts.NoteBytes)
	}
	for _, m := range p.msgs {
		if m.pos <= mark.Position && !m.done {
			w.t.Fatalf("position %s of %s passes %s, unsettled", mark.Position, p.name, m.pos)
		}
	}
	n, err := decodeNote(mark.Note)
	if err != nil {
		w.t.Fatalf("read own note: %v", err)
	}
	if mark.Note[2]&flagDense != 0 {
		w.fired["dense note"]++
	}
	for _, s := range n.spans {
		for _, m := range p.msgs {
			if s.first <= m.pos && m.pos <= s.last && !m.done {
				w.t.Fatalf("note of %s calls %s settled", p.name, m.pos)
			}
		}
	}
	p.pos, p.note = mark.Position, mark.Note
}

// receive claims, writes and hands out, with a fault in between now and then.
func (w *world) receive(sm *simMember, calm bool) {
	w.receives++
	claims := sm.m.take(1+w.rnd.IntN(w.most), w.now)
	if len(claims) == 0 {
		return
	}
	for _, cl := range claims {
		w.byName(cl.p.name).find(cl.m.pos).claimed = true
	}
	if sm.m.unwritten(claims) && !w.write(sm, !calm && w.rnd.IntN(10) == 0) {
		var back []claim
		for _, cl := range claims {
			if cl.p.epoch != 0 {
				back = append(back, cl)
			}
		}
		sm.m.takeBack(back, w.now)
		return
	}
	if !calm && len(claims) > 1 && w.rnd.IntN(30) == 0 {
		w.fired["killed before the hand-out"]++
		w.kill(sm)
		return
	}
	for _, cl := range claims {
		if cl.p.epoch != 0 {
			cl.m.handed.given = true
			w.handedOut(sm, &cl.m.handed.delivery)
		}
	}
}

func (p *simPart) find(pos ackwise.Position) *simMsg {
	return p.msgs[slices.IndexFunc(p.msgs, func(m *simMsg) bool { return m.pos == pos })]
}

// handedOut checks order, causes and suspects.
func (w *world) handedOut(sm *simMember, d *ackwise.Delivery) {
	m := w.byName(d.Partition).find(d.Position)
	if m.part.owner != sm {
		if w.opts.Journal == JournalHandOuts {
			w.t.Fatalf("%s handed out by a member that has lost %s", m.pos, m.part.name)
		}
		w.fired["handed out by a former owner"]++
		m.handOuts++
		sm.held = append(sm.held, &simHeld{d, m, w.receives})
		return
	}
	for _, o := range m.part.msgs[:m.idx] {
		if m.key != "" && o.key == m.key && !o.done && !w.together(sm, o) {
			w.t.Fatalf("key %s: %s handed out before %s is settled", m.key, m.pos, o.pos)
		}
	}
	alone := d.Suspect
	for _, h := range sm.held {
		if closed(h.d.Lost()) {
			continue
		}
		alone = alone || h.d.Suspect
		same := m.key != "" && h.msg.key == m.key && h.msg.part == m.part
		if same && h.receive == w.receives && h.msg.idx < m.idx {
			w.fired["run"]++
			same = false
		}
		if h.msg == m || same {
			w.t.Fatalf("key %q in flight twice: %s and %s", m.key, h.msg.pos, m.pos)
		}
		if alone {
			w.t.Fatalf("%s and %s in flight beside a suspect", h.msg.pos, m.pos)
		}
	}
	switch first := d.Cause == ackwise.CauseFirst; {
	case first && m.handOuts > 0:
		w.t.Fatalf("%s handed out %d times, cause first", m.pos, m.handOuts+1)
	case !first && m.handOuts == 0 && d.Cause != ackwise.CauseUnknown && !m.claimed:
		w.t.Fatalf("%s handed out for the first time, cause %s", m.pos, d.Cause)
	}
	if d.Cause == ackwise.CauseUnknown && w.opts.NoteBytes >= 1024 &&
		w.opts.Journal == JournalHandOuts {
		w.t.Fatalf("%s: the note had room, and the cause is unknown", m.pos)
	}
	m.handOuts++
	w.causes[d.Cause]++
	sm.held = append(sm.held, &simHeld{d, m, w.receives})
}

// together reports whether a message was handed out by the same Receive.
func (w *world) together(sm *simMember, m *simMsg) bool {
	return slices.ContainsFunc(sm.held, func(h *simHeld) bool {
		return h.msg == m && h.receive == w.receives && !closed(h.d.Lost())
	})
}

// first returns the index in held of the earliest hand-out of the run that the i-th one is in.
func (sm *simMember) first(i int) int {
	for j, h := range sm.held {
		if h.behind(sm.held[i]) < 0 {
			i = j
		}
	}
	return i
}

// behind returns how far h comes behind another hand-out of its run; 0 = it is no such.
func (h *simHeld) behind(o *simHeld) int {
	if h.msg.key == "" || h.msg.key != o.msg.key || h.msg.part != o.msg.part ||
		h.receive != o.receive || closed(h.d.Lost()) != closed(o.d.Lost()) {
		return 0
	}
	return h.msg.idx - o.msg.idx
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// handle lets one handler end, and settles.
func (w *world) handle(sm *simMember, calm bool) {
	if len(sm.held) == 0 {
		return
	}
	i := w.rnd.IntN(len(sm.held))
	if k := sm.first(i); k != i {
		if !closed(sm.held[i].d.Lost()) && w.rnd.IntN(4) == 0 {
			w.fired["acked before its run"]++
			s := ackwise.Settlement{Token: sm.held[i].d.Token}
			if r, _ := sm.m.settle(&s, w.now); !errors.Is(r.Err, ackwise.ErrRunOrder) {
				w.t.Fatalf("acked before an earlier one of its run: %+v", r)
			}
		}
		i = k
	}
	h := sm.held[i]
	s := ackwise.Settlement{Token: h.d.Token}
	switch m := h.msg; {
	case h.d.Counts.Crashes >= simBudget:
		s.Outcome, s.Reason = ackwise.OutcomeDead, "crashes"
		m.dead, m.done = true, true
	case closed(h.d.Revoked()) && !closed(h.d.Lost()) && w.rnd.IntN(2) == 0:
		s.Outcome = ackwise.OutcomeRelease
		w.fired["released on revocation"]++
	case m.killer:
		w.fired["killed by a message"]++
		w.kill(sm)
		return
	case m.fails > 0:
		m.fails--
		s.Outcome, s.Reason = ackwise.OutcomeNack, "no"
		s.Delay = time.Duration(w.rnd.IntN(20)) * time.Second
	case !calm && w.rnd.IntN(20*w.rare) == 0:
		s.Outcome = ackwise.OutcomeSnooze
		s.Delay = time.Duration(w.rnd.IntN(20)) * time.Second
	case !calm && w.rnd.IntN(20*w.rare) == 0:
		s.Outcome = ackwise.OutcomeRelease
	default:
		m.done = true
	}
	sm.held = slices.Delete(sm.held, i, i+1)
	w.settle(sm, h, s, calm)
	if s.Outcome == ackwise.OutcomeAck || s.Outcome == ackwise.OutcomeDead {
		return
	}
	// The rest of the run is given back, as the loop does.
	for _, o := range slices.Clone(sm.held) {
		if o.behind(h) > 0 {
			sm.held = slices.DeleteFunc(sm.held, func(x *simHeld) bool { return x == o })
			w.settle(sm, o, ackwise.Settlement{Token: o.d.Token, Outcome: ackwise.OutcomeRelease}, calm)
		}
	}
}

func (w *world) settle(sm *simMember, h *simHeld, s ackwise.Settlement, calm bool) {
	lost := closed(h.d.Lost())
	res, _ := sm.m.settle(&s, w.now)
	switch {
	case lost != errors.Is(res.Err, ackwise.ErrLeaseLost) || !lost && res.Err != nil:
		w.t.Fatalf("settle %s, lost %v: %v", h.msg.pos, lost, res.Err)
	case lost:
		w.fired["settled too late"]++
		return
	}
	if res, _ := sm.m.settle(&s, w.now); !res.Already || res.Err != nil {
		w.t.Fatalf("settle %s again: %+v", h.msg.pos, res)
	}
	if calm || w.rnd.IntN(4) > 0 {
		w.write(sm, !calm && w.rnd.IntN(10) == 0)
	}
}

// kill ends a member without a word; another comes in its place, and its partitions go to either.
func (w *world) kill(sm *simMember) {
	w.members[slices.Index(w.members, sm)] = w.start()
	for _, p := range w.parts {
		if p.owner == sm {
			w.give(p, w.members[w.rnd.IntN(2)])
		}
	}
}

// sole reports whether a note says that the member holds a single message.
func (w *world) sole(sm *simMember) bool {
	for _, p := range w.parts {
		if p.owner != sm || len(p.note) == 0 {
			continue
		}
		if n, err := decodeNote(p.note); err != nil || n.owner == sm.m.opts.Owner && n.sole {
			return true
		}
	}
	return false
}

func (w *world) fault() {
	sm := w.members[w.rnd.IntN(2)]
	p := w.parts[w.rnd.IntN(2)]
	switch w.rnd.IntN(4) {
	case 0:
		if len(sm.held) > 1 && !w.sole(sm) {
			w.fired["killed from outside"]++
			w.kill(sm)
		}
	case 1:
		if !p.revoked {
			w.fired["revoked"]++
			p.revoked = true
			w.change(p.owner, &Change{Kind: Revoked, Partition: p.name,
				Deadline: w.now.Add(time.Duration(w.rnd.IntN(8)) * time.Second)})
		}
	case 2:
		if w.sole(p.owner) {
			return
		}
		w.fired["seized"]++
		p.owner.lost = append(p.owner.lost, p.name)
		to := w.members[w.rnd.IntN(2)]
		if to == p.owner {
			w.learn(to)
		}
		w.give(p, to)
	case 3:
		w.learn(sm)
	}
}

// learn tells a member what it has lost.
func (w *world) learn(sm *simMember) {
	for _, name := range sm.lost {
		if p := w.byName(name); p.owner != sm || sm.m.byName(name) != nil {
			w.change(sm, &Change{Kind: Lost, Partition: name})
			if p.owner == sm {
				w.give(p, sm)
			}
		}
	}
	sm.lost = nil
}

func (w *world) change(sm *simMember, c *Change) {
	if err := sm.m.apply(c, w.now); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) step(calm bool) {
	w.now = w.now.Add(time.Duration(w.rnd.IntN(700)) * time.Millisecond)
	sm := w.members[w.rnd.IntN(2)]
	switch n := w.rnd.IntN(40); {
	case n < 8:
		w.poll(sm)
	case n < 20:
		w.receive(sm, calm)
	case n < 35:
		w.handle(sm, calm)
	case n < 38 || calm:
		w.write(sm, false)
	default:
		w.fault()
	}
}

func (w *world) finished() bool {
	for _, p := range w.parts {
		if p.pos != p.msgs[len(p.msgs)-1].pos {
			return false
		}
	}
	return true
}

func (w *world) run() {
	for range 3000 {
		w.step(false)
	}
	for _, sm := range w.members {
		w.learn(sm)
	}
	for n := 0; !w.finished(); n++ {
		if n > 60_000 {
			for _, p := range w.parts {
				w.t.Logf("%s: position %s, read %d", p.name, p.pos, p.next)
			}
			w.t.Fatal("no progress without faults")
		}
		w.step(true)
	}
	for _, p := range w.parts {
		for _, m := range p.msgs {
			if !m.done || m.dead != m.killer {
				w.t.Errorf("%s %s: done %v, dead %v, killer %v",
					p.name, m.pos, m.done, m.dead, m.killer)
			}
		}
	}
}

// TestSimulation moves two partitions between members that fail, die and take over, at random.
func TestSimulation(t *testing.T) {
	first, last := uint64(1), uint64(300)
	if *simSeed != 0 {
		first, last = *simSeed, *simSeed
	}
	fired, causes := map[string]int{}, map[ackwise.Cause]int{}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("repeat: go test ./deliver/logsource -run 'TestSimulation$' -seed %d", seed)
				}
			}()
			w := newWorld(t, seed)
			w.run()
			for k, v := range w.fired {
				fired[k] += v
			}
			for k, v := range w.causes {
				causes[k] += v
			}
		})
	}
	t.Logf("fired %v, causes %v", fired, causes)
	if *simSeed != 0 {
		return
	}
	for _, name := range []string{"window full", "fenced", "write failed", "revoked", "seized",
		"killed before the hand-out", "killed by a message", "killed from outside",
		"released on revocation", "settled too late", "handed out by a former owner", "run",
		"acked before its run", "dense note"} {
		if fired[name] == 0 {
			t.Errorf("the fault %q never fired", name)
		}
	}
	for _, c := range []ackwise.Cause{ackwise.CauseFirst, ackwise.CauseFailed,
		ackwise.CauseSnoozed, ackwise.CauseReleased, ackwise.CauseConsumerLost,
		ackwise.CauseRebalanced, ackwise.CauseUnknown} {
		if causes[c] == 0 {
			t.Errorf("no hand-out had the cause %s", c)
		}
	}
}
