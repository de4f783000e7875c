package prove

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// World is what one run of the handler lives in. What a consumer process keeps in memory is made by
// Case.New and is gone when the process is killed; what outlives it is kept by the world.
type World struct {
	number int
	real   bool
	lease  time.Duration

	mu       sync.Mutex // guards the fields below; held for a few instructions only
	now      time.Time
	kept     map[string]any
	starting *process // the process whose Case.New is running
	cleanups []func()
}

// process is one consumer process: Case.New was called once for it.
type process struct {
	number int
	name   string
	killed []func()

	source  ackwise.Source // its session at Case.Source; nil without
	settles bool           // its handler's own commit settles
	closed  bool           // its session has ended
}

func newWorld(number int, c *Case) *World {
	return &World{number: number, real: c.RealTime, lease: c.Lease, kept: make(map[string]any),
		now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
}

// Run is the number of the run, from 1: it tells the databases of two runs apart.
func (w *World) Run() int { return w.number }

// Now is the time of this run: a clock that moves a second with each delivery, and past all leases
// when a consumer is killed. Give it to the stores that the handler uses. With Case.RealTime it is
// the real time.
func (w *World) Now() time.Time {
	if w.real {
		return time.Now()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// Wait lets d pass: it moves the clock, or really waits with Case.RealTime.
func (w *World) Wait(ctx context.Context, d time.Duration) error {
	if !w.real {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.now = w.now.Add(d)
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Store makes every call of s a moment at which the prover may kill the consumer, let another one
// run, refuse the call or lose its answer.
func (w *World) Store(s idempotency.Store) idempotency.Store { return provedStore{s} }

// Table makes every call of t such a moment as well.
func (w *World) Table(t idempotency.Table) idempotency.Table { return provedTable{t} }

// AtKill says, in Case.New, what happens outside when this consumer process is killed, such as a
// server that notices the closed connection and rolls its transaction back. The goroutine of the
// killed handler stands still meanwhile, and is not unwound.
func (w *World) AtKill(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.starting == nil {
		panic("prove: World.AtKill is for Case.New only")
	}
	w.starting.killed = append(w.starting.killed, do)
}

// Cleanup has do called when the run is over, the last one first: for what the world keeps and
// nobody else closes.
func (w *World) Cleanup(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cleanups = append(w.cleanups, do)
}

func (w *World) start(p *process) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.starting = p
}

// Keep returns what the run's world holds under name, and makes it the first time: state that
// outlives a consumer process, such as a database in memory. A name holds one type.
func Keep[T any](w *World, name string, create func() T) T {
	w.mu.Lock()
	have, ok := w.kept[name]
	w.mu.Unlock()
	if !ok {
		have = create() // no mutex is held in user code; consumers start one at a time
		w.mu.Lock()
		w.kept[name] = have
		w.mu.Unlock()
	}
	kept, ok := have.(T)
	if !ok {
		panic(fmt.Sprintf("prove: the world keeps a %T under %q, not a %T", have, name, kept))
	}
	return kept
}
