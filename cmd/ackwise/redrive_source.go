package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// rejectedRest is how long a rejected letter is out of sight of its queue's consumers: long enough
// that a run does not turn in circles, short enough that the next one finds it.
const rejectedRest = 10 * time.Second

// letterSource counts what leaves its store, and has retries wait in the loop: a letter that is not
// accepted when the run ends is free at once for the next one. A letter that is rejected ends for
// the loop, and stays in its store.
//
// Where the source delays a letter, a rejected one rests there. Else it is left unsettled until the
// run ends, which gives it back, or its lease does; where those of a key are settled in order, with
// all that is behind it, since nothing overtakes it.
type letterSource struct {
	ackwise.Source
	t *tally
	// quiet ends the source once it has brought nothing new for so long. 0 = it ends by itself.
	quiet time.Duration

	mu    sync.Mutex // guards all below
	out   map[ackwise.LeaseToken]letterKey
	aside map[ackwise.LeaseToken]bool // of out: to stay
	err   error                       // of the last Receive
}

func newLetterSource(s ackwise.Source, t *tally, quiet time.Duration) *letterSource {
	return &letterSource{Source: s, t: t, quiet: quiet,
		out: map[ackwise.LeaseToken]letterKey{}, aside: map[ackwise.LeaseToken]bool{}}
}

// Features hides that the source could delay a retry itself.
func (s *letterSource) Features() ackwise.Features {
	f := s.Source.Features()
	f.MaxNackDelay, f.Dead = 0, false
	return f
}

// leaves reports whether what is rejected is left unsettled, and inOrder whether all behind it is.
func (s *letterSource) leaves() (yes, inOrder bool) {
	if _, own := s.Source.(*deadSource); own { // it does not hand out again what is snoozed
		return false, false
	}
	f := s.Source.Features()
	return f.MaxNackDelay == 0, f.KeyRuns
}

// failed is why nothing could be received last.
func (s *letterSource) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Receive receives what is new, and ends when the source was quiet for long enough.
func (s *letterSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	inner := ctx
	if s.quiet > 0 {
		var cancel context.CancelFunc
		inner, cancel = context.WithTimeout(ctx, s.quiet)
		defer cancel()
	}
	for {
		ds, err := s.Source.Receive(inner, max)
		fresh := s.fresh(ctx, ds)
		switch {
		case len(fresh) > 0:
			s.note(nil)
			return fresh, nil
		case ctx.Err() != nil:
			s.note(nil)
			return nil, ctx.Err()
		case s.quiet > 0 && errors.Is(inner.Err(), context.DeadlineExceeded):
			s.note(nil)
			return nil, io.EOF
		case errors.Is(err, ackwise.ErrFull) && s.idle(): // of what stays: nothing more can be done
			s.note(nil)
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF): // its end is no failure
			s.note(err)
			return nil, err
		case err != nil || s.quiet == 0:
			s.note(nil)
			return nil, err
		}
	}
}

// idle reports whether nothing that was handed out is still to be settled.
func (s *letterSource) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.out) == 0
}

func (s *letterSource) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// fresh returns what is to be tried, and sets the rest aside.
func (s *letterSource) fresh(ctx context.Context, ds []*ackwise.Delivery) []*ackwise.Delivery {
	var fresh []*ackwise.Delivery
	var back []ackwise.Settlement
	leaves, inOrder := s.leaves()
	rest := min(rejectedRest, s.Source.Features().MaxNackDelay)
	s.mu.Lock()
	for _, d := range ds {
		rejected, stuck := s.t.seen(d)
		switch {
		case leaves && (rejected || inOrder && stuck): // it is held already, and only that
		case rejected:
			back = append(back, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeSnooze,
				Delay: rest})
		default:
			s.out[d.Token] = keyOf(d)
			fresh = append(fresh, d)
		}
	}
	s.mu.Unlock()
	if len(back) > 0 { // where that does not succeed, their lease runs out
		s.Source.Settle(context.WithoutCancel(ctx), back)
	}
	return fresh
}

// stuck reports whether a letter that was handed out may not be tried any more: one before it, of
// the same key, was rejected since.
func (s *letterSource) stuck(d *ackwise.Delivery) bool {
	leaves, inOrder := s.leaves()
	if !leaves || !inOrder {
		return false
	}
	_, stuck := s.t.seen(d)
	return stuck
}

// stay has a letter stay in its store, when the loop acks it: as far as the loop is concerned, it
// is done.
func (s *letterSource) stay(d *ackwise.Delivery) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.aside[d.Token] = true
}

// Settle settles what is not to stay.
func (s *letterSource) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(ss))
	leaves, inOrder := s.leaves()
	rest := min(rejectedRest, s.Source.Features().MaxNackDelay)
	var send []ackwise.Settlement
	var at []int // of ss
	s.mu.Lock()
	for i, one := range ss {
		stays := one.Outcome == ackwise.OutcomeAck && s.aside[one.Token]
		switch {
		case stays && leaves:
			delete(s.out, one.Token)
			delete(s.aside, one.Token)
			continue
		case stays:
			one.Outcome, one.Delay = ackwise.OutcomeSnooze, rest
		case one.Outcome == ackwise.OutcomeNack && leaves && inOrder:
			one.Outcome = ackwise.OutcomeRelease // at a stop; a nack would wait for what is left before it
		}
		send, at = append(send, one), append(at, i)
	}
	s.mu.Unlock()
	if len(send) == 0 {
		return results
	}
	answers := s.Source.Settle(ctx, send)
	if len(answers) != len(send) {
		return nil // the loop says what is wrong with that
	}
	for i, r := range answers {
		results[at[i]] = r
		s.settled(&send[i], r.Err)
	}
	return results
}

func (s *letterSource) settled(one *ackwise.Settlement, err error) {
	lost := errors.Is(err, ackwise.ErrLeaseLost) // it comes again
	if err != nil && !lost || one.Outcome == ackwise.OutcomeExtend {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !lost && one.Outcome == ackwise.OutcomeAck {
		s.t.gone(s.out[one.Token])
	}
	delete(s.out, one.Token)
	delete(s.aside, one.Token)
}
