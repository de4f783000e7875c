package queue

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/vfs"
)

// What the players of claims use.
const (
	claimLease  = time.Minute
	claimWindow = time.Hour
)

// claimLedger is the oracle: what a client asked for and what it was told.
type claimLedger struct {
	mu      sync.Mutex // the log's goroutine looks at it while the client writes to it
	keys    []string
	fences  map[uint64]string    // all that were given
	highest map[string]uint64    // by key
	done    map[string]time.Time // told that it is complete, and when that was asked for
	result  map[string]string    // of them
	asked   map[string]bool      // a completion was asked for, at any time
	held    map[string]time.Time // told that it is claimed until then, and not settled
}

func newClaimLedger() *claimLedger {
	return &claimLedger{fences: map[uint64]string{}, highest: map[string]uint64{},
		done: map[string]time.Time{}, result: map[string]string{}, asked: map[string]bool{},
		held: map[string]time.Time{}}
}

// claimed notes a claim: no fence comes twice, and those of a key grow.
func (l *claimLedger) claimed(key string, fence uint64) error {
	if other, twice := l.fences[fence]; twice || fence <= l.highest[key] {
		return fmt.Errorf("%s got the fence %d after %d; %q had it before", key, fence,
			l.highest[key], other)
	}
	l.fences[fence], l.highest[key] = key, fence
	return nil
}

// holds checks a store that was opened after a crash: what was told to be complete is done, with
// its result; nothing is done that nobody asked to complete; what is held survives a kill; no fence
// comes again; and the state is what the log says. The store is of no use behind it.
func (l *claimLedger) holds(ctx context.Context, s *Store, killed bool) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	report, err := s.Verify(ctx)
	if err != nil || len(report.Findings) > 0 {
		return fmt.Errorf("verify: %q, %w", report.Findings, err)
	}
	if len(l.keys) == 0 {
		return nil
	}
	asks := make([]idempotency.Ask, len(l.keys))
	for i, key := range l.keys {
		asks[i] = idempotency.Ask{Key: key, Lease: claimLease}
	}
	answers, err := s.Claim(ctx, "set", asks)
	if err != nil {
		return err
	}
	for i, a := range answers {
		key, now := l.keys[i], time.Now()
		at, complete := l.done[key]
		complete = complete && now.Sub(at) < claimWindow-time.Second
		until, held := l.held[key]
		held = held && killed && until.Sub(now) > time.Second
		switch {
		case a.Err != nil:
			return fmt.Errorf("%s: %w", key, a.Err)
		case complete && a.Status != idempotency.Done:
			return fmt.Errorf("%s is %s after its completion was acknowledged", key, a.Status)
		case complete && string(a.Result) != l.result[key]:
			return fmt.Errorf("%s: the result is %q, want %q", key, a.Result, l.result[key])
		case a.Status == idempotency.Done && !l.asked[key]:
			return fmt.Errorf("%s is done, and nobody completed it", key)
		case held && a.Status != idempotency.Busy && !(a.Status == idempotency.Done && l.asked[key]):
			return fmt.Errorf("%s is %s after a kill, its claim lasts until %s", key, a.Status, until)
		case a.Status != idempotency.Claimed:
			continue
		}
		if other, twice := l.fences[a.Fence]; twice || a.Fence <= l.highest[key] {
			return fmt.Errorf("%s got the fence %d, which %q had, after %d", key, a.Fence, other,
				l.highest[key])
		}
	}
	report, err = s.Verify(ctx)
	if err != nil || len(report.Findings) > 0 {
		return fmt.Errorf("verify after claims: %q, %w", report.Findings, err)
	}
	return nil
}

// claimPlayer plays claims against a store in memory, and looks at what a crash leaves.
type claimPlayer struct {
	ctx   context.Context
	disk  *vfs.Mem
	store *Store
	held  []idempotency.Settlement // what it holds, or held
	list  *claimLedger
	n     int

	judging sync.Mutex // guards all below
	rng     *rand.Rand
	counts
	err error
}

// do plays one operation: C claims new keys and one of before; S, R and L settle the oldest in
// hand: complete, complete with a result, release; E extends it, T makes a key done in a
// transaction, X and W let a lease and the window pass, K takes a checkpoint, O closes and opens.
func (p *claimPlayer) do(op rune) error {
	switch op {
	case 'C':
		return p.claim()
	case 'S', 'R', 'L', 'E':
		return p.settle(op)
	case 'T':
		return p.once()
	case 'X':
		time.Sleep(claimLease) // virtual
	case 'W':
		time.Sleep(claimWindow * 11 / 10) // virtual
	case 'K':
		return p.store.takeCheckpoint()
	case 'O':
		if p.store != nil {
			if err := p.store.Close(); err != nil {
				return err
			}
		}
		s, err := faultStore(p.disk)
		if err != nil {
			return err
		}
		p.store = s
		return s.OpenSet(p.ctx, "set", claimWindow, 1000)
	}
	return nil
}

func (p *claimPlayer) claim() error {
	l := p.list
	l.mu.Lock()
	var asks []idempotency.Ask
	if len(l.keys) > 0 {
		asks = append(asks, idempotency.Ask{Key: l.keys[p.n%len(l.keys)], Lease: claimLease})
	}
	for range 2 {
		key := fmt.Sprintf("key-%d", p.n)
		p.n++
		l.keys = append(l.keys, key)
		asks = append(asks, idempotency.Ask{Key: key, Lease: claimLease})
	}
	l.mu.Unlock()
	until := time.Now().Add(claimLease)
	answers, err := p.store.Claim(p.ctx, "set", asks)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, a := range answers {
		key := asks[i].Key
		if a.Status != idempotency.Claimed {
			continue
		}
		if err := l.claimed(key, a.Fence); err != nil {
			return err
		}
		l.held[key] = until
		delete(l.done, key)
		p.held = append(p.held, idempotency.Settlement{Key: key, Fence: a.Fence})
	}
	return nil
}

func (p *claimPlayer) settle(op rune) error {
	if len(p.held) == 0 {
		return nil
	}
	c := p.held[0]
	p.held = p.held[1:]
	result := ""
	switch op {
	case 'L':
		c.Verb = idempotency.Release
	case 'E':
		c.Verb, c.Lease = idempotency.Extend, claimLease
		p.held = append(p.held, c)
	case 'R':
		result = "result of " + c.Key
		c.Verb, c.Result = idempotency.Complete, []byte(result)
	default:
		c.Verb = idempotency.Complete
	}
	l, now := p.list, time.Now()
	l.mu.Lock()
	l.asked[c.Key] = l.asked[c.Key] || c.Verb == idempotency.Complete
	delete(l.held, c.Key) // it may be either way
	l.mu.Unlock()
	errs, err := p.store.SettleClaims(p.ctx, "set", []idempotency.Settlement{c})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case errs[0] != nil && !errors.Is(errs[0], idempotency.ErrFence):
		return errs[0]
	case errs[0] != nil:
	case c.Verb == idempotency.Complete:
		l.done[c.Key], l.result[c.Key] = now, result
	case c.Verb == idempotency.Extend:
		l.held[c.Key] = now.Add(claimLease)
	}
	return nil
}

// once makes a key done, and a table's entry that is its effect, in one transaction.
func (p *claimPlayer) once() error {
	l := p.list
	key := fmt.Sprintf("key-%d", p.n)
	p.n++
	now := time.Now()
	l.mu.Lock()
	l.keys = append(l.keys, key)
	l.asked[key] = true
	l.mu.Unlock()
	_, err := p.store.Commit(p.ctx, Commit{
		Once:   map[string][]idempotency.Ask{"set": {{Key: key}}},
		Writes: []TableWrite{{Table: "effects", Key: key, Value: []byte("once")}}})
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done[key], l.result[key] = now, ""
	return nil
}

// crashIn plays an operation, and crashes at every call of it that changes the disk, and behind it.
func (p *claimPlayer) crashIn(op rune) error {
	n := 0
	p.disk.Watch(func(call vfs.Op) {
		if n++; call.Changes() {
			time.Sleep(time.Microsecond) // virtual: who was told already has noted it
			p.crash(fmt.Sprintf("before call %d of %c", n, op))
		}
	})
	defer p.disk.Watch(func(vfs.Op) {})
	if err := p.do(op); err != nil {
		return err
	}
	time.Sleep(time.Millisecond) // virtual: nothing is under way any more
	p.crash(fmt.Sprintf("after %c", op))
	return p.err
}

func (p *claimPlayer) crash(what string) {
	p.judging.Lock()
	defer p.judging.Unlock()
	p.kills++
	p.judge(p.disk.Clone(), true, what+", killed")
	for state := range p.disk.CrashStates(6, p.rng) {
		p.cuts++
		p.judge(state, false, what+", power cut")
	}
}

func (p *claimPlayer) judge(state *vfs.Mem, killed bool, what string) {
	if p.err != nil {
		return
	}
	s, err := faultStore(state)
	if err == nil {
		err = p.effects(s)
		if s.st.Set("set") != nil {
			err = errors.Join(err, p.list.holds(p.ctx, s, killed))
		}
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		p.err = fmt.Errorf("%s: %w", what, err)
	}
}

// effects checks that a key is done if and only if its effect is there.
func (p *claimPlayer) effects(s *Store) error {
	p.list.mu.Lock()
	defer p.list.mu.Unlock()
	for _, key := range p.list.keys {
		e, err := s.Get(p.ctx, "effects", key)
		if err != nil {
			return err
		}
		if e.Version == 0 {
			continue
		}
		a, err := s.Look(p.ctx, "set", idempotency.Ask{Key: key})
		at, told := p.list.done[key]
		if told && time.Since(at) >= claimWindow-time.Second {
			continue
		}
		if err != nil || a.Status != idempotency.Done {
			return fmt.Errorf("%s has its effect and is %s, %w", key, a.Status, err)
		}
	}
	return nil
}

// Row: kill and power cut at every operation, in claims, completions and transactions.
func TestFaultCrashInClaims(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	seeds, least := 4, 1_000
	if long() {
		seeds, least = 120, 20_000
	}
	var total counts
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 31))
			p := &claimPlayer{ctx: t.Context(), disk: vfs.NewMem(), list: newClaimLedger(), rng: rng}
			history := "O"
			for range 14 {
				history += string("CCCSSRRLETXWKO"[rng.IntN(14)])
			}
			for i, op := range history {
				if err := p.crashIn(op); err != nil {
					t.Errorf("seed %d, operation %d of %s: %v", seed, i, history, err)
					break
				}
			}
			if err := p.store.Close(); err != nil {
				t.Error(err)
			}
			total.add(p.counts)
		})
		if t.Failed() {
			return
		}
	}
	t.Log(total.String())
	if total.states() < least {
		t.Errorf("only %d crash states were tried, want %d", total.states(), least)
	}
}
