package deliver

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/ackwise/ackwise"
)

// startReady starts what may start, as far as there is room.
func (l *loop) startReady(now time.Time) {
	l.linger.due = time.Time{}
	l.suspectsLast()
	for len(l.busy) < l.o.Concurrency {
		e := l.head()
		var revoked, lost bool
		if e == nil {
			l.linger.since = time.Time{}
		} else {
			revoked, lost = e.d.Marked()
		}
		switch {
		case e == nil || !l.mayStart(e):
			return
		case lost:
			l.lose(e)
		case revoked:
			l.revoke(e, now)
		case l.lingers(e, now), e.suspect && !l.isolate(e):
			return
		default:
			// Nothing is picked where the source has just marked e: the next look sees it.
			if picked := l.pick(e); len(picked) > 0 {
				l.start(picked, now)
			}
		}
	}
}

// mayStart reports whether e may start now. A suspect waits until nothing else is at work, and
// while one is, nothing else starts.
func (l *loop) mayStart(e *entry) bool {
	switch {
	case l.stop.begun || l.alone != nil:
		return false
	case e.suspect && len(l.busy) > 0:
		return false
	case e.dead != "" || l.breaker.state == breakerClosed:
		return true
	}
	return l.breaker.state == breakerHalfOpen && !l.probing()
}

func (l *loop) probing() bool {
	for c := range l.busy {
		if c.probe {
			return true
		}
	}
	return false
}

// pick takes e, the head of the first ready lane, and as many more as one call may have.
func (l *loop) pick(e *entry) []*entry {
	picked := []*entry{e}
	if e.suspect || e.dead != "" || l.breaker.state != breakerClosed {
		l.dropReady()
		return picked
	}
	picked = picked[:0]
	for e != nil && len(picked) < l.o.BatchSize && plain(e) {
		l.dropReady()
		for _, run := range e.lane.queue {
			if len(picked) == l.o.BatchSize || run.state != waiting || !plain(run) {
				break
			}
			picked = append(picked, run)
		}
		if l.o.BatchSize == 1 {
			break
		}
		e = l.head()
	}
	return picked
}

// plain reports whether e may share a call.
func plain(e *entry) bool {
	revoked, lost := e.d.Marked()
	return !e.suspect && e.dead == "" && !revoked && !lost
}

// start begins the call of the picked entries: with the early ack, the handler or the dead letter.
func (l *loop) start(picked []*entry, now time.Time) {
	l.linger.since = time.Time{}
	ctx, cancel := context.WithCancelCause(l.base)
	c := &call{entries: picked, cancel: cancel}
	l.busy[c] = struct{}{}
	for _, e := range picked {
		e.state, e.call = working, c
	}
	first := picked[0]
	if first.suspect {
		l.alone = c
	}
	switch {
	case first.dead != "":
		l.writeDead(ctx, c, first)
	case l.o.Guarantee == AtMostOnce:
		c.probe = l.breaker.state == breakerHalfOpen
		c.pending = len(picked)
		c.begin = func() { l.invoke(ctx, c, time.Now()) }
		for _, e := range picked {
			l.outbox.add(settlement{e: e, early: true})
		}
	default:
		c.probe = l.breaker.state == breakerHalfOpen
		l.invoke(ctx, c, now)
	}
}

// acked takes the answer to the early ack of an entry: only what is acked is handled.
func (l *loop) acked(e *entry, ok bool) {
	c := e.call
	c.pending--
	if !ok {
		l.cut(e)
		l.forget(e)
	}
	if c.pending > 0 {
		return
	}
	kept := c.entries[:0]
	for _, e := range c.entries {
		if e.state == working {
			e.leaseEnd = time.Time{} // settled: there is no lease to keep or lose any more
			kept = append(kept, e)
		}
	}
	c.entries = kept
	if len(kept) == 0 {
		l.endCall(c)
		return
	}
	c.begin()
}

// invoke calls the handler beside the loop.
func (l *loop) invoke(ctx context.Context, c *call, now time.Time) {
	ds := make([]*ackwise.Delivery, len(c.entries))
	for i, e := range c.entries {
		ds[i] = e.d
		e.started = true
		l.startCeiling(e, now)
	}
	l.beside(ctx, ds, l.handle, func(errs []error) {
		l.returned(c, errs, time.Since(now))
	})
}

// beside runs f in a goroutine of its own that ends when f returns, and reports what it returned.
// A panic becomes an error for each delivery, and so does a goroutine that f ends.
func (l *loop) beside(ctx context.Context, ds []*ackwise.Delivery,
	f func(context.Context, []*ackwise.Delivery) []error, report func(errs []error)) {
	l.wg.Go(func() {
		var (
			errs []error
			ok   bool
		)
		defer func() {
			if !ok {
				v := recover()
				if v != nil && l.o.CrashOnPanic {
					panic(v)
				}
				errs = panicked(v, len(ds))
			}
			l.post(func() { report(errs) })
		}()
		errs = f(ctx, ds)
		ok = true
	})
}

// panicError is a recovered panic.
type panicError struct {
	value any
	stack string
}

func (e *panicError) Error() string { return fmt.Sprintf("the handler panicked: %v", e.value) }

var errExited = errors.New("the handler ended its goroutine without returning")

func panicked(v any, n int) []error {
	err := errExited
	if v != nil {
		err = &panicError{v, string(debug.Stack())}
	}
	return same(err, n)
}

func same(err error, n int) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// endCall frees the call's place.
func (l *loop) endCall(c *call) {
	c.over = true
	c.cancel(nil)
	delete(l.busy, c)
	if l.alone == c {
		l.alone = nil
	}
}

// interrupt ends the context of a call early. A handler that does not return within CancelGrace is
// reported.
func (l *loop) interrupt(c *call, reason stopReason, cause error, now time.Time) {
	if c.over || c.reason != notStopped {
		return
	}
	c.reason = reason
	c.cancel(cause)
	l.timers.add(now.Add(max(l.o.CancelGrace, 0)), func(time.Time) {
		if c.over {
			return
		}
		c.stuck = true
		for _, e := range c.entries {
			l.observe("stuck", e, ackwise.Event{Err: cause})
			l.report("handler does not end with its context", e, cause)
		}
	})
}
