package deliver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// settleBackoff spaces the attempts to settle.
const (
	settleBackoffFirst = 50 * time.Millisecond
	settleBackoffCap   = 5 * time.Second
)

// settlement is one that waits to be carried out, or is.
type settlement struct {
	e         *entry
	s         ackwise.Settlement
	early     bool // the ack before the handler, of AtMostOnce
	tries     int
	notBefore time.Time
}

// outbox collects settlements while one Settle call runs; the next call takes all of them.
type outbox struct {
	waiting []settlement
	running bool
}

func (o *outbox) add(s settlement) {
	if s.early {
		s.s = ackwise.Settlement{Token: s.e.d.Token, Outcome: ackwise.OutcomeAck}
	}
	o.waiting = append(o.waiting, s)
}

// due returns when the first one that waits for its next attempt may be sent; zero = none waits,
// or a call is running whose end will wake the loop.
func (o *outbox) due(now time.Time) time.Time {
	var first time.Time
	if o.running {
		return first
	}
	for _, s := range o.waiting {
		if s.notBefore.After(now) && (first.IsZero() || s.notBefore.Before(first)) {
			first = s.notBefore
		}
	}
	return first
}

// take returns what may be sent, and what may not yet.
func (o *outbox) take(now time.Time) (batch, later []settlement) {
	wait := func(s settlement) bool { return s.notBefore.After(now) }
	if !slices.ContainsFunc(o.waiting, wait) {
		return o.waiting, make([]settlement, 0, len(o.waiting))
	}
	for _, s := range o.waiting {
		if wait(s) {
			later = append(later, s)
		} else {
			batch = append(batch, s)
		}
	}
	return batch, later
}

// flush sends what may be sent.
func (l *loop) flush(now time.Time) {
	o := &l.outbox
	if o.running || len(o.waiting) == 0 {
		return
	}
	batch, later := o.take(now)
	if len(batch) == 0 {
		return
	}
	o.waiting, o.running = later, true
	l.spawn(func() func() {
		ctx, cancel := context.WithTimeout(l.base, l.o.SettleTimeout)
		defer cancel()
		results := l.settle(ctx, batch)
		return func() { l.settled(batch, answers(results, len(batch))) }
	})
}

// settleSource settles at the loop's source.
func (l *loop) settleSource(ctx context.Context, batch []settlement) []ackwise.SettleResult {
	ss := make([]ackwise.Settlement, len(batch))
	for i := range batch {
		ss[i] = batch[i].s
	}
	return l.src.Settle(ctx, ss)
}

// answers makes sure that there is one result for each settlement: an answer that cannot be
// assigned is no answer.
func answers(results []ackwise.SettleResult, n int) []ackwise.SettleResult {
	if len(results) == n {
		return results
	}
	err := fmt.Errorf("the source gave %d results for %d settlements", len(results), n)
	results = make([]ackwise.SettleResult, n)
	for i := range results {
		results[i].Err = err
	}
	return results
}

// settled takes the answers to a Settle call.
func (l *loop) settled(batch []settlement, results []ackwise.SettleResult) {
	l.outbox.running = false
	now := time.Now()
	for i, s := range batch {
		err := results[i].Err
		switch {
		case err == nil:
			l.carriedOut(s)
		case errors.Is(err, ackwise.ErrLeaseLost):
			if !s.e.lost {
				s.e.d.MarkLost()
				l.observe("lease-lost", s.e, ackwise.Event{Outcome: s.s.Outcome, Err: err})
			}
			l.giveUp(s)
		case l.mayTryAgain(s, err, now):
			l.observe("settle-failed", s.e, ackwise.Event{Outcome: s.s.Outcome, Err: err})
			s.tries++
			b := Backoff{First: settleBackoffFirst, Factor: 2, Cap: settleBackoffCap}
			s.notBefore = now.Add(b.Delay(s.tries, (1+l.o.Rand())/2))
			l.outbox.waiting = append(l.outbox.waiting, s)
		default:
			l.observe("unsettled", s.e, ackwise.Event{Outcome: s.s.Outcome, Err: err})
			l.report("settlement is given up", s.e, err, "outcome", s.s.Outcome.String())
			l.giveUp(s)
		}
	}
}

// mayTryAgain tells an answer that another attempt may change. ErrRunOrder is one: what it waits
// for is being tried again too.
func (l *loop) mayTryAgain(s settlement, err error, now time.Time) bool {
	for _, final := range []error{ackwise.ErrSettled, ackwise.ErrBadToken, ackwise.ErrClosed} {
		if errors.Is(err, final) {
			return false
		}
	}
	if s.e.lost {
		return false
	}
	return s.e.leaseEnd.IsZero() || now.Before(s.e.leaseEnd)
}

// carriedOut ends the loop's hold on what is settled, or begins the work after an early ack.
func (l *loop) carriedOut(s settlement) {
	l.observe("settled", s.e, ackwise.Event{Outcome: s.s.Outcome})
	if s.early {
		l.acked(s.e, true)
		return
	}
	switch s.s.Outcome {
	case ackwise.OutcomeDead:
		l.observe("dead", s.e, ackwise.Event{Outcome: s.s.Outcome})
	case ackwise.OutcomeNack, ackwise.OutcomeSnooze, ackwise.OutcomeRelease:
		if l.handOutsOnly() {
			l.counts.gaveBack(s.e.d.ID)
		}
	case ackwise.OutcomeAck, ackwise.OutcomeExtend, ackwise.OutcomeDrop:
	}
	l.forget(s.e)
}

// giveUp leaves to its lease what cannot be settled: it is not done, and comes again.
func (l *loop) giveUp(s settlement) {
	s.e.lost = true
	if s.early {
		l.acked(s.e, false)
		return
	}
	l.cut(s.e)
	l.forget(s.e)
}
