package deliver

import "time"

// linger is the state of a call that waits for more deliveries:
//
//	since: something is ready, a slot is free ── Linger ──▶ due: the call begins with what there is
//	  └── BatchSize are ready, or no more can come: the call begins
type linger struct {
	since time.Time // when the call could have begun first; zero = none could
	due   time.Time // when it begins at the latest; zero = no call waits
}

// lingers reports whether the call that e would begin waits for more.
func (l *loop) lingers(e *entry, now time.Time) bool {
	if l.o.Linger == 0 || l.o.BatchSize == 1 || !plain(e) || !l.moreMayCome() ||
		l.readyFor(l.o.BatchSize) {
		return false
	}
	if l.linger.since.IsZero() {
		l.linger.since = now
	}
	due := l.linger.since.Add(l.o.Linger)
	if !now.Before(due) {
		return false
	}
	l.linger.due = due
	return true
}

// moreMayCome reports whether waiting can make a batch larger.
func (l *loop) moreMayCome() bool {
	return !l.fetch.ended && l.suspects == 0 && l.breaker.state == breakerClosed &&
		len(l.held) < l.o.MaxInFlight
}

// readyFor reports whether a call of n deliveries would be full.
func (l *loop) readyFor(n int) bool {
	for _, a := range l.ready {
		for _, e := range a.queue {
			if e.state != waiting || !plain(e) {
				break
			}
			if n--; n == 0 {
				return true
			}
		}
	}
	return false
}
