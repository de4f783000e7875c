package lambda

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/ackwise/ackwise"
)

// run is the handler of one event.
type run struct {
	o      Options
	memory *memory

	mu      sync.Mutex // guards the fields below
	givenUp map[*ackwise.Delivery]string
	stuck   map[string]bool // keys of what was given up
}

var errBehind = errors.New("an earlier message of its key was given up")

// Handle calls the handler, unless the message was handed out too often or must wait for one before
// it.
func (r *run) Handle(ctx context.Context, d *ackwise.Delivery) error {
	if err := r.refuse(d); err != nil {
		return err
	}
	err := r.o.Handler.Handle(ctx, d)
	r.count(ctx, d, err)
	return err
}

// HandleBatch is Handle for a handler of batches.
func (r *run) HandleBatch(ctx context.Context, ds []*ackwise.Delivery) []error {
	errs := make([]error, len(ds))
	var pass []*ackwise.Delivery
	var at []int
	refused := map[string]bool{} // keys
	for i, d := range ds {
		if d.Key != "" && refused[d.Key] {
			// The loop gives it again when the one before it is a dead letter; not twice.
			errs[i] = ackwise.Snooze(0)
			continue
		}
		if errs[i] = r.refuse(d); errs[i] == nil {
			pass, at = append(pass, d), append(at, i)
			continue
		}
		refused[d.Key] = true
	}
	if len(pass) == 0 {
		return errs
	}
	results := r.o.BatchHandler.HandleBatch(ctx, pass)
	for j, i := range at {
		if len(results) == len(pass) {
			errs[i] = results[j]
		} else {
			errs[i] = fmt.Errorf("the batch handler returned %d results for %d deliveries", len(results),
				len(pass))
		}
		r.count(ctx, ds[i], errs[i])
	}
	return errs
}

// refuse says why a message is not handled, nil = it is.
func (r *run) refuse(d *ackwise.Delivery) error {
	r.mu.Lock()
	behind := d.Key != "" && r.stuck[d.Key]
	r.mu.Unlock()
	if behind {
		return ackwise.Reject(errBehind)
	}
	if n := d.Counts.HandOuts - 1 - r.memory.back(d); n >= r.o.Deliver.MaxHandOuts {
		return ackwise.Reject(fmt.Errorf("it was handed out %d times before and never settled", n))
	}
	return nil
}

func (r *run) count(ctx context.Context, d *ackwise.Delivery, err error) {
	if ackwise.OutcomeOf(err).Outcome == ackwise.OutcomeNack && ctx.Err() == nil {
		r.memory.failed(d)
	}
}

// giveUp stands in for dead letters where there are none: the message is answered as failed, and
// those of its key behind it are not attempted.
func (r *run) giveUp(_ context.Context, d *ackwise.Delivery, reason string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.givenUp[d] = reason
	r.stuck[d.Key] = true
	return nil
}

func (r *run) settlements(ds []*ackwise.Delivery, answers []ackwise.Settlement) []settlement {
	r.mu.Lock()
	defer r.mu.Unlock()
	settled := make([]settlement, len(ds))
	for i, d := range ds {
		settled[i] = settlement{outcome: answers[i].Outcome, reason: answers[i].Reason}
		reason, given := r.givenUp[d]
		switch {
		case given && reason == errBehind.Error():
			settled[i] = settlement{outcome: ackwise.OutcomeRelease, reason: reason}
		case given:
			settled[i] = settlement{outcome: ackwise.OutcomeNack, reason: reason, spent: true}
		}
	}
	return settled
}
