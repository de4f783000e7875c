package demo

import (
	"context"
	"errors"

	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queueorder"
)

// patternArrival is what goes wrong with an order that is lost: an aircraft is where the flight
// that came last has ended. It is the effect of the shuffled runs.
const patternArrival = "arrival"

const (
	topicShuffled    = "shuffled"    // consumed as it is
	topicResequenced = "resequenced" // what the resequencer makes of topicUnordered
	topicUnordered   = "unordered"
	subResequencer   = "resequencer"
)

// shuffledRuns is how many runs shuffle makes.
const shuffledRuns = 2

// shuffle makes the two runs of the flights in another order, without and with a resequencer, while
// consumers are killed and leave. Their messages are not in the ledger, and their faults not in the
// sums of the other runs.
func (d *demo) shuffle(ctx context.Context) error {
	for _, resequencer := range []bool{false, true} {
		number := len(kinds()) + len(d.report.Shuffled)
		r := d.newRun(number, d.flights)
		r.guarantee, r.pattern, r.name = deliver.AtLeastOnce, patternArrival, topicShuffled
		r.plan = newPlan(d.o.Seed, number, d.flights, false)
		r.plan.unheard = nil
		name := "shuffled"
		if resequencer {
			r.name, r.repaired, name = topicResequenced, true, "shuffled, resequenced"
		}
		r.sent = displaced(d.o.Seed, d.flights) // the same order for both
		r.tell, r.over = d.teller(name, len(d.flights))
		if err := r.do(ctx); err != nil {
			return err
		}
		v := &r.verdict
		d.report.Shuffled = append(d.report.Shuffled, ShuffledReport{Resequencer: resequencer,
			Lost: v.lost, Exact: v.lost == 0 && v.elsewhere == 0 && v.strangers == 0,
			Delivered: v.delivered, OutOfOrder: v.violations, Wrong: v.elsewhere,
			Kills: r.did.Kills})
	}
	return nil
}

// into is the topic that the run publishes to.
func (r *run) into() string {
	if r.repaired {
		return topicUnordered
	}
	return r.topic()
}

// resequence makes what the resequencer needs, and returns it.
func (r *run) resequence(ctx context.Context) (*queueorder.Resequencer, error) {
	err := r.store.CreateTopic(ctx, topicUnordered, queue.TopicOptions{})
	if err == nil {
		err = r.store.CreateSubscription(ctx, topicUnordered, subResequencer,
			queue.SubscriptionOptions{})
	}
	if err != nil {
		return nil, err
	}
	return queueorder.Open(ctx, r.store, queueorder.Options{Topic: topicUnordered,
		Subscription: subResequencer, Out: r.topic()})
}

// repair runs the resequencer, if the run has one, until the end that is returned is called. It
// tells of an error at once.
func (r *run) repair(ctx context.Context, failed chan<- error) (end func() error, err error) {
	if !r.repaired {
		return func() error { return nil }, nil
	}
	q, err := r.resequence(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	r.waiting.Go(func() { // ends with cancel
		err := q.Run(ctx)
		if err == nil && ctx.Err() == nil {
			err = errors.New("the resequencer ended by itself")
		}
		if err != nil {
			failed <- err
		}
		done <- err
	})
	return func() error {
		cancel()
		return <-done
	}, nil
}
