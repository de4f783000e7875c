package deliver

import (
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

// returned turns the results of a call into settlements.
func (l *loop) returned(c *call, errs []error, took time.Duration) {
	now := time.Now()
	l.endCall(c)
	if len(errs) != len(c.entries) {
		errs = same(fmt.Errorf("the batch handler returned %d results for %d deliveries: all of "+
			"them count as failed", len(errs), len(c.entries)), len(c.entries))
	}
	for _, e := range c.entries {
		e.state, e.call = waiting, nil
		l.acquit(e)
	}
	// The first failure of a run sends the rest of it back unattempted, or, where the failure is
	// held here, to their places behind it: whatever their own results say.
	broken := make(map[*lane]bool)
	for i, e := range c.entries {
		if e.state != waiting || broken[e.lane] {
			continue
		}
		v := ackwise.OutcomeOf(errs[i])
		l.observe("handled", e,
			ackwise.Event{Outcome: v.Outcome, Duration: took, Err: errs[i]})
		if !l.decide(e, v, errs[i], c.reason) {
			broken[e.lane] = true
		}
		l.score(c, v, now)
	}
	for _, e := range c.entries {
		l.poke(e.lane)
	}
}

// score tells the breaker how a call went.
func (l *loop) score(c *call, v ackwise.Verdict, now time.Time) {
	cutShort := v.Outcome == ackwise.OutcomeNack && c.reason.interrupted()
	if v.Outcome == ackwise.OutcomeSnooze || cutShort {
		return
	}
	if l.breaker.state == breakerHalfOpen && !c.probe {
		return
	}
	l.breaker.record(now, v.Outcome == ackwise.OutcomeNack)
}

// interrupted reports whether a handler was stopped before its time, so that its failure is not
// the message's. One that ran into MaxHandle had its time.
func (r stopReason) interrupted() bool { return r != notStopped && r != byCeiling }

// decide carries one result out and reports whether the run of its key goes on.
func (l *loop) decide(e *entry, v ackwise.Verdict, err error, why stopReason) bool {
	switch {
	case l.o.Guarantee == AtMostOnce:
		if err != nil {
			l.report("delivery failed after its ack: it is lost, as at-most-once says", e, err)
		}
		l.forget(e)
		return true
	case v.Outcome == ackwise.OutcomeAck:
		return l.succeed(e)
	case e.lost:
		// Somebody else may hold it: the source would refuse the result.
		l.report("delivery failed after its lease was lost", e, err)
		l.cut(e)
		l.forget(e)
		return false
	case v.Outcome == ackwise.OutcomeDrop:
		l.conclude(e, ackwise.Settlement{Outcome: v.Outcome, Reason: v.Reason})
		return true
	case v.Outcome == ackwise.OutcomeSnooze:
		l.again(e, ackwise.OutcomeSnooze, max(v.Delay, 0), "")
		return false
	case v.Outcome == ackwise.OutcomeDead && !l.o.NoDeadLetters:
		l.report("delivery rejected", e, err)
		l.bury(e, v.Reason)
		return false
	case why.interrupted():
		l.release(e, "interrupted: "+v.Reason)
		l.cut(e)
		return false
	}
	l.fail(e, v, err)
	return false
}

// succeed acks, unless the handler's own transaction has settled. A success past the lease is
// acked too: the source refuses it and remembers that only the ack was lost.
func (l *loop) succeed(e *entry) bool {
	l.budget.success()
	l.counts.forget(e.d.ID)
	if e.lost {
		l.cut(e)
	}
	if l.o.Guarantee == ExactlyOnce {
		l.observe("settled", e, ackwise.Event{Outcome: ackwise.OutcomeAck})
		l.forget(e)
		return true
	}
	l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeAck})
	return true
}

// fail spends one of the failure budget: again after a delay, or dead.
func (l *loop) fail(e *entry, v ackwise.Verdict, err error) {
	n := l.countFailure(e)
	if n >= l.o.MaxFailures && !l.o.NoDeadLetters {
		l.report("delivery failed for the last time", e, err, "failures", n)
		l.bury(e, v.Reason)
		return
	}
	delay := v.Delay
	if !v.After {
		delay = l.o.Backoff.Delay(n, l.o.Rand())
	}
	if more := l.budget.take(time.Now()); more > 0 {
		delay += more
		l.observe("stretched", e, ackwise.Event{Duration: delay})
	}
	l.report("delivery failed", e, err, "failures", n, "again_after", delay)
	l.again(e, ackwise.OutcomeNack, max(delay, 0), v.Reason)
}

// countFailure returns how many times the message has failed, this time included. A source that
// counts has not heard of the failures since the hand-out, which were held here.
func (l *loop) countFailure(e *entry) int {
	if !l.f.Counts {
		return l.counts.add(e.d.ID)
	}
	e.failures++
	return e.d.Counts.Failures + e.failures
}

// again has e handed out again after a delay: by the source where it can wait that long, else by
// this loop, which holds it meanwhile. The delay of what can be neither is cut to what the source
// can do. Where the source gives a message up after so many hand-outs a retry spends none.
func (l *loop) again(e *entry, o ackwise.Outcome, delay time.Duration, reason string) {
	if (delay > l.f.MaxNackDelay || l.f.MaxHandOuts > 0) && l.canHold(e, delay) {
		l.hold(e, delay)
		return
	}
	l.conclude(e, ackwise.Settlement{Outcome: o, Delay: min(delay, l.f.MaxNackDelay), Reason: reason})
	l.cut(e)
}

// canHold reports whether the loop can keep e for so long.
func (l *loop) canHold(e *entry, delay time.Duration) bool {
	if l.stop.begun || e.revoked || e.lost {
		return false
	}
	due := time.Now().Add(delay)
	if e.leaseEnd.IsZero() {
		return true
	}
	return !due.After(e.ceiling) && (l.f.Extend || due.Before(e.leaseEnd))
}

// hold keeps e at the head of its lane until it is due again.
func (l *loop) hold(e *entry, delay time.Duration) {
	e.state = holding
	e.holds++
	hold := e.holds
	l.observe("held", e, ackwise.Event{Duration: delay})
	l.timers.add(time.Now().Add(delay), func(time.Time) {
		if e.state == holding && e.holds == hold {
			e.state = waiting
			l.poke(e.lane)
		}
	})
}

// giveBack ends what waits in the loop, at a stop, a revocation or its ceiling: what was never
// called is released, what failed is nacked, so that the source can count it.
func (l *loop) giveBack(e *entry, why string) {
	if !e.started {
		l.release(e, why)
	} else {
		l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeNack, Reason: why})
	}
	l.cut(e)
}

// release gives e back unattempted.
func (l *loop) release(e *entry, why string) {
	l.conclude(e, ackwise.Settlement{Outcome: ackwise.OutcomeRelease, Reason: ackwise.CutError(why)})
}

// conclude has one settlement carried out.
func (l *loop) conclude(e *entry, s ackwise.Settlement) {
	e.state = settling
	s.Token = e.d.Token
	l.outbox.add(settlement{e: e, s: s})
}
