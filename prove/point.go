package prove

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
)

// Point names a moment in a handler at which the prover may kill the consumer or let another one
// run, such as "after charge". Outside of a prover it does nothing. ctx is the handler's, or one
// made of it. A handler must not hold a mutex at a point that another consumer waits for.
func Point(ctx context.Context, name string) {
	if a := actorOf(ctx); a != nil {
		a.pass(point{name: name})
	}
}

// Call makes do, a call to something outside: there is a point before it and one after it, and the
// prover may refuse it (do is not called, Call returns an error) or lose its answer (do was called,
// Call returns an error all the same). Outside of a prover it only calls do.
func Call(ctx context.Context, name string, do func(ctx context.Context) error) error {
	a := actorOf(ctx)
	if a == nil {
		return do(ctx)
	}
	if a.pass(point{name: name, phase: before}) {
		return fmt.Errorf("%s: %w", name, errRefused)
	}
	err := do(ctx)
	if a.pass(point{name: name, phase: after}) {
		return fmt.Errorf("%s: %w", name, errUnsure)
	}
	return err
}

// What a call that the prover lets fail returns.
var (
	errRefused = errors.New("not reachable (the prover refused the call)")
	errUnsure  = errors.New("no answer (the prover made the call and lost its answer)")
)

// phase says where a point stands.
type phase uint8

const (
	alone  phase = iota // named by Point
	before              // a call begins here: it can be refused
	after               // a call ends here: its answer can be lost
)

// point is one moment at which a handling can be stopped.
type point struct {
	name  string
	phase phase
}

// actor is one handling of one delivery, in a goroutine of its own. It moves only when the run lets
// it: it stops at each point until it is told to go on.
type actor struct {
	process *process
	msg     int
	number  int // the delivery's, from 1
	step    *step
	reached chan point    // what it stops at, told to the run
	resume  chan bool     // goes on; true = the call at this point fails
	over    chan struct{} // the run's end: whoever still stands at a point ends there
	done    chan struct{} // closed when the handler has ended
	free    atomic.Bool   // it goes on without asking
	stray   atomic.Bool   // it came to a point after the handler had ended
	err     error         // what the handler said; read after done
	exited  bool          // the handler left by runtime.Goexit; read after done
	count   int           // points passed
	heldAt  point         // where it is held
	cancel  context.CancelCauseFunc
}

type actorKey struct{}

func actorOf(ctx context.Context) *actor {
	a, _ := ctx.Value(actorKey{}).(*actor)
	return a
}

// pass stops at a point until the run lets the actor go on, and reports whether the call there
// fails. An actor that was killed stands here until the run is over: nothing of it is unwound
// before, as nothing is in a process that was killed.
func (a *actor) pass(p point) (failed bool) {
	if a.free.Load() {
		return false
	}
	select {
	case <-a.done:
		a.stray.Store(true)
	default:
	}
	select {
	case a.reached <- p:
	case <-a.over:
		runtime.Goexit()
	}
	select {
	case failed = <-a.resume:
		return failed
	case <-a.over:
		runtime.Goexit()
	}
	return false
}

// work calls the handler. It runs in the actor's own goroutine.
func (a *actor) work(ctx context.Context, h ackwise.Handler, d *ackwise.Delivery) {
	a.exited = true
	defer close(a.done)
	defer func() {
		if p := recover(); p != nil {
			a.err, a.exited = fmt.Errorf("the handler panicked: %v", p), false
		}
	}()
	a.err = h.Handle(ctx, d)
	a.exited = false
}

// silentError reports a handler that neither ended nor came to a point.
type silentError struct {
	after time.Duration
	where string
}

func (e *silentError) Error() string {
	return fmt.Sprintf("%s has neither ended nor reached a point for %s: it waits for something "+
		"that the prover does not see, such as a real timer, or a mutex that is held at a point",
		e.where, e.after)
}

// next waits until the actor stops at a point (ended = false) or its handler has ended.
func (a *actor) next(patience time.Duration) (p point, ended bool, err error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case p = <-a.reached:
		return p, false, nil
	case <-a.done:
		return p, true, nil
	case <-timer.C:
		return p, false, &silentError{patience, fmt.Sprintf("the handler of message %d, consumer %d,",
			a.msg+1, a.process.number)}
	}
}
