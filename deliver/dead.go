package deliver

import (
	"context"
	"fmt"

	"github.com/ackwise/ackwise"
)

// crashed returns why a delivery is dead before its handler is called, "" = it is not. A message
// that kills its process is never settled by it, so this is looked at first. Where the source gives
// messages up by itself the last two hand-outs are kept for writing the dead letter: one of them
// may be cut short.
func (l *loop) crashed(d *ackwise.Delivery) string {
	switch {
	case l.o.Guarantee == AtMostOnce || l.o.NoDeadLetters:
	case d.Counts.Crashes >= l.o.MaxCrashes:
		return fmt.Sprintf("its consumer went down %d times while it was being handled",
			d.Counts.Crashes)
	case l.f.MaxHandOuts > 0 && d.Counts.HandOuts >= max(2, l.f.MaxHandOuts-1):
		return fmt.Sprintf("it is handed out for the %d. time, and the source itself gives a "+
			"message up after %d", d.Counts.HandOuts, l.f.MaxHandOuts)
	case l.unexplained(d) >= l.o.MaxHandOuts:
		return fmt.Sprintf("it was handed out %d times before, and nobody has said how that ended",
			l.unexplained(d))
	}
	return ""
}

// handOutsOnly reports whether the source knows how often a message was handed out, and not why.
func (l *loop) handOutsOnly() bool { return l.f.HandOuts && !l.f.Counts }

// unexplained returns how many hand-outs of d ended in a way that nobody has told, where the source
// says no more than how many there were.
func (l *loop) unexplained(d *ackwise.Delivery) int {
	if !l.handOutsOnly() {
		return 0
	}
	return d.Counts.HandOuts - 1 - l.counts.back(d.ID)
}

// suspicious reports whether d may be what ended its consumers. Where only hand-outs are counted, a
// crash is counted against everything that was in flight, and would in the end make dead letters of
// innocents. So d runs alone from a third of the budget on (2 at least, 10 at most): from there on
// only what ends its consumer alone goes on counting. An innocent one, which other processes failed
// or gave back often, is acked a little later.
func (l *loop) suspicious(d *ackwise.Delivery) bool {
	budget := l.o.MaxHandOuts
	if own := l.f.MaxHandOuts; own > 0 {
		budget = min(budget, own)
	}
	return l.unexplained(d) >= min(max(budget/3, 2), 10)
}

// isolate gives back what waits beside the suspect e, and reports whether e is alone. What is held
// for its retry stays: it has not ended its consumer. Where giving back spends what the source
// allows, the others only wait. The source of a d.Suspect isolates by itself.
func (l *loop) isolate(e *entry) bool {
	if !l.handOutsOnly() || l.f.MaxHandOuts > 0 {
		return true
	}
	alone := true
	for _, o := range l.inOrder() {
		if o == e || o.state == holding {
			continue
		}
		alone = false
		if o.state == waiting {
			l.giveBack(o, "a suspect runs alone")
		}
	}
	return alone
}

// acquit takes the suspicion off a delivery whose handler has returned.
func (l *loop) acquit(e *entry) {
	if e.suspect && !e.d.Suspect {
		e.suspect = false
		l.suspects--
	}
}

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
