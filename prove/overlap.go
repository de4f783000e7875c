package prove

import (
	"context"

	"github.com/ackwise/ackwise"
)

// overlap has a second consumer work on a message while the first is held at a point: the source's
// lease ran out, and the first one does not know. With stall the claims that it made are over too,
// with race and orphan they still hold. Then the first goes on, or (orphan) is killed.
func (r *run) overlap(ctx context.Context, a *actor, d *ackwise.Delivery, f fault,
	ended bool) error {
	msg := r.index(d)
	if ended { // it has no such point: nothing is left to race with
		return r.settle(ctx, d, a, fault{})
	}
	if f.kind == stall {
		if err := r.w.Wait(ctx, r.c.Lease); err != nil {
			return err
		}
		r.say("%s later, all leases are over", shortDuration(r.c.Lease))
	}
	r.conclude(d, ackwise.CauseLeaseExpired.String(), "")
	b, second, err := r.beside(ctx, turn{msg, ackwise.CauseLeaseExpired}, a)
	if err != nil {
		return err
	}
	if f.kind == orphan && !a.free.Load() {
		r.noteOf(a).stop("KILLED where it stood")
		if err := r.kill(ctx, a.process); err != nil {
			return err
		}
	} else {
		r.goOn(a)
		if _, err := r.drive(a, fault{}, nil); err != nil {
			return err
		}
		if gone(ackwise.OutcomeOf(a.err).Outcome) {
			b = a // one ack is enough, a late one counts while nobody else holds the message
		}
	}
	return r.settle(ctx, second, b, fault{})
}

// another has a second consumer work on the next message while a is held.
func (r *run) another(ctx context.Context, a *actor) error {
	b, d, err := r.beside(ctx, r.pop(), a)
	if err != nil {
		return err
	}
	if err := r.settle(ctx, d, b, fault{}); err != nil {
		return err
	}
	r.goOn(a)
	return nil
}

// goOn resumes an actor that is held, unless it was let go already.
func (r *run) goOn(a *actor) {
	a.step = r.noteOf(a)
	if !a.free.Load() {
		a.resume <- false
	}
}

// beside makes a delivery to a consumer of its own, from begin to end, while held stands still.
func (r *run) beside(ctx context.Context, t turn, held *actor) (*actor, *ackwise.Delivery, error) {
	p, err := r.newProcess(ctx)
	if err != nil {
		return nil, nil, err
	}
	d := r.delivery(t, p)
	b := r.start(ctx, d, p)
	_, err = r.drive(b, fault{}, held)
	return b, d, err
}
