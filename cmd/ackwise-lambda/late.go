package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
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
	if bound.Err() == nil && !passes(err) {
		return nil, nil, err
	}
	return &lateSink{open: open}, err, nil
}

// passes reports whether an error is the network's or the server's own, and so may pass. A token
// that is missing, a permission or a wrong name does not.
func passes(err error) bool {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return !dns.IsNotFound // a name that is not there is written wrong
	}
	if status, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok {
		return status.HTTPStatusCode() >= 500
	}
	_, unreached := errors.AsType[*net.OpError](err)
	return unreached
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
