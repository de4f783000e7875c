package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue"
)

// Publish is how fast messages become durable, each published by itself. What compares with a bare
// log is absent where there was none.
type Publish struct {
	Publishers    int     `json:"publishers"`
	Size          int     `json:"size"`          // bytes of a body
	Start         string  `json:"start"`         // cold: a new directory; warm: segments to reuse
	PerSecond     float64 `json:"publish_per_s"` // of the engine
	Ratio         float64 `json:"ratio,omitempty"`
	RecycledRatio float64 `json:"recycled_ratio,omitempty"`
	P50           float64 `json:"p50_ms"` // of one publish of the engine
	P99           float64 `json:"p99_ms"`
	P99Ratio      float64 `json:"p99_ratio,omitempty"` // to the growing bare log's p99
	Fresh         float64 `json:"fresh_mib"`           // log on the disk that was not there before
	Growing       float64 `json:"growing_per_s,omitempty"`
	GrowingP99    float64 `json:"growing_p99_ms,omitempty"`
	Recycled      float64 `json:"recycled_per_s,omitempty"`
	RecycledP99   float64 `json:"recycled_p99_ms,omitempty"`
}

// The contestants of publish.
const (
	growingLog = iota
	recycledLog
	coldStore
	warmStore
	contestants
)

// rounds is what the contestants showed, round by round.
type rounds struct {
	rate, p50, p99, fresh  [contestants][]float64
	ratio, again, p99Ratio [contestants][]float64 // to the bare logs of the same round
}

// publish lets the two bare logs and the engine, cold and warm, take turns. A ratio is that of one
// round; what counts is the median of the ratios, since the disk's own speed moves from round to
// round.
func (b *bench) publish(ctx context.Context, l load, recycled vfs.File) ([]Publish, error) {
	take := [contestants]func(most int64) (sample, error){
		growingLog:  func(int64) (sample, error) { return b.growing(ctx, l) },
		recycledLog: func(int64) (sample, error) { return bare(ctx, l, recycled, b.recycledBytes()) },
		coldStore:   func(int64) (sample, error) { return b.engine(ctx, l, 0) },
		warmStore:   func(most int64) (sample, error) { return b.engine(ctx, l, most) },
	}
	first := growingLog
	if recycled == nil {
		first = coldStore
	}
	most, err := b.mostBytes(ctx, l)
	if err != nil {
		return nil, err
	}
	var r rounds
	for round := range b.Rounds {
		b.round("publish, %d × %d B, round %d of %d", l.publishers, l.size(), round+1, b.Rounds)
		var samples [contestants]sample
		for _, i := range b.random.Perm(contestants - first) {
			i += first
			if samples[i], err = take[i](most); err != nil {
				return nil, err
			}
		}
		r.add(&samples, first)
	}
	return []Publish{r.row(l, coldStore), r.row(l, warmStore)}, nil
}

func (r *rounds) add(samples *[contestants]sample, first int) {
	for i := first; i < contestants; i++ {
		s := &samples[i]
		p99 := millis(s.latency.quantile(0.99))
		r.rate[i] = append(r.rate[i], s.perSecond)
		r.p50[i] = append(r.p50[i], millis(s.latency.quantile(0.5)))
		r.p99[i] = append(r.p99[i], p99)
		r.fresh[i] = append(r.fresh[i], float64(s.fresh)/(1<<20))
		if first == growingLog {
			r.ratio[i] = append(r.ratio[i], s.perSecond/samples[growingLog].perSecond)
			r.again[i] = append(r.again[i], s.perSecond/samples[recycledLog].perSecond)
			r.p99Ratio[i] = append(r.p99Ratio[i], p99/r.p99[growingLog][len(r.p99[growingLog])-1])
		}
	}
}

// row is what the report says of the engine.
func (r *rounds) row(l load, engine int) Publish {
	start := "cold"
	if engine == warmStore {
		start = "warm"
	}
	return Publish{Publishers: l.publishers, Size: l.size(), Start: start,
		PerSecond: math.Round(median(r.rate[engine])), Ratio: decimals(median(r.ratio[engine])),
		RecycledRatio: decimals(median(r.again[engine])), P50: median(r.p50[engine]),
		P99: median(r.p99[engine]), P99Ratio: decimals(median(r.p99Ratio[engine])),
		Fresh:   decimals(median(r.fresh[engine])),
		Growing: math.Round(median(r.rate[growingLog])), GrowingP99: median(r.p99[growingLog]),
		Recycled: math.Round(median(r.rate[recycledLog])), RecycledP99: median(r.p99[recycledLog])}
}

// decimals keeps three of them.
func decimals(v float64) float64 { return math.Round(v*1000) / 1000 }

// mostBytes is how many bytes of log a measured run may write: at twice the speed of a short run
// on a new store, since a file that is written again is at most so much faster.
func (b *bench) mostBytes(ctx context.Context, l load) (int64, error) {
	probe := l
	probe.window = max(l.window/4, time.Millisecond)
	s, err := b.engine(ctx, probe, 0)
	if err != nil {
		return 0, err
	}
	const recordBytes, groupBytes = 100, 600 // beside the body: of a record, of a group
	perMessage := float64(l.size() + recordBytes + groupBytes/l.publishers)
	return int64(2*s.perSecond*l.window.Seconds()*perMessage) + 1, nil
}

// engine measures a store: a new one (most = 0), or one with free segments for most bytes.
func (b *bench) engine(ctx context.Context, l load, most int64) (s sample, err error) {
	o := storeOptions{free: most}
	err = b.withStore(ctx, o, func(store *queue.Store) error {
		before := int64(0)
		if most > 0 {
			if before, err = b.warmUp(ctx, store, most); err != nil {
				return err
			}
		}
		old, err := logBytes(store.Dir())
		if err != nil {
			return err
		}
		s, err = l.drive(ctx, func(ctx context.Context, _ int, body []byte) error {
			return publishOne(ctx, store, ackwise.Message{Topic: topic, Body: body})
		})
		if err != nil {
			return err
		}
		now, err := logBytes(store.Dir())
		s.fresh = max(now-old, 0)
		return errors.Join(err, checkBooks(ctx, store, before+s.latency.count))
	})
	return s, err
}

const topic, subscription = "bench", "drain"

// storeOptions are what the measurements set; all else is the engine's default.
type storeOptions struct {
	sub  queue.SubscriptionOptions
	free int64 // bytes of free segments that it keeps; 0 = the engine's default
}

// withStore opens a store with one topic and one subscription in a new folder, and removes it.
func (b *bench) withStore(ctx context.Context, o storeOptions,
	use func(*queue.Store) error) error {
	dir := b.name("store")
	store, err := queue.Open(dir, b.queueOptions(o))
	if err != nil {
		return fmt.Errorf("open the engine: %w", err)
	}
	err = store.CreateTopic(ctx, topic, queue.TopicOptions{})
	if err == nil {
		err = store.CreateSubscription(ctx, topic, subscription, o.sub)
	}
	if err == nil {
		err = use(store)
	}
	return errors.Join(err, store.Close(), os.RemoveAll(dir), b.syncDir())
}

// queueOptions keeps as many freed files as a warm run may write.
func (b *bench) queueOptions(o storeOptions) queue.Options {
	q := queue.Options{SegmentBytes: b.SegmentBytes}
	if o.free > 0 {
		q.FreeSegments = int(o.free/b.SegmentBytes) + 8
	}
	return q
}

func publishOne(ctx context.Context, store *queue.Store, m ackwise.Message) error {
	r := store.Publish(ctx, []ackwise.Message{m})[0]
	if r.Class != ackwise.ResultAccepted {
		return fmt.Errorf("publish: %s: %w", r.Class, r.Err)
	}
	return nil
}

func publishAll(ctx context.Context, store *queue.Store, msgs []ackwise.Message) error {
	for _, r := range store.Publish(ctx, msgs) {
		if r.Class != ackwise.ResultAccepted {
			return fmt.Errorf("publish a batch: %s: %w", r.Class, r.Err)
		}
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
