package queueorder

import (
	"context"
	"time"

	"github.com/ackwise/ackwise"
)

// drain acks in the held topic what has gone, so that its disk is freed. Messages come in the order
// in which they were held; those that are not gone yet are put off, and at most maxPassed of them:
// then it waits until one of these has gone.
type drain struct {
	gone   int                            // messages that have gone and are not acked
	passed map[ackwise.Position]time.Time // not gone, and when they come again
	next   time.Time                      // when to look again
}

const (
	maxPassed  = 4096
	drainEvery = 50 * time.Millisecond
	drainWait  = 2 * time.Millisecond // for what is there at once
	maxTurns   = 8                    // batches at a time
)

func newDrain() drain { return drain{passed: map[ackwise.Position]time.Time{}} }

// pause is how long there is nothing to do.
func (d *drain) pause(now time.Time) time.Duration {
	if d.gone == 0 {
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
	if d.gone == 0 || now.Before(d.next) {
		return nil
	}
	for range maxTurns {
		most := d.room(now, s.opt.Batch)
		if most == 0 || d.gone == 0 || ctx.Err() != nil {
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
	return nil
}

func (s *session) settleHeld(ds []*ackwise.Delivery, now time.Time) error {
	ss := make([]ackwise.Settlement, len(ds))
	for i, d := range ds {
		a, err := s.m.Read(&d.Message)
		if err != nil { // it was read before it was put here
			return err
		}
		if err := s.learn(a.Key, now); err != nil {
			return err
		}
		s.mu.Lock()
		held := s.m.IsHeld(a)
		s.mu.Unlock()
		ss[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
		if held {
			delay := backoff(d.Attempt)
			ss[i].Outcome, ss[i].Delay = ackwise.OutcomeSnooze, delay
			s.drain.passed[d.Position] = now.Add(delay)
		}
	}
	for i, r := range s.held.Settle(s.work, ss) {
		if r.Err != nil || ss[i].Outcome != ackwise.OutcomeAck {
			continue
		}
		s.drain.gone--
		delete(s.drain.passed, ds[i].Position)
	}
	s.drain.gone = max(s.drain.gone, 0)
	return nil
}
