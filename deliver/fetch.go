package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ackwise/ackwise"
)

// Spaces the attempts to receive after errors, and after a Receive that brought nothing.
const (
	receiveBackoffFirst = 100 * time.Millisecond
	receiveBackoffCap   = 30 * time.Second
	receiveEmptyPause   = 10 * time.Millisecond
)

// fetcher is the state of the one Receive call at a time.
type fetcher struct {
	running   bool
	cancel    context.CancelFunc
	failures  int       // in a row
	notBefore time.Time // the next call
	ended     bool      // the source said io.EOF
	one       bool      // ask for one at a time: there are suspects, or it is not known yet
}

func (f *fetcher) interrupt() {
	if f.running {
		f.cancel()
	}
}

// fetchMore starts a Receive where there is room and nothing speaks against it.
func (l *loop) fetchMore(now time.Time) {
	f := &l.fetch
	if f.running || f.ended || l.stop.begun || now.Before(f.notBefore) || l.suspects > 0 {
		return
	}
	n := l.room()
	if n == 0 {
		return
	}
	ctx, cancel := context.WithCancel(l.base)
	f.running, f.cancel = true, cancel
	l.spawn(func() func() {
		defer cancel()
		ds, err := l.src.Receive(ctx, n)
		interrupted := ctx.Err() != nil
		return func() { l.received(ds, err, interrupted) }
	})
}

// room returns how many deliveries to ask for. While all handlers are at work it waits until half
// of MaxInFlight is free, so that batches do not become small.
func (l *loop) room() int {
	room := l.o.MaxInFlight - len(l.held)
	idle := len(l.busy) < l.o.Concurrency && l.head() == nil
	switch l.breaker.state {
	case breakerOpen:
		return 0
	case breakerHalfOpen:
		if !idle || l.probing() {
			return 0
		}
		room = min(room, 1)
	case breakerClosed:
		if !idle && room < (l.o.MaxInFlight+1)/2 {
			return 0
		}
	}
	if l.f.MaxBatch > 0 {
		room = min(room, l.f.MaxBatch)
	}
	if l.fetch.one { // what is received beside a suspect would be handed out for nothing
		room = min(room, 1)
	}
	return max(room, 0)
}

// received takes what a Receive brought.
func (l *loop) received(ds []*ackwise.Delivery, err error, interrupted bool) {
	now := time.Now()
	f := &l.fetch
	f.running = false
	for _, d := range ds {
		l.admit(d, now)
	}
	if len(ds) > 0 {
		f.one = l.suspects > 0 && l.handOutsOnly()
	}
	var final interface{ Final() bool }
	switch {
	case err == nil && len(ds) == 0:
		f.notBefore = now.Add(receiveEmptyPause)
	case err == nil:
		f.failures = 0
	case err == io.EOF: //nolint:errorlint // one that is wrapped is a connection that was cut
		f.ended = true
	case errors.Is(err, ackwise.ErrClosed) || errors.As(err, &final) && final.Final():
		l.beginStop(now, fmt.Errorf("receive: %w", err))
	case interrupted:
	default:
		f.failures++
		b := Backoff{First: receiveBackoffFirst, Factor: 2, Cap: receiveBackoffCap}
		f.notBefore = now.Add(b.Delay(f.failures, (1+l.o.Rand())/2))
		l.observe("receive-failed", nil, ackwise.Event{Err: err})
		l.log.WarnContext(l.base, "receive failed", "pipeline", l.o.Pipeline, "error", err)
	}
}

// advanceBreaker moves the breaker with time and acts on its changes. While it is open, what has
// not started goes back, and what has stays for its retry. Where the source gives a message up
// after so many hand-outs all of it stays: an outage would spend them.
func (l *loop) advanceBreaker(now time.Time) {
	l.breaker.advance(now)
	if l.breaker.state != l.breakerSeen {
		l.breakerSeen = l.breaker.state
		l.observe(l.breaker.state.event(), nil, ackwise.Event{Duration: l.breaker.pause})
		l.log.WarnContext(l.base, "circuit breaker", "pipeline", l.o.Pipeline,
			"state", l.breaker.state.event(), "pause", l.breaker.pause)
	}
	if l.breaker.state != breakerOpen {
		return
	}
	l.fetch.interrupt()
	if l.f.MaxHandOuts > 0 && l.f.Extend {
		return
	}
	for _, a := range append([]*lane(nil), l.ready...) {
		if len(a.queue) == 0 {
			continue
		}
		if e := a.queue[0]; e.state == waiting && !e.started && e.dead == "" {
			l.giveBack(e, "the circuit breaker is open")
		}
	}
}
