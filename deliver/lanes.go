package deliver

import (
	"context"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// state is where a held delivery is in the loop.
type state uint8

const (
	waiting  state = iota // in its lane, until it is at the head and there is room
	working               // in a call: its early ack, the handler or its dead letter is under way
	holding               // waits in the loop until it is due again
	settling              // its settlement is under way
	gone                  // no longer held
)

// entry is one held delivery. All fields belong to the loop's goroutine.
type entry struct {
	d       *ackwise.Delivery
	lane    *lane
	serial  uint64 // order of receipt
	index   int    // its place in loop.held
	suspect bool   // runs alone
	state   state
	call    *call // while working

	failures int    // in this hand-out, on top of what the source or the memory counted
	started  bool   // its handler was called
	dead     string // not "": why it is to become a dead letter
	deadRow  int    // attempts to write the dead letter
	holds    int    // times held, so that an old timer is known as such

	leaseEnd  time.Time // by our clock; zero = none
	extendAt  time.Time // when the next heartbeat is due
	ceiling   time.Time // from when on it is not extended; zero = none yet
	extending bool
	revoked   bool
	lost      bool
	expired   bool // past its ceiling, and told so
}

// call is one call of the handler, or the writing of one dead letter.
type call struct {
	entries []*entry
	pending int    // early acks that are not answered yet
	begin   func() // calls the handler after them
	cancel  context.CancelCauseFunc
	probe   bool // the half-open breaker's
	reason  stopReason
	stuck   bool
	over    bool
}

// stopReason says why a call's context was ended early.
type stopReason uint8

const (
	notStopped stopReason = iota
	byStop                // Run stops
	byRevoke              // the source wants a delivery back
	byLoss                // a lease is lost
	byCeiling             // MaxHandle is over
)

// lane is what is handled one after another: the messages of a key, of a partition, or one message.
type lane struct {
	key    string // "" = of this message alone
	queue  []*entry
	one    [1]*entry // where the queue begins: most are no longer
	queued bool      // in loop.ready
}

func newLane(key string) *lane {
	a := &lane{key: key}
	a.queue = a.one[:0]
	return a
}

// laneOf returns the lane of a delivery, a new one where there is none.
func (l *loop) laneOf(d *ackwise.Delivery) *lane {
	var key string
	switch l.f.Order {
	case ackwise.OrderNone:
		return newLane("")
	case ackwise.OrderKey:
		if d.Key == "" {
			return newLane("")
		}
		key = d.Key
	case ackwise.OrderPartition:
		key = "p" + d.Partition
	}
	if a := l.lanes[key]; a != nil {
		return a
	}
	a := newLane(key)
	l.lanes[key] = a
	return a
}

// admit takes a received delivery into its lane.
func (l *loop) admit(d *ackwise.Delivery, now time.Time) {
	l.serial++
	e := &entry{d: d, serial: l.serial, index: len(l.held), lane: l.laneOf(d)}
	l.held = append(l.held, e)
	e.dead = l.crashed(d)
	if e.suspect = d.Suspect || e.dead == "" && l.suspicious(d); e.suspect {
		l.suspects++
	}
	l.lease(e, now)
	e.lane.queue = append(e.lane.queue, e)
	l.poke(e.lane)
}

// poke puts a lane whose head waits among the ready ones.
func (l *loop) poke(a *lane) {
	if len(a.queue) > 0 && a.queue[0].state == waiting && !a.queued {
		a.queued = true
		l.ready = append(l.ready, a)
	}
}

// head returns the entry that is next to start, nil = none.
func (l *loop) head() *entry {
	for len(l.ready) > 0 {
		a := l.ready[0]
		if len(a.queue) > 0 && a.queue[0].state == waiting {
			return a.queue[0]
		}
		l.dropReady()
	}
	return nil
}

// suspectsLast lets what else is ready start before the suspects, so that little has to go back.
func (l *loop) suspectsLast() {
	if l.suspects == 0 {
		return
	}
	last := func(a *lane) int {
		if len(a.queue) > 0 && a.queue[0].suspect {
			return 1
		}
		return 0
	}
	slices.SortStableFunc(l.ready, func(a, b *lane) int { return last(a) - last(b) })
}

func (l *loop) dropReady() {
	l.ready[0].queued = false
	l.ready[0] = nil
	l.ready = l.ready[1:]
}

// forget ends the loop's hold on an entry. The lane goes on behind it.
func (l *loop) forget(e *entry) {
	if e.state == gone {
		return
	}
	e.state = gone
	if e.suspect {
		l.suspects--
	}
	last := l.held[len(l.held)-1]
	l.held[e.index], last.index = last, e.index
	l.held[len(l.held)-1] = nil
	l.held = l.held[:len(l.held)-1]
	a := e.lane
	if i := slices.Index(a.queue, e); i == 0 {
		a.queue[0] = nil
		a.queue = a.queue[1:]
	} else if i > 0 {
		a.queue = slices.Delete(a.queue, i, i+1)
	}
	if len(a.queue) == 0 && a.key != "" && l.lanes[a.key] == a {
		delete(l.lanes, a.key)
	}
	l.poke(a)
}

// cut gives back, unattempted, all that waits behind e in its lane: e itself goes back to the
// source or is lost, and nothing may overtake it. The lane leaves the map, so that what the
// source hands out again of its key does not queue behind what is being given back.
func (l *loop) cut(e *entry) {
	a := e.lane
	if a.key == "" {
		return
	}
	i := slices.Index(a.queue, e)
	behind := slices.Clone(a.queue[i+1:])
	if i == 0 && l.lanes[a.key] == a {
		delete(l.lanes, a.key)
	}
	for _, b := range behind {
		if b.state == waiting {
			l.release(b, "an earlier message of its key went back")
		}
	}
}
