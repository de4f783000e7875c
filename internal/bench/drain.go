package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

const (
	drainBatch = 256
	nackEvery  = 100 // one message of so many is nacked
	nackedRest = 7   // which one
	nackDelay  = time.Second
)

// nackedOf is how many of the first n numbers are nacked.
func nackedOf(n int64) int64 { return (n + nackEvery - 1 - nackedRest) / nackEvery }

// bitmap has a bit for each number.
type bitmap []uint64

func newBitmap(n int) bitmap { return make(bitmap, n/64+1) }

// set sets the bit of n, and reports whether it was set already.
func (b bitmap) set(n int) bool {
	was := b.has(n)
	b[n/64] |= 1 << (n % 64)
	return was
}

func (b bitmap) has(n int) bool { return b[n/64]>>(n%64)&1 == 1 }

// tally is what a consumer did with which numbers.
type tally struct {
	receiver         *queue.Receiver
	ackedOf, nacked  bitmap
	acked            int64
	failed, released int64
	handOuts         map[ackwise.Cause]int64
	settlements      []ackwise.Settlement
}

func (c *child) open(ctx context.Context, t *tally) (err error) {
	t.ackedOf, t.nacked = newBitmap(c.Messages), newBitmap(c.Messages)
	t.handOuts = make(map[ackwise.Cause]int64)
	t.receiver, err = c.store.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return fmt.Errorf("open a receiver: %w", err)
	}
	return nil
}

// drainAll receives and acks as many messages as there are. It nacks nothing.
func (c *child) drainAll(ctx context.Context, t *tally) error {
	if err := c.open(ctx, t); err != nil {
		return err
	}
	for t.acked < int64(c.Messages) {
		ds, err := t.receiver.Receive(ctx, drainBatch)
		if err == nil {
			err = c.settle(ctx, t, ds, func(int) bool { return false })
		}
		if err != nil {
			return err
		}
	}
	return t.receiver.Close()
}

// drain receives what a killed process has left. The first message is what the start is measured
// to; where none waits, it is one that is published now.
func (c *child) drain(ctx context.Context) error {
	if c.Kind != KindBacklog {
		if err := publishOne(ctx, c.store, c.message(c.Messages)); err != nil {
			return err
		}
	}
	var t tally
	if err := c.open(ctx, &t); err != nil {
		return err
	}
	ds, err := t.receiver.Receive(ctx, drainBatch)
	if err != nil {
		return fmt.Errorf("receive the first: %w", err)
	}
	if err := c.ready(said{}); err != nil {
		return err
	}
	var s said
	switch c.Kind {
	case KindBacklog:
		s, err = c.drainRest(ctx, &t, ds)
	case KindScheduled:
		s, err = c.countDelayed(ctx)
	case KindIDs:
		s, err = c.publishAgain(ctx)
	}
	if err == nil {
		err = errors.Join(t.receiver.Close(), c.store.Close())
	}
	if err != nil {
		return err
	}
	return c.ready(s)
}

// drainRest settles ds, and receives and settles until everything is acked.
func (c *child) drainRest(ctx context.Context, t *tally, ds []*ackwise.Delivery) (said, error) {
	nack := func(n int) bool { return n%nackEvery == nackedRest && !t.nacked.set(n) }
	begin := time.Now()
	for {
		if err := c.settle(ctx, t, ds, nack); err != nil {
			return said{}, err
		}
		if t.acked == int64(c.Messages) {
			break
		}
		var err error
		if ds, err = t.receiver.Receive(ctx, drainBatch); err != nil {
			return said{}, fmt.Errorf("receive, %d of %d are acked: %w", t.acked, c.Messages, err)
		}
	}
	rate := float64(t.acked) / time.Since(begin).Seconds()
	err := checkDrained(ctx, c.store, t.acked)
	return said{PerSecond: rate, Received: t.acked, Nacked: t.failed, Released: t.released,
		HandOuts: t.handOuts}, err
}

// settle acks what was received, nacks what nack chooses, and gives back what follows a nacked one
// with its key. A message that was acked before and comes again is an error.
func (c *child) settle(ctx context.Context, t *tally, ds []*ackwise.Delivery,
	nack func(n int) bool) error {
	t.settlements = t.settlements[:0]
	held := map[string]bool{} // keys with a nacked message in this batch
	acked := 0
	for _, d := range ds {
		n, err := c.numberOf(&d.Message)
		if err != nil {
			return err
		}
		t.handOuts[d.Cause]++
		s := ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
		switch {
		case t.ackedOf.has(n):
			return fmt.Errorf("%s was acked, and handed out again: %s", d.ID, d.Cause)
		case held[d.Key]:
			s.Outcome = ackwise.OutcomeRelease
			t.released++
		case nack(n):
			s.Outcome, s.Delay, s.Reason = ackwise.OutcomeNack, nackDelay, "one of a hundred"
			held[d.Key] = true
			t.failed++
		default:
			t.ackedOf.set(n)
			acked++
		}
		t.settlements = append(t.settlements, s)
	}
	for i, r := range t.receiver.Settle(ctx, t.settlements) {
		if r.Err != nil {
			return fmt.Errorf("%s %s: %w", t.settlements[i].Outcome, ds[i].ID, r.Err)
		}
	}
	t.acked += int64(acked)
	if c.Kind == KindIDs {
		return nil // the publishers say how far it is
	}
	return c.progress(acked)
}

func (c *child) countDelayed(ctx context.Context) (said, error) {
	books, err := c.store.Books(ctx)
	if err != nil {
		return said{}, fmt.Errorf("read the books: %w", err)
	}
	return said{Delayed: books[0].Delayed}, nil
}

// publishAgain publishes some of the IDs once more, spread over all of them.
func (c *child) publishAgain(ctx context.Context) (said, error) {
	var s said
	sample := min(c.Messages, knownSample)
	for i := range sample {
		m := c.message(i * c.Messages / sample)
		r := c.store.Publish(ctx, []ackwise.Message{m})[0]
		if r.Class != ackwise.ResultAccepted {
			return s, fmt.Errorf("publish %s again: %s: %w", m.ID, r.Class, r.Err)
		}
		if r.Duplicate {
			s.Suppressed++
		}
	}
	return s, nil
}
