package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"github.com/ackwise/ackwise/adapters/file"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/internal/reach"
)

// open opens what is on this machine.
func (x *redriveRun) open() error {
	p := &x.cfg.own
	var toErr, fromErr error
	switch {
	case p.to == nil:
		x.sink = backSink{}
	case p.to.remote == nil:
		toErr = x.openSink(x.r)
	}
	if p.from.is("queue://") { // also where the sink is wrong: it knows how many letters there are
		if x.d, fromErr = x.r.directory(p.from.dir); fromErr == nil {
			_, fromErr = subscriptionBooks(x.r.a.ctx, x.d, p.from.pipeline)
		}
	}
	return errors.Join(toErr, fromErr)
}

func (x *redriveRun) openSink(r *runner) error {
	p := &x.cfg.own
	out, err := p.to.scheme.sink(r, p, *p.to, file.SinkOptions{Format: file.JSON})
	if err == nil {
		x.sink, x.topic = out.sink, out.topic
	}
	return err
}

func (x *redriveRun) openSource(r *runner) error {
	f := &flow{cfg: &x.cfg.own, r: r, opens: r.a.ctx}
	if err := f.openSource(); err != nil {
		return err
	}
	x.in = f.in
	return nil
}

// reach opens the other systems. One that does not answer is asked again until it does or ctx ends;
// what is wrong with the configuration ends the run at once.
func (x *redriveRun) reach(ctx context.Context) error {
	b := deliver.Backoff{First: time.Second, Cap: 30 * time.Second}
	for n := 1; ; n++ {
		var away error
		for _, err := range x.openRemotes() {
			switch {
			case err == nil:
			case ctx.Err() == nil && !reach.Passes(err):
				return err
			default:
				away = errors.Join(away, err)
			}
		}
		if away == nil {
			return nil
		}
		x.r.log.Warn("redrive waits for a system that does not answer", "redrive", x.cfg.Name,
			"error", away)
		if !pause.For(ctx, b.Delay(n, (1+rand.Float64())/2)) {
			x.away = away
			return nil
		}
	}
}

// openRemotes opens what is not open yet, the source also where the sink does not answer: it knows
// how many letters there are.
func (x *redriveRun) openRemotes() (errs [2]error) {
	if x.sink == nil {
		errs[0] = x.openSink(x.own)
	}
	if x.d == nil && x.in == nil {
		errs[1] = x.openSource(x.own)
	}
	return errs
}
