package process

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// PipeHandler hands deliveries to one long-lived process. Make it with Pipe.
type PipeHandler struct {
	command string
	o       Options
	family  *family
	wg      sync.WaitGroup // the supervisor
	closing chan struct{}  // closed by Close
	failed  chan struct{}  // closed with failure
	once    sync.Once      // of Close

	mu       sync.Mutex    // guards the fields below
	starting *pipeProcess  // running, not trusted yet
	proc     *pipeProcess  // running and trusted; nil = none
	changed  chan struct{} // closed and replaced when a field of this group changes
	stopping bool
	failure  error
}

// Pipe keeps sh -c command running and gives it one line a delivery (see AppendLine); it answers
// one line each, in any order (see ParseAnswer). When it ends, what it had not answered is a
// *LostError, and it is started again with backoff. After Options.MaxIdleEnds ends in a row, each
// before it was given anything, Failed is closed: a process that cannot start costs no message its
// budget.
//
// A line that is no answer is reported and ignored. An answer that names its delivery but says
// something impossible is a failure of that delivery.
func Pipe(command string, o Options) (*PipeHandler, error) {
	f, err := newFamily()
	if err != nil {
		return nil, err
	}
	h := &PipeHandler{command: command, o: o.withDefaults(), family: f,
		closing: make(chan struct{}), failed: make(chan struct{}), changed: make(chan struct{})}
	h.wg.Go(h.supervise) // ends with Close or with failure
	return h, nil
}

// Failed is closed when the handler has given up; Err says why. What is handed to it from then on
// is released.
func (h *PipeHandler) Failed() <-chan struct{} { return h.failed }

// Err returns why the handler has given up; nil = it has not.
func (h *PipeHandler) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.failure
}

// Handle gives a delivery to the process and waits for its answer.
func (h *PipeHandler) Handle(ctx context.Context, d *ackwise.Delivery) error {
	line, err := AppendLine(nil, Line{Delivery: d, Pipeline: h.o.Pipeline})
	if err != nil {
		return ackwise.Reject(err)
	}
	for {
		p, err := h.ready(ctx)
		if err != nil {
			return err
		}
		answer := p.give(d.Token, line)
		if answer == nil {
			continue // it ended meanwhile
		}
		select {
		case err = <-answer:
			return err
		case <-ctx.Done():
			cause := context.Cause(ctx)
			if p.forget(d.Token, errors.Is(cause, ackwise.ErrLeaseLost)) {
				return fmt.Errorf("the handler process did not answer in time: %w", cause)
			}
			return <-answer // it had answered just before
		}
	}
}

// ready waits for a running process.
func (h *PipeHandler) ready(ctx context.Context) (*pipeProcess, error) {
	for {
		h.mu.Lock()
		p, changed, over := h.proc, h.changed, h.failure != nil || h.stopping
		h.mu.Unlock()
		switch {
		case p != nil:
			return p, nil
		case over:
			return nil, errReleased
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", context.Cause(ctx), errReleased)
		}
	}
}

// Settled tells the process that the settlement of one of its deliveries has returned. A nil err
// is a success.
func (h *PipeHandler) Settled(token ackwise.LeaseToken, err error) {
	h.mu.Lock()
	p := h.proc
	h.mu.Unlock()
	if p != nil {
		p.settled(token, err)
	}
}

// Stop tells the process to finish and end: it is not started again.
func (h *PipeHandler) Stop() {
	h.update(func() {
		if h.stopping {
			return
		}
		h.stopping = true
		for _, p := range []*pipeProcess{h.starting, h.proc} {
			if p != nil {
				p.notice(Line{Stop: true})
			}
		}
	})
}

// Close stops the process: it is told to stop, its input ends, after Options.Grace it gets SIGTERM,
// after that time again SIGKILL.
func (h *PipeHandler) Close() error {
	var err error
	h.once.Do(func() {
		h.Stop()
		close(h.closing)
		h.wg.Wait()
		err = h.family.close()
	})
	return err
}

// update changes fields under the lock and wakes who waits for that.
func (h *PipeHandler) update(change func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change()
	close(h.changed)
	h.changed = make(chan struct{})
}

// lives is the state of the supervisor between processes.
type lives struct {
	idleEnds int           // in a row, before the process was given anything
	pause    time.Duration // before the next start
}

// supervise starts the process again and again until Stop, or until it cannot work.
func (h *PipeHandler) supervise() {
	var l lives
	for !h.isStopping() {
		began := time.Now()
		p, err := h.start()
		if err == nil {
			h.live(p, l.trial(h.o))
			err = p.end()
		}
		if h.isStopping() {
			return
		}
		if p == nil || p.given == 0 && time.Since(began) < h.o.RestartMax {
			l.idleEnds++
		} else {
			l.idleEnds = 0
		}
		if l.idleEnds >= h.o.MaxIdleEnds {
			h.fail(fmt.Errorf("the handler process ended %d times in a row before it was given "+
				"a delivery: %w", l.idleEnds, err))
			return
		}
		l.next(h.o, p != nil && p.answers > 0)
		h.o.Report(fmt.Sprintf("the handler process ended (%v); it is started again in %s",
			err, l.pause))
		h.sleep(l.pause)
	}
}

// trial is how long a process must run before it is trusted with a delivery: the longer, the more
// often it has ended.
func (l *lives) trial(o Options) time.Duration { return max(l.pause, o.RestartMin/2) }

func (l *lives) next(o Options, worked bool) {
	l.pause = min(2*l.pause, o.RestartMax)
	if worked || l.pause == 0 {
		l.pause = o.RestartMin
	}
}

// sleep waits for d, or until the handler stops.
func (h *PipeHandler) sleep(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	for !h.isStopping() {
		h.mu.Lock()
		changed := h.changed
		h.mu.Unlock()
		select {
		case <-t.C:
			return
		case <-changed:
		}
	}
}

// live runs a started process to its end.
func (h *PipeHandler) live(p *pipeProcess, trial time.Duration) {
	t := time.NewTimer(trial)
	defer t.Stop()
	select {
	case <-t.C:
		select {
		case <-p.child.done: // it has ended, and nobody had time to notice
		default:
			h.update(func() { h.starting, h.proc = nil, p })
		}
	case <-p.child.done:
	case <-h.closing:
	}
	select {
	case <-p.child.done:
	case <-h.closing:
		p.shutDown(h.o.Grace)
	}
	h.update(func() { h.starting, h.proc = nil, nil })
}

func (h *PipeHandler) isStopping() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopping
}

func (h *PipeHandler) fail(err error) {
	h.update(func() { h.failure = err })
	close(h.failed)
}
