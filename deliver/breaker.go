package deliver

import "time"

// breakerState is what a breaker lets through.
type breakerState uint8

const (
	breakerClosed   breakerState = iota // everything
	breakerOpen                         // nothing
	breakerHalfOpen                     // one delivery at a time
)

// event returns the Observe kind of having come into the state.
func (s breakerState) event() string {
	switch s {
	case breakerClosed:
		return "breaker-closed"
	case breakerOpen:
		return "breaker-open"
	case breakerHalfOpen:
		return "breaker-half-open"
	}
	return "breaker-unknown"
}

// breaker is the state machine of Breaker:
//
//	closed ── failures ──▶ open ── pause over ──▶ half-open ── success ──▶ closed
//	                        ▲                         │
//	                        └── failure, pause × 2 ───┘
//
// It reads no clock. Results of calls that had begun before it opened do not count.
type breaker struct {
	o     Breaker
	state breakerState
	row   int           // failures in a row
	until time.Time     // open: when it becomes half-open
	pause time.Duration // open or half-open: the last pause
	slots [breakerSlots]breakerSlot
}

// breakerSlots is into how many parts the window is cut: it slides by a tenth.
const breakerSlots = 10

type breakerSlot struct {
	number       int64 // which stretch of time it counts
	results, bad int
}

// record counts one result.
func (b *breaker) record(now time.Time, failed bool) {
	switch {
	case b.o.Off || b.state == breakerOpen:
	case b.state == breakerHalfOpen && failed:
		b.open(now, min(2*b.pause, b.o.MaxOpen))
	case b.state == breakerHalfOpen:
		*b = breaker{o: b.o}
	default:
		if b.count(now, failed) {
			b.open(now, b.o.OpenFor)
		}
	}
}

// advance moves an open breaker whose pause is over to half-open.
func (b *breaker) advance(now time.Time) {
	if b.state == breakerOpen && !now.Before(b.until) {
		b.state = breakerHalfOpen
	}
}

func (b *breaker) open(now time.Time, pause time.Duration) {
	*b = breaker{o: b.o, state: breakerOpen, until: now.Add(pause), pause: pause}
}

// count adds a result to the closed breaker's window and reports whether it opens.
func (b *breaker) count(now time.Time, failed bool) bool {
	number := now.UnixNano() / max(int64(b.o.Window)/breakerSlots, 1)
	slot := &b.slots[number%breakerSlots]
	if slot.number != number {
		*slot = breakerSlot{number: number}
	}
	slot.results++
	if !failed {
		b.row = 0
		return false
	}
	b.row++
	slot.bad++
	var results, bad int
	for _, s := range b.slots {
		if s.number > number-breakerSlots {
			results, bad = results+s.results, bad+s.bad
		}
	}
	return b.row >= b.o.Failures ||
		results >= b.o.MinResults && float64(bad) >= b.o.Ratio*float64(results)
}

func (o Breaker) withDefaults() Breaker {
	if o.Failures == 0 {
		o.Failures = 100
	}
	if o.Ratio == 0 {
		o.Ratio = 0.9
	}
	if o.MinResults == 0 {
		o.MinResults = 100
	}
	if o.Window == 0 {
		o.Window = 30 * time.Second
	}
	if o.OpenFor == 0 {
		o.OpenFor = time.Second
	}
	if o.MaxOpen == 0 {
		o.MaxOpen = max(30*time.Second, o.OpenFor)
	}
	return o
}
