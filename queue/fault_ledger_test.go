package queue

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// enumerated is up to how many unsynced things every subset of them is tried.
const enumerated = 10

// never is a rate: one of so many states.
const never = 1 << 30

// faultStore opens the store on a disk that a fault has left; it has the smallest segments, and
// takes checkpoints when told to.
func faultStore(fs vfs.FS) (*Store, error) {
	o := Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 40, Process: "1"}
	if err := errors.Join(fs.MkdirAll("/store"), o.fill()); err != nil {
		return nil, err
	}
	return openOn(fs, "/store", o)
}

// ledger is the oracle: the client's own list of what it asked for and what it was told.
type ledger struct {
	mu   sync.Mutex // the log's goroutine looks at the list while the client writes to it
	sent []string   // IDs, in the order in which they were published
	key  map[string]string
	told map[string]bool            // Publish returned accepted
	done map[string]ackwise.Outcome // the last settlement that returned
	open map[string]bool            // a settlement was asked for and has not returned, or failed
	held map[ackwise.LeaseToken]bool
}

func newLedger() *ledger {
	return &ledger{key: map[string]string{}, told: map[string]bool{},
		done: map[string]ackwise.Outcome{}, open: map[string]bool{},
		held: map[ackwise.LeaseToken]bool{}}
}

// holds checks a store that was opened after a fault: nothing that was acknowledged is missing or
// comes back, nothing is invented, the books balance, and the state is what the log says.
func (l *ledger) holds(ctx context.Context, s *Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	report, err := s.Verify(ctx)
	if err != nil || len(report.Findings) > 0 {
		return fmt.Errorf("verify: %q, %w", report.Findings, err)
	}
	books, err := s.Books(ctx)
	if err != nil {
		return err
	}
	for _, b := range books {
		if !b.Balanced() {
			return fmt.Errorf("the books do not balance: %+v", b)
		}
	}
	there, err := s.Peek(ctx, "orders", "billing", PeekOptions{Max: maxListed})
	if err != nil && !(len(l.told) == 0 && len(books) == 0) { // else made before it was cut
		return err
	}
	at := map[string]State{}
	for _, m := range there {
		key, sent := l.key[m.Message.ID]
		if !sent || key != m.Message.Key || at[m.Message.ID] != "" {
			return fmt.Errorf("%s (key %s) is invented", m.Message.ID, m.Message.Key)
		}
		at[m.Message.ID] = m.State
	}
	for id := range l.told {
		o, settled := l.done[id]
		gone := settled && o == ackwise.OutcomeAck
		switch {
		case l.open[id]: // may be either way
		case gone && at[id] != "":
			return fmt.Errorf("%s came back (%s) after its ack had returned", id, at[id])
		case !gone && at[id] == "":
			return fmt.Errorf("%s is lost", id)
		case settled && o == ackwise.OutcomeDead && at[id] != StateDead:
			return fmt.Errorf("%s is %s and no dead letter any more", id, at[id])
		}
	}
	return nil
}

// drains consumes all that a store will hand out: each key in the order of its publishes, no token
// a second time, and all that was told and is not done comes. Before that, it publishes all again:
// nothing is doubled.
func (l *ledger) drains(ctx context.Context, s *Store) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, id := range l.sent {
		res := s.Publish(ctx, []ackwise.Message{{Topic: "orders", ID: id, Key: l.key[id],
			Body: bodyOf(id)}})[0]
		if res.Class != ackwise.ResultAccepted || l.told[id] && !res.Duplicate {
			return fmt.Errorf("%s published again: %v, duplicate %t, %w", id, res.Class,
				res.Duplicate, res.Err)
		}
	}
	if len(l.sent) == 0 {
		return nil
	}
	r, err := s.Receiver(ctx, "orders", "billing", ReceiverOptions{})
	if err != nil {
		return err
	}
	index := map[string]int{}
	for i, id := range l.sent {
		index[id] = i
	}
	last, got := map[string]int{}, map[string]bool{}
	for {
		brief, cancel := context.WithTimeout(ctx, 10*time.Millisecond) // virtual
		ds, err := r.Receive(brief, 100)
		cancel()
		if err != nil {
			break
		}
		for _, d := range ds {
			if !l.told[d.ID] { // if it was refused, it has its place by the second publish
				index[d.ID] = last[d.Key]
			}
			if at := index[d.ID]; d.Key != "" && at < last[d.Key] {
				return fmt.Errorf("%s of key %s came after %s", d.ID, d.Key, l.sent[last[d.Key]])
			}
			if l.held[d.Token] {
				return fmt.Errorf("the token of %s is one of a hand-out before the crash", d.ID)
			}
			last[d.Key] = index[d.ID]
			got[d.ID] = true
			if res := r.Settle(ctx, []ackwise.Settlement{{Token: d.Token}}); res[0].Err != nil {
				return res[0].Err
			}
		}
	}
	books, err := s.Books(ctx)
	if err != nil || books[0].Waiting() != 0 {
		return fmt.Errorf("something is stuck: %+v, %w", books, err)
	}
	parked, err := s.ParkedKeys(ctx, "orders", "billing", 100)
	if err != nil {
		return err
	}
	held := map[string]bool{}
	for _, k := range parked {
		held[k.Key] = true
	}
	for id := range l.told {
		if _, settled := l.done[id]; !settled && !l.open[id] && !got[id] && !held[l.key[id]] {
			return fmt.Errorf("%s was never handed out", id)
		}
	}
	return nil
}

// bodyOf makes a body that begins in one block and ends in another.
func bodyOf(id string) []byte {
	size := 200
	if strings.HasPrefix(id, "big") {
		size = 61_000 // what follows it goes to a new segment
	}
	return []byte(strings.Repeat(id+" ", size/len(id)))
}

// counts says what was tried. Only states that were opened and judged count.
type counts struct {
	kills, cuts, again, drained, equal int
}

func (c *counts) states() int { return c.kills + c.cuts + c.again }

func (c *counts) add(o counts) {
	c.kills += o.kills
	c.cuts += o.cuts
	c.again += o.again
	c.drained += o.drained
	c.equal += o.equal
}

func (c *counts) String() string {
	return fmt.Sprintf("%d crash states: %d kills, %d power cuts, %d second ones in recovery; "+
		"%d of them drained; %d equal ones passed over", c.states(), c.kills, c.cuts, c.again,
		c.drained, c.equal)
}

// player plays one history against a store in memory, and looks at what a fault leaves.
type player struct {
	ctx   context.Context
	disk  *vfs.Mem
	fs    vfs.FS // that the client's store uses
	store *Store
	r     *Receiver
	held  []*ackwise.Delivery
	list  *ledger

	judging sync.Mutex // guards all below: the log's goroutine and the client's judge
	rng     *rand.Rand
	seed    maphash.Seed
	counts
	deep, drain int   // one of so many states is crashed again in recovery, or drained
	err         error // the first thing that is wrong
}

func newPlayer(t *testing.T, seed uint64) *player {
	m := vfs.NewMem()
	return &player{ctx: t.Context(), disk: m, fs: m, list: newLedger(), seed: maphash.MakeSeed(),
		rng: rand.New(rand.NewPCG(seed, 21)), deep: 1, drain: 1}
}

// do plays one operation. idle says that it had nothing to do. P publishes a message without a key,
// K a batch with keys, F one that fills the segment, R receives, A, N and D settle the oldest in
// hand by ack, nack and dead letter, C takes a checkpoint, O closes and opens.
func (p *player) do(op rune) (idle bool, err error) {
	switch op {
	case 'P':
		return false, p.publish("p", "")
	case 'K':
		return false, p.publish("k", "a", "b", "a")
	case 'F':
		return false, p.publish("big", "a")
	case 'R':
		ctx, cancel := context.WithTimeout(p.ctx, time.Millisecond)
		defer cancel()
		ds, err := p.r.Receive(ctx, 2)
		if errors.Is(err, context.DeadlineExceeded) {
			return true, nil
		}
		p.list.mu.Lock()
		defer p.list.mu.Unlock()
		for _, d := range ds {
			p.held = append(p.held, d)
			p.list.held[d.Token] = true
		}
		return false, err
	case 'A':
		return p.settle(ackwise.OutcomeAck)
	case 'N':
		return p.settle(ackwise.OutcomeNack)
	case 'D':
		return p.settle(ackwise.OutcomeDead)
	case 'C':
		return false, p.store.takeCheckpoint()
	case 'O':
		return false, p.reopen()
	}
	return false, fmt.Errorf("no operation %c", op)
}

func (p *player) reopen() error {
	p.held = nil
	if p.store != nil {
		if err := p.store.Close(); err != nil {
			return err
		}
	}
	s, err := faultStore(p.fs)
	if err != nil {
		return err
	}
	if p.store == nil {
		err = errors.Join(s.CreateTopic(p.ctx, "orders", TopicOptions{}),
			s.CreateSubscription(p.ctx, "orders", "billing",
				SubscriptionOptions{Ordered: true, OnDead: Hold}))
	}
	p.store = s
	if err == nil {
		p.r, err = s.Receiver(p.ctx, "orders", "billing", ReceiverOptions{SyncAcks: true})
	}
	return err
}

// publish publishes a message for each key.
func (p *player) publish(name string, keys ...string) error {
	l := p.list
	msgs := make([]ackwise.Message, len(keys))
	l.mu.Lock()
	for i, key := range keys {
		id := fmt.Sprintf("%s%03d", name, len(l.sent))
		msgs[i] = ackwise.Message{Topic: "orders", ID: id, Key: key, Body: bodyOf(id)}
		l.sent = append(l.sent, id)
		l.key[id] = key
	}
	l.mu.Unlock()
	res := p.store.Publish(p.ctx, msgs)
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range res {
		if res[i].Class == ackwise.ResultAccepted {
			l.told[msgs[i].ID] = true
		} else if res[i].Err == nil {
			return fmt.Errorf("%s: %v without an error", msgs[i].ID, res[i].Class)
		}
	}
	return res[0].Err
}

func (p *player) settle(o ackwise.Outcome) (idle bool, err error) {
	if len(p.held) == 0 {
		return true, nil
	}
	d := p.held[0]
	p.held = p.held[1:]
	l := p.list
	l.mu.Lock()
	l.open[d.ID] = true
	l.mu.Unlock()
	res := p.r.Settle(p.ctx, []ackwise.Settlement{{Token: d.Token, Outcome: o, Reason: "r"}})
	if errors.Is(res[0].Err, ackwise.ErrRunOrder) { // the one before it was nacked: it waits
		return true, nil
	}
	if res[0].Err != nil {
		return false, res[0].Err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, d.ID)
	l.done[d.ID] = o
	return false, nil
}

func (p *player) fail(what string, err error) {
	if p.err == nil && err != nil {
		p.err = fmt.Errorf("%s: %w", what, err)
	}
}

// crash looks at all that a kill and a power cut at this moment may leave.
func (p *player) crash(what string) {
	p.judging.Lock()
	defer p.judging.Unlock()
	if p.err != nil {
		return
	}
	p.kills++
	p.judge(p.disk.Clone(), p.rng.IntN(p.deep) == 0, what+", killed")
	seen := map[uint64]bool{}
	for state := range p.disk.CrashStates(enumerated, p.rng) {
		if p.fresh(state, seen) {
			p.cuts++
			p.judge(state, p.rng.IntN(p.deep) == 0, what+", power cut")
		}
	}
}

func (p *player) fresh(m *vfs.Mem, seen map[uint64]bool) bool {
	sum := m.Sum(p.seed)
	if seen[sum] {
		p.equal++
		return false
	}
	seen[sum] = true
	return true
}

// judge opens a state, with a second crash at every call of that where it goes deep.
func (p *player) judge(state *vfs.Mem, deep bool, what string) {
	if p.err != nil {
		return
	}
	if deep {
		n := 0
		state.Watch(func(op vfs.Op) {
			if n++; !op.Changes() {
				return
			}
			again := fmt.Sprintf("%s, then at call %d of recovery", what, n)
			seen := map[uint64]bool{}
			p.again++
			p.judge(state.Clone(), false, again+", killed")
			for m := range state.CrashStates(enumerated, p.rng) {
				if p.fresh(m, seen) {
					p.again++
					p.judge(m, false, again+", power cut")
				}
			}
		})
	}
	s, err := faultStore(state)
	state.Watch(func(vfs.Op) {})
	if err != nil {
		p.fail(what, err)
		return
	}
	err = p.list.holds(p.ctx, s)
	if err == nil && p.rng.IntN(p.drain) == 0 {
		p.drained++
		err = p.list.drains(p.ctx, s)
	}
	p.fail(what, errors.Join(err, s.Close()))
}

// play plays operations, and then one more, in which it crashes. It reports whether an operation
// had nothing to do: then a shorter history says the same.
func (p *player) play(before, crashed string) (idle bool, err error) {
	for _, op := range "O" + before {
		if idle, err := p.do(op); idle || err != nil {
			return idle, errors.Join(err, p.end())
		}
	}
	idle, err = p.crashIn(crashed)
	return idle, errors.Join(err, p.end())
}

// crashIn plays an operation, and crashes at every call of it that changes the disk, and behind it.
func (p *player) crashIn(op string) (idle bool, err error) {
	n := 0
	p.disk.Watch(func(call vfs.Op) {
		if n++; call.Changes() {
			time.Sleep(time.Microsecond) // virtual: who was told already has noted it
			p.crash(fmt.Sprintf("before call %d of %s", n, op))
		}
	})
	defer p.disk.Watch(func(vfs.Op) {})
	idle, err = p.do(rune(op[0]))
	if idle || err != nil {
		return idle, err
	}
	time.Sleep(time.Millisecond) // virtual: nothing is under way any more
	p.crash("after " + op)
	return false, p.err
}

func (p *player) end() error {
	if p.store == nil {
		return nil
	}
	return p.store.Close()
}
