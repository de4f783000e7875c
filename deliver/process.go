package deliver

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// Process handles a batch that a system pushed (a Lambda invocation, a webhook) in the same loop as
// Run: lanes, retries, budgets. Messages of one key are handled in the batch's order. It tries
// again in memory until Options.Margin before ctx's deadline, and at ctx's end at the latest; then
// running handlers' contexts end with cause ackwise.ErrStopping and get CancelGrace, within
// the margin.
//
// It returns exactly one settlement for each delivery, in the batch's order, and the caller answers
// in its system's form: all that is not OutcomeAck or OutcomeDrop is to be sent again (in Lambda's
// partial batch response: listed in batchItemFailures). A dead letter is durable in
// Options.DeadLetters before its message is acked; a Nack means it failed, a Release that
// it was not attempted, or was interrupted. Delivery.Counts are believed as far as they are set.
//
// The error is about the options or the batch alone: then nothing was handled, and all is to be
// sent again. ExactlyOnce and AtMostOnce are refused: the system hears the answer only after the
// work.
func Process(ctx context.Context, batch []*ackwise.Delivery, h ackwise.Handler, o Options) (
	[]ackwise.Settlement, error) {
	return process(ctx, batch, work{h, single(h), false}, o)
}

// ProcessBatch is Process for a BatchHandler. A call gets up to Options.BatchSize deliveries, which
// may hold in-order runs of a key; a key is in one call at a time.
func ProcessBatch(ctx context.Context, batch []*ackwise.Delivery, h ackwise.BatchHandler,
	o Options) ([]ackwise.Settlement, error) {
	return process(ctx, batch, work{h,
		func(ctx context.Context, ds []*ackwise.Delivery) []error { return h.HandleBatch(ctx, ds) },
		true}, o)
}

// work is a handler in the form that the loop calls.
type work struct {
	handler any
	handle  func(context.Context, []*ackwise.Delivery) []error
	batches bool
}

func process(ctx context.Context, batch []*ackwise.Delivery, w work, o Options) (
	[]ackwise.Settlement, error) {
	src, err := newPushed(batch)
	if err != nil {
		return nil, fmt.Errorf("process a batch: %w", err)
	}
	if o.Guarantee != AtLeastOnce {
		return nil, fmt.Errorf("process a batch: %w", &ackwise.HintError{
			Err: fmt.Errorf("a pushed batch is answered after the work, so %s is not possible",
				o.Guarantee),
			Hint: "Use AtLeastOnce with a handler that applies each message's effect once.",
		})
	}
	ctx, o, cancel := o.pushed(ctx)
	defer cancel()
	l, err := newLoop(ctx, src, o, w.batches)
	if err == nil {
		err = bind(l.o.Guarantee, w.handler, src)
	}
	if err != nil {
		return nil, fmt.Errorf("process a batch: %w", err)
	}
	l.handle = w.handle
	l.settle = src.note
	if err := l.run(ctx); err != nil {
		return nil, fmt.Errorf("process a batch: %w", err)
	}
	return src.answer(), nil
}

// pushed fits the options to a batch: the stop comes Margin before the deadline and has no grace,
// and the handlers' contexts carry no deadline but are ended in time.
func (o Options) pushed(ctx context.Context) (context.Context, Options, context.CancelFunc) {
	o.StopGrace = NoGrace
	deadline, limited := ctx.Deadline()
	if !limited {
		ctx, cancel := context.WithCancel(ctx)
		return ctx, o, cancel
	}
	left := time.Until(deadline)
	if o.Margin == 0 {
		o.Margin = max(min(2*time.Second, left/4), 1)
	}
	setDefault(&o.CancelGrace, 5*time.Second)
	setDefault(&o.SettleTimeout, 10*time.Second)
	o.CancelGrace = min(o.CancelGrace, o.Margin/2)
	o.SettleTimeout = min(o.SettleTimeout, o.Margin/4)
	ctx, cancel := context.WithDeadline(ctx, deadline.Add(-o.Margin))
	return ctx, o, cancel
}

// pushed is a batch as a source that ends. Only its Receive and Features are used; what becomes of
// its deliveries is noted by delivery, since a pushed one needs no token.
type pushed struct {
	batch []*ackwise.Delivery
	next  int // of batch, to be received

	mu      sync.Mutex // guards settled: the answer may come while a last note is under way
	settled map[*ackwise.Delivery]*ackwise.Settlement
}

func newPushed(batch []*ackwise.Delivery) (*pushed, error) {
	p := &pushed{batch: batch, settled: make(map[*ackwise.Delivery]*ackwise.Settlement)}
	for i, d := range batch {
		if d == nil {
			return nil, invalid("batch", i, "the delivery at this index is nil")
		}
		if _, twice := p.settled[d]; twice {
			return nil, invalid("batch", i, "the delivery at this index is in it twice")
		}
		p.settled[d] = nil
	}
	return p, nil
}

// Receive returns the next part of the batch, and io.EOF with the last.
func (p *pushed) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	part := p.batch[p.next:min(p.next+max, len(p.batch))]
	p.next += len(part)
	if p.next == len(p.batch) {
		return part, io.EOF
	}
	return part, nil
}

// Settle is never called: the loop notes instead.
func (p *pushed) Settle(context.Context, []ackwise.Settlement) []ackwise.SettleResult { return nil }

// Features returns those of a batch that is held until it is answered.
func (p *pushed) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Counts: true, Causes: true, KeyRuns: true}
}

// Close does nothing.
func (p *pushed) Close() error { return nil }

// note notes what becomes of deliveries.
func (p *pushed) note(_ context.Context, batch []settlement) []ackwise.SettleResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range batch {
		p.settled[batch[i].e.d] = &batch[i].s
	}
	return make([]ackwise.SettleResult, len(batch))
}

// answer returns one settlement for each delivery. What has none was not attempted in time, or its
// handler has not returned.
func (p *pushed) answer() []ackwise.Settlement {
	p.mu.Lock()
	defer p.mu.Unlock()
	answer := make([]ackwise.Settlement, len(p.batch))
	for i, d := range p.batch {
		if s := p.settled[d]; s != nil {
			answer[i] = *s
			continue
		}
		answer[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeRelease,
			Reason: "not attempted, or not ended, before the deadline"}
	}
	return answer
}
