package postgres_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/test/servers"
)

func address(t testing.TB) string {
	t.Helper()
	return servers.Address(t, "ACKWISE_TEST_POSTGRES")
}

// bed is a database with a table of balances, and an engine whose subscription is the source.
type bed struct {
	pool  *pgxpool.Pool
	store *queue.Store
}

func newBed(t *testing.T, ids ...string) *bed {
	t.Helper()
	b := &bed{pool: pgtest.Pool(t, address(t))}
	b.exec(t, "CREATE TABLE sums (id int PRIMARY KEY, total bigint NOT NULL)")
	b.exec(t, "INSERT INTO sums VALUES (1, 0)")
	b.openStore(t, t.TempDir())
	for _, id := range ids {
		b.publish(t, ackwise.Message{ID: id, Topic: "numbers", Body: []byte(id)})
	}
	return b
}

// openStore opens the engine, with the topic and the subscription that the tests use.
func (b *bed) openStore(t *testing.T, dir string) {
	t.Helper()
	var err error
	if b.store, err = queue.Open(dir, queue.Options{}); err != nil {
		t.Fatal(err)
	}
	store := b.store
	t.Cleanup(func() { _ = store.Close() })
	err = store.CreateTopic(t.Context(), "numbers", queue.TopicOptions{})
	if err == nil {
		err = store.CreateSubscription(t.Context(), "numbers", "sum", queue.SubscriptionOptions{})
	}
	if err != nil && !errors.Is(err, ackwise.ErrExists) {
		t.Fatal(err)
	}
}

// eager are the options of a loop that tries again at once, and never gives up.
func eager() deliver.Options {
	return deliver.Options{Guarantee: deliver.ExactlyOnce, MaxFailures: deliver.Unlimited,
		MaxCrashes: deliver.Unlimited, Breaker: deliver.Breaker{Off: true},
		Backoff: deliver.Backoff{First: time.Millisecond, Cap: 20 * time.Millisecond}}
}

// drain runs a loop until so many are acked, and returns the books.
func (b *bed) drain(t *testing.T, h ackwise.Handler, acked int64) queue.Books {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r := b.receiver(t)
	done := make(chan error, 1)
	go func() { done <- deliver.Run(ctx, r, h, eager()) }()
	pgtest.Until(t, "all is settled", func() bool { return b.books(t).Acked == acked })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return b.books(t)
}

func (b *bed) books(t *testing.T) queue.Books {
	t.Helper()
	subs, err := b.store.Subscriptions(t.Context(), "numbers")
	if err != nil {
		t.Fatal(err)
	}
	return subs[0].Books
}

func (b *bed) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := b.pool.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (b *bed) publish(t testing.TB, m ackwise.Message) {
	t.Helper()
	for _, r := range b.store.Publish(t.Context(), []ackwise.Message{m}) {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}

func (b *bed) receiver(t testing.TB) *queue.Receiver {
	t.Helper()
	r, err := b.store.Receiver(t.Context(), "numbers", "sum", queue.ReceiverOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func scalar[T any](t testing.TB, pool *pgxpool.Pool, query string, args ...any) (v T) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}

func (b *bed) total(t testing.TB) int64 {
	t.Helper()
	return scalar[int64](t, b.pool, "SELECT total FROM sums WHERE id = 1")
}

func add(ctx context.Context, tx pgx.Tx, _ *ackwise.Delivery) error {
	_, err := tx.Exec(ctx, "UPDATE sums SET total = total + 1 WHERE id = 1")
	return err
}

func options(name string) postgres.InboxOptions {
	return postgres.InboxOptions{Name: name, Again: time.Hour, BusyDelay: 10 * time.Millisecond}
}

// fakeSource settles as it is told, and notes what it was asked.
type fakeSource struct {
	mu   sync.Mutex // guards acks and err
	acks []ackwise.LeaseToken
	err  error
}

func (f *fakeSource) Receive(ctx context.Context, _ int) ([]*ackwise.Delivery, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (f *fakeSource) Settle(_ context.Context, s []ackwise.Settlement) []ackwise.SettleResult {
	f.mu.Lock()
	defer f.mu.Unlock()
	results := make([]ackwise.SettleResult, len(s))
	for i, e := range s {
		if results[i].Err = f.err; f.err == nil {
			f.acks = append(f.acks, e.Token)
		}
	}
	return results
}

func (f *fakeSource) Features() ackwise.Features { return ackwise.Features{} }
func (f *fakeSource) Close() error               { return nil }

func delivery(id, body string) *ackwise.Delivery {
	return &ackwise.Delivery{Message: ackwise.Message{ID: id, Body: []byte(body)},
		Token: ackwise.LeaseToken("token of " + id)}
}

func bound[T any](t testing.TB, db postgres.DB[T],
	fn func(context.Context, T, *ackwise.Delivery) error, o postgres.InboxOptions,
) (ackwise.Transactional, *fakeSource) {
	t.Helper()
	h, err := postgres.Inbox(t.Context(), db, fn, o)
	if err != nil {
		t.Fatal(err)
	}
	src := &fakeSource{}
	if err := h.Bind(src); err != nil {
		t.Fatal(err)
	}
	return h, src
}

// meeting counts calls. The first waits for the second, so that their transactions are surely open
// at the same time.
type meeting struct {
	calls atomic.Int64
	two   chan struct{}
}

func newMeeting() *meeting { return &meeting{two: make(chan struct{})} }

func (m *meeting) come(ctx context.Context) {
	switch m.calls.Add(1) {
	case 1:
		select {
		case <-m.two:
		case <-ctx.Done():
		}
	case 2:
		close(m.two)
	}
}
