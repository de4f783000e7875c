package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// Steady is a store in daily use: publishers and consumers at once, each body once in and once out,
// on a store that has run for a while and keeps as many free segments as it does by default.
type Steady struct {
	Publishers int     `json:"publishers"`
	Consumers  int     `json:"consumers"`
	Size       int     `json:"size"`            // bytes of a body
	PerSecond  float64 `json:"per_s"`           // messages, until the last one was acked
	Published  float64 `json:"publish_per_s"`   // messages, until the last one was published
	Ratio      float64 `json:"ratio,omitempty"` // of per_s to what a growing bare log publishes
	P99        float64 `json:"p99_ms"`          // of one publish
	Growing    float64 `json:"growing_per_s,omitempty"`
}

const (
	steadyPublishers = 64
	steadyConsumers  = 64
	steadySize       = 1024
	steadyBatch      = 256
)

func (b *bench) steady(ctx context.Context) (Steady, error) {
	l := load{publishers: steadyPublishers, window: b.Window, bodies: b.bodies(steadySize)}
	var acked, published, p99, growing, ratio []float64
	for round := range b.Rounds {
		b.round("steady state, round %d of %d", round+1, b.Rounds)
		var log sample
		var engine flow
		take := []func() error{
			func() (err error) { engine, err = b.inAndOut(ctx, l); return err },
			func() (err error) { log, err = b.growing(ctx, l); return err },
		}
		if b.Against == AgainstNone {
			take = take[:1]
		}
		for _, i := range b.random.Perm(len(take)) {
			if err := take[i](); err != nil {
				return Steady{}, err
			}
		}
		acked = append(acked, engine.ackedPerSecond)
		published = append(published, engine.perSecond)
		p99 = append(p99, millis(engine.latency.quantile(0.99)))
		if len(take) > 1 {
			growing = append(growing, log.perSecond)
			ratio = append(ratio, engine.ackedPerSecond/log.perSecond)
		}
	}
	return Steady{Publishers: steadyPublishers, Consumers: steadyConsumers, Size: steadySize,
		PerSecond: math.Round(median(acked)), Published: math.Round(median(published)),
		Ratio: decimals(median(ratio)), P99: median(p99),
		Growing: math.Round(median(growing))}, nil
}

// inAndOut warms a store up, and measures it with as many consumers as publishers.
func (b *bench) inAndOut(ctx context.Context, l load) (f flow, err error) {
	err = b.withStore(ctx, storeOptions{}, func(store *queue.Store) error {
		before, err := b.warmUp(ctx, store, 0)
		if err != nil {
			return err
		}
		if f, err = runFlow(ctx, l, store, steadyConsumers); err != nil {
			return err
		}
		return checkDrained(ctx, store, before+f.latency.count)
	})
	return f, err
}

// flow is what publishers and consumers did together.
type flow struct {
	sample
	ackedPerSecond float64 // from the first publish until the last message was acked
}

// consumers drain what the publishers publish.
type consumers struct {
	acked  atomic.Int64
	target atomic.Int64 // how many there are to ack, once it is known; else -1
	stop   context.CancelCauseFunc
}

var errDrained = errors.New("everything is acked")

// runFlow lets the publishers run for the window and n consumers until all is acked.
func runFlow(ctx context.Context, l load, store *queue.Store, n int) (flow, error) {
	consuming, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c := &consumers{stop: stop}
	c.target.Store(-1)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { // ends when everything is acked, or with an error
			errs[i] = c.consume(consuming, store)
			if errs[i] != nil {
				stop(errs[i])
			}
		})
	}
	s, err := l.drive(consuming, func(ctx context.Context, _ int, body []byte) error {
		return publishOne(ctx, store, ackwise.Message{Topic: topic, Body: body})
	})
	rest := time.Now()
	if err != nil {
		stop(err)
	}
	c.target.Store(s.latency.count)
	c.endIf(c.acked.Load())
	wg.Wait()
	if err := errors.Join(firstOf(errs), err); err != nil {
		return flow{}, err
	}
	count := float64(s.latency.count)
	seconds := count/s.perSecond + time.Since(rest).Seconds()
	return flow{sample: s, ackedPerSecond: count / seconds}, nil
}

func (c *consumers) endIf(acked int64) {
	if acked == c.target.Load() {
		c.stop(errDrained)
	}
}

func (c *consumers) consume(ctx context.Context, store *queue.Store) (err error) {
	r, err := store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if errors.Is(err, errDrained) { // the others were faster
		return nil
	}
	if err != nil {
		return fmt.Errorf("open a receiver: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var acks []ackwise.Settlement
	for {
		ds, err := r.Receive(ctx, steadyBatch)
		if errors.Is(err, errDrained) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		if acks, err = ack(context.WithoutCancel(ctx), r, ds, acks); err != nil {
			return err
		}
		c.endIf(c.acked.Add(int64(len(ds))))
	}
}

// checkDrained reports where the books of the first subscription are not those of n acked messages.
func checkDrained(ctx context.Context, store *queue.Store, n int64) error {
	books, err := store.Books(ctx)
	if err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	for _, b := range books {
		if b.Topic != topic {
			continue
		}
		if b.Accepted != n || b.Acked != n || !b.Balanced() {
			return fmt.Errorf("%d messages were published and acked, the books say: %+v", n, b)
		}
		return nil
	}
	return errors.New("the books do not know the subscription")
}
