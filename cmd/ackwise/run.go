package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/internal/reach"
)

type runCmd struct {
	File       string `arg:"" help:"A YAML file of pipelines."`
	UntilEmpty bool   `help:"End once every source is drained and all is settled."`
	DryRun     bool   `help:"Check the file and say what would run."`
	listenFlags
}

// Help is printed under the usage.
func (c *runCmd) Help() string {
	return "Runs until SIGTERM or SIGINT, then drains: nothing more is fetched, handlers end, all " +
		"is settled. A system that does not answer at the start is asked again, and messages wait " +
		"for it as in an outage later; with --until-empty the run fails. With --listen: /livez is " +
		"200 while the process runs; /readyz is 200 while every pipeline receives (or has ended), " +
		"and 503 while sources are opened and while it drains; /metrics is for Prometheus. Without " +
		"--insecure it listens on this machine only."
}

// Run runs the pipelines.
func (c *runCmd) Run(a *app) error {
	cfg, err := loadConfig(c.File)
	if err != nil {
		return err
	}
	if c.DryRun {
		return cfg.describe(a)
	}
	if len(cfg.Pipelines) == 0 {
		return fmt.Errorf("%s: there is no pipeline; pipelines: is a list of them", c.File)
	}
	r := newRunner(a, c.UntilEmpty)
	r.waits = !c.UntilEmpty
	return r.closing(func() error { return r.run(cfg, c.listenFlags) })
}

// describe says what would run.
func (c *config) describe(a *app) error {
	for i := range c.Pipelines {
		p := &c.Pipelines[i]
		target := p.To
		switch {
		case p.Exec != "":
			target = "exec: " + p.Exec
		case p.Pipe != "":
			target = "pipe: " + p.Pipe
		}
		dead := p.Dead
		switch {
		case p.from.is("queue://"):
			dead = "the queue's own"
		case dead == "":
			dead = "none"
		}
		if _, err := fmt.Fprintf(a.out, "%s: %s -> %s (%s, concurrency %d, dead letters: %s%s)\n",
			p.Name, p.From, printable(target), p.Guarantee, p.loopOptions().Concurrency,
			dead, p.says()); err != nil {
			return fmt.Errorf("write standard output: %w", err)
		}
	}
	return nil
}

// runner runs pipelines, and holds what they share: directories and files that are written.
type runner struct {
	a          *app
	log        *slog.Logger
	untilEmpty bool
	waits      bool // for systems that do not answer at the start

	create  map[string]bool // directories that may be made
	files   map[string]*file.Sink
	out     map[file.Format]*file.Sink
	remotes map[string]ackwise.Sink // by address: they are shared
	makers  []*reach.Late           // sinks that are away and make topics
	flows   []*flow
	// started: the pipelines run, and what is opened now holds nobody else up.
	started atomic.Bool

	dirsMu sync.Mutex // guards dirs; held while one is opened, which nobody opens beside it
	dirs   map[string]*directory

	orderMu sync.Mutex     // guards order; taken after dirsMu
	order   []func() error // what is to be closed, in reverse
	// metrics are what --listen shows; nil = nobody looks.
	metrics *metrics
}

func newRunner(a *app, untilEmpty bool) *runner {
	return &runner{a: a, untilEmpty: untilEmpty,
		log:    slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo})),
		create: map[string]bool{}, dirs: map[string]*directory{}, files: map[string]*file.Sink{},
		out: map[file.Format]*file.Sink{}, remotes: map[string]ackwise.Sink{}}
}

// closeLater has f close what was just opened, before all that was opened until now.
func (r *runner) closeLater(f func() error) {
	r.orderMu.Lock()
	defer r.orderMu.Unlock()
	r.order = append(r.order, f)
}

// closing closes what f has opened, in reverse.
func (r *runner) closing(f func() error) (err error) {
	defer func() {
		for _, end := range slices.Backward(r.order) {
			if e := end(); err == nil {
				err = e
			}
		}
	}()
	return f()
}

func (r *runner) run(c *config, listen listenFlags) error {
	if listen.Listen != "" {
		r.metrics = newMetrics(versionOf().Version)
	}
	r.makeFlows(c)
	if r.metrics != nil {
		if _, err := r.listen(listen); err != nil {
			return err
		}
	}
	if err := r.open(); err != nil {
		if r.a.ctx.Err() != nil && errors.Is(err, context.Canceled) {
			return nil // stopped before it had begun
		}
		return err
	}
	if err := r.runAll(); err != nil {
		return err
	}
	return r.sum()
}

// makeFlows makes what runs, and notes which directories may be made.
func (r *runner) makeFlows(c *config) {
	for i := range c.Pipelines {
		p := &c.Pipelines[i]
		for _, e := range []*endpoint{&p.from, p.to, p.dead} {
			if e != nil && e.dir != "" {
				r.create[e.dir] = r.create[e.dir] || p.Create
			}
		}
		if dir := p.store.dir; dir != "" {
			r.create[dir] = r.create[dir] || p.Create
		}
		f := &flow{cfg: p, r: r, opens: r.a.ctx, opened: make(chan struct{}),
			done: make(chan struct{})}
		if r.metrics != nil {
			f.meter = newMeter(r.metrics, p.Name)
		}
		r.flows = append(r.flows, f)
	}
}

// open opens every pipeline, the sinks first: they make the topics that others read.
func (r *runner) open() error {
	for _, step := range []func(*flow) error{(*flow).openSinks, (*flow).openInput} {
		for _, f := range r.flows {
			if err := step(f); err != nil {
				return f.named(err)
			}
		}
	}
	return nil
}

// directory returns an open directory.
func (r *runner) directory(dir string) (*directory, error) {
	r.dirsMu.Lock()
	defer r.dirsMu.Unlock()
	if d, ok := r.dirs[dir]; ok {
		return d, nil
	}
	d, err := r.a.open(r.a.ctx, dir, r.create[dir])
	if err != nil {
		return nil, err
	}
	r.dirs[dir] = d
	r.closeLater(d.Close)
	return d, nil
}

// file returns an open file that is written.
func (r *runner) file(path string, o file.SinkOptions) (*file.Sink, error) {
	key := o.Format.String() + " " + path
	if s, ok := r.files[key]; ok {
		return s, nil
	}
	s, err := file.OpenSink(path, o)
	if err != nil {
		return nil, err
	}
	r.files[key] = s
	r.closeLater(s.Close)
	return s, nil
}

// stream returns standard output.
func (r *runner) stream(o file.SinkOptions) *file.Sink {
	if r.out[o.Format] == nil {
		r.out[o.Format] = file.NewWriterSink(r.a.out, "standard output", o)
	}
	return r.out[o.Format]
}

// runAll runs all pipelines until they end, or are told to. One that fails ends all.
func (r *runner) runAll() error {
	ctx, cancel := context.WithCancel(r.a.ctx)
	defer cancel()
	r.started.Store(true)
	var wg, watch sync.WaitGroup
	errs := make([]error, len(r.flows))
	for i, f := range r.flows {
		wg.Go(func() { // ends with the pipeline
			defer close(f.done)
			errs[i] = f.run(ctx)
			if errs[i] != nil {
				cancel()
			}
		})
	}
	if r.metrics != nil {
		watch.Go(func() { r.lookAtLag(ctx) }) // ends with ctx
	}
	if r.untilEmpty {
		watch.Go(func() { r.endWhenEmpty(ctx) }) // ends with ctx, or when all is empty
	}
	wg.Wait()
	cancel()
	watch.Wait()
	return errors.Join(errs...)
}

// lookAtLag shows, again and again, what can only be looked at.
func (r *runner) lookAtLag(ctx context.Context) {
	t := time.NewTicker(lookAtLag)
	defer t.Stop()
	for {
		var wg sync.WaitGroup
		for _, f := range r.flows {
			if f.isOpen() {
				wg.Go(func() { f.meter.look(ctx, f.in, r.a.now()) }) // ends with its patience
			}
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// endWhenEmpty ends the sources that do not end by themselves, once nothing can come any more.
func (r *runner) endWhenEmpty(ctx context.Context) {
	ended := func(these func(*inlet) bool) bool {
		for _, f := range r.flows {
			if these(f.in) {
				select {
				case <-f.done:
				case <-ctx.Done():
					return false
				}
			}
		}
		return true
	}
	if !ended(func(in *inlet) bool { return in.books == nil && in.quiet == nil }) {
		return
	}
	for _, f := range r.flows {
		if f.in.quiet != nil {
			close(f.in.quiet.armed)
		}
	}
	if !ended(func(in *inlet) bool { return in.quiet != nil }) {
		return
	}
	t := time.NewTicker(lookInterval)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if r.empty(ctx) {
			for _, f := range r.flows {
				if f.in.end != nil {
					f.in.end()
				}
			}
			return
		}
	}
}

// empty reports whether nothing is left in any subscription. Pipelines may feed each other, so it
// looks twice: what had moved on between the looks has made the number of the accepted grow.
func (r *runner) empty(ctx context.Context) bool {
	var before int64
	for look := range 2 {
		var accepted int64
		for _, f := range r.flows {
			if f.in.books == nil {
				continue
			}
			b, err := f.in.books(ctx)
			if err != nil || f.in.held() > 0 || b.Waiting() > 0 {
				return false // an error shows in the pipeline itself
			}
			accepted += b.Accepted
		}
		if look == 1 && accepted != before {
			return false
		}
		before = accepted
	}
	return true
}

// sum is the command's end.
func (r *runner) sum() error {
	var dead, skipped int64
	for _, f := range r.flows {
		dead += f.dead.Load()
		skipped += f.skipped.Load()
	}
	if r.a.ctx.Err() != nil || dead+skipped == 0 {
		return nil
	}
	return partial(&ackwise.HintError{
		Err: fmt.Errorf("%s made, %s skipped", count(int(dead), "dead letter"),
			count(int(skipped), "bad line")),
		Hint: "The log above names each of them.",
	})
}
