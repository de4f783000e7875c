package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// GuaranteeOptions configure RunGuarantees. The zero value is ready to use.
type GuaranteeOptions struct {
	// Dir is where the run makes its folder. Default: the system's temporary directory.
	Dir string
	// Messages are handled in each measurement. Default: 5,000.
	Messages int
	// Keys are what the messages belong to, in order by key. Default: 1,000.
	Keys int
	// Concurrency is how many handlers run at a time. Default: 16.
	Concurrency int
	// Rounds is how often each measurement is repeated; the median counts. Default: 3.
	Rounds int
	// Progress is told what is measured now. Default: nil.
	Progress func(what string)
}

// Guarantee is what a guarantee costs: the same messages, and an effect that does the same, with
// nothing going wrong.
type Guarantee struct {
	Guarantee string  `json:"guarantee"`
	Pattern   string  `json:"pattern"`
	PerSecond float64 `json:"messages_per_s"`
	Relative  float64 `json:"relative"` // messages_per_s, that of plain at-least-once = 1
	// P99 is the time within which 99 of 100 messages were through: from their hand-out until both
	// their effect was durable and their settlement had returned.
	P99         float64 `json:"p99_ms"`
	P99Relative float64 `json:"p99_relative"` // p99_ms, that of plain at-least-once = 1
}

// promise is one way to apply an effect, under one guarantee.
type promise struct {
	guarantee deliver.Guarantee
	pattern   string
}

// promises begin with the one that the others are compared with.
func promises() []promise {
	return []promise{{deliver.AtLeastOnce, "none"}, {deliver.AtMostOnce, "none"},
		{deliver.AtLeastOnce, "dedup"}, {deliver.ExactlyOnce, "transaction"}}
}

// effects is the table of sums that the effects are added to.
const effects = "effects"

// RunGuarantees measures what each guarantee costs beside at-least-once. The effect is the same for
// all: a durable sum by key in the engine's table, read, added to, and written with a compare on
// its version. Dedup claims and completes in the engine's own store around it; the transaction
// writes sum and ack in one record. A sum that is not exact ends the run with an error.
func RunGuarantees(ctx context.Context, o GuaranteeOptions) (rows []Guarantee, err error) {
	setDefault(&o.Messages, 5000)
	setDefault(&o.Keys, 1000)
	setDefault(&o.Concurrency, 16)
	setDefault(&o.Rounds, 3)
	if o.Progress == nil {
		o.Progress = func(string) {}
	}
	if err := errors.Join(inRange("Messages", int64(o.Messages), 100, 10_000_000),
		inRange("Keys", int64(o.Keys), 1, 1_000_000), inRange("Rounds", int64(o.Rounds), 1, 100),
		inRange("Concurrency", int64(o.Concurrency), 1, 10_000)); err != nil {
		return nil, err
	}
	all := promises()
	rates, p99s := make([][]float64, len(all)), make([][]float64, len(all))
	for n := range len(all)*o.Rounds + 1 {
		round := (n + len(all) - 1) / len(all) // 0 is one that only warms up
		at := (n + round) % len(all)           // no one is always the first
		p := all[at]
		o.Progress(fmt.Sprintf("%s, %s, round %d of %d", p.guarantee, p.pattern, max(round, 1),
			o.Rounds))
		err := inFolder(o.Dir, func(dir string) error {
			rate, p99, err := o.measure(ctx, p, dir)
			if round > 0 {
				rates[at], p99s[at] = append(rates[at], rate), append(p99s[at], p99)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("measure %s, %s: %w", p.guarantee, p.pattern, err)
		}
	}
	for i, p := range all {
		rate, p99 := median(rates[i]), math.Round(1000*median(p99s[i]))/1000
		rows = append(rows, Guarantee{p.guarantee.String(), p.pattern, math.Round(rate),
			ratio(rate, median(rates[0])), p99, ratio(p99, median(p99s[0]))})
	}
	rows[0], rows[1] = rows[1], rows[0] // from the weakest to the strongest
	return rows, nil
}

// ratio is a/b with three decimals; 0 where b is.
func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return math.Round(1000*a/b) / 1000
}

// measure handles the messages once under p, and returns how many a second, and the p99 in
// milliseconds.
func (o *GuaranteeOptions) measure(ctx context.Context, p promise, dir string) (
	rate, p99 float64, err error) {
	store, err := queue.Open(dir, queue.Options{})
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := o.backlog(ctx, store); err != nil {
		return 0, 0, err
	}
	r, err := store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return 0, 0, fmt.Errorf("open a receiver: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	handler, err := p.handler(ctx, store)
	if err != nil {
		return 0, 0, err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	m := &meter{Receiver: r, parts: 2, left: o.Messages, all: stop, under: map[string]*passage{},
		ids: map[ackwise.LeaseToken]string{}}
	var run ackwise.Handler = &metered{m, handler}
	if t, ok := handler.(ackwise.Transactional); ok {
		m.parts = 1
		run = &meteredTransaction{metered{m, handler}, t}
	}
	begin := time.Now()
	err = deliver.Run(ctx, m, run, deliver.Options{Guarantee: p.guarantee,
		Concurrency: o.Concurrency, MaxInFlight: 4 * o.Concurrency})
	if err != nil {
		return 0, 0, err
	}
	if m.left > 0 {
		return 0, 0, fmt.Errorf("%d messages are left: %w", m.left, errors.Join(m.fault,
			context.Cause(ctx)))
	}
	rate = float64(o.Messages) / m.ended.Sub(begin).Seconds()
	return rate, millis(m.took.quantile(0.99)), o.checkSums(store)
}

// backlog publishes the messages. The n-th one adds n to the sum of its key.
func (o *GuaranteeOptions) backlog(ctx context.Context, store *queue.Store) error {
	if err := store.CreateTopic(ctx, topic, queue.TopicOptions{}); err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	err := store.CreateSubscription(ctx, topic, subscription,
		queue.SubscriptionOptions{Ordered: true})
	if err != nil {
		return fmt.Errorf("create subscription: %w", err)
	}
	var msgs []ackwise.Message
	for n := range o.Messages {
		msgs = append(msgs, ackwise.Message{ID: strconv.Itoa(n), Topic: topic,
			Key: strconv.Itoa(n % o.Keys), Body: strconv.AppendInt(nil, int64(n), 10)})
		if len(msgs) == publishBatch || n == o.Messages-1 {
			if err := publishAll(ctx, store, msgs); err != nil {
				return err
			}
			msgs = msgs[:0]
		}
	}
	return nil
}

// checkSums compares the table with what it has to hold when nothing goes wrong. What was measured
// is through, so that no context may cut it short.
func (o *GuaranteeOptions) checkSums(store *queue.Store) error {
	want := make([]int64, o.Keys)
	for n := range o.Messages {
		want[n%o.Keys] += int64(n)
	}
	for key := range min(o.Keys, o.Messages) {
		e, err := store.Get(context.Background(), effects, strconv.Itoa(key))
		if err != nil {
			return fmt.Errorf("read the sum of key %d: %w", key, err)
		}
		if got := string(e.Value); got != strconv.FormatInt(want[key], 10) {
			return fmt.Errorf("the sum of key %d is %q, want %d", key, got, want[key])
		}
	}
	return nil
}

// handler makes the handler that applies the effect in p's way.
func (p promise) handler(ctx context.Context, store *queue.Store) (ackwise.Handler, error) {
	if p.guarantee == deliver.ExactlyOnce {
		return queue.Transact(func(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
			old, err := tx.Get(ctx, effects, d.Key)
			if err != nil {
				return err
			}
			sum, err := added(old, d.Body)
			if err == nil {
				tx.Put(effects, d.Key, sum)
			}
			return err
		}), nil
	}
	plain := ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		old, err := store.Get(ctx, effects, d.Key)
		if err != nil {
			return err
		}
		sum, err := added(old.Value, d.Body)
		if err != nil {
			return err
		}
		_, err = store.Commit(ctx, queue.Commit{
			Reads:  []queue.TableRead{{Table: effects, Key: d.Key, Version: old.Version}},
			Writes: []queue.TableWrite{{Table: effects, Key: d.Key, Value: sum}}})
		return err
	})
	if p.pattern == "none" {
		return plain, nil
	}
	ids, err := queuestore.Open(ctx, store, "cost", queuestore.Options{Window: time.Hour})
	if err != nil {
		return nil, err
	}
	return idempotency.Dedup(ctx, ids, plain, idempotency.Options{Again: time.Minute})
}

func added(old, more []byte) ([]byte, error) {
	n, err := strconv.ParseInt(string(more), 10, 64)
	if err == nil && old != nil {
		var sum int64
		sum, err = strconv.ParseInt(string(old), 10, 64)
		n += sum
	}
	if err != nil {
		return nil, fmt.Errorf("add to the sum: %w", err)
	}
	return strconv.AppendInt(nil, n, 10), nil
}

// meter is a session that measures how long messages take to be through.
type meter struct {
	*queue.Receiver
	parts int    // what makes a message be through: effect and settlement, or both in one
	all   func() // called when the last one is through

	mu    sync.Mutex // guards the fields below
	left  int
	under map[string]*passage // by ID: on their way
	ids   map[ackwise.LeaseToken]string
	took  histogram
	ended time.Time
	fault error // the first thing that went wrong
}

type passage struct {
	begun time.Time
	parts int // done
}

// Receive implements ackwise.Source.
func (m *meter) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	ds, err := m.Receiver.Receive(ctx, max)
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range ds {
		if d.Cause != ackwise.CauseFirst && m.fault == nil {
			m.fault = fmt.Errorf("message %s was handed out again: %s", d.ID, d.Cause)
			m.all()
		}
		m.under[d.ID], m.ids[d.Token] = &passage{begun: now}, d.ID
	}
	return ds, err
}

// Settle implements ackwise.Source.
func (m *meter) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := m.Receiver.Settle(ctx, ss)
	for i := range ss {
		if ss[i].Outcome == ackwise.OutcomeAck && results[i].Err == nil {
			m.mu.Lock()
			id := m.ids[ss[i].Token]
			m.mu.Unlock()
			m.part(id)
		}
	}
	return results
}

// part takes note of an effect, or a settlement.
func (m *meter) part(id string) {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.under[id]
	if p == nil {
		return
	}
	if p.parts++; p.parts < m.parts {
		return
	}
	delete(m.under, id)
	m.took.add(now.Sub(p.begun))
	if m.left--; m.left == 0 {
		m.ended = now
		m.all()
	}
}

// metered tells the meter of each effect.
type metered struct {
	m     *meter
	inner ackwise.Handler
}

// Handle implements ackwise.Handler.
func (h *metered) Handle(ctx context.Context, d *ackwise.Delivery) error {
	err := h.inner.Handle(ctx, d)
	if err == nil {
		h.m.part(d.ID)
		return nil
	}
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if h.m.fault == nil && ctx.Err() == nil {
		h.m.fault = err
		h.m.all()
	}
	return err
}

type meteredTransaction struct {
	metered
	bound ackwise.Transactional
}

// Bind implements ackwise.Transactional.
func (t *meteredTransaction) Bind(src ackwise.Source) error { return t.bound.Bind(src) }
