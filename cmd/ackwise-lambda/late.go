package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// openPatience bounds the opening of a target that can be opened later: AWS gives a start 10 s.
const openPatience = 5 * time.Second

// openOrLate opens the target. Where it does not answer, the function starts all the same: it has
// dead letters, and a topic's events would be lost with starts that fail, since Lambda discards
// them after two repeats. What is wrong with the configuration itself is an error. late says why
// the sink is one that is still to be opened.
func openOrLate(ctx context.Context, open openSink) (sink ackwise.Sink, late, err error) {
	bound, cancel := context.WithTimeoutCause(ctx, openPatience,
		fmt.Errorf("no answer within %s", openPatience))
	defer cancel()
	sink, err = open(bound)
	if err == nil {
		return sink, nil, nil
	}
	if bound.Err() == nil && !endpoint.Passes(err) {
		return nil, nil, err
	}
	return &lateSink{open: open}, err, nil
}

// lateSink is a target that was away at the start. It is opened with the first message for which
// that works.
type lateSink struct {
	open openSink

	mu   sync.Mutex // guards sink
	sink ackwise.Sink
}

func (s *lateSink) opened() ackwise.Sink {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sink
}

func (s *lateSink) get(ctx context.Context) (ackwise.Sink, error) {
	if sink := s.opened(); sink != nil {
		return sink, nil
	}
	sink, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink != nil { // another batch was faster
		return s.sink, sink.Close()
	}
	s.sink = sink
	return sink, nil
}

// Publish publishes, or answers that nothing was sent.
func (s *lateSink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	sink, err := s.get(ctx)
	if err == nil {
		return sink.Publish(ctx, msgs)
	}
	results := make([]ackwise.Result, len(msgs))
	for i := range msgs {
		results[i] = ackwise.Result{Class: ackwise.ResultRetryable, ID: msgs[i].ID,
			Err: fmt.Errorf("open the target: %w", err)}
	}
	return results
}

// Features are what every target can do, since they are asked for once, before it is open.
func (s *lateSink) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{MaxBatch: 10} }

// Close closes the target where it was opened.
func (s *lateSink) Close() error {
	if sink := s.opened(); sink != nil {
		return sink.Close()
	}
	return nil
}
