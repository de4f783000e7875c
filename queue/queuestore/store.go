package queuestore

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// Engine is what a Store is kept in: a *queue.Store, or a *client.Client.
type Engine interface {
	OpenSet(ctx context.Context, name string, window time.Duration, maxKeys int) error
	BindSet(ctx context.Context, name, rule string) error
	Claim(ctx context.Context, set string, asks []idempotency.Ask) ([]idempotency.Answer, error)
	SettleClaims(ctx context.Context, set string, claims []idempotency.Settlement) ([]error, error)
}

// Options configure a Store. The zero value is ready to use.
type Options struct {
	// Window is how long a key stays done. A name keeps the window that it was made with.
	// Default: 24 h.
	Window time.Duration
	// MaxKeys bounds the keys that are claimed or done; done ones count for up to an eighth of the
	// window longer, and claims that ran out for a window. Default: 16,777,216.
	MaxKeys int
}

// Store is an idempotency.Store in a directory of package queue. It is safe for concurrent use, and
// several of one name, in several processes, are one.
type Store struct {
	engine Engine
	name   string
	window time.Duration
	closed atomic.Bool
}

var _ idempotency.Store = (*Store)(nil)

// Open opens the dedup store of a name, and makes it where it is missing. It does not close the
// engine.
func Open(ctx context.Context, engine Engine, name string, o Options) (*Store, error) {
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 1 << 24
	}
	if err := engine.OpenSet(ctx, name, o.Window, o.MaxKeys); err != nil {
		return nil, fmt.Errorf("open dedup store: %w", err)
	}
	return &Store{engine: engine, name: name, window: o.Window}, nil
}

// Bind keeps the first rule for good, and refuses another one with an *idempotency.RuleError.
func (s *Store) Bind(ctx context.Context, rule string) error {
	if err := s.usable(); err != nil {
		return err
	}
	return s.engine.BindSet(ctx, s.name, rule)
}

// Claim asks for the right to make the effects of keys.
func (s *Store) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	return s.engine.Claim(ctx, s.name, asks)
}

// Settle ends claims, or extends them.
func (s *Store) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	return s.engine.SettleClaims(ctx, s.name, claims)
}

// Window is how long a key stays done.
func (s *Store) Window() time.Duration { return s.window }

// Close ends this handle. Claims stay until they run out, and the engine stays open.
func (s *Store) Close() error {
	s.closed.Store(true)
	return nil
}

func (s *Store) usable() error {
	if s.closed.Load() {
		return fmt.Errorf("use dedup store %s: %w", s.name, ackwise.ErrClosed)
	}
	return nil
}
