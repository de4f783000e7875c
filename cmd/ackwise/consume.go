package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/queue"
)

type consumeCmd struct {
	dirFlag
	Create      bool          `help:"Make the directory, the topic and the subscription where they are missing."`
	Pipeline    pipeline      `arg:"" name:"topic/subscription" help:"What to consume."`
	Exec        string        `xor:"handler" placeholder:"CMD" help:"Run sh -c CMD for each message: body on standard input, the rest in ACKWISE_… variables; exit code 0 = done."`
	Pipe        string        `xor:"handler" placeholder:"CMD" help:"Keep sh -c CMD running: it gets one line of JSON a delivery and answers one line each."`
	PrintAcks   bool          `help:"Print each ID once its ack has returned. With a handler, standard output then holds only IDs."`
	Max         int           `help:"End after so many deliveries. Default: no limit."`
	UntilEmpty  bool          `help:"End once nothing is ready, delayed, in flight or waiting for a retry."`
	Ordered     bool          `help:"Make the subscription ordered by key. An existing one must be."`
	OnDead      string        `enum:"skip,hold," default:"" help:"What a dead letter does to its key: skip (it goes on) or hold (it is parked); hold needs --ordered. Default: skip."`
	From        start         `default:"beginning" help:"Where a new subscription begins: beginning, now, or a time (RFC 3339)."`
	Lease       time.Duration `help:"How long a hand-out is held without a sign of life. Default: the subscription's (30s)."`
	Concurrency int           `help:"How many deliveries are worked on at once. Default: the CPUs for --exec, 16 for --pipe, 1 for printing."`
	MaxFailures int           `default:"10" help:"The failure that makes a dead letter."`
	MaxCrashes  int           `default:"3" help:"How many consumers a message may take down before it becomes a dead letter."`
	Backoff     time.Duration `default:"1s" help:"The first delay after a failure, at most; it doubles with each."`
	Breaker     bool          `help:"While nearly everything fails, pause instead of spending the failures of every message."`
	MaxHandle   time.Duration `default:"1h" help:"How long a delivery may be worked on in all."`
	Guarantee   string        `enum:"at-most-once,at-least-once" default:"at-least-once" help:"at-least-once, or at-most-once: ack before the work."`
	SyncAcks    bool          `help:"Let acks wait for the disk, so that a power cut brings nothing back."`
}

// Validate checks what the flags alone can tell.
func (c *consumeCmd) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
		least int64
	}{
		{"max", int64(c.Max), 0}, {"lease", int64(c.Lease), 0},
		{"concurrency", int64(c.Concurrency), 0}, {"max-failures", int64(c.MaxFailures), 1},
		{"max-crashes", int64(c.MaxCrashes), 1}, {"backoff", int64(c.Backoff), 1},
		{"max-handle", int64(c.MaxHandle), 1},
	} {
		if f.value < f.least {
			return fmt.Errorf("--%s is too small", f.name)
		}
	}
	if c.OnDead == "hold" && !c.Ordered {
		return errors.New("--on-dead hold needs --ordered")
	}
	return nil
}

// Run consumes. A signal is a soft stop, also before it has begun.
func (c *consumeCmd) Run(a *app) error {
	err := c.consume(a)
	if a.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func (c *consumeCmd) consume(a *app) (err error) {
	d, err := a.open(a.ctx, c.Dir, c.Create)
	if err != nil {
		return err
	}
	defer closing(d, &err)
	o := queue.SubscriptionOptions{Ordered: c.Ordered, Start: c.From.Start, Lease: c.Lease}
	if c.OnDead == "hold" {
		o.OnDead = queue.Hold
	}
	info, err := ensureSubscription(a.ctx, d, c.Pipeline, c.Create, o)
	if err == nil {
		err = c.checkExisting(info.Options)
	}
	if err != nil {
		return err
	}
	r := &consumption{c: c, a: a, books: d}
	return r.run(func(ctx context.Context) (process.Session, error) {
		return d.session(ctx, c.Pipeline, queue.ReceiverOptions{Lease: c.Lease,
			MaxInFlight: r.perSession(), SyncAcks: c.SyncAcks})
	})
}

// checkExisting refuses a promise that the existing subscription does not keep.
func (c *consumeCmd) checkExisting(o queue.SubscriptionOptions) error {
	switch {
	case c.Ordered && !o.Ordered:
		return &ackwise.HintError{
			Err:  fmt.Errorf("the subscription %s exists and is not ordered", c.Pipeline),
			Hint: "Consume it without --ordered, or make another subscription with --create."}
	case c.OnDead != "" && c.OnDead != o.OnDead.String():
		return &ackwise.HintError{
			Err: fmt.Errorf("the subscription %s exists with --on-dead %s", c.Pipeline,
				o.OnDead),
			Hint: "Consume it without --on-dead, or make another subscription with --create."}
	}
	return nil
}

// booksReader tells how much is left.
type booksReader interface {
	Books(ctx context.Context) ([]queue.Books, error)
}

// consumption is one run of consume.
type consumption struct {
	c     *consumeCmd
	a     *app
	books booksReader

	handler  ackwise.Handler
	pipe     *process.PipeHandler // with --pipe
	exec     *process.ExecHandler // with --exec
	sessions *process.Sessions
	cancel   context.CancelCauseFunc
	outMu    sync.Mutex // guards standard output, so that lines are written whole and in turn

	acked, failed, dead atomic.Int64
}

// concurrency is how many deliveries are worked on at once.
func (r *consumption) concurrency() int {
	switch {
	case r.c.Concurrency > 0:
		return r.c.Concurrency
	case r.c.Exec != "":
		return runtime.NumCPU()
	case r.c.Pipe != "":
		return 16
	}
	return 1
}

// printAhead is how many deliveries are held where none can take its process down.
const printAhead = 256

// perSession is how many deliveries one session holds: what one process works on.
func (r *consumption) perSession() int {
	switch {
	case r.c.Exec != "":
		return 1
	case r.c.Pipe != "":
		return r.concurrency()
	}
	return max(r.concurrency(), printAhead)
}

// run consumes until it is told to stop, or is done.
func (r *consumption) run(open func(context.Context) (process.Session, error)) (err error) {
	ctx, cancel := context.WithCancelCause(r.a.ctx)
	defer cancel(nil)
	r.cancel = cancel
	count := 1
	if r.c.Exec != "" {
		count = r.concurrency()
	}
	r.sessions, err = process.NewSessions(ctx, process.SessionsOptions{Open: open, Count: count,
		InFlight: r.perSession(), Max: r.c.Max, Settled: r.settled})
	if err != nil {
		return err
	}
	defer closing(r.sessions, &err)
	if err := r.start(); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	done := make(chan struct{})
	defer close(done)
	wg.Go(func() { r.watch(ctx, done) }) // ends with this function
	shown := r.showProgress()
	err = deliver.Run(ctx, r.sessions, r.sessions.Handler(r.handler), r.options(count))
	shown.stop()
	if closeErr := r.closeHandler(); err == nil {
		err = closeErr
	}
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

func (r *consumption) options(sessions int) deliver.Options {
	o := deliver.Options{Pipeline: r.c.Pipeline.String(), Concurrency: r.concurrency(),
		MaxInFlight: max(r.perSession()*sessions, r.concurrency()),
		MaxFailures: r.c.MaxFailures, MaxCrashes: r.c.MaxCrashes, MaxHandle: r.c.MaxHandle,
		Backoff: deliver.Backoff{First: r.c.Backoff}, Logger: r.a.logger(),
		Breaker:     deliver.Breaker{Off: !r.c.Breaker},
		RetryBudget: deliver.RetryBudget{Off: !r.c.Breaker}}
	if r.c.Guarantee == "at-most-once" {
		o.Guarantee = deliver.AtMostOnce
	}
	return o
}

// start makes the handler.
func (r *consumption) start() (err error) {
	o := process.Options{Pipeline: r.c.Pipeline.String(), Stdout: r.a.out, Stderr: r.a.err,
		Report: func(text string) { _, _ = fmt.Fprintln(r.a.err, "ackwise: "+text) }}
	if r.c.PrintAcks {
		o.Stdout = os.Stderr
	}
	switch {
	case r.c.Exec != "":
		r.exec, err = process.Exec(r.c.Exec, o)
		r.handler = r.exec
	case r.c.Pipe != "":
		r.pipe, err = process.Pipe(r.c.Pipe, o)
		r.handler = r.pipe
	default:
		r.handler = ackwise.HandlerFunc(r.print)
	}
	return err
}

func (r *consumption) closeHandler() error {
	switch {
	case r.exec != nil:
		return r.exec.Close()
	case r.pipe != nil:
		return r.pipe.Close()
	}
	return nil
}

// print is the handler where there is none: it writes the protocol's line.
func (r *consumption) print(_ context.Context, d *ackwise.Delivery) error {
	line, err := process.AppendLine(nil, process.Line{Delivery: d, Pipeline: r.c.Pipeline.String()})
	if err != nil {
		return err
	}
	return r.write(line)
}

// write writes a line in one piece. Where standard output is gone, all stops: what could not be
// written is not acked.
func (r *consumption) write(line []byte) error {
	r.outMu.Lock()
	defer r.outMu.Unlock()
	if _, err := r.a.out.Write(line); err != nil {
		err = fmt.Errorf("write standard output: %w", err)
		r.cancel(err)
		return fmt.Errorf("%w: %w", err, ackwise.Snooze(0)) // its budget is not spent
	}
	return nil
}

// settled is told of every settlement.
func (r *consumption) settled(d *ackwise.Delivery, o ackwise.Outcome, err error) {
	if r.pipe != nil {
		r.pipe.Settled(d.Token, err)
	}
	if err != nil {
		return
	}
	switch o {
	case ackwise.OutcomeAck:
		r.acked.Add(1)
		if r.c.PrintAcks {
			_ = r.write([]byte(d.ID + "\n")) // it stops all by itself
		}
	case ackwise.OutcomeNack:
		r.failed.Add(1)
	case ackwise.OutcomeDead:
		r.dead.Add(1)
	case ackwise.OutcomeSnooze, ackwise.OutcomeRelease, ackwise.OutcomeExtend, ackwise.OutcomeDrop:
	}
}

// lookInterval is how often --until-empty looks at the books, while nothing is held here.
const lookInterval = 100 * time.Millisecond

// watch ends the consumption for what happens outside the loop.
func (r *consumption) watch(ctx context.Context, done <-chan struct{}) {
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	look := t.C
	if !r.c.UntilEmpty {
		look = nil
	}
	var failed <-chan struct{}
	if r.pipe != nil {
		failed = r.pipe.Failed()
	}
	for {
		select {
		case <-done:
			return
		case <-failed:
			r.cancel(r.pipe.Err())
			return
		case <-ctx.Done():
			if r.pipe != nil {
				r.pipe.Stop()
			}
			return
		case <-look:
			empty, err := r.empty(ctx)
			if err != nil && ctx.Err() == nil {
				r.cancel(fmt.Errorf("look at the books: %w", err))
			}
			if empty {
				r.sessions.End()
				look = nil
			}
		}
	}
}

// empty reports whether nothing is left that will be handed out without anybody's order.
func (r *consumption) empty(ctx context.Context) (bool, error) {
	if r.sessions.Held() > 0 {
		return false, nil
	}
	all, err := r.books.Books(ctx)
	if err != nil {
		return false, err
	}
	for _, b := range all {
		if b.Topic == r.c.Pipeline.topic && b.Subscription == r.c.Pipeline.sub {
			return b.Waiting() == 0, nil
		}
	}
	return false, &ackwise.NotFoundError{Kind: "subscription", Name: r.c.Pipeline.String()}
}

// showProgress shows counts, where they do not stand among printed lines.
func (r *consumption) showProgress() *progress {
	a := *r.a
	a.terminal = a.terminal && !a.outputTerminal
	return a.progress(func() string {
		return fmt.Sprintf("%s: acked %d, failed %d, dead %d, held %d", r.c.Pipeline,
			r.acked.Load(), r.failed.Load(), r.dead.Load(), r.sessions.Held())
	})
}
