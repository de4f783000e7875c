package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
)

// outbed is a database with an outbox and a table of accounts.
type outbed struct {
	*testing.T
	ctx  context.Context
	pool *pgxpool.Pool
	box  *postgres.Outbox[pgx.Tx]
}

func newOutbed(t *testing.T) *outbed {
	t.Helper()
	pool := pgtest.Pool(t, address(t))
	box, err := postgres.NewOutbox(postgres.PGX(pool), postgres.OutboxOptions{Name: "out"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return &outbed{T: t, ctx: ctx, pool: pool, box: box}
}

func (b *outbed) check(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// begin begins a transaction of the user's.
func (b *outbed) begin() pgx.Tx {
	b.Helper()
	tx, err := b.pool.Begin(b.ctx)
	b.check(err)
	b.Cleanup(func() { _ = tx.Rollback(context.Background()) })
	return tx
}

// write writes messages ID=key in a transaction.
func (b *outbed) write(tx pgx.Tx, key string, ids ...string) {
	b.Helper()
	for _, id := range ids {
		_, err := b.box.Publish(b.ctx, tx, ackwise.Message{ID: id, Topic: "t", Key: key})
		b.check(err)
	}
}

// committed writes messages in a transaction of their own.
func (b *outbed) committed(key string, ids ...string) {
	b.Helper()
	tx := b.begin()
	b.write(tx, key, ids...)
	b.check(tx.Commit(b.ctx))
}

// source opens a source that polls only, at a rate that no test waits for, unless it is notified.
func (b *outbed) source(o postgres.OutboxSourceOptions) *postgres.OutboxSource {
	b.Helper()
	o.Name = "out"
	if o.Poll == 0 {
		o.Poll = time.Hour
	}
	src, err := postgres.NewOutboxSource(b.ctx, postgres.PGX(b.pool), o)
	b.check(err)
	b.Cleanup(func() { _ = src.Close() })
	return src
}

// receive receives exactly these messages, in this order.
func (b *outbed) receive(src *postgres.OutboxSource, max int, ids ...string) []*ackwise.Delivery {
	b.Helper()
	ds, err := src.Receive(b.ctx, max)
	b.check(err)
	b.same(ds, ids...)
	return ds
}

func (b *outbed) same(ds []*ackwise.Delivery, ids ...string) {
	b.Helper()
	var got []string
	for _, d := range ds {
		got = append(got, d.ID)
	}
	equal := len(got) == len(ids)
	for i := range got {
		equal = equal && got[i] == ids[i]
	}
	if !equal {
		b.Fatalf("received %q, want %q", got, ids)
	}
}

// nothing checks that nothing is there to be received now.
func (b *outbed) nothing(src *postgres.OutboxSource) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 50*time.Millisecond)
	defer cancel()
	ds, err := src.Receive(ctx, 10)
	if !errors.Is(err, context.DeadlineExceeded) {
		b.Fatalf("received %d messages (%v), want none", len(ds), err)
	}
}

// settle settles one hand-out.
func (b *outbed) settle(src *postgres.OutboxSource, d *ackwise.Delivery, o ackwise.Outcome,
	delay time.Duration) ackwise.SettleResult {
	b.Helper()
	results := src.Settle(b.ctx, []ackwise.Settlement{{Token: d.Token, Outcome: o, Delay: delay,
		Reason: "the reason"}})
	if len(results) != 1 {
		b.Fatalf("%d results of one settlement", len(results))
	}
	return results[0]
}

func (b *outbed) ack(src *postgres.OutboxSource, ds ...*ackwise.Delivery) {
	b.Helper()
	for _, d := range ds {
		b.check(b.settle(src, d, ackwise.OutcomeAck, 0).Err)
	}
}

// want checks what a delivery says of itself.
func (b *outbed) want(d *ackwise.Delivery, cause ackwise.Cause, c ackwise.Counts, suspect bool) {
	b.Helper()
	if d.Cause != cause || d.Counts != c || d.Suspect != suspect || d.Attempt != c.HandOuts {
		b.Errorf("%s: cause %s, %+v, suspect %t, attempt %d; want %s, %+v, %t", d.ID, d.Cause,
			d.Counts, d.Suspect, d.Attempt, cause, c, suspect)
	}
}

// writeNext counts an account up and writes its new number, under the account's row.
func writeNext(b *outbed, account int) error {
	return pgx.BeginFunc(b.ctx, b.pool, func(tx pgx.Tx) error {
		var n int
		err := tx.QueryRow(b.ctx, "UPDATE accounts SET n = n + 1 WHERE id = $1 RETURNING n",
			account).Scan(&n)
		if err != nil {
			return err
		}
		_, err = b.box.Publish(b.ctx, tx, ackwise.Message{Topic: "t", Key: fmt.Sprint(account),
			Body: []byte(fmt.Sprint(n))})
		return err
	})
}

// accounts makes n accounts, numbered from 0.
func (b *outbed) accounts(n int) {
	b.Helper()
	_, err := b.pool.Exec(b.ctx, "CREATE TABLE accounts (id int PRIMARY KEY, n int NOT NULL)")
	b.check(err)
	_, err = b.pool.Exec(b.ctx, `INSERT INTO accounts
		SELECT i, 0 FROM generate_series(0, $1 - 1) i`, n)
	b.check(err)
}
