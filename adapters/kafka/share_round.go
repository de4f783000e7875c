package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// settle carries out settlements, round by round, and gives back what was not settled in time. At
// the end it gives back all.
func (s *share) settle(ctx context.Context) {
	for ctx.Err() == nil {
		s.round()
		t := time.NewTimer(s.expire(false))
		select {
		case <-ctx.Done():
		case <-s.kick:
		case <-t.C:
		}
		t.Stop()
	}
	s.round()
	s.expire(true)
}

// round carries out the settlements that have come.
func (s *share) round() {
	s.mu.Lock()
	round := s.rulings
	s.rulings = nil
	clear(s.refused)
	// What comes again may come before the answer does.
	for _, r := range round {
		s.memory.expect(r)
	}
	s.mu.Unlock()
	if len(round) == 0 {
		return
	}
	began := time.Now()
	for _, r := range round {
		r.held.record.Ack(ackOf(r.outcome))
	}
	err := s.flush()
	s.mu.Lock()
	for _, r := range round {
		s.ruled(r, began, errors.Join(err, s.refused[r.held.delivery.Partition]))
	}
	s.mu.Unlock()
	wake(s.hungry) // there may be room again
	for _, r := range round {
		close(r.done)
	}
}

// ackOf is what the broker is told. A dead letter is rejected, so that the broker counts it as
// such; a drop is as good as done.
func ackOf(o ackwise.Outcome) kgo.AckStatus {
	switch o {
	case ackwise.OutcomeNack, ackwise.OutcomeSnooze, ackwise.OutcomeRelease:
		return kgo.AckRelease
	case ackwise.OutcomeExtend:
		return kgo.AckRenew
	case ackwise.OutcomeDead:
		return kgo.AckReject
	case ackwise.OutcomeAck, ackwise.OutcomeDrop:
	}
	return kgo.AckAccept
}

// flush waits until the broker has answered all acknowledgements, or their leases are over anyway.
func (s *share) flush() error {
	ctx, cancel := context.WithTimeout(s.cl.Context(), s.opts.lease)
	defer cancel()
	return s.cl.FlushAcks(ctx)
}

// answered takes in the broker's answers, which are for partitions and not for records.
func (s *share) answered(_ *kgo.Client, results kgo.ShareAckResults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range results {
		if r.Err != nil {
			s.refused[partitionName(r.Topic, r.Partition)] = r.Err
		}
	}
}

// ruled notes what became of a settlement. A refusal, and no answer, mean the same: the hand-out
// is, or soon will be, another one's. mu is held.
func (s *share) ruled(r *ruling, began time.Time, err error) {
	h := r.held
	if err != nil {
		r.result.Err = fmt.Errorf("%w: %w", ackwise.ErrLeaseLost, severed(err))
	}
	if r.outcome == ackwise.OutcomeExtend {
		h.deadline = began // it has expired, which gives it back
		if err == nil {
			h.deadline = began.Add(h.lease)
			r.result.Deadline = h.deadline
		}
		return
	}
	s.memory.ended(r, err)
	if err != nil {
		h.delivery.MarkLost()
	} else if ackOf(r.outcome) == kgo.AckRelease {
		s.given.note(h, s.opts.handOuts)
	}
	delete(s.holds, h.delivery.Token)
}

// expire gives back what was not settled in time, or all. It says when to look again.
func (s *share) expire(all bool) (next time.Duration) {
	late, next := s.late(all)
	if len(late) == 0 {
		return next
	}
	// In a round of its own: the broker may refuse it, and all beside it.
	for _, h := range late {
		h.record.Ack(kgo.AckRelease)
	}
	if !all { // the last ones go with the client's good-bye
		s.flush() //nolint:errcheck // the lease is over either way
	}
	return next
}

func (s *share) late(all bool) (late []*held, next time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next = time.Hour
	for token, h := range s.holds {
		left := h.deadline.Sub(now)
		if h.settling || left > 0 && !all {
			next = min(next, max(left, time.Millisecond))
			continue
		}
		if h.out && !all {
			s.memory.note(placeOf(h.record), h.delivery.Counts.HandOuts, ackwise.CauseLeaseExpired)
		}
		h.delivery.MarkLost()
		s.given.note(h, s.opts.handOuts)
		delete(s.holds, token)
		s.queue = slices.DeleteFunc(s.queue, func(q *held) bool { return q == h })
		late = append(late, h)
	}
	return late, next
}
