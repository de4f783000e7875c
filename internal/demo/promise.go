package demo

import (
	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
)

// minAllKills is how many kills a demo has at least.
const minAllKills = 10

// check holds what was seen against what is promised.
func (r *Report) check(flights []Flight) {
	for i := range r.Runs {
		r.checkRun(&r.Runs[i])
	}
	r.checkShuffled()
	if r.Shared.Lost > 0 {
		r.broken("the shared log: %d flights lost", r.Shared.Lost)
	}
	if r.Order.Violations > 0 {
		r.broken("%d deliveries out of the order of their key", r.Order.Violations)
	}
	all := map[string]bool{}
	for i := range flights {
		all[flights[i].Key] = true
	}
	delete(all, "")
	if r.Order.Keys != len(all) {
		r.broken("%d aircraft were delivered, there are %d", r.Order.Keys, len(all))
	}
	r.checkLedger()
	r.checkFaults()
}

func (r *Report) checkRun(n *RunReport) {
	name := n.Guarantee + ", " + n.Pattern
	switch {
	case n.Guarantee == deliver.AtMostOnce.String():
		if n.Lost == 0 {
			r.broken("%s: nothing was lost, though consumers were killed at work", name)
		}
	case n.Lost > 0:
		r.broken("%s: %d flights lost", name, n.Lost)
	case n.Pattern == patternNone && (n.Duplicates == 0 || n.Miles == r.TruthMiles):
		r.broken("%s: %d duplicates, %d miles: a plain increment has to show the repeats", name,
			n.Duplicates, n.Miles)
	case n.Wrong > 0:
		r.broken("%s: %d values of its table are wrong", name, n.Wrong)
	case n.Pattern != patternNone && !n.Exact:
		r.broken("%s: the sum is not exact", name)
	case n.Pattern == patternUpsert && n.Overtaken == 0:
		r.broken("%s: no flight was overtaken, so that it showed nothing", name)
	}
}

// checkShuffled holds the two runs of the shuffled flights against each other: what the resequencer
// repairs has to be broken without it.
func (r *Report) checkShuffled() {
	for _, n := range r.Shuffled {
		switch {
		case n.Lost > 0:
			r.broken("shuffled, resequencer %t: %d flights lost", n.Resequencer, n.Lost)
		case n.Resequencer && (!n.Exact || n.OutOfOrder > 0):
			r.broken("shuffled, with the resequencer: %d aircraft are elsewhere, %d deliveries out "+
				"of order", n.Wrong, n.OutOfOrder)
		case !n.Resequencer && (n.Exact || n.OutOfOrder == 0):
			r.broken("shuffled, without the resequencer: the order was not lost")
		}
	}
	if len(r.Shuffled) != shuffledRuns {
		r.broken("%d shuffled runs, there are %d", len(r.Shuffled), shuffledRuns)
	}
}

func (r *Report) checkLedger() {
	l := r.Ledger
	if !l.Balanced {
		r.broken("the books do not balance")
	}
	if l.Accepted != int64(len(r.Runs)*r.Events) || l.Acked != l.Accepted {
		r.broken("the books: %d accepted and %d acked of %d", l.Accepted, l.Acked,
			len(r.Runs)*r.Events)
	}
	if left := l.Ready + l.Delayed + l.InFlight + l.Parked + l.Dead + l.Dropped; left > 0 {
		r.broken("the books: %d messages are left over or dropped", left)
	}
	if r.Causes[ackwise.CauseFirst] != l.Accepted {
		r.broken("the books: %d first hand-outs of %d messages", r.Causes[ackwise.CauseFirst],
			l.Accepted)
	}
}

// checkFaults holds the injected faults against the counted ones. A kill or a move hands out again
// all that was in flight, so that these two counts need not be equal.
func (r *Report) checkFaults() {
	if r.Kills < minAllKills {
		r.broken("%d kills, at least %d are planned", r.Kills, minAllKills)
	}
	sources := map[string]int64{}
	for c, n := range r.Causes {
		sources[c.DuplicateSource()] += n
	}
	for _, c := range []ackwise.Cause{ackwise.CauseConsumerLost, ackwise.CauseAckLost,
		ackwise.CauseProducedAgain, ackwise.CauseRedriven, ackwise.CauseRebalanced} {
		if sources[c.DuplicateSource()] == 0 {
			r.broken("no duplicate from the source %s", c.DuplicateSource())
		}
	}
	in, of := r.Injected, r.Counted
	// A busy machine's own late ack is among the unsure, unless its consumer was killed before it
	// wrote that down.
	if of.AcksLost < in.AcksLost || of.AcksLost > in.AcksLost+r.Unsure+r.Kills {
		r.broken("%d acks were lost, the engine counts %d", in.AcksLost, of.AcksLost)
	}
	if of.ProducedAgain != in.ProducedAgain {
		r.broken("%d messages were produced again, the engine counts %d", in.ProducedAgain,
			of.ProducedAgain)
	}
	if of.Requeued != in.Requeued {
		r.broken("%d dead letters were requeued, the engine counts %d hand-outs", in.Requeued,
			of.Requeued)
	}
}
