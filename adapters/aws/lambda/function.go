package lambda

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
)

// Options configure a Function.
type Options struct {
	// Handler does the work of each delivery, such as relay.Handler. Required, or BatchHandler.
	Handler ackwise.Handler
	// BatchHandler does the work of several at once, such as relay.BatchHandler. With
	// Deliver.Concurrency 1 one batch follows another. Required, or Handler.
	BatchHandler ackwise.BatchHandler
	// Deliver is how: concurrency, backoff, budgets, margin, dead letters. Without DeadLetters
	// what would become one is answered as failed, and so is what stands behind it with the same
	// key: the mapping tries again, and its own limits hold. Failures are counted across the
	// events that one process gets. Default: see deliver.Options.
	Deliver deliver.Options
	// Dedup remembers what was done, so that a message that comes again is not made again. Its
	// window is at least Again. Default: nil, it is made again.
	Dedup idempotency.Store
	// Again is how long after its first delivery a message may come again. Default: 24 h, as long
	// as a stream keeps its records; a queue may keep messages for 14 days.
	Again time.Duration
	// DedupLease is how long the claims of a process that died hold up the messages that it had;
	// while a handler works they are extended. Default: 10 s.
	DedupLease time.Duration
	// WholeBatch answers an error where any message failed: for event source mappings that do not
	// read partial answers. Default: false, answers are partial (ReportBatchItemFailures).
	WholeBatch bool
	// MaxRemembered bounds the messages whose last settlement and failures are remembered between
	// two events. Past it, causes become unknown and failures are counted from zero. Default:
	// 10,000.
	MaxRemembered int
}

// Function is a Lambda function. It has the method that aws-lambda-go wants of a lambda.Handler.
type Function struct {
	o      Options
	memory *memory
	warn   sync.Once // about a failure budget that no invocation can spend
}

// New makes a function. ctx bounds the calls of the dedup store at the start.
func New(ctx context.Context, o Options) (*Function, error) {
	if (o.Handler == nil) == (o.BatchHandler == nil) {
		return nil, fmt.Errorf("make a Lambda function: %w", &ackwise.InvalidError{Field: "Handler",
			Reason: "set it or BatchHandler, one of the two"})
	}
	if o.Again == 0 {
		o.Again = 24 * time.Hour
	}
	if o.MaxRemembered == 0 {
		o.MaxRemembered = 10_000
	}
	if o.Deliver.MaxHandOuts == 0 {
		o.Deliver.MaxHandOuts = 30
	}
	if o.Deliver.Logger == nil {
		o.Deliver.Logger = slog.New(slog.DiscardHandler)
	}
	if err := o.deduplicate(ctx); err != nil {
		return nil, fmt.Errorf("make a Lambda function: %w", err)
	}
	f := &Function{o: o, memory: newMemory(o.MaxRemembered)}
	// An empty batch checks the options.
	if _, err := f.process(ctx, &batch{}, f.o.Deliver); err != nil {
		return nil, fmt.Errorf("make a Lambda function: %w", err)
	}
	return f, nil
}

// deduplicate puts the dedup store before the handler.
func (o *Options) deduplicate(ctx context.Context) (err error) {
	d := idempotency.Options{Again: o.Again, Lease: cmp.Or(o.DedupLease, 10*time.Second),
		Logger: o.Deliver.Logger}
	switch {
	case o.Dedup == nil:
	case o.Handler != nil:
		o.Handler, err = idempotency.Dedup(ctx, o.Dedup, o.Handler, d)
	default:
		o.BatchHandler, err = idempotency.DedupBatch(ctx, o.Dedup, o.BatchHandler, d)
	}
	return err
}

// Invoke handles one event and returns the answer to it.
func (f *Function) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	b, err := readEvent(event)
	if err != nil {
		return nil, fmt.Errorf("read the Lambda event: %w", err)
	}
	if err := f.checkMargin(ctx); err != nil {
		return nil, err
	}
	f.memory.recall(b)
	f.checkBudget(ctx, b)
	settled, err := f.settle(ctx, b)
	if err != nil {
		return nil, err
	}
	f.memory.keep(b, settled)
	return f.answer(b, settled)
}

// settle processes a batch. What an asynchronous invocation has not done in time becomes a dead
// letter where there are such, because Lambda would discard it soon.
func (f *Function) settle(ctx context.Context, b *batch) ([]settlement, error) {
	deadline, limited := ctx.Deadline()
	if !b.source.async || f.o.Deliver.DeadLetters == nil || !limited {
		return f.process(ctx, b, f.o.Deliver)
	}
	// The margin in two halves: the loop keeps one to end the handlers, the other is for the dead
	// letters. Two whole ones could leave no time for the work, and all would become dead letters.
	o := f.o.Deliver
	o.Margin = max(cmp.Or(o.Margin, min(4*time.Second, time.Until(deadline)/2))/2, 1)
	early, cancel := context.WithDeadline(ctx, deadline.Add(-o.Margin))
	defer cancel()
	settled, err := f.process(early, b, o)
	for i := range settled {
		if s := &settled[i]; !s.done() {
			reason := "not done within its invocation: " + s.reason
			if err := f.o.Deliver.DeadLetters.Put(ctx, b.ds[i], reason); err != nil {
				s.reason = fmt.Sprintf("%s; write its dead letter: %v", s.reason, err)
				continue
			}
			s.outcome = ackwise.OutcomeAck
		}
	}
	return settled, err
}

// process runs a batch through the loop.
func (f *Function) process(ctx context.Context, b *batch, o deliver.Options) ([]settlement, error) {
	r := &run{o: f.o, memory: f.memory, givenUp: map[*ackwise.Delivery]string{},
		stuck: map[string]bool{}}
	if o.DeadLetters == nil {
		o.DeadLetters, o.NoDeadLetters = deliver.DeadLetterFunc(r.giveUp), false
	}
	var answers []ackwise.Settlement
	var err error
	if f.o.Handler != nil {
		answers, err = deliver.Process(ctx, b.ds, ackwise.HandlerFunc(r.Handle), o)
	} else {
		answers, err = deliver.ProcessBatch(ctx, b.ds, ackwise.BatchHandlerFunc(r.HandleBatch), o)
	}
	if err != nil {
		return nil, err
	}
	return r.settlements(b.ds, answers), nil
}

// settlement is what became of a delivery.
type settlement struct {
	outcome ackwise.Outcome
	reason  string
	spent   bool // its failure budget is, and there are no dead letters
}

func (s settlement) done() bool {
	return s.outcome == ackwise.OutcomeAck || s.outcome == ackwise.OutcomeDrop
}

// answer is what the event's source understands.
func (f *Function) answer(b *batch, settled []settlement) ([]byte, error) {
	ids := b.failures(settled)
	if len(ids) > 0 && (f.o.WholeBatch || b.source.async) {
		var why error
		for i, s := range settled {
			if !s.done() {
				why = errors.Join(why, fmt.Errorf("message %s: %s: %s", b.ds[i].ID, s.outcome, s.reason))
			}
		}
		return nil, fmt.Errorf("%d of %d messages are not done: %w", len(ids), len(b.ds), why)
	}
	if b.source.async {
		return []byte("null"), nil
	}
	type item struct {
		ID string `json:"itemIdentifier"`
	}
	response := struct {
		Failures []item `json:"batchItemFailures"`
	}{Failures: []item{}}
	for _, id := range ids {
		response.Failures = append(response.Failures, item{id})
	}
	return json.Marshal(response)
}

// checkMargin refuses a margin that leaves no time: nothing would ever be attempted.
func (f *Function) checkMargin(ctx context.Context) error {
	deadline, limited := ctx.Deadline()
	left := time.Until(deadline)
	if !limited || f.o.Deliver.Margin < left {
		return nil
	}
	return &ackwise.HintError{
		Err: fmt.Errorf("the invocation has %s left, and the margin at its end is %s",
			left.Round(time.Millisecond), f.o.Deliver.Margin),
		Hint: "Raise the function's timeout, or lower the margin.",
	}
}

// checkBudget says once that the failure budget is longer than an invocation: a message is then
// given back again and again, and only this process remembers how often it has failed.
func (f *Function) checkBudget(ctx context.Context, b *batch) {
	deadline, limited := ctx.Deadline()
	left, span := time.Until(deadline), time.Duration(0)
	for n := 1; n < cmp.Or(f.o.Deliver.MaxFailures, 10) && span < left; n++ {
		span += f.o.Deliver.Backoff.Delay(n, 1)
	}
	if !limited || len(b.ds) == 0 || f.o.Deliver.DeadLetters == nil || span < left {
		return
	}
	f.warn.Do(func() {
		f.o.Deliver.Logger.Warn("the failure budget may take longer than an invocation: what fails "+
			"goes back before, and its failures are counted by this process only",
			"pauses", span, "time_left", left)
	})
}
