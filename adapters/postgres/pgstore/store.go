package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/dedup"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/idempotency"
)

// Options configure a Store.
type Options struct {
	// Name is the store's: each handler has one of its own. Required.
	Name string
	// Window is how long a key stays done, at least 1 ms. Where several processes use a name with
	// different windows, each goes by its own, and rows are kept for the longest that there ever
	// was. Default: 24 h.
	Window time.Duration
	// MaxKeys bounds the keys that are claimed or done. A full store answers ackwise.ErrFull.
	// Default: 10,000,000.
	MaxKeys int
	// Password gives the password of OpenURL's connections, anew for each one, so that a changed one
	// is found. Open has no use for it. Default: nil, what the URL or PGPASSWORD says.
	Password func(context.Context) (string, error)
}

func (o Options) withDefaults() Options {
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 10_000_000
	}
	return o
}

func (o Options) validate() error {
	faults := []error{ackwise.ValidateName("dedup store", o.Name)}
	if o.Window < time.Millisecond {
		faults = append(faults, &ackwise.InvalidError{Field: "Window", Value: o.Window.String(),
			Reason: "at least 1 ms is needed"})
	}
	if o.MaxKeys < 1 {
		faults = append(faults, &ackwise.InvalidError{Field: "MaxKeys",
			Reason: fmt.Sprintf("%d is less than one key", o.MaxKeys)})
	}
	return errors.Join(faults...)
}

// Store is an idempotency.Store in Postgres.
type Store struct {
	o      Options
	db     pg.Conn
	keys   *dedup.Keys
	free   func() // closes what OpenURL opened
	closed atomic.Bool
}

// Open opens the store of a name, in a database that postgres.Migrate has prepared. The database
// stays the caller's, who closes it after the store.
func Open[T any](ctx context.Context, db postgres.DB[T], o Options) (*Store, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open dedup store: %w", err)
	}
	if err := postgres.Check(ctx, db); err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", o.Name, err)
	}
	conn, err := pg.Committed(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", o.Name, err)
	}
	keys, err := dedup.Open(ctx, conn,
		dedup.Options{Name: o.Name, Window: o.Window, MaxKeys: o.MaxKeys})
	if err != nil {
		return nil, err
	}
	return &Store{o: o, db: conn, keys: keys, free: func() {}}, nil
}

// OpenURL is Open with a pool of its own, which Close closes: postgres://USER@HOST:PORT/DATABASE.
// The server ends transactions of its connections that stand idle for 10 s, so that a frozen
// process keeps nobody from its keys; the URL's idle_in_transaction_session_timeout says otherwise.
func OpenURL(ctx context.Context, url string, o Options) (*Store, error) {
	pool, err := connect(ctx, url, o.Password)
	if err != nil {
		return nil, fmt.Errorf("open dedup store %s: %w", o.Name, err)
	}
	s, err := Open(ctx, postgres.PGX(pool), o)
	if err != nil {
		pool.Close()
		return nil, err
	}
	s.free = pool.Close
	return s, nil
}

// connect makes a pool, which connects when it is used. An error of the client's own about the
// address is not told: it may hold the password.
func connect(ctx context.Context, url string, password func(context.Context) (string, error)) (
	*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, &ackwise.HintError{Err: errors.New("the URL of the database cannot be read"),
			Hint: "It has the form postgres://USER@HOST:PORT/DATABASE."}
	}
	if config.ConnConfig.RuntimeParams[idleTimeout] == "" {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			_, err := conn.Exec(ctx, "SET "+idleTimeout+" = '10s'")
			return err
		}
	}
	if password != nil {
		config.BeforeConnect = func(ctx context.Context, conn *pgx.ConnConfig) (err error) {
			conn.Password, err = password(ctx)
			return err
		}
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// idleTimeout is how long the server lets a transaction stand idle. A process that is frozen within
// one holds the rows of its keys, and everybody else who claims them waits; a call of the store
// itself is never idle so long. It is not a parameter of the connection's start, which poolers
// refuse.
const idleTimeout = "idle_in_transaction_session_timeout"

// Bind keeps the first rule, and refuses another one with an *idempotency.RuleError.
func (s *Store) Bind(ctx context.Context, rule string) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	return s.keys.Bind(ctx, s.db, rule)
}

func (s *Store) enter(ctx context.Context) error {
	if s.closed.Load() {
		return fmt.Errorf("use dedup store %s: %w", s.o.Name, ackwise.ErrClosed)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("use dedup store %s: %w", s.o.Name, context.Cause(ctx))
	}
	return nil
}

// Claim answers each ask.
func (s *Store) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	if err := s.keys.Tend(ctx, s.db, time.Now()); err != nil {
		return nil, err
	}
	answers := make([]idempotency.Answer, len(asks))
	first := make(map[string]int, len(asks)) // where a key was asked for first
	var send []int
	for i, a := range asks {
		if err := a.Validate(); err != nil {
			answers[i].Err = err
		} else if _, again := first[a.Key]; !again {
			first[a.Key] = i
			send = append(send, i)
		}
	}
	for len(send) > 0 {
		some := send[:min(len(send), dedup.MaxBatch)]
		send = send[len(some):]
		batch := make([]idempotency.Ask, len(some))
		for j, i := range some {
			batch[j] = asks[i]
		}
		got, err := s.claim(ctx, batch)
		if err != nil {
			return nil, err
		}
		for j, i := range some {
			answers[i] = got[j]
		}
	}
	for i, a := range asks {
		if at, ok := first[a.Key]; ok && at != i && answers[i].Err == nil {
			answers[i] = repeated(a, asks[at], answers[at])
		}
	}
	return answers, nil
}

// claim asks again where the database gave up for the sake of another call.
func (s *Store) claim(ctx context.Context, batch []idempotency.Ask) (
	got []idempotency.Answer, err error) {
	err = again(ctx, func() error {
		got, err = s.keys.Claim(ctx, s.db, batch)
		return err
	})
	return got, err
}

// repeated answers an ask for a key that stands before it in the same call.
func repeated(a, before idempotency.Ask, got idempotency.Answer) idempotency.Answer {
	switch {
	case got.Status != idempotency.Claimed:
		return got
	case a.Sum != before.Sum && a.Sum != idempotency.Sum{} && before.Sum != idempotency.Sum{}:
		return idempotency.Answer{Status: idempotency.Conflict}
	}
	return idempotency.Answer{Status: idempotency.Busy, Wait: before.Lease}
}

// maxTries bounds how often a statement is made again that the database gave up.
const maxTries = 10

func again(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		if err := f(); err == nil || !pg.Again(err) || try == maxTries || ctx.Err() != nil {
			return err
		}
	}
}

// Settle carries out each settlement.
func (s *Store) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	results := make([]error, len(claims))
	var todo []int
	for i, c := range claims {
		if results[i] = c.Validate(); results[i] == nil {
			todo = append(todo, i)
		}
	}
	for len(todo) > 0 {
		var batch, later []int // a key that is there twice is settled in a later statement
		seen := make(map[string]bool, len(todo))
		for _, i := range todo {
			if seen[claims[i].Key] || len(batch) == dedup.MaxBatch {
				later = append(later, i)
				seen[claims[i].Key] = true
				continue
			}
			seen[claims[i].Key] = true
			batch = append(batch, i)
		}
		if err := s.settle(ctx, claims, batch, results); err != nil {
			return nil, err
		}
		todo = later
	}
	return results, nil
}

func (s *Store) settle(ctx context.Context, claims []idempotency.Settlement, batch []int,
	results []error) error {
	some := make([]idempotency.Settlement, len(batch))
	for j, i := range batch {
		some[j] = claims[i]
	}
	return again(ctx, func() error {
		errs, err := s.keys.Settle(ctx, s.db, some)
		if err != nil {
			return err
		}
		for j, i := range batch {
			results[i] = errs[j]
		}
		return nil
	})
}

// Window is how long a key stays done.
func (s *Store) Window() time.Duration { return s.o.Window }

// Close ends the store. Claims stay until they run out.
func (s *Store) Close() error {
	if !s.closed.Swap(true) {
		s.free()
	}
	return nil
}
