package queueorder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// drain acks in the held topic what has gone, so that its disk is freed. Messages come in the order
// in which they were held; those that are not gone yet are put off, and at most maxPassed of them:
// then it waits until one of these has gone.
type drain struct {
	gone    int                            // messages that have gone and are not acked
	passed  map[ackwise.Position]time.Time // not gone, and when they come again
	next    time.Time                      // when to look again
	dead    map[ackwise.Position]bool      // dead letters: they may be redriven
	going   map[ackwise.Position]bool      // let go, by a commit that is not carried out yet
	waiting bool                           // for room, in the middle of a round
}

const (
	maxPassed  = 4096
	drainEvery = 50 * time.Millisecond
	drainWait  = 2 * time.Millisecond // for what is there at once
	maxTurns   = 8                    // batches at a time
)

func newDrain() drain {
	return drain{passed: map[ackwise.Position]time.Time{}, dead: map[ackwise.Position]bool{}}
}

// idle reports that there is nothing to wait for.
func (d *drain) idle() bool { return d.gone == 0 && len(d.dead) == 0 }

// pause is how long there is nothing to do.
func (d *drain) pause(now time.Time) time.Duration {
	if d.idle() {
		return maxIdle
	}
	return max(0, d.next.Sub(now))
}

// room is how many may be looked at.
func (d *drain) room(now time.Time, batch int) int {
	if len(d.passed) < maxPassed {
		return batch
	}
	due := 0
	for _, at := range d.passed {
		if !at.After(now) {
			due++
		}
	}
	return min(due, batch)
}

// drainHeld looks at a few batches of the held topic.
func (s *session) drainHeld(ctx context.Context) error {
	d := &s.drain
	now := time.Now()
	if d.idle() || now.Before(d.next) {
		return nil
	}
	for range maxTurns {
		most := d.room(now, s.opt.Batch)
		if most == 0 || d.idle() || ctx.Err() != nil {
			break
		}
		ds, err := s.receive(ctx, s.held, most, drainWait)
		if err != nil {
			return err
		}
		if len(ds) == 0 {
			break
		}
		if err := s.settleHeld(ds, now); err != nil {
			return err
		}
		if len(ds) == most && most == s.opt.Batch {
			continue
		}
		break
	}
	d.next = time.Now()
	if d.gone < s.opt.Batch || len(d.passed) >= maxPassed {
		d.next = d.next.Add(drainEvery)
	}
	if d.gone == 0 && len(d.dead) > 0 {
		d.next = now.Add(maxIdle)
	}
	return nil
}

// settleHeld decides about messages of the held topic: what is gone is acked, what the out topic
// does not take is a dead letter, and what is held is put off. One that is neither held nor gone
// was redriven, or held by another resequencer: it is held.
func (s *session) settleHeld(ds []*ackwise.Delivery, now time.Time) error {
	var snoozed, ended []ackwise.Settlement
	var again []*ackwise.Delivery // redriven when their keys had gone on
	at := make(map[ackwise.LeaseToken]*ackwise.Delivery, len(ds))
	for _, d := range ds {
		at[d.Token] = d
		a, err := s.m.Read(&d.Message)
		if err == nil { // it was read before it was put here
			a.Ref, err = refOf(d.Position)
		}
		if err == nil {
			err = s.learn(a.Key, now)
		}
		if err != nil {
			return err
		}
		redriven, first := d.Counts.Redrives > 0, s.drain.dead[d.Position]
		delete(s.drain.dead, d.Position)
		s.mu.Lock()
		why, unfit := s.unfit[d.Position]
		if unfit && redriven {
			delete(s.unfit, d.Position)
			unfit = false
		}
		held := s.drain.going[d.Position] || !unfit && (s.m.IsHeld(a) || s.m.Restore(now, a))
		s.mu.Unlock()
		switch {
		case held, redriven && s.drain.waiting:
			delay := backoff(d.Attempt)
			s.drain.passed[d.Position] = now.Add(delay)
			snoozed = append(snoozed, ackwise.Settlement{Token: d.Token,
				Outcome: ackwise.OutcomeSnooze, Delay: delay})
		case unfit:
			ended = append(ended, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeDead,
				Reason: why})
		case redriven:
			if again = append(again, d); !first {
				s.drain.gone = max(s.drain.gone-1, 0)
			}
			delete(s.drain.passed, d.Position)
		default:
			ended = append(ended, *ack(d))
		}
	}
	if len(snoozed) > 0 {
		s.held.Settle(s.work, snoozed)
	}
	ended, err := s.end(s.held, ended)
	for _, st := range ended {
		d := at[st.Token]
		s.drain.gone = max(s.drain.gone-1, 0)
		delete(s.drain.passed, d.Position)
		if st.Outcome == ackwise.OutcomeDead {
			s.drain.dead[d.Position] = true
		}
	}
	if err != nil || len(again) == 0 {
		return err
	}
	_, err = s.round(s.work, again, nil)
	return err
}

// end settles deliveries for good, unless another resequencer has taken over: it may hold, since,
// what has gone by what is known here. It returns those that it settled; the others come again.
func (s *session) end(from ackwise.Source, ss []ackwise.Settlement) ([]ackwise.Settlement, error) {
	for len(ss) > 0 {
		_, err := s.store.Commit(s.work, queue.Commit{Reads: []queue.TableRead{s.fence}, Settle: ss})
		switch {
		case err == nil:
			return ss, nil
		case errors.Is(err, queue.ErrConflict):
			return nil, ErrTakenOver
		case errors.Is(err, ackwise.ErrFull):
			return nil, nil
		case !unsettled(err):
			return nil, fmt.Errorf("settle: %w", err)
		}
		before := len(ss)
		if ss = s.extend(from, ss); len(ss) == before {
			return nil, nil
		}
	}
	return nil, nil
}
