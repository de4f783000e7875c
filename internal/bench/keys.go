package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue/queuestore"
)

const (
	keysWindow  = time.Hour
	dropSample  = 1_000_000 // keys of the buckets that are dropped
	minDropTime = 2 * time.Second
	dropPause   = 5 * time.Millisecond // between two calls while a bucket is waited for
)

func (c *child) openKeys(ctx context.Context, name string, window time.Duration, most int) (
	*queuestore.Store, error) {
	return queuestore.Open(ctx, c.store, name, queuestore.Options{Window: window,
		MaxKeys: most + fillBatch})
}

// fillKeys claims and completes all keys.
func (c *child) fillKeys(ctx context.Context) error {
	s, err := c.openKeys(ctx, "keys", keysWindow, c.Messages)
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := completeKeys(ctx, s, c.Messages, c.progress); err != nil {
		return err
	}
	return c.ready(said{Sent: int64(c.Messages),
		PerSecond: float64(c.Messages) / time.Since(begin).Seconds()})
}

// completeKeys claims and completes the first n keys, several batches at once, and tells of each.
func completeKeys(ctx context.Context, s idempotency.Store, n int, tell func(n int) error) error {
	return inParallel((n+fillBatch-1)/fillBatch, fillers, func(batch int) error {
		var w work
		rows := make([]DedupRow, 0, fillBatch)
		for i := batch * fillBatch; i < min((batch+1)*fillBatch, n); i++ {
			rows = append(rows, dedupRow(0, i))
		}
		answers, err := w.claim(ctx, s, rows, idempotency.Claimed)
		if err == nil {
			err = complete(ctx, s, rows, answers)
		}
		if err != nil {
			return err
		}
		return tell(len(rows))
	})
}

// askKeys asks again for some of the keys that a killed process has completed, spread over all of
// them, and then looks at how buckets go.
func (c *child) askKeys(ctx context.Context) error {
	s, err := c.openKeys(ctx, "keys", keysWindow, c.Messages)
	if err != nil {
		return err
	}
	var w work
	if _, err := w.claim(ctx, s, []DedupRow{dedupRow(0, 0)}, idempotency.Done); err != nil {
		return err
	}
	if err := c.ready(said{}); err != nil {
		return err
	}
	var out said
	sample := min(c.Messages, knownSample)
	for i := range sample {
		row := []DedupRow{dedupRow(0, i*c.Messages/sample)}
		if _, err := w.claim(ctx, s, row, idempotency.Done); err != nil {
			return err
		}
		out.Suppressed++
	}
	if err := c.dropKeys(ctx, &out); err != nil {
		return fmt.Errorf("wait for a bucket to go: %w", err)
	}
	if err := c.store.Close(); err != nil {
		return err
	}
	return c.ready(out)
}

// dropKeys fills a store whose window is so short that its keys lie in one bucket or two, each an
// eighth of it, and waits until they are gone.
func (c *child) dropKeys(ctx context.Context, out *said) error {
	quiet := func(int) error { return nil }
	n := min(c.Messages, dropSample)
	trial, err := c.openKeys(ctx, "trial", keysWindow, n)
	if err != nil {
		return err
	}
	part := min(n, 20*fillBatch)
	begin := time.Now()
	if err := completeKeys(ctx, trial, part, quiet); err != nil {
		return err
	}
	filling := time.Since(begin) * time.Duration(n/part)
	window := max(minDropTime, 12*filling).Round(time.Second)
	s, err := c.openKeys(ctx, "short", window, n)
	if err == nil {
		err = completeKeys(ctx, s, n, quiet)
	}
	if err != nil {
		return err
	}
	var w work
	last := []DedupRow{dedupRow(1, 0)} // goes after all others
	answers, err := w.claim(ctx, s, last, idempotency.Claimed)
	if err == nil {
		err = complete(ctx, s, last, answers)
	}
	if err == nil {
		out.DropSecs, err = c.untilFree(ctx, s, last[0])
	}
	if err != nil {
		return err
	}
	sample := min(n, knownSample)
	for i := range sample {
		row := []DedupRow{dedupRow(0, i*n/sample)}
		if _, err := w.claim(ctx, s, row, idempotency.Claimed); err != nil {
			return err
		}
	}
	out.Dropped = int64(n)
	return nil
}

// untilFree asks for a key until it is free again, and returns the longest time that it took to be
// answered.
func (c *child) untilFree(ctx context.Context, s idempotency.Store, row DedupRow) (
	longest float64, err error) {
	tick := time.NewTicker(dropPause)
	defer tick.Stop()
	start := time.Now()
	told := start
	for {
		begin := time.Now()
		answers, err := s.Claim(ctx, []idempotency.Ask{{Key: row.Key, Sum: row.Sum,
			Lease: time.Minute}})
		longest = max(longest, time.Since(begin).Seconds())
		switch {
		case err != nil:
			return 0, err
		case answers[0].Status == idempotency.Claimed:
			return longest, nil
		case answers[0].Err != nil:
			return 0, answers[0].Err
		case begin.Sub(start) > 2*s.Window():
			return 0, fmt.Errorf("after %s the key is still %s", 2*s.Window(), answers[0].Status)
		}
		if begin.Sub(told) > time.Second { // the parent hears that it is still at work
			told = begin
			if err := c.say(said{Done: int64(c.Messages)}); err != nil {
				return 0, err
			}
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// complete ends claims.
func complete(ctx context.Context, s idempotency.Store, rows []DedupRow,
	answers []idempotency.Answer) error {
	ends := make([]idempotency.Settlement, len(rows))
	for i, a := range answers {
		ends[i] = idempotency.Settlement{Key: rows[i].Key, Fence: a.Fence,
			Verb: idempotency.Complete}
	}
	errs, err := s.Settle(ctx, ends)
	return errors.Join(append(errs, err)...)
}
