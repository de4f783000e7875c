package deliver

import (
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// stopper is the state of a stop:
//
//	begun ── StopGrace ──▶ contexts end ── CancelGrace ──▶ abandoned
//	  └── no handler runs, or all are abandoned: SettleTimeout ──▶ deadline, at the latest
type stopper struct {
	begun     bool
	err       error     // what Run returns
	abandoned bool      // handlers that still run are waited for no longer
	deadline  time.Time // of settling; zero = handlers still run
}

// beginStop begins a soft stop.
func (l *loop) beginStop(now time.Time, err error) {
	s := &l.stop
	if s.err == nil {
		s.err = err
	}
	if s.begun {
		return
	}
	s.begun = true
	l.observe("stopping", nil, ackwise.Event{Err: err})
	l.fetch.interrupt()
	grace := max(l.o.StopGrace, 0)
	l.timers.add(now.Add(grace), func(now time.Time) {
		for c := range l.busy {
			l.interrupt(c, byStop, ackwise.ErrStopping, now)
		}
	})
	l.timers.add(now.Add(grace+max(l.o.CancelGrace, 0)), func(time.Time) { s.abandoned = true })
}

// giveAllBack gives back whatever is neither at work nor being settled, nor behind one of its key
// that is at work: that goes back after it, in order, when the call has returned.
func (l *loop) giveAllBack() {
	for _, e := range l.inOrder() {
		if (e.state == waiting || e.state == holding) && !l.behindWork(e) {
			l.giveBack(e, "the consumer stops")
		}
	}
}

func (l *loop) behindWork(e *entry) bool { return e.lane.queue[0].state == working }

// finished reports whether the loop has nothing left to do, or no time.
func (l *loop) finished(now time.Time) bool {
	s := &l.stop
	if !s.begun {
		return l.fetch.ended && len(l.held) == 0 && l.async == 0
	}
	if len(l.busy) > 0 && !s.abandoned {
		return false
	}
	inSettling := func(e *entry) bool { return e.state == settling }
	if l.async == 0 && !slices.ContainsFunc(l.held, inSettling) {
		return true
	}
	if s.deadline.IsZero() {
		s.deadline = now.Add(l.o.SettleTimeout)
	}
	return !now.Before(s.deadline)
}

// end closes the loop's books: what is still held is left to its lease.
func (l *loop) end() error {
	for _, e := range l.inOrder() {
		if e.state == settling {
			l.observe("unsettled", e, ackwise.Event{Err: ackwise.ErrStopping})
			l.report("settlement is given up at the stop", e, ackwise.ErrStopping)
		}
	}
	if len(l.busy) == 0 && l.async == 0 {
		l.wg.Wait()
	}
	for c := range l.busy {
		c.cancel(ackwise.ErrStopping)
	}
	l.observe("stopped", nil, ackwise.Event{Err: l.stop.err})
	return l.stop.err
}
