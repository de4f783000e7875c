package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
)

type runCmd struct {
	File       string `arg:"" help:"A YAML file of pipelines."`
	UntilEmpty bool   `help:"End once every source is drained and all is settled."`
	DryRun     bool   `help:"Check the file and say what would run."`
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
	r := &runner{a: a, untilEmpty: c.UntilEmpty,
		log: slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
	return r.run(cfg)
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

	create map[string]bool // directories that may be made
	dirs   map[string]*directory
	files  map[string]*file.Sink
	out    map[file.Format]*file.Sink
	order  []func() error // what is to be closed, in reverse
	flows  []*flow
}

func (r *runner) run(c *config) (err error) {
	r.create, r.dirs = map[string]bool{}, map[string]*directory{}
	r.files, r.out = map[string]*file.Sink{}, map[file.Format]*file.Sink{}
	defer func() {
		for _, end := range slices.Backward(r.order) {
			if e := end(); err == nil {
				err = e
			}
		}
	}()
	if err := r.open(c); err != nil {
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

// open opens every pipeline, the sinks first: they make the topics that others read.
func (r *runner) open(c *config) error {
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
		r.flows = append(r.flows, &flow{cfg: p, r: r})
	}
	for _, step := range []func(*flow) error{(*flow).openSinks, (*flow).openStore,
		(*flow).openSource} {
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
	if d, ok := r.dirs[dir]; ok {
		return d, nil
	}
	d, err := r.a.open(r.a.ctx, dir, r.create[dir])
	if err != nil {
		return nil, err
	}
	r.dirs[dir] = d
	r.order = append(r.order, d.Close)
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
	r.order = append(r.order, s.Close)
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
	var wg, watch sync.WaitGroup
	errs := make([]error, len(r.flows))
	for i, f := range r.flows {
		f.done = make(chan struct{})
		wg.Go(func() { // ends with the pipeline
			defer close(f.done)
			errs[i] = f.run(ctx)
			if errs[i] != nil {
				cancel()
			}
		})
	}
	if r.untilEmpty {
		watch.Go(func() { r.endWhenEmpty(ctx) }) // ends with ctx, or when all is empty
	}
	wg.Wait()
	cancel()
	watch.Wait()
	return errors.Join(errs...)
}

// endWhenEmpty ends the sources that do not end by themselves, once nothing can come any more.
func (r *runner) endWhenEmpty(ctx context.Context) {
	for _, f := range r.flows {
		if f.in.books == nil {
			select {
			case <-f.done:
			case <-ctx.Done():
				return
			}
		}
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
