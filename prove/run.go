package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// Bounds of one run.
const (
	maxDeliveries = 20               // of one message; after that it counts as not settled
	maxAtOnce     = 3                // deliveries of one message before all others
	maxBackoff    = 10 * time.Minute // of the clock, between two deliveries of one message
	unwindTime    = 10 * time.Second // of the real clock, for handlers that are let go
)

// fate is what became of a message at the end of a run.
type fate string

const (
	settled   fate = "settled" // acked, or dropped with a reason
	dead      fate = "a dead letter"
	unsettled fate = "not settled"
)

// life is what a source knows of one message.
type life struct {
	attempt int
	counts  ackwise.Counts
	history []ackwise.Attempt
	faults  []fault // of its next deliveries
	points  []point // of its first delivery
	fate    fate
}

// turn is a message that waits for its next delivery.
type turn struct {
	msg   int
	cause ackwise.Cause
}

// run is one life of a world: all messages are delivered until each is settled, while the
// schedule's faults happen.
type run struct {
	c     *Case
	w     *World
	clean *run // what the others are compared with; nil in the clean run itself

	lives     []life
	line      []turn // in the order in which they are handed out
	processes int    // started so far
	current   *process
	handlers  map[*process]ackwise.Handler
	settles   bool                      // its handlers' own commits settle
	places    map[*ackwise.Delivery]int // of which message each is, whatever is done to it
	steps     []*step

	over    chan struct{}
	actors  []*actor
	wg      sync.WaitGroup
	effects picture
}

// newRun makes a run of c in a world of its own.
func newRun(c *Case, number int, s schedule, clean *run) *run {
	r := &run{c: c, w: newWorld(number, c), clean: clean, over: make(chan struct{}),
		lives: make([]life, len(c.Messages)), handlers: make(map[*process]ackwise.Handler),
		places: make(map[*ackwise.Delivery]int)}
	for i := range c.Messages {
		r.line = append(r.line, turn{i, ackwise.CauseFirst})
		r.lives[i].fate = unsettled
	}
	for _, f := range s {
		r.lives[f.message].faults = append(r.lives[f.message].faults, f)
	}
	return r
}

// do runs all messages to their end, looks at the effects, and lets go of every goroutine.
func (r *run) do(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer func() {
		cancel(errOver)
		err = errors.Join(err, r.end())
	}()
	if r.c.Reset != nil {
		if err := r.c.Reset(ctx, r.w); err != nil {
			return fmt.Errorf("reset the world (Case.Reset): %w", err)
		}
	}
	deliver := r.hand
	if r.c.Source != nil {
		deliver = r.take
	}
	if err := deliver(ctx); err != nil {
		return err
	}
	effects, err := r.c.Effects(ctx, r.w)
	if err != nil {
		return fmt.Errorf("read the effects (Case.Effects): %w", err)
	}
	r.effects, err = pictureOf(effects)
	return err
}

// hand hands out what waits in line, until nothing does.
func (r *run) hand(ctx context.Context) error {
	for len(r.line) > 0 {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if err := r.handle(ctx, r.pop()); err != nil {
			return err
		}
	}
	return nil
}

// end lets go of the goroutines that stand at points, and waits for all handlers.
func (r *run) end() error {
	close(r.over)
	timer := time.NewTimer(unwindTime)
	defer timer.Stop()
	for _, a := range r.actors {
		a.cancel(errOver)
		select {
		case <-a.done:
		case <-timer.C:
			return &silentError{unwindTime, "a handler that was killed and then let go"}
		}
	}
	r.wg.Wait()
	var errs []error
	if i := slices.IndexFunc(r.actors, func(a *actor) bool { return a.stray.Load() }); i >= 0 {
		errs = append(errs, fmt.Errorf("the handler of message %d goes on in a goroutine after it has "+
			"returned: its ack is sent before its work is done", r.actors[i].msg+1))
	}
	for p := range r.handlers {
		errs = append(errs, r.close(p))
	}
	for _, do := range slices.Backward(r.w.cleanups) {
		do()
	}
	return errors.Join(errs...)
}

var errOver = errors.New("the prover's run is over")

func (r *run) pop() turn {
	t := r.line[0]
	r.line = r.line[1:]
	return t
}

// nextFault takes what goes wrong with the next delivery of a message.
func (l *life) nextFault() fault {
	if len(l.faults) == 0 {
		return fault{}
	}
	f := l.faults[0]
	l.faults = l.faults[1:]
	return f
}

// handle makes one delivery, and what goes wrong with it.
func (r *run) handle(ctx context.Context, t turn) error {
	f := r.lives[t.msg].nextFault()
	if f.kind == beside && (len(r.line) == 0 || r.sameLane(r.line[0].msg, t.msg)) {
		f = fault{} // there is no message to work on beside it
	}
	p, err := r.consumer(ctx)
	if err != nil {
		return err
	}
	d := r.delivery(t, p)
	if f.kind == crash && f.point == 0 {
		r.note(d, p).stop("KILLED before the handler began")
		return r.killed(ctx, d, f, p)
	}
	a := r.start(ctx, d, p)
	ended, err := r.drive(a, f, nil)
	switch {
	case err != nil:
		return err
	case f.kind == race || f.kind == stall || f.kind == orphan:
		return r.overlap(ctx, a, d, f, ended)
	case f.kind == beside && !ended:
		if err := r.another(ctx, a); err != nil {
			return err
		}
		if _, err := r.drive(a, fault{}, nil); err != nil {
			return err
		}
	case f.kind == crash:
		return r.killed(ctx, d, f, p)
	}
	return r.settle(ctx, d, a, f)
}

// consumer is the process that gets the next delivery; it is started where there is none.
func (r *run) consumer(ctx context.Context) (*process, error) {
	if r.current == nil {
		p, err := r.newProcess(ctx)
		if err != nil {
			return nil, err
		}
		r.current = p
	}
	return r.current, nil
}

func (r *run) newProcess(ctx context.Context) (*process, error) {
	r.processes++
	p := &process{number: r.processes, name: fmt.Sprintf("consumer-%d", r.processes)}
	r.w.start(p)
	defer r.w.start(nil)
	h, err := r.c.New(ctx, r.w)
	if err == nil && h == nil {
		err = errors.New("it returned no handler")
	}
	if err != nil {
		return nil, fmt.Errorf("start consumer %d (Case.New): %w", p.number, err)
	}
	r.handlers[p] = h
	tx, settles := h.(ackwise.Transactional)
	switch {
	case r.c.Source == nil && settles:
		return nil, fmt.Errorf("start consumer %d: a %T settles by its own commit: Case.Source is needed",
			p.number, h)
	case r.c.Source == nil:
		return p, nil
	}
	if p.source, err = r.c.Source(ctx, r.w); err != nil {
		return nil, fmt.Errorf("open a session for consumer %d (Case.Source): %w", p.number, err)
	}
	if settles {
		p.settles, r.settles = true, true
		if err := tx.Bind(p.source); err != nil {
			return nil, fmt.Errorf("bind the handler to its source: %w", err)
		}
	}
	return p, nil
}

// delivery hands a message out.
func (r *run) delivery(t turn, p *process) *ackwise.Delivery {
	r.w.tick()
	l := &r.lives[t.msg]
	l.attempt++
	l.counts.HandOuts++
	now := r.w.Now()
	d := &ackwise.Delivery{Message: clone(r.c.Messages[t.msg]), Attempt: l.attempt,
		Counts: l.counts, Cause: t.cause, History: slices.Clone(l.history),
		Token:    ackwise.LeaseToken(fmt.Sprintf("%d.%d.%d", r.w.number, t.msg, l.attempt)),
		Deadline: now.Add(r.c.Lease), Position: ackwise.Position(fmt.Sprintf("%08d", t.msg+1))}
	r.places[d] = t.msg
	l.history = append(l.history, ackwise.Attempt{Number: l.attempt, Time: now, Consumer: p.name,
		Cause: t.cause})
	return d
}

// clone copies a message, so that a handler that changes it changes nothing for the next one.
func clone(m ackwise.Message) ackwise.Message {
	m.Body = slices.Clone(m.Body)
	m.Headers = slices.Clone(m.Headers)
	for i := range m.Headers {
		m.Headers[i].Value = slices.Clone(m.Headers[i].Value)
	}
	return m
}

// start begins a handling, which stops at its first point.
func (r *run) start(ctx context.Context, d *ackwise.Delivery, p *process) *actor {
	msg := r.index(d)
	a := &actor{process: p, msg: msg, number: d.Attempt, step: r.note(d, p),
		reached: make(chan point), resume: make(chan bool), over: r.over,
		done: make(chan struct{})}
	ctx, a.cancel = context.WithCancelCause(context.WithValue(ctx, actorKey{}, a))
	r.actors = append(r.actors, a)
	h := r.handlers[p]
	r.wg.Go(func() { a.work(ctx, h, d) }) // ends with the handler, at the latest at the run's end
	return a
}

func (r *run) index(d *ackwise.Delivery) int { return r.places[d] }

// drive lets an actor go on until its handler has ended (ended = true) or it comes to where the
// fault stops it. An other actor that is held meanwhile is let go where this one waits for it.
func (r *run) drive(a *actor, f fault, other *actor) (ended bool, err error) {
	for {
		p, ended, err := a.next(r.c.Patience)
		if err != nil && other != nil && other.free.CompareAndSwap(false, true) {
			a.step.add(fmt.Sprintf("WAITS, so consumer %d goes on", other.process.number))
			other.resume <- false
			continue
		}
		if err != nil {
			return false, err
		}
		if ended {
			return true, r.ended(a, f)
		}
		a.count++
		if a.number == 1 && r.clean == nil {
			r.lives[a.msg].points = append(r.lives[a.msg].points, p)
		}
		failed := f.kind == down && a.count >= f.point && p.phase == before
		if a.count == f.point {
			switch f.kind {
			case crash, race, stall, orphan, beside:
				word := "HELD"
				if f.kind == crash {
					word = "KILLED"
				}
				a.heldAt = p
				a.step.stopAt(word, p)
				return false, nil
			case fail:
				failed = p.phase == before
			case unsure:
				failed = p.phase == after
			}
		}
		a.step.passed(p, failed)
		a.resume <- failed
	}
}

// ended notes how a handler ended.
func (r *run) ended(a *actor, f fault) error {
	if a.exited {
		return fmt.Errorf("the handler of message %d left its goroutine (runtime.Goexit, or FailNow "+
			"of a test): a handler has to return", a.msg+1)
	}
	v := ackwise.OutcomeOf(a.err)
	switch {
	case f.kind == crash && a.process.settles && a.err == nil:
		a.step.stop("KILLED after its commit")
	case f.kind == crash:
		a.step.stop("KILLED before the " + v.Outcome.String())
	case f.kind == lost && gone(v.Outcome) && !a.process.settles:
		a.step.stop("its " + v.Outcome.String() + " IS LOST")
	default:
		a.step.settle(v)
	}
	return nil
}

// gone reports whether an outcome takes the message away for good.
func gone(o ackwise.Outcome) bool { return o == ackwise.OutcomeAck || o == ackwise.OutcomeDrop }

// killed ends a consumer process, and has the message come back.
func (r *run) killed(ctx context.Context, d *ackwise.Delivery, f fault, p *process) error {
	if err := r.kill(ctx, p); err != nil {
		return err
	}
	r.lives[r.index(d)].counts.Crashes++
	r.conclude(d, ackwise.CauseConsumerLost.String(), "")
	return r.back(turn{r.index(d), ackwise.CauseConsumerLost}, f.late)
}

// kill is the end of a consumer process: time passes until all its leases are over.
func (r *run) kill(ctx context.Context, p *process) error {
	for _, do := range p.killed {
		do()
	}
	if p == r.current {
		r.current = nil
	}
	r.say("consumer %d is gone, %s later all its leases are over", p.number,
		shortDuration(r.c.Lease))
	return r.w.Wait(ctx, r.c.Lease)
}

// conclude writes how a hand-out ended into the message's history.
func (r *run) conclude(d *ackwise.Delivery, outcome, reason string) {
	at := &r.lives[r.index(d)].history[d.Attempt-1]
	at.Outcome, at.Error, at.Duration = outcome, reason, r.w.Now().Sub(at.Time)
}

// settle carries out what a handler decided.
func (r *run) settle(ctx context.Context, d *ackwise.Delivery, a *actor, f fault) error {
	v := ackwise.OutcomeOf(a.err)
	msg := r.index(d)
	l := &r.lives[msg]
	r.conclude(d, v.Outcome.String(), v.Reason)
	switch {
	case gone(v.Outcome) && f.kind == lost:
		if err := r.w.Wait(ctx, r.c.Lease); err != nil {
			return err
		}
		return r.back(turn{msg, ackwise.CauseAckLost}, f.late)
	case gone(v.Outcome):
		l.fate = settled
		if f.kind == again {
			r.repeat(msg, f.late)
		}
		return nil
	case v.Outcome == ackwise.OutcomeDead:
		l.fate = dead
		if r.clean != nil && r.clean.lives[msg].fate != dead && l.counts.Redrives == 0 {
			l.counts.Redrives++
			l.fate = unsettled
			return r.back(turn{msg, ackwise.CauseRedriven}, true)
		}
		return nil
	}
	l.fate = unsettled
	return r.requeue(ctx, msg, v, f)
}

// requeue puts a message off that was not settled for good.
func (r *run) requeue(ctx context.Context, msg int, v ackwise.Verdict, f fault) error {
	l := &r.lives[msg]
	cause := ackwise.CauseSnoozed
	if v.Outcome == ackwise.OutcomeNack {
		l.counts.Failures++
		cause = ackwise.CauseFailed
	}
	if r.clean == nil {
		return unsettledInCleanRun(msg, r.c.Messages[msg].ID, v)
	}
	if f.late { // its budget was spent, and it came back from the dead letters
		l.counts.Redrives++
		cause = ackwise.CauseRedriven
	}
	delay := max(v.Delay, min(time.Second<<min(l.attempt-1, 20), maxBackoff))
	if r.c.RealTime {
		delay = min(delay, r.c.Lease)
	}
	if err := r.w.Wait(ctx, delay); err != nil {
		return err
	}
	// One that fails on and on lets the others pass, as its growing backoff would.
	patient := l.attempt >= maxAtOnce
	return r.back(turn{msg, cause}, f.late || patient)
}

func unsettledInCleanRun(msg int, id string, v ackwise.Verdict) error {
	return fmt.Errorf("clean run: the handler does not settle message %d (%s): %s. A clean run "+
		"delivers each message once, and each has to end there", msg+1, id, verdictText(v))
}

// back has a message wait for its next delivery: before all others, or behind them. Where keys keep
// their order, what comes after it in its key waits behind it.
func (r *run) back(t turn, late bool) error {
	if r.lives[t.msg].attempt >= maxDeliveries {
		r.lives[t.msg].fate = unsettled
		r.say("message %d is given up: it is not settled after %d deliveries", t.msg+1,
			maxDeliveries)
		return nil
	}
	if !late {
		r.line = slices.Insert(r.line, 0, t)
		return nil
	}
	var on, behind []turn
	for _, waiting := range r.line {
		if r.sameLane(waiting.msg, t.msg) {
			behind = append(behind, waiting)
		} else {
			on = append(on, waiting)
		}
	}
	r.line = append(append(on, t), behind...)
	return nil
}

// repeat delivers a message that was acked once more: at once, since its producer had sent it
// twice, or after all others, since its partition moved before the acks were noted. Where keys keep
// their order, the later messages of its key come once more as well, as a position that goes back
// makes them.
func (r *run) repeat(msg int, late bool) {
	if !late {
		r.line = slices.Insert(r.line, 0, turn{msg, ackwise.CauseProducedAgain})
		return
	}
	r.line = append(r.line, turn{msg, ackwise.CauseRebalanced})
	for later := msg + 1; later < len(r.lives); later++ {
		if r.sameLane(later, msg) {
			r.line = append(r.line, turn{later, ackwise.CauseRebalanced})
		}
	}
}

// sameLane reports whether two messages keep their order.
func (r *run) sameLane(a, b int) bool {
	key := r.c.Messages[a].Key
	switch r.c.Order {
	case ackwise.OrderPartition:
		return true
	case ackwise.OrderKey:
		return key != "" && key == r.c.Messages[b].Key
	case ackwise.OrderNone:
	}
	return false
}

// tick moves the clock a little between two deliveries.
func (w *World) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(time.Second)
}
