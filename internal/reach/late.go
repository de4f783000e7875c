package reach

import (
	"context"
	"fmt"
	"sync"

	"github.com/ackwise/ackwise"
)

// Open opens a sink. One that does not answer is no error: it is a Late then, and late says why.
// open is bounded by itself, see Within.
//
// strict is for whoever can still end: a connection that is cut at the start may be a login that is
// missing, and is an error; and what turns out to be wrong when a Late is opened ends it. Without
// strict both count as a system that is away.
func Open(ctx context.Context, open func(context.Context) (ackwise.Sink, error), strict bool) (
	sink ackwise.Sink, late, err error) {
	sink, err = open(ctx)
	if err == nil || ctx.Err() != nil || !Passes(err) || strict && Cut(err) {
		return sink, nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	return &Late{open: open, strict: strict, ctx: ctx, stop: stop}, err, nil
}

// Late is a sink that was away when it was to be opened. It is opened with the first message for
// which that works; until then a message is answered as one that may be tried again. Its methods
// may be called from several goroutines.
type Late struct {
	open   func(context.Context) (ackwise.Sink, error)
	strict bool
	ctx    context.Context // of attempts: they outlive the call that has begun them
	stop   context.CancelFunc
	work   sync.WaitGroup // the attempt; grows only while not closed

	mu     sync.Mutex // guards all below
	sink   ackwise.Sink
	try    *attempt // under way; nil = none is
	fault  error    // why it will never be open
	closed bool
}

// attempt is one opening, for all who wait.
type attempt struct {
	done chan struct{}
	err  error // set before done is closed
}

// Reach opens the sink, or says why it is not open yet.
func (s *Late) Reach(ctx context.Context) error {
	_, err := s.get(ctx)
	return err
}

// IsOpen reports whether the sink is open.
func (s *Late) IsOpen() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sink != nil
}

// get returns the sink, opened by an attempt that this call may have begun.
func (s *Late) get(ctx context.Context) (ackwise.Sink, error) {
	s.mu.Lock()
	sink, try := s.sink, s.try
	switch {
	case s.fault != nil || s.closed:
		defer s.mu.Unlock()
		return nil, closedBy(s.fault)
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

// closedBy is ackwise.ErrClosed, with what has closed it.
func closedBy(fault error) error {
	if fault == nil {
		return ackwise.ErrClosed
	}
	return fmt.Errorf("%w: %w", ackwise.ErrClosed, fault)
}

func (s *Late) attempt(try *attempt) {
	sink, err := s.open(s.ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.try = nil
	switch {
	case err == nil:
		s.sink = sink
	case s.strict && s.ctx.Err() == nil && !Passes(err):
		s.fault = err
		err = closedBy(err)
	}
	try.err = err
	close(try.done)
}

// Publish publishes, or answers that nothing was sent. Where the open sink takes fewer messages at
// once, they go in several calls: no two of them are of one key, see Features.
func (s *Late) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, 0, len(msgs))
	sink, err := s.get(ctx)
	if err != nil {
		for i := range msgs {
			results = append(results, ackwise.Result{Class: ackwise.ResultRetryable, ID: msgs[i].ID,
				Err: fmt.Errorf("open the sink: %w", err)})
		}
		return results
	}
	most := sink.Features().MaxBatch
	for len(msgs) > 0 {
		n := len(msgs)
		if most > 0 {
			n = min(n, most)
		}
		results = append(results, sink.Publish(ctx, msgs[:n:n])...)
		msgs = msgs[n:]
	}
	return results
}

// Features are the sink's own once it is open. Until then they are such that a call for them serves
// every sink: any number of messages, one of a key.
func (s *Late) Features() ackwise.SinkFeatures {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sink == nil {
		return ackwise.SinkFeatures{}
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
