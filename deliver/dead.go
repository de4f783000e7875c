package deliver

import (
	"context"
	"fmt"

	"github.com/ackwise/ackwise"
)

// crashed returns why a delivery is dead before its handler is called, "" = it is not. A message
// that kills its process is never settled by it, so this is looked at first.
func (l *loop) crashed(d *ackwise.Delivery) string {
	switch {
	case l.o.Guarantee == AtMostOnce || l.o.NoDeadLetters:
	case d.Counts.Crashes >= l.o.MaxCrashes:
		return fmt.Sprintf("its consumer went down %d times while it was being handled",
			d.Counts.Crashes)
	case l.handOutsOnly():
		if n := d.Counts.HandOuts - 1 - l.counts.back(d.ID); n >= l.o.MaxHandOuts {
			return fmt.Sprintf("it was handed out %d times before, and nobody has said how that "+
				"ended", n)
		}
	}
	return ""
}

// handOutsOnly reports whether the source knows how often a message was handed out, and not why.
func (l *loop) handOutsOnly() bool { return l.f.HandOuts && !l.f.Counts }

// bury makes e a dead letter: by the source in one step where it can, else by a call of its own
// that writes the dead letter, after which e is acked.
func (l *loop) bury(e *entry, reason string) {
	if reason == "" {
		reason = "no reason given"
	}
	switch {
	case l.f.Dead:
		l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeDead, Reason: reason})
		l.cut(e)
	case l.stop.begun || e.revoked:
		l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeNack, Reason: reason})
		l.cut(e)
	default:
		e.dead, e.state = reason, waiting
		l.poke(e.lane)
	}
}

// writeDead puts the dead letter beside the loop.
func (l *loop) writeDead(ctx context.Context, c *call, e *entry) {
	if l.f.Dead { // its crash budget is spent
		l.endCall(c)
		l.bury(e, e.dead)
		return
	}
	put := func(ctx context.Context, ds []*ackwise.Delivery) []error {
		return []error{l.o.DeadLetters.Put(ctx, ds[0], e.dead)}
	}
	l.beside(ctx, []*ackwise.Delivery{e.d}, put, func(errs []error) {
		l.wroteDead(c, e, errs[0])
	})
}

// wroteDead acks the message whose dead letter is durable. Where it is not, the message stays, and
// its key waits, until it can be written.
func (l *loop) wroteDead(c *call, e *entry, err error) {
	l.endCall(c)
	e.call = nil
	if err == nil {
		l.observe("dead", e, ackwise.Event{Outcome: ackwise.OutcomeDead})
		l.counts.forget(e.d.ID)
		l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeAck, Reason: e.dead})
		return
	}
	e.deadRow++
	delay := l.o.Backoff.Delay(e.deadRow, l.o.Rand())
	l.observe("dead-letter-failed", e, ackwise.Event{Err: err})
	l.report("dead letter is not written", e, err, "again_after", delay)
	switch {
	case e.lost:
		l.cut(e)
		l.forget(e)
	case l.canHold(e, delay):
		l.hold(e, delay)
	default:
		l.giveBack(e, e.dead)
	}
}
