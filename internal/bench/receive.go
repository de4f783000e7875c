package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// ReceiveAck is how fast one consumer drains a backlog: receive a batch, ack it, receive the next.
type ReceiveAck struct {
	Size      int     `json:"size"`  // bytes of a body
	Batch     int     `json:"batch"` // the most messages of one Receive and one Settle
	Keyed     bool    `json:"keyed"` // ordered, 1,000 keys; else unordered, without keys
	PerSecond float64 `json:"per_s"` // messages received and acked
}

// drain is one way to drain a backlog.
type drain struct {
	batch int
	keyed bool
}

func drains() []drain { return []drain{{1, false}, {256, false}, {1, true}, {256, true}} }

const (
	backlogKeys     = 1000
	backlogPerSec   = 1_000_000 // messages for each second of the window
	maxBacklogBytes = 1 << 30   // of bodies
	publishBatch    = 256
)

func (b *bench) receiveAck(ctx context.Context, d drain, bodies [][]byte) (ReceiveAck, error) {
	var rates []float64
	for round := range b.Rounds {
		b.round("receive + ack, %d at a time, %d B, keyed %t, round %d of %d",
			d.batch, len(bodies[0]), d.keyed, round+1, b.Rounds)
		o := storeOptions{sub: queue.SubscriptionOptions{Ordered: d.keyed}}
		err := b.withStore(ctx, o, func(store *queue.Store) error {
			backlog, err := b.backlog(ctx, store, d, bodies)
			if err != nil {
				return err
			}
			rate, err := b.drain(ctx, store, d, backlog)
			rates = append(rates, rate)
			return err
		})
		if err != nil {
			return ReceiveAck{}, err
		}
	}
	return ReceiveAck{Size: len(bodies[0]), Batch: d.batch, Keyed: d.keyed,
		PerSecond: math.Round(median(rates))}, nil
}

// backlog publishes what is drained, and returns how many messages. With batches of one the window
// ends long before a large backlog does, so it gets a fifth.
func (b *bench) backlog(ctx context.Context, store *queue.Store, d drain, bodies [][]byte) (
	int, error) {
	n := int(backlogPerSec * b.Window.Seconds())
	if d.batch == 1 {
		n /= 5
	}
	n = max(min(n, maxBacklogBytes/max(len(bodies[0]), 1)), d.batch)
	msgs := make([]ackwise.Message, 0, publishBatch)
	for i := range n {
		m := ackwise.Message{Topic: topic, Body: bodies[i%len(bodies)]}
		if d.keyed {
			m.Key = strconv.Itoa(b.random.IntN(backlogKeys))
		}
		if msgs = append(msgs, m); len(msgs) < publishBatch && i < n-1 {
			continue
		}
		if err := publishAll(ctx, store, msgs); err != nil {
			return 0, err
		}
		msgs = msgs[:0]
	}
	return n, nil
}

// drain receives and acks until the backlog or the window ends, and returns the rate.
func (b *bench) drain(ctx context.Context, store *queue.Store, d drain, backlog int) (
	rate float64, err error) {
	r, err := store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return 0, fmt.Errorf("open a receiver: %w", err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	acks := make([]ackwise.Settlement, 0, d.batch)
	begin, drained := time.Now(), 0
	for drained < backlog && time.Since(begin) < b.Window {
		ds, err := r.Receive(ctx, d.batch)
		if err != nil {
			return 0, fmt.Errorf("receive: %w", err)
		}
		if acks, err = ack(ctx, r, ds, acks); err != nil {
			return 0, err
		}
		drained += len(ds)
	}
	elapsed := time.Since(begin)
	books, err := store.Books(ctx)
	if err != nil {
		return 0, fmt.Errorf("read the books: %w", err)
	}
	if k := books[0]; k.Acked != int64(drained) || k.Waiting() != int64(backlog-drained) {
		return 0, fmt.Errorf("%d of %d messages were acked, the books say: %+v",
			drained, backlog, k)
	}
	return float64(drained) / elapsed.Seconds(), nil
}

// ack acks first hand-outs; any other would mean that the engine did something else than it is
// measured for. It returns its scratch.
func ack(ctx context.Context, r *queue.Receiver, ds []*ackwise.Delivery,
	scratch []ackwise.Settlement) ([]ackwise.Settlement, error) {
	scratch = scratch[:0]
	for _, d := range ds {
		if d.Cause != ackwise.CauseFirst {
			return scratch, fmt.Errorf("message %s was handed out again: %s", d.ID, d.Cause)
		}
		scratch = append(scratch,
			ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck})
	}
	for _, res := range r.Settle(ctx, scratch) {
		if res.Err != nil {
			return scratch, fmt.Errorf("ack: %w", res.Err)
		}
	}
	return scratch, nil
}
