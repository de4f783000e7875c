package deliver

import (
	"context"
	"fmt"

	"github.com/ackwise/ackwise"
)

// Run hands the source's deliveries to the handler until ctx ends, and settles each by what the
// handler decided. It refuses at start what cannot work, with every fault at once.
//
// When ctx ends it stops in order: no more is fetched; what has not started is released, what waits
// for a retry is nacked; running handlers get Options.StopGrace, then their contexts end with
// cause ackwise.ErrStopping; what has ended is settled. It returns nil then, at the latest after
// StopGrace + CancelGrace + SettleTimeout. A handler that ignores its context's end is reported
// and left running; its delivery is left to its lease. Run does not close the source: whoever
// opened it closes it after Run has returned, or runs it again.
//
// A failed Receive is tried again with backoff. Run stops in the same order, and returns the error,
// on one that is ackwise.ErrClosed or has a method Final() bool that returns true. On io.EOF, a
// source that has ended, Run works off what it holds, retries included, and returns nil.
func Run(ctx context.Context, src ackwise.Source, h ackwise.Handler, o Options) error {
	l, err := newLoop(ctx, src, o, false)
	if err == nil {
		err = bind(l.o.Guarantee, h, src)
	}
	if err != nil {
		return fmt.Errorf("start the loop: %w", err)
	}
	l.handle = single(h)
	return l.run(ctx)
}

// RunBatch is Run for a BatchHandler. A call gets up to Options.BatchSize deliveries that are
// ready, which may hold in-order runs of a key where the source hands such runs out. Any number
// of results but one for each delivery is a failure of all. A delivery whose lease is lost ends the
// context of the whole call. ExactlyOnce needs a handler that also has the method
// Bind(ackwise.Source) error of ackwise.Transactional.
func RunBatch(ctx context.Context, src ackwise.Source, h ackwise.BatchHandler, o Options) error {
	l, err := newLoop(ctx, src, o, true)
	if err == nil {
		err = bind(l.o.Guarantee, h, src)
	}
	if err != nil {
		return fmt.Errorf("start the loop: %w", err)
	}
	l.handle = h.HandleBatch
	return l.run(ctx)
}

// single makes a Handler the form that the loop calls: one delivery a call.
func single(h ackwise.Handler) func(context.Context, []*ackwise.Delivery) []error {
	return func(ctx context.Context, ds []*ackwise.Delivery) []error {
		return []error{h.Handle(ctx, ds[0])}
	}
}
