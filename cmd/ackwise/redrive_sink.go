package main

import (
	"context"
	"errors"
	"time"

	"github.com/ackwise/ackwise"
)

// redriveSink remembers what the target says of each letter, and sends no more at once than the
// rate allows.
type redriveSink struct {
	ackwise.Sink
	n     int
	pause time.Duration // after each Publish of up to n; 0 = none

	over <-chan struct{} // closed when the run ends
	// inOrder: the source settles those of a key in order, and so nothing may be accepted that is
	// behind a rejected one.
	inOrder bool

	// These belong to the loop's one call.
	next time.Time              // when the next one may begin
	said map[string]letterState // by ID, of what the target was asked to take in this call
}

// Features bounds a batch by the rate.
func (s *redriveSink) Features() ackwise.SinkFeatures {
	f := s.Sink.Features()
	if f.MaxBatch == 0 || f.MaxBatch > s.n {
		f.MaxBatch = s.n
	}
	f.KeyRunSafe = f.KeyRunSafe && !s.inOrder
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
		if i >= len(msgs) || r.Class == ackwise.ResultNotAttempted {
			continue
		}
		// Of two letters of one ID in a call, unknown holds for both that were not accepted.
		if r.Class == ackwise.ResultUnknown {
			s.said[msgs[i].ID] = letterUnknown
		} else if _, ok := s.said[msgs[i].ID]; !ok {
			s.said[msgs[i].ID] = letterOpen
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
