package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/dedup"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/idempotency"
)

// InboxOptions configure an inbox. Name and Again have to be set; the other fields have defaults.
type InboxOptions struct {
	// Name is under which markers are kept: each handler has one of its own. Required.
	Name string
	// Again is how long after its first delivery a message may come again: the longest of the
	// retry budget's span, the source's own retention of what is in flight, and the age at which
	// dead letters are still redriven. A shorter Window is refused. Required.
	Again time.Duration
	// Window is how long a marker is kept. Default: 7 days, or Again where that is longer.
	Window time.Duration
	// MaxKeys bounds the markers. A full inbox makes no effect and puts messages off.
	// Default: 10,000,000.
	MaxKeys int
	// Pipeline is under which the positions of the source are kept, in the same transaction: of
	// each partition the highest whose effect was applied; see Positions. Transactions of one
	// partition wait for each other's commit then. Default: "", none are kept.
	Pipeline string
	// Serializable makes the transactions serializable instead of READ COMMITTED. They are made
	// again where they fail for another's sake, see Inbox. Default: false.
	Serializable bool
	// BusyDelay is how long a duplicate is put off while the first one is at work; it spends no
	// budget. Default: 1 s.
	BusyDelay time.Duration
	// SettleTimeout bounds the ack at the source, which goes on when the handler's context has
	// ended. Default: 10 s.
	SettleTimeout time.Duration
	// Logger takes what the upkeep of the markers meets, which fails no delivery. Default: none.
	Logger *slog.Logger
}

const (
	inboxWindow  = 7 * 24 * time.Hour
	inboxKeys    = 10_000_000
	inboxRule    = "id, body" // as idempotency.Dedup's
	maxFullDelay = time.Minute
)

func (o InboxOptions) withDefaults() InboxOptions {
	if o.Window == 0 {
		o.Window = max(inboxWindow, o.Again)
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = inboxKeys
	}
	if o.BusyDelay == 0 {
		o.BusyDelay = time.Second
	}
	if o.SettleTimeout == 0 {
		o.SettleTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// validate returns everything that is wrong.
func (o InboxOptions) validate() error {
	faults := []error{ackwise.ValidateName("inbox", o.Name)}
	bad := func(field, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
	}
	if o.Pipeline != "" && len(o.Pipeline) > ackwise.MaxIDBytes {
		bad("Pipeline", fmt.Sprintf("it is longer than %d bytes", ackwise.MaxIDBytes))
	}
	if o.MaxKeys < 1 {
		bad("MaxKeys", fmt.Sprintf("%d is less than one key", o.MaxKeys))
	}
	if o.BusyDelay < 0 || o.SettleTimeout < 0 {
		bad("BusyDelay, SettleTimeout", "they cannot be negative")
	}
	switch {
	case o.Again <= 0:
		bad("Again", "it has to say how long after its first delivery a message may come again")
	case o.Window < o.Again || o.Window < time.Millisecond:
		faults = append(faults, &ackwise.HintError{
			Err: fmt.Errorf("the window is %s, and a message may come again after %s: its effect "+
				"would be made twice", o.Window, o.Again),
			Hint: fmt.Sprintf("set a Window of at least %s, or lower the retry budget and the age "+
				"at which dead letters are redriven", o.Again)})
	}
	return errors.Join(faults...)
}

// Inbox makes a handler whose effects in this database, and the marker that they were made, are one
// transaction: whatever dies between its commit and the ack, the redelivery finds the marker and
// only settles. It takes messages from any source. The same ID with another body is rejected.
//
// fn may run again for one delivery, after a rollback, where the database gave its transaction up
// for the sake of another. It must not end the transaction itself. Where the connection is cut
// during the commit, nobody knows whether it took place: the delivery is nacked, and the next one
// finds out.
func Inbox[T any](ctx context.Context, db DB[T],
	fn func(ctx context.Context, tx T, d *ackwise.Delivery) error, o InboxOptions,
) (ackwise.Transactional, error) {
	if fn == nil {
		return nil, errors.New("open inbox: the handler is nil")
	}
	b, err := newInbox(ctx, db, o)
	if err != nil {
		return nil, err
	}
	b.fn = func(ctx context.Context, tx T, ds []*ackwise.Delivery) error {
		return fn(ctx, tx, ds[0])
	}
	return single[T]{b}, nil
}

// single is an inbox that takes one delivery at a time.
type single[T any] struct{ *BatchInbox[T] }

// Handle implements ackwise.Handler.
func (s single[T]) Handle(ctx context.Context, d *ackwise.Delivery) error {
	return s.HandleBatch(ctx, []*ackwise.Delivery{d})[0]
}

// BatchInbox is a batch handler for deliver.RunBatch whose own transaction settles: it has the Bind
// of ackwise.Transactional.
type BatchInbox[T any] struct {
	db   DB[T]
	conn pg.Conn // db, for what is no transaction of the inbox
	o    InboxOptions
	keys *dedup.Keys
	fn   func(ctx context.Context, tx T, ds []*ackwise.Delivery) error

	mu  sync.Mutex // guards src
	src ackwise.Source
}

// InboxBatch is Inbox for many deliveries in one transaction. fn gets those whose effects were not
// made yet, in their order. Where it fails for more than one, or the commit does, nothing is kept,
// and each is tried in a transaction of its own, so that only the one that is at fault fails.
// Behind one that fails, those of its key are put off.
func InboxBatch[T any](ctx context.Context, db DB[T],
	fn func(ctx context.Context, tx T, ds []*ackwise.Delivery) error, o InboxOptions,
) (*BatchInbox[T], error) {
	if fn == nil {
		return nil, errors.New("open inbox: the handler is nil")
	}
	b, err := newInbox(ctx, db, o)
	if err != nil {
		return nil, err
	}
	b.fn = fn
	return b, nil
}

func newInbox[T any](ctx context.Context, db DB[T], o InboxOptions) (*BatchInbox[T], error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	if err := Check(ctx, db); err != nil {
		return nil, fmt.Errorf("open inbox %s: %w", o.Name, err)
	}
	conn, err := pg.Committed(ctx, db)
	if err != nil {
		return nil, fmt.Errorf("open inbox %s: %w", o.Name, err)
	}
	keys, err := dedup.Open(ctx, conn,
		dedup.Options{Name: o.Name, Window: o.Window, MaxKeys: o.MaxKeys})
	if err == nil {
		err = keys.Bind(ctx, conn, inboxRule)
	}
	if err != nil {
		return nil, fmt.Errorf("open inbox: %w", err)
	}
	return &BatchInbox[T]{db: db, o: o, conn: conn, keys: keys}, nil
}

// Bind implements ackwise.Transactional: any source will do, but one only.
func (b *BatchInbox[T]) Bind(src ackwise.Source) error {
	if src == nil {
		return fmt.Errorf("bind inbox %s: the source is nil", b.o.Name)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.src != nil && b.src != src {
		return fmt.Errorf("bind inbox %s: it settles at another source: make one for each", b.o.Name)
	}
	b.src = src
	return nil
}

func (b *BatchInbox[T]) source() ackwise.Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.src
}

// HandleBatch implements ackwise.BatchHandler. A nil result says that the delivery is settled.
func (b *BatchInbox[T]) HandleBatch(ctx context.Context, ds []*ackwise.Delivery) []error {
	src := b.source()
	if src == nil {
		return all(len(ds), fmt.Errorf("use inbox %s: it is not bound to a source: run it with "+
			"deliver.ExactlyOnce", b.o.Name))
	}
	if err := b.keys.Tend(ctx, b.conn, time.Now()); err != nil {
		// The markers are as good as before; it is tried again when it is time.
		b.o.Logger.WarnContext(ctx, "the markers of an inbox were not tended", "inbox", b.o.Name,
			"error", err)
	}
	results := b.apply(ctx, ds)
	b.settle(ctx, src, ds, results)
	return results
}

func all(n int, err error) []error {
	errs := make([]error, n)
	for i := range errs {
		errs[i] = err
	}
	return errs
}

// settle acks what was applied, now or before. It does not end with the handler's context: the
// effects are there.
func (b *BatchInbox[T]) settle(ctx context.Context, src ackwise.Source, ds []*ackwise.Delivery,
	results []error) {
	var acks []ackwise.Settlement
	var at []int
	for i, d := range ds {
		if results[i] == nil {
			acks = append(acks, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck})
			at = append(at, i)
		}
	}
	if len(acks) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.o.SettleTimeout)
	defer cancel()
	for j, err := range settleAll(ctx, src, acks) {
		if err != nil {
			results[at[j]] = fmt.Errorf("ack %.80q, whose effect is made: %w", ds[at[j]].ID, err)
		}
	}
}

// Positions returns the highest position of each partition whose effect an inbox with
// InboxOptions.Pipeline applied. What is below it may still be open: messages of different keys end
// out of order.
func Positions[T any](ctx context.Context, db DB[T], pipeline string) (
	map[string]ackwise.Position, error) {
	positions := make(map[string]ackwise.Position)
	err := pg.Each(ctx, db, func(r pg.Rows) error {
		var part, position string
		err := r.Scan(&part, &position)
		positions[part] = ackwise.Position(position)
		return err
	}, `SELECT part, position FROM ackwise_position WHERE pipeline = $1`, pipeline)
	if err != nil {
		return nil, fmt.Errorf("read positions of %s: %w", pipeline, err)
	}
	return positions, nil
}

// turnedDown is the result of a delivery whose effect is not to be made now.
func (b *BatchInbox[T]) turnedDown(key string, a idempotency.Answer) error {
	switch {
	case errors.Is(a.Err, ackwise.ErrFull):
		return fmt.Errorf("handle %.80q: %w: %w", key, a.Err,
			ackwise.Snooze(min(b.o.Window/dedup.Buckets, maxFullDelay)))
	case a.Err != nil: // a key that no store takes
		return ackwise.Reject(fmt.Errorf("handle %.80q: %w", key, a.Err))
	case a.Status == left:
		return fmt.Errorf("handle %.80q in inbox %s: a claim was left behind, so its effect may be "+
			"made: the handler committed the transaction itself, or another handler uses the name",
			key, b.o.Name)
	case a.Status == idempotency.Conflict:
		return ackwise.Reject(fmt.Errorf("handle %.80q in inbox %s: %w", key, b.o.Name,
			ackwise.ErrIDConflict))
	case a.Status == idempotency.Busy:
		return fmt.Errorf("handle %.80q: its duplicate is at work: %w", key,
			ackwise.Snooze(b.o.BusyDelay))
	}
	return nil // made before
}
