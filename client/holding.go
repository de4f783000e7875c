package client

import (
	"errors"
	"time"

	"github.com/ackwise/ackwise"
)

// hold notes the deliveries of the Receive of number seq, which the consumer has from now on. It
// refuses those that came while the session was being opened again: the owner was told that they
// never arrived, and hands them out again.
func (r *Receiver) hold(seq int64, ds []*ackwise.Delivery) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seq <= r.told {
		return false
	}
	for _, d := range ds {
		r.held[d.Token] = holding{d: d, deadline: d.Deadline}
		r.watchDeadline(d.Deadline)
	}
	return true
}

// settled notes what settlements did to what the consumer has.
func (r *Receiver) settled(ss []ackwise.Settlement, rs []ackwise.SettleResult) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, s := range ss {
		h, ok := r.held[s.Token]
		err := rs[i].Err
		switch {
		case !ok:
		case errors.Is(err, ackwise.ErrLeaseLost):
			h.d.MarkLost()
			delete(r.held, s.Token)
		case errors.Is(err, ackwise.ErrSettled), err == nil && s.Outcome != ackwise.OutcomeExtend:
			delete(r.held, s.Token)
		case err == nil:
			h.deadline = rs[i].Deadline
			r.held[s.Token] = h
			r.watchDeadline(h.deadline)
		}
	}
}

// watchDeadline makes sure that the expiry timer fires by then. The caller holds mu.
func (r *Receiver) watchDeadline(at time.Time) {
	if at.IsZero() || !r.next.IsZero() && !at.Before(r.next) {
		return
	}
	r.next = at
	if r.expiry == nil {
		r.expiry = time.AfterFunc(time.Until(at), r.expire)
		return
	}
	r.expiry.Reset(time.Until(at))
}

// expire marks what has run out as lost.
func (r *Receiver) expire() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.next = time.Time{}
	var next time.Time
	for token, h := range r.held {
		switch {
		case h.deadline.IsZero():
		case !h.deadline.After(now):
			h.d.MarkLost()
			delete(r.held, token)
		case next.IsZero() || h.deadline.Before(next):
			next = h.deadline
		}
	}
	if r.ctx.Err() == nil {
		r.watchDeadline(next)
	}
}
