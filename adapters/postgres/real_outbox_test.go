package postgres_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
)

// outbedAt is newOutbed in a database that is migrated, over an address of its own.
func outbedAt(t *testing.T, address string) *outbed {
	t.Helper()
	pool := pgtest.Connect(t, address)
	box, err := postgres.NewOutbox(postgres.PGX(pool), postgres.OutboxOptions{Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return &outbed{T: t, ctx: ctx, pool: pool, box: box}
}

// TestOutboxDefaultIsolation: whatever the isolation level by default, a settlement that waited for
// a hand-out sees which message waits behind its own.
func TestOutboxDefaultIsolation(t *testing.T) {
	for _, level := range []string{"repeatable%20read", "serializable"} {
		t.Run(level, func(t *testing.T) {
			made := pgtest.Pool(t, address(t))
			b := outbedAt(t, made.Config().ConnString()+"&default_transaction_isolation="+level)
			src := b.source(postgres.OutboxSourceOptions{})
			b.committed("k", "1")
			ds := b.receive(src, 1, "1")
			b.committed("k", "2")
			tx, err := made.Begin(b.ctx) // another reader is within its receive
			b.check(err)
			_, err = tx.Exec(b.ctx, "SELECT ackwise_outbox_enter('out')")
			b.check(err)
			settled := make(chan error, 1)
			go func() {
				settled <- src.Settle(b.ctx, []ackwise.Settlement{{Token: ds[0].Token,
					Outcome: ackwise.OutcomeAck}})[0].Err
			}()
			pgtest.Until(t, "the settlement waits", func() bool {
				return scalar[bool](t, made, `SELECT EXISTS (SELECT 1 FROM pg_locks
					WHERE locktype = 'advisory' AND NOT granted
					AND pg_backend_pid() <> pid AND $1::int = ANY (pg_blocking_pids(pid)))`,
					tx.Conn().PgConn().PID())
			})
			_, err = tx.Exec(b.ctx, "SELECT ackwise_outbox_pull('out', 10)")
			b.check(err)
			b.check(tx.Commit(b.ctx))
			b.check(<-settled)
			b.ack(src, b.receive(src, 10, "2")...)
			if _, err := b.pool.Exec(b.ctx, "SELECT ackwise_outbox_enter('out')"); err == nil {
				t.Errorf("the function itself takes %s", level)
			}
		})
	}
}

// TestOutboxSearchPath: two readers whose search paths begin with different schemas read one table.
func TestOutboxSearchPath(t *testing.T) {
	first := pgtest.Database(t, address(t))
	pool := pgtest.Connect(t, first)
	if _, err := postgres.Migrate(t.Context(), postgres.PGX(pool), false); err != nil {
		t.Fatal(err)
	}
	schema := scalar[string](t, pool, "SELECT current_schema()::text")
	other := pgtest.Database(t, address(t)) // without tables, and before the other in the path
	own := scalar[string](t, pgtest.Connect(t, other), "SELECT current_schema()::text")
	second := strings.Replace(other, "search_path="+own, "search_path="+own+"%2C"+schema, 1)

	b := outbedAt(t, first)
	src := b.source(postgres.OutboxSourceOptions{})
	b2 := outbedAt(t, second)
	if got := scalar[string](t, b2.pool, "SELECT current_schema()::text"); got == schema {
		t.Fatal("both have one current schema: the test shows nothing")
	}
	src2 := b2.source(postgres.OutboxSourceOptions{})
	b.committed("k", "1")
	ds := b.receive(src, 1, "1")
	b2.nothing(src2) // the first reader lives, and holds its lease
	b.ack(src, ds...)

	begun, finish := make(chan struct{}), make(chan struct{})
	h, _ := bound(t, postgres.PGX(b.pool),
		func(context.Context, pgx.Tx, *ackwise.Delivery) error {
			close(begun)
			<-finish
			return nil
		}, options("in"))
	h2, _ := bound(t, postgres.PGX(b2.pool),
		func(context.Context, pgx.Tx, *ackwise.Delivery) error { return nil }, options("in"))
	worked := make(chan error, 1)
	go func() { worked <- h.Handle(b.ctx, delivery("a", "x")) }()
	<-begun
	err := h2.Handle(b.ctx, delivery("a", "x"))
	close(finish)
	if v := ackwise.OutcomeOf(err); v.Outcome != ackwise.OutcomeSnooze {
		t.Errorf("a duplicate over the other path: %v, want it snoozed", err)
	}
	b.check(<-worked)
}

// TestOutboxHotKey: a receive does not work through a whole backlog of one key, and what stands
// behind it is reached without a notification.
func TestOutboxHotKey(t *testing.T) {
	b := newOutbed(t)
	src := b.source(postgres.OutboxSourceOptions{})
	_, err := b.pool.Exec(b.ctx, `INSERT INTO ackwise_outbox (outbox, msg, topic, key)
		SELECT 'out', i::text, 't', 'k' FROM generate_series(1, 5000) i`)
	b.check(err)
	_, err = b.pool.Exec(b.ctx, `INSERT INTO ackwise_outbox (outbox, msg, topic, key)
		VALUES ('out', 'behind', 't', 'other')`)
	b.check(err)
	ds := b.receive(src, 10, "1")
	const left = "SELECT count(*) FROM ackwise_outbox WHERE state = 0"
	if n := scalar[int](t, b.pool, left); n != 3001 {
		t.Errorf("after the first receive %d are new, want 3001", n)
	}
	b.receive(src, 10, "behind")
	if n := scalar[int](t, b.pool, left); n != 0 {
		t.Errorf("%d are left behind", n)
	}
	b.ack(src, ds...)
	b.receive(src, 10, "2")
}
