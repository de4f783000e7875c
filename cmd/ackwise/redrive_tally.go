package main

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// letterState is what is known of a letter that has not left its store.
type letterState uint8

const (
	letterOpen letterState = iota
	letterUnknown
	letterRejected
)

// maxTold bounds the letters whose state is remembered. What is beyond is tried again when it comes
// again, and counted as often.
const maxTold = 100_000

// tally counts what becomes of letters, by ID. Each stays under it until it has left its store.
type tally struct {
	mu       sync.Mutex // guards all below
	letters  map[string]letterState
	accepted int64
}

func newTally() *tally { return &tally{letters: map[string]letterState{}} }

// note notes what is known of a letter. Rejected stays rejected.
func (t *tally) note(id string, s letterState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, known := t.letters[id]
	if known && was == letterRejected || !known && len(t.letters) >= maxTold {
		return
	}
	t.letters[id] = s
}

// seen notes a letter that was handed out, and reports whether it was rejected before.
func (t *tally) seen(id string) (rejected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	s, known := t.letters[id]
	if !known && len(t.letters) < maxTold {
		t.letters[id] = letterOpen
	}
	return s == letterRejected
}

// gone notes a letter that has left its store.
func (t *tally) gone(id string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.letters, id)
	t.accepted++
}

func (t *tally) counts() (accepted, rejected, unknown, left int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.letters {
		switch s {
		case letterRejected:
			rejected++
		case letterUnknown:
			unknown++
		case letterOpen:
		}
	}
	return t.accepted, rejected, unknown, int64(len(t.letters))
}

// letterSource counts what leaves its store, and has retries wait in the loop: a letter that is not
// accepted when the run ends is free at once for the next one.
type letterSource struct {
	ackwise.Source
	t *tally

	mu  sync.Mutex // guards all below
	ids map[ackwise.LeaseToken]string
	err error // of the last Receive
}

// Features hides that the source could delay a retry itself.
func (s *letterSource) Features() ackwise.Features {
	f := s.Source.Features()
	f.MaxNackDelay, f.Dead = 0, false
	return f
}

// restFor is the delay of a letter that was rejected: 0 lets Settle choose it, where the source can
// delay; else the loop holds it.
func (s *letterSource) restFor() time.Duration {
	if _, ok := s.Source.(*deadSource); ok || s.Source.Features().MaxNackDelay > 0 {
		return 0
	}
	return maxDeadline
}

// failed is why nothing could be received last.
func (s *letterSource) failed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Receive receives.
func (s *letterSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ds, err := s.Source.Receive(ctx, max)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = nil
	if len(ds) == 0 && ctx.Err() == nil && !errors.Is(err, io.EOF) { // its end is no failure
		s.err = err
	}
	if s.ids == nil {
		s.ids = map[ackwise.LeaseToken]string{}
	}
	for _, d := range ds {
		s.ids[d.Token] = d.ID
		s.t.seen(d.ID)
	}
	return ds, err
}

// Settle settles. A snooze is a rejected letter's.
func (s *letterSource) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	rest := min(rejectedRest, s.Source.Features().MaxNackDelay)
	for i := range ss {
		if ss[i].Outcome == ackwise.OutcomeSnooze {
			ss[i].Delay = rest
		}
	}
	results := s.Source.Settle(ctx, ss)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, r := range results {
		if r.Err != nil || ss[i].Outcome == ackwise.OutcomeExtend {
			continue
		}
		if ss[i].Outcome == ackwise.OutcomeAck {
			s.t.gone(s.ids[ss[i].Token])
		}
		delete(s.ids, ss[i].Token)
	}
	return results
}

// quietLetters ends a source of letters once it has brought nothing new for so long. Letters that
// were rejected before go straight back.
type quietLetters struct {
	ackwise.Source
	quiet time.Duration
	t     *tally
}

// Receive receives what is new.
func (s *quietLetters) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	inner, cancel := context.WithTimeout(ctx, s.quiet)
	defer cancel()
	for {
		ds, err := s.Source.Receive(inner, max)
		fresh := s.fresh(ctx, ds)
		switch {
		case len(fresh) > 0:
			return fresh, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(inner.Err(), context.DeadlineExceeded):
			return nil, io.EOF
		case err != nil:
			return nil, err
		}
	}
}

func (s *quietLetters) fresh(ctx context.Context, ds []*ackwise.Delivery) []*ackwise.Delivery {
	var fresh []*ackwise.Delivery
	var back []ackwise.Settlement
	for _, d := range ds {
		if s.t.seen(d.ID) {
			back = append(back, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeSnooze,
				Delay: min(rejectedRest, s.Features().MaxNackDelay)})
			continue
		}
		fresh = append(fresh, d)
	}
	if len(back) > 0 { // where that does not succeed, their lease runs out
		s.Settle(context.WithoutCancel(ctx), back)
	}
	return fresh
}

// redriveSink notes what the target says of each letter, and sends no more at once than the rate
// allows.
type redriveSink struct {
	ackwise.Sink
	t     *tally
	n     int
	pause time.Duration // after each Publish of up to n; 0 = none

	over <-chan struct{} // closed when the run ends

	next time.Time // when the next one may begin; belongs to the loop's one call
}

// Features bounds a batch by the rate.
func (s *redriveSink) Features() ackwise.SinkFeatures {
	f := s.Sink.Features()
	if f.MaxBatch == 0 || f.MaxBatch > s.n {
		f.MaxBatch = s.n
	}
	return f
}

// Publish publishes when it is time.
func (s *redriveSink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	if !s.turn(ctx) {
		results := make([]ackwise.Result, len(msgs))
		for i := range results {
			results[i] = ackwise.Result{Class: ackwise.ResultNotAttempted, Err: errRunOver}
		}
		return results
	}
	s.next = time.Now().Add(s.pause * time.Duration(len(msgs)) / time.Duration(s.n))
	results := s.Sink.Publish(ctx, msgs)
	for i, r := range results {
		state := letterOpen
		if r.Class == ackwise.ResultUnknown {
			state = letterUnknown
		}
		if i < len(msgs) && r.Class != ackwise.ResultNotAttempted {
			s.t.note(msgs[i].ID, state)
		}
	}
	return results
}

var errRunOver = errors.New("the run is over")

// turn waits until the rate allows the next Publish; false = the run ends before.
func (s *redriveSink) turn(ctx context.Context) bool {
	timer := time.NewTimer(time.Until(s.next))
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.over:
	case <-ctx.Done():
	}
	return false
}
