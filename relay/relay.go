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
	// Topic is the topic that messages are published to. Default: "", each one's own.
	Topic string
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

// Handler publishes each delivery to the sink and answers by the class of its result.
func Handler(sink ackwise.Sink, o Options) ackwise.Handler {
	r := relay{sink: sink, o: o.withDefaults(), f: sink.Features()}
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		return r.publish(ctx, []*ackwise.Delivery{d})[0]
	})
}

// BatchHandler publishes as many deliveries at once as the sink takes, in their order. Of a key's
// run no more than the sink keeps in order is published together, and nothing behind a failure. A
// loop of Concurrency 1 so keeps the order of all messages, as long as none fails.
func BatchHandler(sink ackwise.Sink, o Options) ackwise.BatchHandler {
	r := relay{sink: sink, o: o.withDefaults(), f: sink.Features()}
	return ackwise.BatchHandlerFunc(r.publishAll)
}

type relay struct {
	sink ackwise.Sink
	o    Options
	f    ackwise.SinkFeatures
}

var errBehind = errors.New("an earlier message of the same key was not accepted")

// publishAll publishes run after run of what may stand in one batch.
func (r *relay) publishAll(ctx context.Context, ds []*ackwise.Delivery) []error {
	errs := make([]error, 0, len(ds))
	stuck := map[string]bool{} // keys with a failure
	for len(errs) < len(ds) {
		rest := ds[len(errs):]
		if rest[0].Key != "" && stuck[rest[0].Key] {
			errs = append(errs, fmt.Errorf("%w: %w", errBehind, ackwise.Snooze(r.o.Pause)))
			continue
		}
		n := r.together(rest, stuck)
		got := r.publish(ctx, rest[:n])
		for i, err := range got {
			stuck[rest[i].Key] = stuck[rest[i].Key] || err != nil
		}
		errs = append(errs, got...)
	}
	return errs
}

// together returns how many of the first deliveries may stand in one batch.
func (r *relay) together(ds []*ackwise.Delivery, stuck map[string]bool) int {
	seen := map[string]bool{}
	for n, d := range ds {
		full := r.f.MaxBatch > 0 && n >= r.f.MaxBatch
		again := seen[d.Key] && !r.f.KeyRunSafe
		if full || d.Key != "" && (again || stuck[d.Key]) {
			return n
		}
		seen[d.Key] = true
	}
	return len(ds)
}

// publish publishes one batch.
func (r *relay) publish(ctx context.Context, ds []*ackwise.Delivery) []error {
	msgs := make([]ackwise.Message, len(ds))
	for i, d := range ds {
		msgs[i] = r.message(d)
	}
	results := r.sink.Publish(ctx, msgs)
	errs := make([]error, len(ds))
	for i := range ds {
		if len(results) != len(ds) {
			errs[i] = fmt.Errorf("the sink gave %d results for %d messages", len(results), len(ds))
			continue
		}
		errs[i] = r.outcome(&results[i])
	}
	return errs
}

func (r *relay) message(d *ackwise.Delivery) ackwise.Message {
	m := d.Message
	if r.o.Topic != "" {
		m.Topic = r.o.Topic
	}
	if d.Epoch > 0 {
		m.Headers = append(without(m.Headers, ackwise.HeaderEpoch), ackwise.Header{
			Name: ackwise.HeaderEpoch, Value: []byte(strconv.Itoa(d.Epoch))})
	}
	return m
}

// outcome is what the class of a result means for the delivery.
func (r *relay) outcome(res *ackwise.Result) error {
	if res.Class == ackwise.ResultAccepted {
		return nil
	}
	err := res.Err
	if err == nil {
		err = errors.New("the sink gave no reason")
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
