package deliver

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// loop is one run. Its fields belong to the goroutine of run; what runs beside it (handler calls,
// Receive, Settle, dead letters) reports by post and touches none of them.
type loop struct {
	o      Options
	f      ackwise.Features
	src    ackwise.Source
	handle func(context.Context, []*ackwise.Delivery) []error
	settle func(context.Context, []settlement) []ackwise.SettleResult
	log    *slog.Logger
	base   context.Context // of everything that outlives Run's context during a stop

	inbox chan func()   // what has happened beside the loop, to be carried out by it
	over  chan struct{} // closed when run has returned: later reports go nowhere
	wg    sync.WaitGroup
	async int // Receive, Settle and extend calls under way

	held     []*entry
	lanes    map[string]*lane
	ready    []*lane // whose head may start, in the order in which they became so
	serial   uint64
	suspects int // held
	alone    *call
	busy     map[*call]struct{}
	linger   linger

	timers      timers
	sweepAt     time.Time // next look at what is held; zero = nothing is held
	breaker     breaker
	breakerSeen breakerState // the state that was acted on
	budget      retryBudget
	counts      failureCounts

	fetch  fetcher
	outbox outbox
	stop   stopper
}

func newLoop(ctx context.Context, src ackwise.Source, o Options, batch bool) (*loop, error) {
	f := src.Features()
	o = o.withDefaults(f, batch)
	if err := o.check(f); err != nil {
		return nil, err
	}
	now := time.Now()
	l := &loop{
		o: o, f: f, src: src, log: o.Logger,
		base:    context.WithoutCancel(ctx),
		inbox:   make(chan func(), o.Concurrency+8),
		over:    make(chan struct{}),
		lanes:   make(map[string]*lane),
		busy:    make(map[*call]struct{}),
		breaker: breaker{o: o.Breaker},
		budget:  newRetryBudget(o.RetryBudget, now),
		counts:  failureCounts{max: o.MaxCounted},
	}
	if l.log == nil {
		l.log = slog.New(slog.DiscardHandler)
	}
	l.settle = l.settleSource
	l.fetch.one = l.handOutsOnly() // after a crash, what ended it may be the first to come
	return l, nil
}

// run is the loop: carry out what has happened, then do what is possible now, then wait.
func (l *loop) run(ctx context.Context) error {
	defer close(l.over)
	wake := time.NewTimer(time.Hour)
	defer wake.Stop()
	done := ctx.Done()
	for {
		l.step(time.Now())
		if l.finished(time.Now()) {
			return l.end()
		}
		if d, ok := l.wait(time.Now()); ok {
			wake.Reset(d)
		} else {
			wake.Stop()
		}
		select {
		case report := <-l.inbox:
			report()
			l.drain()
		case <-wake.C:
		case <-done:
			done = nil
			l.beginStop(time.Now(), nil)
		}
	}
}

// drain carries out what else has happened, so that one step serves all of it.
func (l *loop) drain() {
	for range cap(l.inbox) {
		select {
		case report := <-l.inbox:
			report()
		default:
			return
		}
	}
}

// step does all that is possible at now.
func (l *loop) step(now time.Time) {
	l.timers.fire(now)
	l.sweep(now)
	l.advanceBreaker(now)
	l.startReady(now)
	l.fetchMore(now)
	if l.stop.begun {
		l.giveAllBack()
	}
	l.flush(now)
}

// wait returns how long the loop may sleep when nothing happens; false = for ever.
func (l *loop) wait(now time.Time) (time.Duration, bool) {
	next := l.timers.next()
	soonest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	soonest(l.sweepAt)
	soonest(l.linger.due)
	soonest(l.outbox.due(now))
	if l.breaker.state == breakerOpen {
		soonest(l.breaker.until)
	}
	if !l.fetch.running && l.fetch.notBefore.After(now) {
		soonest(l.fetch.notBefore)
	}
	soonest(l.stop.deadline)
	return max(next.Sub(now), 0), !next.IsZero()
}

// spawn runs a source call beside the loop; its end is reported by the function it returns.
func (l *loop) spawn(f func() (report func())) {
	l.async++
	l.wg.Go(func() {
		report := f()
		l.post(func() {
			l.async--
			report()
		})
	})
}

// post hands a report to the loop. After the loop's end it goes nowhere.
func (l *loop) post(report func()) {
	select {
	case l.inbox <- report:
	case <-l.over:
	}
}

// observe tells Options.Observe. e may be nil.
func (l *loop) observe(kind string, e *entry, fill ackwise.Event) {
	if l.o.Observe == nil {
		return
	}
	fill.Kind, fill.Time, fill.Pipeline = kind, time.Now(), l.o.Pipeline
	if e != nil {
		fill.ID, fill.Key = e.d.ID, e.d.Key
		fill.Attempt, fill.Cause = e.d.Attempt, e.d.Cause
	}
	l.o.Observe(fill)
}

// report logs a failure of one delivery.
func (l *loop) report(msg string, e *entry, err error, more ...any) {
	level := slog.LevelWarn
	if p, ok := errors.AsType[*panicError](err); ok {
		level = slog.LevelError
		more = append(more, "stack", p.stack)
	}
	attrs := []any{"pipeline", l.o.Pipeline, "id", e.d.ID, "key", e.d.Key, "attempt", e.d.Attempt,
		"cause", e.d.Cause.String(), "error", err}
	l.log.Log(l.base, level, msg, append(attrs, more...)...)
}
