package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/reach"
	"github.com/ackwise/ackwise/relay"
)

// redriven is the summary of one redrive.
type redriven struct {
	Name     string `json:"name"`
	From     string `json:"from"`
	To       string `json:"to"`
	Accepted int64  `json:"accepted"` // letters that their target took, and that left their store
	// Left are the letters that stay: what the store says that it holds, those included that others
	// hold, or what this run has seen, where that is more or the store does not say. null = it is not
	// known: the store could not be asked.
	Left     *int64  `json:"left"`
	Rejected int64   `json:"rejected"`          // of them, those that the target will never take
	Unknown  int64   `json:"unknown"`           // of them, those that the target may have taken
	Renewed  int64   `json:"renewed,omitempty"` // of them, those that were copied within their queue
	Drained  bool    `json:"drained"`           // nothing was left to try
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
	for i := range cfg.Redrive { // directories and files may be shared
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
		if run.err != nil {
			failed = errors.Join(failed, fmt.Errorf("redrive %q: %w", run.cfg.Name, run.err))
		}
		left = errors.Join(left, run.leftover())
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
	r     *runner // of all redrives: what is on this machine
	own   *runner // of this one: other systems, until its deadline
	tally *tally
	in    *inlet
	sink  ackwise.Sink // nil = not opened yet
	topic string
	d     *directory // of from: queue://
	sum   redriven
	err   error // it could not work
	away  error // what did not answer until the end
}

// run redrives until all is accepted or the deadline is over, and fills the summary.
func (x *redriveRun) run(ctx context.Context) {
	start := x.r.a.now()
	x.sum = redriven{Name: x.cfg.Name, From: x.cfg.From, To: x.cfg.target()}
	whole := ctx // without the deadline
	ctx, stop := context.WithTimeout(ctx, x.cfg.deadline())
	defer stop()
	a := *x.r.a
	a.ctx = ctx
	x.own = newRunner(&a, false)
	err := x.own.closing(func() error {
		switch {
		case x.err == nil:
			x.err = x.reach(ctx)
		case x.cfg.own.from.remote != nil:
			_ = x.openSource(x.own) // to know how many letters there are, if that is possible
		}
		if x.err == nil && x.away == nil {
			x.err = x.work(ctx)
		}
		x.count(ctx)
		return nil
	})
	if x.err == nil {
		x.err = err
	}
	x.renew(whole) // now that what the run held is back
	if x.err != nil {
		x.sum.Error = x.err.Error()
	}
	x.sum.Seconds = math.Round(x.r.a.now().Sub(start).Seconds()*1000) / 1000
}

// renew has the letters that stay begin their time in the queue anew.
func (x *redriveRun) renew(ctx context.Context) {
	if x.cfg.Renew == 0 || x.in == nil || ctx.Err() != nil {
		return
	}
	n, err := renew(ctx, x.cfg.From, x.cfg.Renew)
	x.sum.Renewed = int64(n)
	switch {
	case err == nil, ctx.Err() != nil: // a stop: the next run goes on
	case reach.Passes(err):
		x.away = errors.Join(x.away, err)
	default:
		x.err = errors.Join(x.err, err)
	}
}

// leftover says what is left for the next run, nil = nothing.
func (x *redriveRun) leftover() error {
	what := "how many dead letters are left for the next run is not known"
	if x.sum.Left != nil {
		if *x.sum.Left == 0 && x.sum.Drained {
			return nil
		}
		what = count(int(*x.sum.Left), "dead letter") + " left for the next run"
	}
	if x.away != nil {
		return fmt.Errorf("redrive %q: %s: %w", x.cfg.Name, what, x.away)
	}
	return fmt.Errorf("redrive %q: %s", x.cfg.Name, what)
}

// count fills in what became of the letters.
func (x *redriveRun) count(ctx context.Context) {
	var seen int64
	x.sum.Accepted, x.sum.Rejected, x.sum.Unknown, seen = x.tally.counts()
	n, told, err := x.holds(ctx)
	switch {
	case err != nil:
	case told && x.d != nil: // it is exact
		x.sum.Left = &n
	case told || x.sum.Drained || seen > 0:
		n = max(n, seen)
		x.sum.Left = &n
	}
}

// holds asks the store how many letters it holds; told is false where it cannot say.
func (x *redriveRun) holds(ctx context.Context) (n int64, told bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lagPatience)
	defer cancel()
	switch {
	case x.d != nil:
		b, err := subscriptionBooks(ctx, x.d, x.cfg.own.from.pipeline)
		return b.Dead, true, err
	case x.in == nil:
		return 0, false, errNotOpen
	case x.in.lag == nil:
		return 0, false, nil
	}
	n, _, err = x.in.lag.Lag(ctx)
	return max(n, 0), n >= 0, err
}

var errNotOpen = errors.New("the store is not open")

// settleFor is how long a run goes on looking while its store says that it holds more than the run
// could get: another run may hold it, or the number is behind what was accepted. SQS says that its
// numbers are right after a minute without changes.
const settleFor = time.Minute

// work redrives. Where the store says that there is more it looks again, within bounds.
func (x *redriveRun) work(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	source, end, err := x.source(ctx, cancel)
	if errors.Is(err, errBusy) {
		x.r.log.Info("redrive is left to another run", "redrive", x.cfg.Name)
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, end()) }()
	h := x.handler(ctx, source, cancel)
	var accepted int64 = -1
	var until time.Time
	for {
		if err := x.round(ctx, source, h); err != nil || !x.sum.Drained || x.d != nil {
			return err
		}
		now := x.r.a.now()
		got, _, _, seen := x.tally.counts()
		if got > accepted {
			accepted, until = got, now.Add(settleFor)
		}
		n, told, err := x.holds(ctx)
		if err == nil && (!told || n <= seen) || !now.Before(until) {
			return nil
		}
	}
}

// round redrives until its source ends, or ctx.
func (x *redriveRun) round(ctx context.Context, s *letterSource, h ackwise.BatchHandler) error {
	o := x.cfg.loop()
	o.Logger = x.r.log
	err := deliver.RunBatch(ctx, s, h, o)
	cause := context.Cause(ctx)
	_, _, _, seen := x.tally.counts()
	switch {
	case err != nil:
		return err
	case cause == nil:
		x.sum.Drained = true
		return nil
	case !errors.Is(cause, context.Canceled) && !errors.Is(cause, context.DeadlineExceeded) &&
		!errors.Is(cause, errBusy):
		return cause
	}
	x.sum.Drained = x.sum.Drained && seen == 0 // it was looking again
	failed := s.failed()
	switch {
	case failed == nil || !errors.Is(cause, context.DeadlineExceeded):
	case reach.Passes(failed):
		x.away = fmt.Errorf("receive: %w", failed)
	default:
		return fmt.Errorf("receive: %w", failed)
	}
	return nil
}

// handler publishes letters.
func (x *redriveRun) handler(ctx context.Context, s *letterSource,
	cancel context.CancelCauseFunc) ackwise.BatchHandler {
	sink := &redriveSink{Sink: x.sink, over: ctx.Done()}
	sink.n, sink.pause = x.cfg.Rate.chunks()
	leaves, inOrder := s.leaves()
	sink.inOrder = leaves && inOrder
	h := relay.BatchHandler(sink, relay.Options{Topic: x.topic, Redrive: x.d == nil || x.cfg.To != "",
		Transform: x.transform(), Closed: func(err error) { cancel(err) }})
	return ackwise.BatchHandlerFunc(func(ctx context.Context, ds []*ackwise.Delivery) []error {
		return x.handle(ctx, ds, s, func(ctx context.Context, ds []*ackwise.Delivery) []error {
			sink.said = map[string]letterState{}
			errs := h.HandleBatch(ctx, ds)
			for _, d := range ds {
				if state, asked := sink.said[d.ID]; asked {
					x.tally.note(keyOf(d), state)
				}
			}
			return errs
		})
	})
}

func (x *redriveRun) transform() relay.Transform {
	if x.cfg.own.to == nil {
		return relay.Transform{}
	}
	return x.cfg.own.transform()
}

// source makes what is to be redriven, and how it ends.
func (x *redriveRun) source(ctx context.Context, lost func(error)) (*letterSource, func() error,
	error) {
	if x.d == nil {
		return newLetterSource(x.in.source, x.tally, cmp.Or(x.cfg.Quiet, quietFor)),
			func() error { return nil }, nil
	}
	p := x.cfg.own.from.pipeline
	lease, err := takeLease(ctx, x.d, p, x.r.a.now, lost)
	if err != nil {
		return nil, nil, err
	}
	s := newDeadSource(ctx, x.d, p, x.r.a.now())
	s.back, s.reason = x.cfg.To == "", "redriven by "+x.cfg.Name
	return newLetterSource(s, x.tally, 0),
		func() error { return errors.Join(s.Close(), lease.end(ctx)) }, nil
}

// handle lets letters that the target will never take stay in their store, and reports each once.
func (x *redriveRun) handle(ctx context.Context, ds []*ackwise.Delivery, s *letterSource,
	publish func(context.Context, []*ackwise.Delivery) []error) []error {
	var try []*ackwise.Delivery
	var at []int // of ds
	for i, d := range ds {
		if s.stuck(d) {
			s.stay(d)
			continue
		}
		try, at = append(try, d), append(at, i)
	}
	errs := make([]error, len(ds))
	if len(try) == 0 {
		return errs
	}
	for i, err := range publish(ctx, try) {
		d := try[i]
		if v := ackwise.OutcomeOf(err); v.Outcome == ackwise.OutcomeDead {
			x.tally.reject(d)
			x.r.log.Warn("dead letter is rejected and stays", "redrive", x.cfg.Name,
				"id", d.ID, "error", v.Reason)
			s.stay(d)
			err = nil
		}
		errs[at[i]] = err
	}
	return errs
}
