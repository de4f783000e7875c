package ackwise

import (
	"strconv"
	"sync"
	"time"
)

// LeaseToken is how a settlement names the hand-out it ends, and the fence: it holds a generation
// that only grows, so that a consumer past its lease cannot settle for the one that holds it now.
// It is opaque; every source writes its own.
type LeaseToken string

// Position says how far: opaque outside its source, and ordered by < within one partition.
type Position string

// Attempt is the record of one past hand-out in a delivery's history.
type Attempt struct {
	Number   int           `json:"number"`          // the hand-out's ordinal, from 1
	Time     time.Time     `json:"time"`            // when it was handed out
	Consumer string        `json:"consumer"`        // the session that held it
	Cause    Cause         `json:"cause"`           // why it was handed out
	Outcome  string        `json:"outcome"`         // how it ended: an Outcome's word or a Cause's
	Error    string        `json:"error,omitempty"` // what the handler said, cut at MaxErrorBytes
	Duration time.Duration `json:"duration"`        // from hand-out to its end, in nanoseconds
}

// Counts are what a source has counted of one message on one subscription, this hand-out included.
type Counts struct {
	HandOuts int `json:"hand_outs"` // every hand-out
	Failures int `json:"failures"`  // nacks: spent from the failure budget
	Crashes  int `json:"crashes"`   // crashes charged: spent from the crash budget
	Redrives int `json:"redrives"`  // times brought back from the dead letters
}

// Delivery is one hand-out of a message to a handler. It is passed by pointer and never copied.
//
// A source fills the exported fields before it returns the delivery and never changes them after.
// History holds the past attempts, oldest first, bounded by the source.
type Delivery struct {
	Message
	Attempt   int        // ordinal of this hand-out, from 1
	Counts    Counts     // zero where the source has neither Features.Counts nor HandOuts
	Cause     Cause      // why it was handed out
	History   []Attempt  // past attempts, oldest first
	Token     LeaseToken // names this hand-out in a Settlement
	Deadline  time.Time  // when the lease runs out; zero = it does not
	Partition string     // the ordered part of the source it came from; "" = the only one
	Position  Position   // its place in the partition
	Epoch     int        // times an operator ordered the effect again (redo)
	Suspect   bool       // it was in flight beside others when its consumer died: run it alone

	revoked, lost latch
}

// DedupKey is what effects are deduplicated by: the ID, or ID#epoch after a redo.
func (d *Delivery) DedupKey() string {
	if d.Epoch == 0 {
		return d.ID
	}
	return d.ID + "#" + strconv.Itoa(d.Epoch)
}

// Redelivered reports whether the message may have been handed out before.
func (d *Delivery) Redelivered() bool { return d.Cause != CauseFirst }

// Revoked returns a channel that is closed when the source wants the delivery back: finish soon,
// or it is released.
func (d *Delivery) Revoked() <-chan struct{} { return d.revoked.done() }

// Lost returns a channel that is closed when the lease is gone: somebody else may hold the message
// by now. A handler's context then ends with cause ErrLeaseLost.
func (d *Delivery) Lost() <-chan struct{} { return d.lost.done() }

// Marked reports whether Revoked and Lost are closed. It costs less than the channels do.
func (d *Delivery) Marked() (revoked, lost bool) { return d.revoked.closed(), d.lost.closed() }

// MarkRevoked closes Revoked. It is for sources and may be called more than once.
func (d *Delivery) MarkRevoked() { d.revoked.close() }

// MarkLost closes Lost. It is for sources and the loop, and may be called more than once.
func (d *Delivery) MarkLost() { d.lost.close() }

// latch is a one-way switch. Its channel is made when somebody first looks, so that the many
// deliveries nobody looks at cost none.
type latch struct {
	mu  sync.Mutex // guards the fields below; held for a few instructions only
	ch  chan struct{}
	set bool
}

func (l *latch) done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ch == nil {
		l.ch = make(chan struct{})
		if l.set {
			close(l.ch)
		}
	}
	return l.ch
}

func (l *latch) closed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.set
}

func (l *latch) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.set && l.ch != nil {
		close(l.ch)
	}
	l.set = true
}
