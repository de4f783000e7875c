package deliver

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// sweepEvery is how often the loop looks at what it holds: for revoked and lost deliveries, for
// leases to extend and for ceilings. With short leases it is an eighth of the lease.
const sweepEvery = 100 * time.Millisecond

func (l *loop) sweepInterval() time.Duration {
	if l.f.Lease > 0 {
		return min(sweepEvery, l.f.Lease/8)
	}
	return sweepEvery
}

// lease starts the clock of a delivery's lease. Deadline is written by the source's clock; where
// ours disagrees so far that it seems over already, the lease is asked about at once instead.
func (l *loop) lease(e *entry, now time.Time) {
	if e.d.Deadline.IsZero() || l.f.Lease <= 0 {
		return
	}
	l.renew(e, now, e.d.Deadline)
	if !e.d.Deadline.After(now) {
		e.extendAt = now
	}
	e.ceiling = now.Add(l.o.MaxHandle)
}

// renew notes a lease that was given at from. A heartbeat is due when half of it is over: there is
// time for several more if one fails.
func (l *loop) renew(e *entry, from, deadline time.Time) {
	e.leaseEnd = from.Add(l.f.Lease)
	if deadline.After(from) && deadline.Before(e.leaseEnd) {
		e.leaseEnd = deadline
	}
	e.extendAt = from.Add(e.leaseEnd.Sub(from) / 2)
}

// startCeiling bounds a handler call where there is no lease that would.
func (l *loop) startCeiling(e *entry, now time.Time) {
	if e.leaseEnd.IsZero() {
		e.ceiling, e.expired = now.Add(l.o.MaxHandle), false
	}
}

// sweep looks at everything that is held, in the order of receipt.
func (l *loop) sweep(now time.Time) {
	if len(l.held) == 0 {
		l.sweepAt = time.Time{}
		return
	}
	if l.sweepAt.IsZero() {
		l.sweepAt = now.Add(l.sweepInterval())
		return
	}
	if now.Before(l.sweepAt) {
		return
	}
	l.sweepAt = now.Add(l.sweepInterval())
	var restless, due []*entry
	for _, e := range l.held {
		if e.restless(now) {
			restless = append(restless, e)
		}
	}
	for _, e := range byReceipt(restless) {
		if l.look(e, now) {
			due = append(due, e)
		}
	}
	l.extend(due, now)
}

// restless reports whether a look at e may change something.
func (e *entry) restless(now time.Time) bool {
	past := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	revoked, lost := e.d.Marked()
	return revoked || lost || past(e.leaseEnd) || past(e.ceiling) ||
		!e.leaseEnd.IsZero() && !now.Before(e.extendAt)
}

// inOrder returns what is held, in the order of receipt.
func (l *loop) inOrder() []*entry { return byReceipt(slices.Clone(l.held)) }

func byReceipt(all []*entry) []*entry {
	slices.SortFunc(all, func(a, b *entry) int { return cmp.Compare(a.serial, b.serial) })
	return all
}

// look looks at one entry and reports whether its lease is to be extended.
func (l *loop) look(e *entry, now time.Time) bool {
	if e.state == gone {
		return false
	}
	leased := !e.leaseEnd.IsZero()
	revoked, lost := e.d.Marked()
	if !e.lost && (leased && !now.Before(e.leaseEnd) || lost) {
		l.lose(e)
	}
	if e.state == gone || e.lost {
		return false
	}
	if !e.revoked && revoked {
		l.revoke(e, now)
	}
	if !e.ceiling.IsZero() && !now.Before(e.ceiling) {
		l.expire(e, now)
		return false
	}
	return leased && l.f.Extend && !e.extending && !now.Before(e.extendAt)
}

// lose ends the work on a delivery whose lease is gone.
func (l *loop) lose(e *entry) {
	e.d.MarkLost()
	if e.lost || e.state == waiting && l.behindWork(e) {
		return // in the second case it is looked at again when it is at the head
	}
	e.lost = true
	l.observe("lease-lost", e, ackwise.Event{Err: ackwise.ErrLeaseLost})
	l.cut(e)
	switch e.state {
	case waiting, holding:
		l.forget(e)
	case working:
		l.interrupt(e.call, byLoss, ackwise.ErrLeaseLost, time.Now())
	case settling, gone:
	}
}

// revoke gives back what has not started and gives the rest RevokeGrace. What waits behind one of
// its key that is at work goes back after it.
func (l *loop) revoke(e *entry, now time.Time) {
	if e.state == waiting && l.behindWork(e) {
		return
	}
	e.revoked = true
	l.observe("revoked", e, ackwise.Event{})
	switch e.state {
	case waiting, holding:
		l.giveBack(e, "revoked by the source")
	case working:
		c := e.call
		l.timers.add(now.Add(max(l.o.RevokeGrace, 0)), func(now time.Time) {
			l.interrupt(c, byRevoke, ackwise.ErrLeaseLost, now)
		})
	case settling, gone:
	}
}

// expire ends the hold on a delivery that was held for MaxHandle.
func (l *loop) expire(e *entry, now time.Time) {
	if e.expired {
		return
	}
	switch e.state {
	case waiting, holding:
		if e.leaseEnd.IsZero() || l.behindWork(e) {
			return // without a lease the ceiling is a handler call's alone
		}
		l.giveBack(e, "held for as long as Options.MaxHandle allows")
	case working:
		l.interrupt(e.call, byCeiling, ackwise.ErrLeaseLost, now)
	case settling, gone:
	}
	e.expired = true
}

// extend sends the heartbeats that are due, in one call, beside the settlements: a slow settle
// starves no lease. Only one such call runs at a time, for at most a quarter of a lease.
func (l *loop) extend(due []*entry, now time.Time) {
	if len(due) == 0 {
		return
	}
	batch := make([]settlement, len(due))
	for i, e := range due {
		e.extending = true
		batch[i] = settlement{e: e, s: ackwise.Settlement{
			Token: e.d.Token, Outcome: ackwise.OutcomeExtend}}
	}
	l.spawn(func() func() {
		ctx, cancel := context.WithTimeout(l.base, l.f.Lease/4)
		defer cancel()
		results := l.settle(ctx, batch)
		return func() { l.extended(due, answers(results, len(due)), now) }
	})
}

// extended takes the answers to heartbeats that were sent at from.
func (l *loop) extended(due []*entry, results []ackwise.SettleResult, from time.Time) {
	for i, e := range due {
		e.extending = false
		r := results[i]
		switch {
		case e.state == gone || e.leaseEnd.IsZero(): // settled meanwhile, perhaps by an early ack
		case r.Err == nil:
			l.renew(e, from, r.Deadline)
		case errors.Is(r.Err, ackwise.ErrLeaseLost) && e.state != settling:
			l.lose(e)
		case e.state != settling:
			e.extendAt = time.Now().Add(l.f.Lease / 8)
			l.observe("extend-failed", e, ackwise.Event{Err: r.Err})
		}
	}
}
