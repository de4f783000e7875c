package reach

import (
	"context"
	"fmt"
	"sync"

	"github.com/ackwise/ackwise"
)

// Open opens a sink. One that does not answer is no error: it is a Late then, and late says why.
// open is bounded by itself, see Within.
func Open(ctx context.Context, open func(context.Context) (ackwise.Sink, error)) (
	sink ackwise.Sink, late, err error) {
	sink, err = open(ctx)
	if err == nil || ctx.Err() != nil || !Passes(err) {
		return sink, nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &Late{open: open, ctx: ctx, stop: stop}, err, nil
}

// Late is a sink that was away when it was to be opened. It is opened with the first message for
// which that works; until then a message is answered as one that may be tried again. Its methods
// may be called from several goroutines.
type Late struct {
	open func(context.Context) (ackwise.Sink, error)
	ctx  context.Context // of attempts: they outlive the call that has begun them
	stop context.CancelFunc
	work sync.WaitGroup // the attempt; grows only while not closed

	mu     sync.Mutex // guards all below
	sink   ackwise.Sink
	try    *attempt // under way; nil = none is
	closed bool
}

// attempt is one opening, for all who wait.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed
}

// get returns the sink, opened by an attempt that this call may have begun.
func (s *Late) get(ctx context.Context) (ackwise.Sink, error) {
	s.mu.Lock()
	sink, try := s.sink, s.try
	switch {
	case s.closed:
		s.mu.Unlock()
		return nil, ackwise.ErrClosed
	case sink == nil && try == nil:
		try = &attempt{done: make(chan struct{})}
		s.try = try
		s.work.Go(func() { s.attempt(try) }) // ends with open, which Close cancels
	}
	s.mu.Unlock()
	if sink != nil {
		return sink, nil
	}
	select {
	case <-try.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sink, try.err
}

func (s *Late) attempt(try *attempt) {
	sink, err := s.open(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.try = nil
	if try.err = err; err == nil {
		s.sink = sink
	}
	close(try.done)
}

// Publish publishes, or answers that nothing was sent.
func (s *Late) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
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

// Features are the sink's own once it is open, and what every sink can do until then.
func (s *Late) Features() ackwise.SinkFeatures {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink == nil {
		return ackwise.SinkFeatures{MaxBatch: 10}
	}
	return s.sink.Features()
}

// Close ends an attempt that is under way, and closes the sink where it was opened.
func (s *Late) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
	s.mu.Lock()
	sink := s.sink
	s.mu.Unlock()
	if sink == nil {
		return nil
	}
	return sink.Close()
}
