package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/relay"
)

// redriven is the summary of one redrive.
type redriven struct {
	Name     string  `json:"name"`
	From     string  `json:"from"`
	To       string  `json:"to"`
	Accepted int64   `json:"accepted"` // letters that their target took, and that left their store
	Left     int64   `json:"left"`     // letters that stay, as far as they are known
	Rejected int64   `json:"rejected"` // of them, those that the target will never take
	Unknown  int64   `json:"unknown"`  // of them, those that the target may have taken
	Drained  bool    `json:"drained"`  // nothing was left to try
	Seconds  float64 `json:"seconds"`
	Error    string  `json:"error,omitempty"` // why it could not work
}

// once runs the redrives of a file side by side.
func (c *redriveCmd) once(a *app) error {
	cfg, err := loadConfig(c.Once)
	if err != nil {
		return err
	}
	if len(cfg.Redrive) == 0 {
		return fmt.Errorf("%s: there is no redrive; redrive: is a list of them", c.Once)
	}
	if c.DryRun {
		for i := range cfg.Redrive {
			if _, err := fmt.Fprintln(a.out, cfg.Redrive[i].describe()); err != nil {
				return err
			}
		}
		return nil
	}
	r := newRunner(a, false)
	return r.closing(func() error { return r.redriveAll(cfg) })
}

func (r *runner) redriveAll(cfg *config) error {
	runs := make([]*redriveRun, len(cfg.Redrive))
	for i := range cfg.Redrive { // directories and sinks may be shared
		runs[i] = &redriveRun{cfg: &cfg.Redrive[i], r: r, tally: newTally()}
		if dir := runs[i].cfg.own.toDir(); dir != "" {
			r.create[dir] = r.create[dir] || runs[i].cfg.Create
		}
	}
	for _, run := range runs {
		run.err = run.open()
	}
	var wg sync.WaitGroup
	for _, run := range runs {
		wg.Go(func() { run.run(r.a.ctx) }) // ends at its deadline
	}
	wg.Wait()
	var failed, left error
	enc := json.NewEncoder(r.a.out)
	enc.SetEscapeHTML(false)
	for _, run := range runs {
		if err := enc.Encode(run.sum); err != nil {
			return fmt.Errorf("write standard output: %w", err)
		}
		switch {
		case run.err != nil:
			failed = errors.Join(failed, fmt.Errorf("redrive %q: %w", run.cfg.Name, run.err))
		case run.sum.Left > 0 || !run.sum.Drained:
			left = errors.Join(left, fmt.Errorf("redrive %q: %s left for the next run",
				run.cfg.Name, count(int(run.sum.Left), "dead letter")))
		}
	}
	if failed != nil {
		return failed
	}
	if left != nil {
		return partial(left)
	}
	return nil
}

// redriveRun is one redrive that runs.
type redriveRun struct {
	cfg   *redriveConfig
	r     *runner
	tally *tally
	in    *inlet
	sink  ackwise.Sink
	topic string
	d     *directory // of from: queue://
	sum   redriven
	err   error // it could not work
}

func (x *redriveRun) open() error {
	p := &x.cfg.own
	x.sink = backSink{}
	if p.to != nil {
		out, err := p.to.scheme.sink(x.r, p, *p.to, file.SinkOptions{Format: file.JSON})
		if err != nil {
			return err
		}
		x.sink, x.topic = out.sink, out.topic
	}
	if p.from.is("queue://") {
		var err error
		if x.d, err = x.r.directory(p.from.dir); err != nil {
			return err
		}
		_, err = subscriptionBooks(x.r.a.ctx, x.d, p.from.pipeline)
		return err
	}
	f := &flow{cfg: p, r: x.r}
	if err := f.openSource(); err != nil {
		return err
	}
	x.in = f.in
	return nil
}

// run redrives until all is accepted or the deadline is over, and fills the summary.
func (x *redriveRun) run(ctx context.Context) {
	start := x.r.a.now()
	x.sum = redriven{Name: x.cfg.Name, From: x.cfg.From, To: x.cfg.target()}
	if x.err == nil {
		x.err = x.work(ctx)
	}
	x.sum.Accepted, x.sum.Rejected, x.sum.Unknown, x.sum.Left = x.tally.counts()
	if x.err == nil {
		x.count(context.WithoutCancel(ctx))
	}
	if x.err != nil {
		x.sum.Error = x.err.Error()
	}
	x.sum.Seconds = math.Round(x.r.a.now().Sub(start).Seconds()*1000) / 1000
}

// count finds what is left, beyond what this run has seen.
func (x *redriveRun) count(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, lagPatience)
	defer cancel()
	switch {
	case x.d != nil:
		if b, err := subscriptionBooks(ctx, x.d, x.cfg.own.from.pipeline); err == nil {
			x.sum.Left = b.Dead
		}
	case !x.sum.Drained && x.in.lag != nil:
		if records, _, err := x.in.lag.Lag(ctx); err == nil {
			x.sum.Left = max(x.sum.Left, records)
		}
	}
}

func (x *redriveRun) work(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ctx, stop := context.WithTimeout(ctx, x.cfg.deadline())
	defer stop()
	source, end, err := x.source(ctx, cancel)
	if errors.Is(err, errBusy) {
		x.r.log.Info("redrive is left to another run", "redrive", x.cfg.Name)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	letters := &letterSource{Source: source, t: x.tally}
	sink := &redriveSink{Sink: x.sink, t: x.tally, over: ctx.Done()}
	sink.n, sink.pause = x.cfg.Rate.chunks()
	h := relay.BatchHandler(sink, relay.Options{Topic: x.topic, Redrive: x.d == nil || x.cfg.To != "",
		Transform: x.transform(), Closed: func(err error) { cancel(err) }})
	o := x.cfg.loop()
	o.Logger = x.r.log
	err = deliver.RunBatch(ctx, letters, x.keep(h, letters), o)
	cause := context.Cause(ctx)
	switch {
	case err != nil:
		return err
	case cause == nil:
		x.sum.Drained = true
	case !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) &&
		!errors.Is(cause, errBusy):
		return cause
	case letters.failed() != nil && errors.Is(cause, context.DeadlineExceeded):
		return fmt.Errorf("receive: %w", letters.failed())
	}
	return nil
}

func (x *redriveRun) transform() relay.Transform {
	if x.cfg.own.to == nil {
		return relay.Transform{}
	}
	return x.cfg.own.transform()
}

// source opens what is to be redriven, and how it ends.
func (x *redriveRun) source(ctx context.Context, lost func(error)) (ackwise.Source, func() error,
	error) {
	if x.d == nil {
		quiet := x.cfg.Quiet
		if quiet == 0 {
			quiet = quietFor
		}
		return &quietLetters{Source: x.in.source, quiet: quiet, t: x.tally},
			func() error { return nil }, nil
	}
	p := x.cfg.own.from.pipeline
	lease, err := takeLease(ctx, x.d, p, x.r.a.now, lost)
	if err != nil {
		return nil, nil, err
	}
	s := newDeadSource(ctx, x.d, p, x.r.a.now())
	s.back, s.reason = x.cfg.To == "", "redriven by "+x.cfg.Name
	return s, func() error { return errors.Join(s.Close(), lease.end(ctx)) }, nil
}

// keep lets letters that the target will never take stay in their store, and reports each once.
func (x *redriveRun) keep(h ackwise.BatchHandler, s *letterSource) ackwise.BatchHandler {
	return ackwise.BatchHandlerFunc(
		func(ctx context.Context, ds []*ackwise.Delivery) []error {
			errs := h.HandleBatch(ctx, ds)
			for i, err := range errs {
				if v := ackwise.OutcomeOf(err); v.Outcome == ackwise.OutcomeDead {
					x.tally.note(ds[i].ID, letterRejected)
					x.r.log.Warn("dead letter is rejected and stays", "redrive", x.cfg.Name,
						"id", ds[i].ID, "error", v.Reason)
					errs[i] = ackwise.Snooze(s.restFor())
				}
			}
			return errs
		})
}

// rejectedRest is how long a rejected letter is out of sight of its queue's consumers: long enough
// that a run does not turn in circles, short enough that the next one finds it.
const rejectedRest = 10 * time.Second
