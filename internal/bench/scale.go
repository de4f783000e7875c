package bench

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// Scale is what a message costs when there are many of something, as a ratio to few of them.
type Scale struct {
	Of         string  `json:"of"`   // subscriptions: publish + receive + ack; keys: publish
	Few        int     `json:"few"`  // so many of them
	Many       int     `json:"many"` // and so many
	FewPerSec  float64 `json:"few_per_s"`
	ManyPerSec float64 `json:"many_per_s"`
	Cost       float64 `json:"cost_ratio"` // time a message with many, to the time with few
}

const (
	scales            = 2 // kinds of Scale
	fewSubscriptions  = 10
	fewKeys           = 1
	scalePublishers   = 64
	scaleSize         = 100
	prefillPublishers = 8
)

func (b *bench) scale(ctx context.Context) ([]Scale, error) {
	l := load{publishers: scalePublishers, window: b.Window, bodies: b.bodies(scaleSize)}
	subscriptions, err := b.fewAndMany(Scale{Of: "subscriptions", Few: fewSubscriptions,
		Many: b.Subscriptions}, func(n int) (float64, error) { return b.oneBusy(ctx, l, n) })
	if err != nil {
		return nil, err
	}
	keys, err := b.fewAndMany(Scale{Of: "keys", Few: fewKeys, Many: b.Keys},
		func(n int) (float64, error) { return b.keyed(ctx, l, n) })
	return []Scale{subscriptions, keys}, err
}

// fewAndMany measures both numbers in each round, in changing order.
func (b *bench) fewAndMany(s Scale, measure func(n int) (float64, error)) (Scale, error) {
	numbers := []int{s.Few, s.Many}
	var rates [2][]float64
	var cost []float64
	for round := range b.Rounds {
		b.round("%d to %d %s, round %d of %d", s.Few, s.Many, s.Of, round+1, b.Rounds)
		for _, i := range b.random.Perm(len(numbers)) {
			rate, err := measure(numbers[i])
			if err != nil {
				return s, fmt.Errorf("%d %s: %w", numbers[i], s.Of, err)
			}
			rates[i] = append(rates[i], rate)
		}
		cost = append(cost, rates[0][round]/rates[1][round])
	}
	s.FewPerSec, s.ManyPerSec = math.Round(median(rates[0])), math.Round(median(rates[1]))
	s.Cost = decimals(median(cost))
	return s, nil
}

// oneBusy measures publish, receive and ack on one topic of n, each with its subscription.
func (b *bench) oneBusy(ctx context.Context, l load, n int) (rate float64, err error) {
	err = b.withStore(ctx, storeOptions{}, func(store *queue.Store) error {
		err := inParallel(n-1, scalePublishers, func(i int) error {
			name := "idle-" + strconv.Itoa(i)
			if err := store.CreateTopic(ctx, name, queue.TopicOptions{}); err != nil {
				return err
			}
			return store.CreateSubscription(ctx, name, subscription, queue.SubscriptionOptions{})
		})
		if err != nil {
			return fmt.Errorf("make topics: %w", err)
		}
		f, err := runFlow(ctx, l, store, 1)
		if err != nil {
			return err
		}
		rate = f.ackedPerSecond
		return checkDrained(ctx, store, f.latency.count)
	})
	return rate, err
}

// keyed measures publish on an ordered subscription that holds messages of n keys already: as many
// messages as the large number of keys, whatever n is, so that only the keys differ.
func (b *bench) keyed(ctx context.Context, l load, n int) (rate float64, err error) {
	o := storeOptions{sub: queue.SubscriptionOptions{Ordered: true}}
	err = b.withStore(ctx, o, func(store *queue.Store) error {
		batches := (b.Keys + publishBatch - 1) / publishBatch
		err := inParallel(batches, prefillPublishers, func(batch int) error {
			msgs := make([]ackwise.Message, 0, publishBatch)
			for i := batch * publishBatch; i < min((batch+1)*publishBatch, b.Keys); i++ {
				msgs = append(msgs, ackwise.Message{Topic: topic, Key: strconv.Itoa(i % n),
					Body: l.bodies[i%len(l.bodies)]})
			}
			return publishAll(ctx, store, msgs)
		})
		if err != nil {
			return err
		}
		turns := make([]int, l.publishers)
		s, err := l.drive(ctx, func(ctx context.Context, p int, body []byte) error {
			turns[p]++
			key := strconv.Itoa((turns[p]*l.publishers + p) % n)
			return publishOne(ctx, store, ackwise.Message{Topic: topic, Key: key, Body: body})
		})
		if err != nil {
			return err
		}
		rate = s.perSecond
		return checkBooks(ctx, store, int64(b.Keys)+s.latency.count)
	})
	return rate, err
}

// inParallel calls do with 0 to n-1 from several goroutines, and returns the first error.
func inParallel(n, goroutines int, do func(i int) error) error {
	var next atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, goroutines)
	for g := range goroutines {
		wg.Go(func() { // ends with the last number, or an error
			for i := next.Add(1) - 1; i < int64(n) && errs[g] == nil; i = next.Add(1) - 1 {
				errs[g] = do(int(i))
			}
		})
	}
	wg.Wait()
	return firstOf(errs)
}
