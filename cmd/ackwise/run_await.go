package main

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/internal/reach"
)

// openSink opens a sink of another system. Where the run waits, one that does not answer is opened
// with a later message, so that what cannot wait becomes a dead letter as in any outage. A pipeline
// that acks first would lose all that comes meanwhile: it does not begin.
func (r *runner) openSink(p *pipelineConfig, open func(context.Context) (ackwise.Sink, error)) (
	ackwise.Sink, error) {
	if !r.waits || p.Guarantee == deliver.AtMostOnce {
		return open(r.a.ctx)
	}
	sink, why, err := reach.Open(r.a.ctx, open, true)
	if late, ok := sink.(*reach.Late); ok {
		r.log.Warn("a sink does not answer; each message asks it again", "pipeline", p.Name,
			"error", why)
		if p.Create {
			r.makers = append(r.makers, late)
		}
	}
	return sink, err
}

// openInput opens what has to be there before the first message. Where the run waits, a system that
// does not answer is no error: await asks it again.
func (f *flow) openInput() error {
	var err error
	if f.in == nil && f.cfg.from.remote == nil { // first: a subscription gets what comes from now on
		err = f.openSource()
	}
	if err == nil {
		err = f.openStore()
	}
	if err == nil && f.in == nil {
		err = f.openSource()
	}
	may := f.r.waits && f.opens.Err() == nil && reach.Passes(err)
	if first := !f.r.started.Load(); first && reach.Cut(err) {
		may = false // perhaps a login is missing
	}
	if f.away = nil; may {
		f.away, err = err, nil
	}
	if err == nil && f.away == nil {
		close(f.opened)
	}
	return err
}

// isOpen reports whether all is open.
func (f *flow) isOpen() bool {
	select {
	case <-f.opened:
		return true
	default:
		return false
	}
}

// await opens what did not answer at the start, once it does. When ctx ends before, it is not open.
func (f *flow) await(ctx context.Context) error {
	b := deliver.Backoff{First: time.Second, Cap: 30 * time.Second}
	for n := 1; f.away != nil; n++ {
		f.r.log.Warn("a pipeline waits for a system that does not answer", "pipeline", f.cfg.Name,
			"error", f.away)
		if !pause.For(ctx, b.Delay(n, (1+rand.Float64())/2)) {
			return nil
		}
		for _, sink := range f.r.makers { // first: they make the topics that others read
			_ = sink.Reach(ctx) // its own messages tell why it is not open
		}
		f.opens = ctx
		err := f.openInput()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return err
		}
	}
	return nil
}
