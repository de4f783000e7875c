package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/process"
	"github.com/ackwise/ackwise/internal/reach"
	"github.com/ackwise/ackwise/relay"
)

// flow is one pipeline that runs.
type flow struct {
	cfg  *pipelineConfig
	r    *runner
	in   *inlet
	out  outlet
	dead atomic.Int64
	away error // why in, or the store, is not open yet; nil = it is

	opens context.Context // of what is opened; run's own once that has begun

	opened chan struct{} // closed when all is open
	done   chan struct{} // closed when it has ended

	meter       *meter      // nil = nobody looks
	receiving   atomic.Bool // its source was asked for messages
	deadLetters deliver.DeadLetters
	store       idempotency.Store // of pattern dedup, else nil
	exec        *process.ExecHandler
	pipe        *process.PipeHandler
	cancel      context.CancelCauseFunc

	acked, skipped atomic.Int64
}

// named says which pipeline cannot work.
func (f *flow) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pipeline %q: %w", f.cfg.Name, err)
}

func (f *flow) openSinks() (err error) {
	if e := f.cfg.to; e != nil {
		if f.out, err = e.scheme.sink(f.r, f.cfg, *e, f.cfg.Output); err != nil {
			return err
		}
	}
	if e := f.cfg.dead; e != nil {
		out, err := e.scheme.sink(f.r, f.cfg, *e, file.SinkOptions{Format: file.JSON})
		if err != nil {
			return fmt.Errorf("open dead letters: %w", err)
		}
		f.deadLetters = relay.DeadLetters(out.sink, f.cfg.Name, relay.Options{Topic: out.topic,
			Closed: func(err error) { f.cancel(err) }})
	}
	return nil
}

func (f *flow) openSource() (err error) {
	if f.in, err = f.cfg.from.scheme.source(f.r, f); err != nil {
		return err
	}
	f.r.closeLater(f.in.source.Close)
	if f.meter != nil {
		f.in.source = &meteredSource{f.in.source, f.meter, func() {
			if !f.receiving.Swap(true) {
				f.meter.m.receiving.WithLabelValues(f.cfg.Name).Set(1)
			}
		}}
	}
	return nil
}

// phase is where a pipeline is.
func (f *flow) phase() string {
	select {
	case <-f.done:
		return "ended"
	default:
	}
	if f.receiving.Load() {
		return "receiving"
	}
	return "opening"
}

// openStore opens what pattern dedup remembers in.
func (f *flow) openStore() (err error) {
	if f.cfg.Pattern != patternDedup || f.store != nil {
		return nil
	}
	u, o := f.cfg.store, f.cfg.storeOptions()
	o.directory = f.r.directory
	if f.store, err = openStore(f.opens, u, o); err != nil {
		return &ackwise.HintError{Err: err, // it may have a hint of its own, which is told before
			Hint: "Nothing was handled: without its store no message can be told from its repeat."}
	}
	f.r.closeLater(f.store.Close)
	return nil
}

// lineOptions are those of a source of lines.
func (f *flow) lineOptions() file.SourceOptions {
	o := f.cfg.Lines
	o.Topic, o.Pipeline = f.cfg.Name, f.cfg.Name
	o.Bad = func(line int, err error) {
		f.skipped.Add(1)
		if f.meter != nil {
			f.meter.m.skipped.WithLabelValues(f.cfg.Name).Inc()
		}
		f.r.log.Warn("bad line is skipped", "pipeline", f.cfg.Name, "line", line, "error", err)
	}
	o.Report = func(text string) { f.r.log.Warn(text, "pipeline", f.cfg.Name) }
	return o
}

// largeBatch is the batch size from a log to a sink that takes any number of messages at once: the
// next batch is received while one is published. What is in flight when the process dies is handed
// out again one by one, so it is not larger.
const largeBatch = 1000

func (f *flow) large() bool {
	if f.cfg.To == "" {
		return false
	}
	in, out := f.in.source.Features(), f.out.sink.Features()
	if in.Lease != 0 || in.MaxBatch != 0 {
		return false
	}
	if late, ok := f.out.sink.(*reach.Late); ok && !late.IsOpen() {
		return true // the relay makes as many calls of it as the sink needs once it is open
	}
	return out.KeyRunSafe && out.MaxBatch == 0
}

// sessions returns how many sessions a queue is consumed with, and how much each one holds: what
// one process works on, so that its death is theirs alone.
func (f *flow) sessions() (count, each int) {
	o := f.cfg.loopOptions()
	switch {
	case f.cfg.Exec != "":
		return o.Concurrency, 1
	case f.cfg.Pipe != "":
		return 1, o.Concurrency
	case o.MaxInFlight > 0:
		return 1, o.MaxInFlight
	}
	return 1, 1024
}

// options are the loop's.
func (f *flow) options() deliver.Options {
	o := f.cfg.loopOptions()
	o.Logger, o.DeadLetters, o.Observe = f.r.log, f.deadLetters, f.observe
	if o.BatchSize == 0 && o.MaxInFlight == 0 && o.Concurrency == 1 && f.large() {
		o.BatchSize, o.MaxInFlight = largeBatch, 2*largeBatch
	}
	if o.MaxInFlight == 0 && f.in.held != nil {
		count, each := f.sessions()
		o.MaxInFlight = max(count*each, o.Concurrency*max(o.BatchSize, 100))
		if f.cfg.To == "" {
			o.MaxInFlight = max(count*each, o.Concurrency)
		}
	}
	return o
}

// observe counts. It is called from one goroutine at a time.
func (f *flow) observe(e ackwise.Event) {
	if f.meter != nil {
		features := f.in.source.Features()
		f.meter.see(e, features.HandOuts && !features.Counts)
	}
	switch {
	case e.Kind == "dead":
		f.dead.Add(1)
		f.r.log.Warn("dead letter", "pipeline", f.cfg.Name, "id", e.ID, "key", e.Key,
			"attempt", e.Attempt, "cause", e.Cause.String())
	case e.Kind == "settled" && e.Outcome == ackwise.OutcomeAck:
		f.acked.Add(1) // a dead letter that was written first is acked too
	case e.Kind == "receive-failed":
		f.r.log.Warn("receive failed", "pipeline", f.cfg.Name, "error", e.Err)
	}
}

// handled is how many messages were acked because they were handled.
func (f *flow) handled() int64 {
	if f.deadLetters != nil {
		return f.acked.Load() - f.dead.Load()
	}
	return f.acked.Load()
}

// settled is told of every settlement.
func (f *flow) settled(token ackwise.LeaseToken, err error) {
	if f.pipe != nil {
		f.pipe.Settled(token, err)
	}
}

// run runs the pipeline until ctx or its source ends.
func (f *flow) run(ctx context.Context) error {
	if err := f.await(ctx); err != nil || ctx.Err() != nil {
		return f.named(err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f.cancel = cancel
	if err := f.openHandler(); err != nil {
		return f.named(err)
	}
	var wg sync.WaitGroup
	over := make(chan struct{})
	wg.Go(func() { f.watch(ctx, over) }) // ends with this function
	f.r.log.Info("pipeline started", "pipeline", f.cfg.Name)
	err := f.deliver(ctx)
	close(over)
	wg.Wait()
	if closeErr := f.closeHandler(); err == nil {
		err = closeErr
	}
	if cause := context.Cause(ctx); err == nil && cause != nil &&
		!errors.Is(cause, context.Canceled) {
		err = cause
	}
	f.r.log.Info("pipeline ended", "pipeline", f.cfg.Name, "acked", f.handled(),
		"dead", f.dead.Load(), "skipped", f.skipped.Load())
	return f.named(err)
}

func (f *flow) openHandler() (err error) {
	o := process.Options{Pipeline: f.cfg.Name, Stdout: f.r.a.out, Stderr: f.r.a.err,
		Report: func(text string) { f.r.log.Warn(text, "pipeline", f.cfg.Name) }}
	switch {
	case f.cfg.Exec != "":
		f.exec, err = process.Exec(f.cfg.Exec, o)
	case f.cfg.Pipe != "":
		f.pipe, err = process.Pipe(f.cfg.Pipe, o)
	}
	return err
}

func (f *flow) closeHandler() error {
	switch {
	case f.exec != nil:
		return f.exec.Close()
	case f.pipe != nil:
		return f.pipe.Close()
	}
	return nil
}

func (f *flow) deliver(ctx context.Context) error {
	if f.cfg.To != "" {
		h := relay.BatchHandler(f.out.sink, relay.Options{Topic: f.out.topic,
			Transform: f.cfg.transform(), Closed: func(err error) { f.cancel(err) }})
		if f.store != nil {
			var err error
			if h, err = idempotency.DedupBatch(ctx, f.store, h, f.dedupOptions()); err != nil {
				return err
			}
		}
		return deliver.RunBatch(ctx, f.in.source, h, f.options())
	}
	var h ackwise.Handler = f.exec
	if f.pipe != nil {
		h = f.pipe
	}
	if f.store != nil {
		var err error
		if h, err = idempotency.Dedup(ctx, f.store, h, f.dedupOptions()); err != nil {
			return err
		}
	}
	if f.in.wrap != nil {
		h = f.in.wrap(h)
	}
	return deliver.Run(ctx, f.in.source, h, f.options())
}

// watch passes on what happens to a long-lived process, and its end.
func (f *flow) watch(ctx context.Context, over <-chan struct{}) {
	if f.pipe == nil {
		return
	}
	select {
	case <-over:
	case <-f.pipe.Failed():
		f.cancel(f.pipe.Err())
	case <-ctx.Done():
		f.pipe.Stop()
	}
}
