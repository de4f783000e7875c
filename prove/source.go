package prove

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/ackwise/ackwise"
)

// take hands out what the real source has next, until every message is gone.
//
// The source decides what comes next and why. What the prover does to it: a killed or held
// consumer's session ends without a word (method Lost() error, else Close), so that its messages go
// to the next session. Delays are cut short.
func (r *run) take(ctx context.Context) error {
	for r.waiting(-1) {
		p, err := r.consumer(ctx)
		if err != nil {
			return err
		}
		d, err := r.receive(ctx, p)
		if err != nil {
			return err
		}
		if d.Attempt > maxDeliveries {
			r.say("message %d is given up: it is not settled after %d deliveries", r.index(d)+1,
				maxDeliveries)
			return nil
		}
		if err := r.taken(ctx, p, d); err != nil {
			return err
		}
	}
	return nil
}

// waiting reports whether a message other than one is not gone yet.
func (r *run) waiting(other int) bool {
	for i := range r.lives {
		if r.lives[i].fate == unsettled && i != other {
			return true
		}
	}
	return false
}

// receive takes the next delivery of a process's session.
func (r *run) receive(ctx context.Context, p *process) (*ackwise.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, r.c.Patience)
	defer cancel()
	ds, err := p.source.Receive(ctx, 1)
	if err != nil {
		return nil, fmt.Errorf("receive from Case.Source (it should hold what is not settled of "+
			"Case.Messages): %w", err)
	}
	msg := -1
	if len(ds) == 1 {
		msg = slices.IndexFunc(r.c.Messages, func(m ackwise.Message) bool { return m.ID == ds[0].ID })
	}
	if msg < 0 {
		return nil, errors.New("receive from Case.Source: it hands out what is not in Case.Messages")
	}
	r.w.tick()
	r.places[ds[0]] = msg
	r.lives[msg].attempt = ds[0].Attempt
	return ds[0], nil
}

// taken makes one delivery of the real source, and what goes wrong with it.
func (r *run) taken(ctx context.Context, p *process, d *ackwise.Delivery) error {
	f := r.lives[r.index(d)].nextFault()
	if f.kind == beside && !r.waiting(r.index(d)) {
		f = fault{} // there is no message to work on beside it
	}
	if f.kind == crash && f.point == 0 {
		r.note(d, p).stop("KILLED before the handler began")
		return r.cut(ctx, p)
	}
	a := r.start(ctx, d, p)
	ended, err := r.drive(a, f, nil)
	switch {
	case err != nil:
		return err
	case f.kind == crash:
		if p.settles && a.err == nil && ended {
			r.lives[a.msg].fate = settled // its commit has settled it
		}
		return r.cut(ctx, p)
	case !ended && f.kind != beside:
		// The source takes the message back from a consumer that is held, and hands it to another.
		if err := r.close(p); err != nil {
			return err
		}
		fallthrough
	case !ended:
		if err := r.meanwhile(ctx, p, a); err != nil {
			return err
		}
		fallthrough
	default:
		return r.answer(ctx, p, a, d, f)
	}
}

// meanwhile has a second consumer work on what the source hands it, while a is held. Then a goes
// on.
func (r *run) meanwhile(ctx context.Context, p *process, a *actor) error {
	other, err := r.newProcess(ctx)
	if err != nil {
		return err
	}
	d, err := r.receive(ctx, other)
	if err != nil {
		return err
	}
	b := r.start(ctx, d, other)
	if _, err := r.drive(b, fault{}, a); err != nil {
		return err
	}
	if err := r.answer(ctx, other, b, d, fault{}); err != nil {
		return err
	}
	r.goOn(a)
	if _, err := r.drive(a, fault{}, nil); err != nil {
		return err
	}
	if p.closed {
		r.current = other
		return nil
	}
	return r.close(other)
}

// answer settles a delivery at the real source by what its handler decided. A transactional handler
// that ended well has settled it.
func (r *run) answer(ctx context.Context, p *process, a *actor, d *ackwise.Delivery,
	f fault) error {
	v := ackwise.OutcomeOf(a.err)
	l := &r.lives[a.msg]
	if p.settles && v.Outcome == ackwise.OutcomeAck {
		l.fate = settled
		return nil
	}
	if f.kind == lost && gone(v.Outcome) {
		return r.cut(ctx, p)
	}
	result := p.source.Settle(ctx, []ackwise.Settlement{{Token: d.Token, Outcome: v.Outcome,
		Reason: v.Reason}})[0]
	switch {
	case errors.Is(result.Err, ackwise.ErrLeaseLost), errors.Is(result.Err, ackwise.ErrSettled):
		return nil // another consumer has it, or had
	case result.Err != nil:
		return fmt.Errorf("settle message %d at Case.Source: %w", a.msg+1, result.Err)
	case gone(v.Outcome):
		l.fate = settled
	case v.Outcome == ackwise.OutcomeDead:
		l.fate = dead
	case r.clean == nil:
		return unsettledInCleanRun(a.msg, d.ID, v)
	}
	return nil
}

// cut kills a process: its session ends without a word.
func (r *run) cut(ctx context.Context, p *process) error {
	if err := r.kill(ctx, p); err != nil {
		return err
	}
	return r.close(p)
}

// close ends a process's session at the real source.
func (r *run) close(p *process) error {
	if p.source == nil || p.closed {
		return nil
	}
	p.closed = true
	if p == r.current {
		r.current = nil
	}
	if s, ok := p.source.(interface{ Lost() error }); ok {
		return s.Lost()
	}
	return p.source.Close()
}
