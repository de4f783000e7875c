package dedup

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/idempotency"
)

// Buckets is how many buckets a window is divided into.
const Buckets = 4

// MaxBatch is the most keys of one statement.
const MaxBatch = 1000

// Options say which keys. All of them have to be set.
type Options struct {
	Name    string        // under which they are kept
	Window  time.Duration // how long a key stays done, at least 1 ms
	MaxKeys int           // the most that are claimed or done, at least 1
}

// Keys are the keys of one name.
type Keys struct {
	o Options

	mu   sync.Mutex // guards next
	next time.Time  // when to look after the buckets again
}

// Open registers the name, with a bucket to fill.
func Open(ctx context.Context, c pg.Conn, o Options) (*Keys, error) {
	k := &Keys{o: o}
	_, err := c.Exec(ctx, `INSERT INTO ackwise_store AS s (name, window_ms) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET window_ms = greatest(s.window_ms, excluded.window_ms)`,
		o.Name, o.Window.Milliseconds())
	if err == nil {
		err = k.roll(ctx, c)
	}
	if err != nil {
		return nil, k.wrap("open", err)
	}
	return k, nil
}

func (k *Keys) wrap(verb string, err error) error {
	return fmt.Errorf("%s dedup store %s: %w", verb, k.o.Name, err)
}

// Bind keeps the first rule, and refuses another one with an *idempotency.RuleError.
func (k *Keys) Bind(ctx context.Context, c pg.Conn, rule string) error {
	if rule == "" {
		return &ackwise.InvalidError{Field: "rule", Reason: "it is empty"}
	}
	var kept string
	found, err := pg.One(ctx, c, []any{&kept}, `UPDATE ackwise_store SET rule = coalesce(rule, $2)
		WHERE name = $1 RETURNING rule`, k.o.Name, rule)
	switch {
	case err != nil:
		return k.wrap("bind", err)
	case !found:
		return k.wrap("bind", errors.New("it is not there any more"))
	case kept != rule:
		return &idempotency.RuleError{Store: k.o.Name, Kept: kept, Got: rule}
	}
	return nil
}

// Claim answers each ask that is not nil in its place of answers. No key may be twice in asks.
func (k *Keys) Claim(ctx context.Context, c pg.Conn, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	keys, sums := make([][]byte, len(asks)), make([][]byte, len(asks))
	leases := make([]int64, len(asks))
	for i, a := range asks {
		keys[i], sums[i], leases[i] = []byte(a.Key), sumOf(a.Sum), a.Lease.Milliseconds()
	}
	answers := make([]idempotency.Answer, len(asks))
	err := pg.Each(ctx, c, func(r pg.Rows) error { return k.scan(r, answers) },
		`SELECT ord, status, fence, takeover, result, done, wait FROM ackwise_claim($1, $2, $3,
		$4::text::bytea[], $5::text::bytea[], $6::text::bigint[])`, k.o.Name,
		k.o.Window.Milliseconds(), int64(k.o.MaxKeys), pg.Array(keys), pg.Array(sums),
		pg.Array(leases))
	if err != nil {
		return nil, k.wrap("claim in", err)
	}
	for _, a := range answers {
		if a.Status == 0 && a.Err == nil {
			return nil, k.wrap("claim in", errors.New("the database left a key unanswered"))
		}
	}
	return answers, nil
}

// The answers of ackwise_claim.
const (
	saysClaimed = iota + 1
	saysDone
	saysBusy
	saysConflict
	saysFull
)

func (k *Keys) scan(r pg.Rows, answers []idempotency.Answer) error {
	var (
		ord, status int
		fence, wait int64
		done        *time.Time
		a           idempotency.Answer
	)
	err := r.Scan(&ord, &status, &fence, &a.Takeover, &a.Result, &done, &wait)
	if err != nil {
		return err
	}
	if ord < 1 || ord > len(answers) {
		return fmt.Errorf("the database answered key %d of %d", ord, len(answers))
	}
	switch status {
	case saysClaimed:
		a.Status, a.Fence = idempotency.Claimed, uint64(fence)
	case saysDone:
		a.Status = idempotency.Done
		if done != nil {
			a.Time = *done
		}
	case saysBusy:
		a.Status, a.Wait = idempotency.Busy, time.Duration(wait)*time.Millisecond
	case saysConflict:
		a = idempotency.Answer{Status: idempotency.Conflict}
	case saysFull:
		a.Err = k.wrap("claim in", fmt.Errorf("it holds %d keys, its bound: %w", k.o.MaxKeys,
			ackwise.ErrFull))
	default:
		return fmt.Errorf("the database answered %d", status)
	}
	answers[ord-1] = a
	return nil
}

// Settle carries out settlements, of which no key may be twice.
func (k *Keys) Settle(ctx context.Context, c pg.Conn, claims []idempotency.Settlement) (
	[]error, error) {
	n := len(claims)
	keys, results := make([][]byte, n), make([][]byte, n)
	fences, verbs, leases := make([]int64, n), make([]int64, n), make([]int64, n)
	for i, s := range claims {
		keys[i], fences[i], verbs[i] = []byte(s.Key), int64(s.Fence), int64(s.Verb)
		results[i], leases[i] = s.Result, s.Lease.Milliseconds()
	}
	errs := make([]error, n)
	err := pg.Each(ctx, c, func(r pg.Rows) error {
		var ord int
		var held bool
		if err := r.Scan(&ord, &held); err != nil {
			return err
		}
		if !held {
			errs[ord-1] = k.wrap("settle in", idempotency.ErrFence)
		}
		return nil
	}, `SELECT ord, held FROM ackwise_settle($1, $2, $3::text::bytea[], $4::text::bigint[],
		$5::text::int[], $6::text::bytea[], $7::text::bigint[])`, k.o.Name,
		k.o.Window.Milliseconds(), pg.Array(keys), pg.Array(fences), pg.Array(verbs),
		pg.Array(results), pg.Array(leases))
	if err != nil {
		return nil, k.wrap("settle in", err)
	}
	return errs, nil
}

// Tend looks after the buckets when it is time: it opens the next one, and drops those that are
// out of the window. c must not be in a transaction of the user's.
func (k *Keys) Tend(ctx context.Context, c pg.Conn, now time.Time) error {
	if !k.due(now) {
		return nil
	}
	if err := k.roll(ctx, c); err != nil {
		return k.wrap("tend", err)
	}
	for {
		var dropped bool
		_, err := pg.One(ctx, c, []any{&dropped}, `SELECT ackwise_drop($1)`, k.o.Name)
		switch {
		case pg.SQLState(err) == pg.StateLockTimeout:
			return nil // somebody's transaction is long: the bucket goes the next time
		case err != nil:
			return k.wrap("tend", err)
		case !dropped:
			return nil
		}
	}
}

func (k *Keys) roll(ctx context.Context, c pg.Conn) error {
	width := k.o.Window / Buckets
	_, err := c.Exec(ctx, `SELECT ackwise_roll($1, $2)`, k.o.Name, width.Milliseconds())
	return err
}

func (k *Keys) due(now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Before(k.next) {
		return false
	}
	k.next = now.Add(max(k.o.Window/(4*Buckets), time.Millisecond))
	return true
}

func sumOf(s idempotency.Sum) []byte {
	if s == (idempotency.Sum{}) {
		return []byte{}
	}
	return s[:]
}
