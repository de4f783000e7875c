package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// Latency is how long a message takes from the call of Publish to the return of Receive, with as
// many messages on the way as there are publishers, and one consumer that acks what it received
// before it receives the next.
type Latency struct {
	Publishers int     `json:"publishers"`
	Size       int     `json:"size"` // bytes of a body
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
}

const latencyBatch = 256

func (b *bench) latency(ctx context.Context, l load) (Latency, error) {
	var p50, p99 []float64
	for round := range b.Rounds {
		b.round("latency, %d × %d B, round %d of %d", l.publishers, l.size(), round+1, b.Rounds)
		err := b.withStore(ctx, storeOptions{}, func(store *queue.Store) error {
			h, err := endToEnd(ctx, l, store)
			if err != nil {
				return err
			}
			p50 = append(p50, millis(h.quantile(0.5)))
			p99 = append(p99, millis(h.quantile(0.99)))
			return nil
		})
		if err != nil {
			return Latency{}, err
		}
	}
	return Latency{Publishers: l.publishers, Size: l.size(), P50: median(p50),
		P99: median(p99)}, nil
}

// travellers are the messages on the way: one a publisher, which says who it is in the key.
type travellers struct {
	sent    []time.Time     // written before Publish, read after Receive of the same message
	arrived []chan struct{} // capacity 1
	times   histogram       // of the consumer, until it has ended
}

// endToEnd lets each publisher send its next message when the one before it was received.
func endToEnd(ctx context.Context, l load, store *queue.Store) (*histogram, error) {
	r, err := store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return nil, fmt.Errorf("open a receiver: %w", err)
	}
	t := &travellers{sent: make([]time.Time, l.publishers),
		arrived: make([]chan struct{}, l.publishers)}
	keys := make([]string, l.publishers)
	for p := range l.publishers {
		t.arrived[p], keys[p] = make(chan struct{}, 1), strconv.Itoa(p)
	}
	consuming, stop := context.WithCancelCause(ctx)
	ended := errors.New("the publishers have ended")
	var wg sync.WaitGroup
	var consumeErr error
	wg.Go(func() { // ends with consuming
		if consumeErr = t.consume(consuming, r); errors.Is(consumeErr, ended) {
			consumeErr = nil
		}
		stop(consumeErr)
	})
	_, err = l.drive(consuming, func(ctx context.Context, p int, body []byte) error {
		t.sent[p] = time.Now()
		m := ackwise.Message{Topic: topic, Key: keys[p], Body: body}
		if err := publishOne(ctx, store, m); err != nil {
			return err
		}
		select {
		case <-t.arrived[p]:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	stop(ended)
	wg.Wait()
	return &t.times, errors.Join(consumeErr, err, r.Close())
}

func (t *travellers) consume(ctx context.Context, r *queue.Receiver) error {
	var acks []ackwise.Settlement
	for {
		ds, err := r.Receive(ctx, latencyBatch)
		if err != nil {
			return err
		}
		now := time.Now()
		for _, d := range ds {
			p, err := strconv.Atoi(d.Key)
			if err != nil {
				return fmt.Errorf("a message of an unknown publisher: %w", err)
			}
			t.times.add(now.Sub(t.sent[p]))
			t.arrived[p] <- struct{}{}
		}
		// The last acks are made even when the publishers have ended.
		if acks, err = ack(context.WithoutCancel(ctx), r, ds, acks); err != nil {
			return err
		}
	}
}
