package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/pause"
)

// maxTries bounds how often a transaction is made that the database gives up for another's sake.
const maxTries = 10

// Between two tries.
const (
	minPause = time.Millisecond
	maxPause = 100 * time.Millisecond
)

// claimLease is longer than any transaction of an inbox: its claims are never seen by anybody else,
// because they end in the transaction that made them.
const claimLease = 24 * time.Hour

// effectError is a failure of the user's function, not of the inbox.
type effectError struct{ err error }

func (e *effectError) Error() string { return e.err.Error() }
func (e *effectError) Unwrap() error { return e.err }

// apply makes the effects of ds that were not made before, and commits. A nil result says that the
// effect is there.
func (b *BatchInbox[T]) apply(ctx context.Context, ds []*ackwise.Delivery) []error {
	results, err := b.transact(ctx, ds)
	if err == nil {
		return results
	}
	effect, ok := err.(*effectError) //nolint:errorlint // transact returns it as it is
	switch {
	case len(ds) > 1 && (ok || pg.OfOneRow(err)):
		return b.oneByOne(ctx, ds)
	case ok:
		return []error{effect.err}
	}
	return all(len(ds), err)
}

// oneByOne tries each in a transaction of its own, so that only the one that is at fault fails.
func (b *BatchInbox[T]) oneByOne(ctx context.Context, ds []*ackwise.Delivery) []error {
	results := make([]error, len(ds))
	failed := make(map[string]bool) // by message key: the order of a key holds
	for i, d := range ds {
		switch {
		case ctx.Err() != nil:
			results[i] = context.Cause(ctx)
			continue
		case failed[d.Key] && d.Key != "":
			// Not by the earlier one's error, which may be a verdict on that message alone.
			results[i] = fmt.Errorf("handle %.80q: an earlier message of its key failed: %w", d.ID,
				ackwise.Snooze(b.o.BusyDelay))
			continue
		}
		results[i] = b.apply(ctx, ds[i:i+1])[0]
		outcome := ackwise.OutcomeOf(results[i]).Outcome
		if outcome != ackwise.OutcomeAck && outcome != ackwise.OutcomeDrop { // it is in the way
			failed[d.Key] = true
		}
	}
	return results
}

// transact makes one transaction, and makes it again where the database gave it up.
func (b *BatchInbox[T]) transact(ctx context.Context, ds []*ackwise.Delivery) (
	results []error, err error) {
	do := pg.Do[T]
	if b.o.Serializable {
		do = pg.DoSerializable[T]
	}
	for try := 1; ; try++ {
		err = do(ctx, b.db, func(tx pg.Tx) error {
			results, err = b.within(ctx, tx, ds)
			return err
		})
		if err == nil || !pg.Again(err) || try == maxTries {
			break
		}
		// Those that were in each other's way do not come back at once, nor together.
		if !pause.For(ctx, rand.N(min(minPause<<try, maxPause))) {
			break
		}
	}
	effect, ok := err.(*effectError) //nolint:errorlint // as above
	switch {
	case err == nil:
		return results, nil
	case ok && pg.Again(err): // no fault of the message, so it costs none of its budget
		return nil, &effectError{fmt.Errorf("%w: %w", effect.err, ackwise.Snooze(b.o.BusyDelay))}
	case ok:
		return nil, err
	case pg.Again(err):
		err = fmt.Errorf("%w: %w", err, ackwise.Snooze(b.o.BusyDelay))
	case errors.Is(err, pgx.ErrTxClosed) || errors.Is(err, sql.ErrTxDone):
		err = fmt.Errorf("%w: the handler has ended the transaction, which is the inbox's to end",
			err)
	}
	return nil, fmt.Errorf("apply in inbox %s: %w", b.o.Name, err)
}

// within is what happens in the transaction. A result that is not nil belongs to a delivery whose
// effect was not made.
func (b *BatchInbox[T]) within(ctx context.Context, tx pg.Tx, ds []*ackwise.Delivery) (
	[]error, error) {
	asks := make([]idempotency.Ask, len(ds))
	for i, d := range ds {
		asks[i] = idempotency.Ask{Key: d.DedupKey(), Sum: idempotency.Fingerprint(d.Body),
			Lease: claimLease}
	}
	answers, err := b.claim(ctx, tx, asks)
	if err != nil {
		return nil, err
	}
	results := make([]error, len(ds))
	var fresh []*ackwise.Delivery
	var made []idempotency.Settlement
	blocked := make(map[string]bool) // message keys of which an earlier one is put off
	for i, d := range ds {
		a := answers[i]
		switch {
		case a.Status == again:
			continue // its first one in this batch makes the effect
		case a.Status != idempotency.Claimed:
			results[i] = b.turnedDown(asks[i].Key, a)
			blocked[d.Key] = blocked[d.Key] || results[i] != nil
			continue
		}
		s := idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence, Verb: idempotency.Complete}
		if d.Key != "" && blocked[d.Key] {
			s.Verb = idempotency.Release
			results[i] = fmt.Errorf("handle %.80q: an earlier message of its key is put off: %w",
				s.Key, ackwise.Snooze(b.o.BusyDelay))
		} else {
			fresh = append(fresh, d)
		}
		made = append(made, s)
	}
	if len(fresh) > 0 {
		if err := b.fn(ctx, b.db.Native(tx), fresh); err != nil {
			return nil, &effectError{err}
		}
	}
	if err := b.complete(ctx, tx, made); err != nil {
		return nil, err
	}
	if err := b.move(ctx, tx, fresh); err != nil {
		return nil, err
	}
	repeat(asks, answers, results)
	return results, nil
}

// again is the answer to a key that stands before in its batch, with the same sum.
const again = idempotency.Conflict + 1

// left is the answer to a key with a claim that no transaction of an inbox can have left there.
const left = again + 1

// repeat gives each repeated delivery the result of the first of its key.
func repeat(asks []idempotency.Ask, answers []idempotency.Answer, results []error) {
	first := make(map[string]int)
	for i, a := range asks {
		at, ok := first[a.Key]
		if !ok {
			first[a.Key] = i
		} else if answers[i].Status == again {
			results[i] = results[at]
		}
	}
}

// claim asks for the keys within the transaction. Whoever holds a key's lock is at work on it in a
// transaction that is not at its end; nobody waits for it, which could take long.
func (b *BatchInbox[T]) claim(ctx context.Context, tx pg.Tx, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	answers := make([]idempotency.Answer, len(asks))
	var keys [][]byte
	var at []int
	first := make(map[string]int)
	for i, a := range asks {
		j, repeated := first[a.Key]
		switch {
		case repeated && a.Sum != asks[j].Sum:
			answers[i].Status = idempotency.Conflict
		case repeated:
			answers[i].Status = again
		default:
			if answers[i].Err = a.Validate(); answers[i].Err != nil {
				continue
			}
			first[a.Key] = i
			keys, at = append(keys, []byte(a.Key)), append(at, i)
		}
	}
	var free []idempotency.Ask
	var freeAt []int
	err := pg.Each(ctx, tx, func(r pg.Rows) error {
		var ord int
		var got bool
		if err := r.Scan(&ord, &got); err != nil {
			return err
		}
		i := at[ord-1]
		if !got {
			answers[i].Status = idempotency.Busy
			return nil
		}
		free, freeAt = append(free, asks[i]), append(freeAt, i)
		return nil
	}, `SELECT a.ord, pg_try_advisory_xact_lock(hashtextextended(
			'ackwise inbox ' || $1::text || ' ' || encode(a.key, 'hex'),
			'ackwise_claim'::regclass::oid::bigint))
		FROM unnest($2::text::bytea[]) WITH ORDINALITY AS a(key, ord)`, b.o.Name, pg.Array(keys))
	if err != nil || len(free) == 0 {
		return answers, err
	}
	// A statement of its own, so that it sees what the last holder of the lock has committed.
	got, err := b.keys.Claim(ctx, tx, free)
	if err != nil {
		return nil, err
	}
	for j, i := range freeAt {
		answers[i] = got[j]
		// Claims end in the transaction that made them, and nobody else is at work on the key. One
		// that was taken over is kept, too, so that the next delivery finds it.
		if got[j].Takeover || got[j].Status == idempotency.Busy {
			answers[i] = idempotency.Answer{Status: left}
		}
	}
	return answers, nil
}

// complete writes the markers.
func (b *BatchInbox[T]) complete(ctx context.Context, tx pg.Tx,
	made []idempotency.Settlement) error {
	if len(made) == 0 {
		return nil
	}
	errs, err := b.keys.Settle(ctx, tx, made)
	if err != nil {
		return err
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// move notes how far the source was applied, at the end, because others wait for these rows.
func (b *BatchInbox[T]) move(ctx context.Context, tx pg.Tx, fresh []*ackwise.Delivery) error {
	if b.o.Pipeline == "" || len(fresh) == 0 {
		return nil
	}
	highest := make(map[string]ackwise.Position)
	for _, d := range fresh {
		highest[d.Partition] = max(highest[d.Partition], d.Position)
	}
	parts, positions := make([]string, 0, len(highest)), make([]string, 0, len(highest))
	for part, position := range highest {
		parts, positions = append(parts, part), append(positions, string(position))
	}
	_, err := tx.Exec(ctx, `INSERT INTO ackwise_position AS p (pipeline, part, position, moved)
		SELECT $1, a.part, a.position, clock_timestamp()
		FROM unnest($2::text::text[], $3::text::text[]) AS a(part, position) ORDER BY a.part
		ON CONFLICT (pipeline, part) DO UPDATE
		SET position = greatest(p.position, excluded.position), moved = excluded.moved`,
		b.o.Pipeline, pg.Array(parts), pg.Array(positions))
	if err != nil {
		return fmt.Errorf("note the position: %w", err)
	}
	return nil
}
