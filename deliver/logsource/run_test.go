package logsource_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

var runSeed = flag.Uint64("run-seed", 0, "run TestRunUnderFaults with this seed only")

const (
	runPerPart = 200
	runCrashes = 3
)

// group is two members of a log that run deliver.Run, and what their handlers wrote down. Its kills
// are a process's end as the log sees it: no word is said, and what its handlers still do has no
// effect.
type group struct {
	t   *testing.T
	log *memlog.Log

	mu     sync.Mutex // guards all below
	rnd    *rand.Rand
	procs  []*proc
	msgs   map[string]*runMsg // by ID
	keys   map[string][]*runMsg
	fired  map[string]int
	causes map[ackwise.Cause]int
}

type proc struct {
	member *memlog.Member
	cancel context.CancelFunc
	dead   bool
	ended  sync.WaitGroup
}

type runMsg struct {
	id           string
	killer       bool
	fails        int
	handled      int
	done, letter bool
}

func newGroup(t *testing.T, seed uint64) *group {
	g := &group{t: t, log: memlog.New("t", 2), rnd: rand.New(rand.NewPCG(seed, 1)),
		msgs: map[string]*runMsg{}, keys: map[string][]*runMsg{},
		fired: map[string]int{}, causes: map[ackwise.Cause]int{}}
	for p := range 2 {
		for i := range runPerPart {
			m := &runMsg{id: fmt.Sprintf("%d-%d", p, i), killer: i%90 == 50}
			if g.rnd.IntN(6) == 0 {
				m.fails = 1 + g.rnd.IntN(2)
			}
			key := fmt.Sprintf("%d-k%d", p, g.rnd.IntN(12))
			if g.rnd.IntN(5) == 0 {
				key = ""
			}
			g.msgs[m.id] = m
			if key != "" {
				g.keys[key] = append(g.keys[key], m)
			}
			g.log.Append(p, ackwise.Message{ID: m.id, Topic: "t", Key: key})
		}
	}
	return g
}

// start adds a process. mu is not held.
func (g *group) start() {
	g.mu.Lock()
	defer g.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	p := &proc{member: g.log.Join(fmt.Sprint("member ", len(g.procs))), cancel: cancel}
	g.procs = append(g.procs, p)
	src, err := logsource.New(p.member, logsource.Options{PartitionMessages: 60,
		PollMessages: 16, NoteBytes: 1024})
	if err != nil {
		g.t.Error(err)
		return
	}
	p.ended.Go(func() {
		defer src.Close()
		err := deliver.Run(ctx, src, ackwise.HandlerFunc(
			func(ctx context.Context, d *ackwise.Delivery) error { return g.handle(ctx, p, d) }),
			deliver.Options{
				Concurrency: 4, MaxFailures: 10, MaxCrashes: runCrashes,
				Backoff:     deliver.Backoff{First: 20 * time.Millisecond},
				RevokeGrace: 100 * time.Millisecond, StopGrace: 100 * time.Millisecond,
				DeadLetters: deliver.DeadLetterFunc(
					func(_ context.Context, d *ackwise.Delivery, _ string) error {
						return g.bury(p, d)
					}),
			})
		if err != nil && !errors.Is(err, ackwise.ErrClosed) {
			g.t.Errorf("run: %v", err)
		}
	})
}

var errDead = errors.New("this process is dead")

// handle works for a few milliseconds; its effect is one line under mu.
func (g *group) handle(ctx context.Context, p *proc, d *ackwise.Delivery) error {
	g.mu.Lock()
	g.check(p, d)
	work := time.NewTimer(time.Duration(1+g.rnd.IntN(20)) * time.Millisecond)
	g.mu.Unlock()
	defer work.Stop()
	select {
	case <-work.C:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.msgs[d.ID]
	switch {
	case p.dead:
		return errDead
	case m.killer:
		g.fired["killed by a message"]++
		g.kill(p)
		return errDead
	case m.fails > 0:
		m.fails--
		g.fired["handler failed"]++
		return errors.New("no")
	}
	m.done = true
	m.handled++
	return nil
}

// check looks at order and causes when a handler begins. mu is held.
func (g *group) check(p *proc, d *ackwise.Delivery) {
	if p.dead {
		return
	}
	g.causes[d.Cause]++
	for _, m := range g.keys[d.Key] {
		if m.id == d.ID {
			break
		}
		if !m.done {
			g.t.Errorf("key %s: %s is handled before %s is settled", d.Key, d.ID, m.id)
		}
	}
	if d.Cause == ackwise.CauseUnknown {
		g.t.Errorf("%s: cause unknown", d.ID)
	}
}

func (g *group) bury(p *proc, d *ackwise.Delivery) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if p.dead {
		return errDead
	}
	m := g.msgs[d.ID]
	m.done, m.letter = true, true
	// A process that is killed from outside while it handles a message alone is charged to it too.
	if c := d.Counts.Crashes; c < runCrashes || c > runCrashes+g.fired["killed from outside"] {
		g.t.Errorf("%s is a dead letter after %d crashes", d.ID, d.Counts.Crashes)
	}
	return nil
}

// kill ends a process without a word. mu is held.
func (g *group) kill(p *proc) {
	p.dead = true
	p.member.Kill()
	p.cancel()
}

// tend replaces the dead and gives away what nobody has.
func (g *group) tend() {
	g.mu.Lock()
	alive := 0
	for _, p := range g.procs {
		if !p.dead {
			alive++
		}
	}
	g.mu.Unlock()
	for ; alive < 2; alive++ {
		g.start()
	}
	g.log.Expire(time.Now())
	for p := range 2 {
		if g.log.Owner(p) == nil {
			g.log.Move(p, g.living(p), time.Time{})
		}
	}
}

func (g *group) living(n int) *memlog.Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	var alive []*memlog.Member
	for _, p := range g.procs {
		if !p.dead {
			alive = append(alive, p.member)
		}
	}
	return alive[n%len(alive)]
}

func (g *group) fault() {
	g.mu.Lock()
	n, victim, part := g.rnd.IntN(20), g.rnd.IntN(2), g.rnd.IntN(2)
	g.mu.Unlock()
	m := g.living(victim)
	name := ""
	switch {
	case n < 6:
		name = "revoked"
		g.log.Move(part, m, time.Now().Add(time.Duration(n*20)*time.Millisecond))
	case n < 8:
		name = "seized"
		g.log.Seize(part, m)
	case n < 12:
		name = "write failed"
		g.log.FailCommits(1)
	case n == 12:
		name = "killed from outside"
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fired[name]++
	for _, p := range g.procs {
		if p.member == m && n == 12 {
			g.kill(p)
		}
	}
}

// audit checks that no committed position passes an unsettled message.
func (g *group) audit() {
	for p := range 2 {
		pos, _ := g.log.Committed(p)
		g.mu.Lock()
		for i := range runPerPart {
			id := fmt.Sprintf("%d-%d", p, i)
			if fmt.Sprintf("%012d", i+1) <= string(pos) && !g.msgs[id].done {
				g.t.Errorf("position %s passes %s, which is not settled", pos, id)
			}
		}
		g.mu.Unlock()
	}
}

func (g *group) finished() bool {
	for p := range 2 {
		if pos, _ := g.log.Committed(p); pos != ackwise.Position(fmt.Sprintf("%012d", runPerPart)) {
			return false
		}
	}
	return true
}

func (g *group) run() {
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for n := 0; !g.finished() && n < 40_000; n++ {
		g.tend()
		if n%3 == 0 {
			g.fault()
		}
		<-tick.C
		g.audit()
	}
	for _, p := range g.procs {
		p.cancel()
		p.ended.Wait()
	}
	for _, m := range g.msgs {
		if !m.done || m.letter != m.killer {
			g.t.Errorf("%s: done %v, dead letter %v, killer %v", m.id, m.done, m.letter, m.killer)
		}
	}
}

// TestRunUnderFaults is the main proof through the real loop: with partitions moving at random and
// members dying, no position passes an unsettled message, order per key holds, and a message that
// kills its member ends as a dead letter, while no other does.
func TestRunUnderFaults(t *testing.T) {
	first, last := uint64(1), uint64(12)
	if *runSeed != 0 {
		first, last = *runSeed, *runSeed
	}
	fired, causes := map[string]int{}, map[ackwise.Cause]int{}
	for seed := first; seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				g := newGroup(t, seed)
				g.run()
				for k, v := range g.fired {
					fired[k] += v
				}
				for k, v := range g.causes {
					causes[k] += v
				}
			})
			if t.Failed() {
				t.Logf("repeat: go test ./deliver/logsource -run TestRunUnderFaults -run-seed %d"+
					" (goroutines are not ordered by the seed)", seed)
			}
		})
	}
	t.Logf("fired %v, causes %v", fired, causes)
	for _, name := range []string{"killed by a message", "killed from outside", "handler failed",
		"revoked", "seized", "write failed"} {
		if fired[name] == 0 && *runSeed == 0 {
			t.Errorf("the fault %q never fired", name)
		}
	}
	for _, c := range []ackwise.Cause{ackwise.CauseFirst, ackwise.CauseFailed,
		ackwise.CauseConsumerLost, ackwise.CauseRebalanced} {
		if causes[c] == 0 && *runSeed == 0 {
			t.Errorf("no hand-out had the cause %s", c)
		}
	}
}
