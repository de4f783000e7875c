package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue"
)

// Publish is how fast messages become durable, each published by itself.
type Publish struct {
	Publishers    int     `json:"publishers"`
	Size          int     `json:"size"`           // bytes of a body
	Start         string  `json:"start"`          // cold: a new directory
	PerSecond     float64 `json:"publish_per_s"`  // of the engine
	Ratio         float64 `json:"ratio"`          // to the bare log in a growing file
	RecycledRatio float64 `json:"recycled_ratio"` // to the one in a file written before
	P50           float64 `json:"p50_ms"`         // of one publish of the engine
	P99           float64 `json:"p99_ms"`
	Growing       float64 `json:"growing_per_s"` // of the bare log in a growing file
	GrowingP99    float64 `json:"growing_p99_ms"`
	Recycled      float64 `json:"recycled_per_s"` // of the one in a file written before
}

// publish lets the two bare logs and the engine take turns. A ratio is that of one round; what
// counts is the median of the ratios, since the disk's own speed moves from round to round.
func (b *bench) publish(ctx context.Context, l load, recycled vfs.File) (Publish, error) {
	contestants := []func() (sample, error){
		func() (sample, error) { return b.growing(ctx, l) },
		func() (sample, error) { return bare(ctx, l, recycled, recycledBytes) },
		func() (sample, error) { return b.engine(ctx, l) },
	}
	var rates [3][]float64
	var ratio, recycledRatio, p50, p99, growingP99 []float64
	for round := range b.Rounds {
		b.round("publish, %d × %d B, round %d of %d", l.publishers, l.size(), round+1, b.Rounds)
		var samples [3]sample
		for _, i := range b.random.Perm(len(contestants)) {
			s, err := contestants[i]()
			if err != nil {
				return Publish{}, err
			}
			samples[i] = s
			rates[i] = append(rates[i], s.perSecond)
		}
		growing, again, engine := &samples[0], &samples[1], &samples[2]
		ratio = append(ratio, engine.perSecond/growing.perSecond)
		recycledRatio = append(recycledRatio, engine.perSecond/again.perSecond)
		p50 = append(p50, millis(engine.latency.quantile(0.5)))
		p99 = append(p99, millis(engine.latency.quantile(0.99)))
		growingP99 = append(growingP99, millis(growing.latency.quantile(0.99)))
	}
	return Publish{Publishers: l.publishers, Size: l.size(), Start: "cold",
		PerSecond: math.Round(median(rates[2])), Ratio: decimals(median(ratio)),
		RecycledRatio: decimals(median(recycledRatio)), P50: median(p50), P99: median(p99),
		Growing: math.Round(median(rates[0])), GrowingP99: median(growingP99),
		Recycled: math.Round(median(rates[1]))}, nil
}

// decimals keeps three of them.
func decimals(v float64) float64 { return math.Round(v*1000) / 1000 }

// engine measures a new store.
func (b *bench) engine(ctx context.Context, l load) (s sample, err error) {
	err = b.withStore(ctx, queue.SubscriptionOptions{}, func(store *queue.Store) error {
		s, err = l.drive(ctx, func(_ int, body []byte) error {
			return publishOne(ctx, store, ackwise.Message{Topic: topic, Body: body})
		})
		if err == nil {
			err = checkBooks(ctx, store, s.latency.count)
		}
		return err
	})
	return s, err
}

const topic, subscription = "bench", "drain"

// withStore opens a store with one topic and one subscription in a new folder, and removes it.
func (b *bench) withStore(ctx context.Context, o queue.SubscriptionOptions,
	use func(*queue.Store) error) error {
	dir := b.name("store")
	store, err := queue.Open(dir, queue.Options{})
	if err != nil {
		return fmt.Errorf("open the engine: %w", err)
	}
	err = store.CreateTopic(ctx, topic, queue.TopicOptions{})
	if err == nil {
		err = store.CreateSubscription(ctx, topic, subscription, o)
	}
	if err == nil {
		err = use(store)
	}
	return errors.Join(err, store.Close(), os.RemoveAll(dir), b.syncDir())
}

func publishOne(ctx context.Context, store *queue.Store, m ackwise.Message) error {
	r := store.Publish(ctx, []ackwise.Message{m})[0]
	if r.Class != ackwise.ResultAccepted {
		return fmt.Errorf("publish: %s: %w", r.Class, r.Err)
	}
	return nil
}

// checkBooks reports where the engine has not accepted what was published.
func checkBooks(ctx context.Context, store *queue.Store, published int64) error {
	books, err := store.Books(ctx)
	if err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	if b := books[0]; b.Accepted != published || !b.Balanced() {
		return fmt.Errorf("%d messages were published, the books say: %+v", published, b)
	}
	return nil
}
