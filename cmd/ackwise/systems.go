package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/reach"
)

// openPatience is how long a system may take to be opened, and closePatience to be closed: longer
// than any of them takes by itself. The longest is SQS's, which waits for a poll of up to 20 s and
// then gives back what is held.
const (
	openPatience  = 30 * time.Second
	closePatience = 30 * time.Second
)

// firstPatience is how long one that is opened again if need be may hold up the others.
const firstPatience = 5 * time.Second

// patience is how long a system may take now.
func (r *runner) patience() time.Duration {
	if r.waits && !r.started.Load() {
		return firstPatience
	}
	return openPatience
}

// opening is what an adapter is told when it opens.
type opening struct {
	create bool // what is missing
	dead   bool // the sink is a store of dead letters
	log    *slog.Logger
}

// warn writes down what a source has met that a person should know of, such as a loss that it was
// told to pass over.
func (o opening) warn(e ackwise.Event) {
	if e.Err != nil {
		o.log.Warn(e.Kind, "pipeline", e.Pipeline, "partition", e.ID, "error", e.Err)
	}
}

// opener opens what was read.
type opener[T any] func(context.Context, opening) (T, error)

// remote is an endpoint of another system, read and not yet opened.
type remote struct {
	source  opener[ackwise.Source]
	sink    opener[ackwise.Sink]
	creates bool // it can make what is missing
}

// side is what an adapter can be: how its URL is read, without the network, and opened.
type side[T any] struct {
	parse   func(text string) (opener[T], error)
	creates bool
}

// adapter makes a side of an adapter's two functions. tell passes on what it is told; nil =
// nothing, and it makes nothing that is missing.
func adapter[O, T any](parse func(string) (O, error), open func(context.Context, O) (T, error),
	tell func(*O, opening)) *side[T] {
	return &side[T]{creates: tell != nil, parse: func(text string) (opener[T], error) {
		o, err := parse(text)
		return func(ctx context.Context, with opening) (T, error) {
			if tell != nil {
				tell(&o, with)
			}
			return open(ctx, o)
		}, err
	}}
}

// system makes the row of a system. What it cannot be is nil.
func system(prefix, form string, source *side[ackwise.Source],
	sink *side[ackwise.Sink]) scheme {
	return scheme{prefix: prefix, form: form, source: openRemote, sink: openRemoteSink,
		parse: func(e *endpoint) (err error) {
			e.remote = &remote{}
			switch {
			case e.from && source == nil:
				return fmt.Errorf("%s is no source here: nothing can be read from it", prefix)
			case e.from:
				e.remote.creates = source.creates
				e.remote.source, err = source.parse(e.text)
			case sink == nil:
				return fmt.Errorf("%s is no sink here: nothing can be written to it", prefix)
			default:
				e.remote.creates = sink.creates
				e.remote.sink, err = sink.parse(e.text)
			}
			return err
		}}
}

func openRemote(r *runner, f *flow) (*inlet, error) {
	s, err := reach.Within(f.opens, r.patience(),
		func(ctx context.Context) (ackwise.Source, error) {
			return f.cfg.from.remote.source(ctx, opening{create: f.cfg.Create, log: r.log})
		})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.cfg.From, err)
	}
	in := f.told(bounded{s})
	in.lag, _ = s.(lagging)
	if r.untilEmpty {
		in.quiet = &quietSource{Source: in.source, quiet: quietFor, lag: in.lag,
			armed: make(chan struct{}), log: r.log.With("pipeline", f.cfg.Name)}
		in.source = in.quiet
	}
	return in, nil
}

func openRemoteSink(r *runner, p *pipelineConfig, e endpoint, _ file.SinkOptions) (outlet, error) {
	// One file may publish to a place from many pipelines: they share its connections.
	// One that acks first does without a sink that is opened late, see openSink.
	first := p.Guarantee == deliver.AtMostOnce
	key := fmt.Sprint(p.Create, " ", e.dead, " ", first, " ", e.text)
	if s, ok := r.remotes[key]; ok {
		return outlet{sink: s}, nil
	}
	open := func(ctx context.Context) (ackwise.Sink, error) {
		s, err := reach.Within(ctx, r.patience(), func(ctx context.Context) (ackwise.Sink, error) {
			return e.remote.sink(ctx, opening{create: p.Create, dead: e.dead, log: r.log})
		})
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", e.text, err)
		}
		return s, nil
	}
	s, err := r.openSink(p, open)
	if err != nil {
		return outlet{}, err
	}
	r.remotes[key] = s
	r.closeLater(func() error { return closeWithin(s.Close) })
	return outlet{sink: s}, nil
}

// bounded is a source whose Close ends in time.
type bounded struct{ ackwise.Source }

// Close closes, or gives up.
func (b bounded) Close() error { return closeWithin(b.Source.Close) }

// closeWithin gives a Close so long, and leaves it behind then: what it holds is given back by its
// leases.
func closeWithin(end func() error) error {
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- end() }) // ends with Close, or with the process
	timer := time.NewTimer(closePatience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		return fmt.Errorf("close: it did not end within %s", closePatience)
	}
}

// lagging is what a source can know of what is still to come. Unknown are -1 and the zero time.
type lagging interface {
	Lag(ctx context.Context) (records int64, oldest time.Time, err error)
}

// lagPatience is how long a source may take to say its lag.
const lagPatience = 5 * time.Second

// quietFor is how long a system without an end has to be quiet until it counts as drained.
const quietFor = 5 * time.Second

// quietSource ends a source that does not end by itself: once it was quiet for so long after it was
// armed, and does not say that there is more.
type quietSource struct {
	ackwise.Source
	quiet time.Duration
	lag   lagging // nil = it does not say
	armed chan struct{}
	log   *slog.Logger
	said  string // the last error of the lag; belongs to the one Receive that runs at a time
}

// Receive receives, or ends.
func (s *quietSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	select {
	case <-s.armed:
	default:
		inner, cancel := context.WithCancel(ctx)
		defer cancel()
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() { // ends with this call: a call that began before has to notice
			select {
			case <-s.armed:
				cancel()
			case <-stop:
			}
		})
		ds, err := s.Source.Receive(inner, max)
		close(stop)
		wg.Wait()
		if ctx.Err() == nil && inner.Err() != nil && len(ds) == 0 {
			return nil, nil
		}
		return ds, err
	}
	inner, cancel := context.WithTimeout(ctx, s.quiet)
	defer cancel()
	ds, err := s.Source.Receive(inner, max)
	if len(ds) > 0 || ctx.Err() != nil || !errors.Is(inner.Err(), context.DeadlineExceeded) {
		return ds, err
	}
	if s.more(ctx) {
		return nil, nil
	}
	return nil, io.EOF
}

// more reports whether the source says that there is more.
func (s *quietSource) more(ctx context.Context) bool {
	if s.lag == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, lagPatience)
	defer cancel()
	records, _, err := s.lag.Lag(ctx)
	if err != nil && ctx.Err() == nil && err.Error() != s.said {
		s.said = err.Error()
		s.log.Warn("a source is quiet, and does not count as drained: its lag is not known",
			"error", err)
	}
	return err != nil || records > 0
}
