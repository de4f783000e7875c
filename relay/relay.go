// Package relay makes a sink the handler of a loop, so that a pipeline from a source to a sink is a
// deliver.Run like any other.
//
//	Source ─▶ deliver.Run ─▶ Handler ─▶ Sink.Publish ─┬─ accepted ─────────▶ ack
//	                                                  ├─ retryable, unknown ▶ nack, same ID
//	                                                  ├─ rejected ─────────▶ dead letter now
//	                                                  └─ not attempted ────▶ snooze, free
//
// It promises that a message is acked at its source only after the sink has accepted it, and that
// it keeps its ID, so that a sink that deduplicates holds it once. Where the sink answers unknown,
// or the process ends between the two, a sink that does not deduplicate holds it twice.
//
// Options.Transform changes little on the way: topic, key, headers, an envelope of CloudEvents. The
// same handlers serve a process (deliver.RunBatch), a pushed batch such as a Lambda invocation
// (deliver.ProcessBatch) and a job that redrives dead letters (Options.Redrive).
//
// It decides no backoff and keeps no budget: those are the loop's. It does not close the sink.
// Start with ExampleHandler.
package relay

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
)

// Options configure a handler. The zero value is ready to use.
type Options struct {
	// Topic is the topic that messages are published to, whatever Transform says. Default: "", each
	// one's own.
	Topic string
	// Transform changes messages on their way. One that cannot be changed so is rejected. Where it
	// picks keys, run the loop with Concurrency 1: the loop keeps apart the keys that it knows, not
	// the new ones. Default: nothing is changed.
	Transform Transform
	// Redrive says that what comes are dead letters: their own headers are taken away, only how
	// often they were redriven is kept, and counted. Default: false.
	Redrive bool
	// Pause is how long a message waits that the sink did not attempt. Default: 1 s.
	Pause time.Duration
	// Closed is told when the sink answers ackwise.ErrClosed: it takes nothing more, and what is
	// left waits with its budgets unspent. It is called from several goroutines, each time. Default:
	// nobody is told.
	Closed func(err error)
}

func (o Options) withDefaults() Options {
	if o.Pause == 0 {
		o.Pause = time.Second
	}
	if o.Closed == nil {
		o.Closed = func(error) {}
	}
	return o
}

// Handler publishes each delivery to the sink and answers by the class of its result. It panics
// where Options.Transform is not valid.
func Handler(sink ackwise.Sink, o Options) ackwise.Handler {
	r := newRelay(sink, o)
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		return r.publishAll(ctx, []*ackwise.Delivery{d})[0]
	})
}

// BatchHandler publishes as many deliveries at once as the sink takes, in their order. Of a key's
// run no more than the sink keeps in order is published together, and nothing behind a failure. A
// loop of Concurrency 1 so keeps the order of all messages, as long as none fails. It panics where
// Options.Transform is not valid.
func BatchHandler(sink ackwise.Sink, o Options) ackwise.BatchHandler {
	r := newRelay(sink, o)
	return ackwise.BatchHandlerFunc(r.publishAll)
}

type relay struct {
	sink ackwise.Sink
	o    Options
}

func newRelay(sink ackwise.Sink, o Options) *relay {
	o = o.withDefaults()
	if err := o.Transform.Validate(); err != nil {
		panic(err)
	}
	return &relay{sink: sink, o: o}
}

var (
	errBehind   = errors.New("an earlier message of the same key was not accepted")
	errNoReason = errors.New("the sink gave no reason")
)

// publishAll publishes run after run of what may stand in one batch.
func (r *relay) publishAll(ctx context.Context, ds []*ackwise.Delivery) []error {
	msgs, errs := make([]ackwise.Message, len(ds)), make([]error, len(ds))
	for i, d := range ds {
		errs[i] = r.message(&msgs[i], d)
	}
	f := r.sink.Features()     // one that is opened late can do more by and by
	stuck := map[string]bool{} // keys with a failure
	for done := 0; done < len(ds); {
		key := msgs[done].Key
		switch {
		case key != "" && stuck[key]:
			errs[done] = fmt.Errorf("%w: %w", errBehind, ackwise.Snooze(r.o.Pause))
			done++
			continue
		case errs[done] != nil:
			stuck[key] = true
			errs[done] = ackwise.Reject(errs[done])
			done++
			continue
		}
		end := done + together(f, msgs[done:], errs[done:], stuck)
		r.publish(ctx, msgs[done:end:end], errs[done:end])
		for ; done < end; done++ {
			if errs[done] != nil {
				stuck[msgs[done].Key] = true
			}
		}
	}
	return errs
}

// together returns how many of the first may stand in one batch: none whose errs is set.
func together(f ackwise.SinkFeatures, msgs []ackwise.Message, errs []error,
	stuck map[string]bool) int {
	seen := map[string]bool{} // where one batch may hold one message of a key
	for n := range msgs {
		key := msgs[n].Key
		full := f.MaxBatch > 0 && n >= f.MaxBatch
		if full || errs[n] != nil || key != "" && (seen[key] || stuck[key]) {
			return n
		}
		if key != "" && !f.KeyRunSafe {
			seen[key] = true
		}
	}
	return len(msgs)
}

// publish publishes one batch and fills in what became of it.
func (r *relay) publish(ctx context.Context, msgs []ackwise.Message, errs []error) {
	results := r.sink.Publish(ctx, msgs)
	for i := range errs {
		if len(results) != len(msgs) {
			errs[i] = fmt.Errorf("the sink gave %d results for %d messages", len(results), len(msgs))
			continue
		}
		errs[i] = r.outcome(&results[i])
	}
}

// message makes m what is published of a delivery. The delivery itself stays as it is.
func (r *relay) message(m *ackwise.Message, d *ackwise.Delivery) error {
	*m = d.Message
	if r.o.Redrive {
		m.Headers = redriven(d)
	}
	if d.Epoch > 0 {
		m.Headers = append(without(m.Headers, ackwise.HeaderEpoch), ackwise.Header{
			Name: ackwise.HeaderEpoch, Value: []byte(strconv.Itoa(d.Epoch))})
	}
	err := r.o.Transform.apply(m)
	if r.o.Topic != "" {
		m.Topic = r.o.Topic
	}
	return err
}

// outcome is what the class of a result means for the delivery.
func (r *relay) outcome(res *ackwise.Result) error {
	if res.Class == ackwise.ResultAccepted {
		return nil
	}
	err := res.Err
	if err == nil {
		err = errNoReason
	}
	err = fmt.Errorf("publish (%s): %w", res.Class, err)
	if errors.Is(err, ackwise.ErrClosed) {
		r.o.Closed(err)
		return fmt.Errorf("%w: %w", err, ackwise.Snooze(r.o.Pause))
	}
	switch res.Class {
	case ackwise.ResultRejected:
		return ackwise.Reject(err)
	case ackwise.ResultNotAttempted:
		return fmt.Errorf("%w: %w", err, ackwise.Snooze(r.o.Pause))
	}
	if res.After > 0 {
		return ackwise.RetryAfter(err, res.After)
	}
	return err
}
