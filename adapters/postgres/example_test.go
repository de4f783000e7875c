package postgres_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
)

// lazy connects when it is first used.
func lazy() *pgxpool.Pool {
	pool, err := pgxpool.New(context.Background(), "postgres://app@127.0.0.1:1/shop")
	if err != nil {
		panic(err)
	}
	return pool
}

// bookMiles is an effect that must not be made twice: it reads nothing and adds.
func bookMiles(ctx context.Context, tx pgx.Tx, d *ackwise.Delivery) error {
	_, err := tx.Exec(ctx, "UPDATE aircraft SET miles = miles + $1 WHERE tail = $2",
		string(d.Body), d.Key)
	return err
}

// An inbox consumes a queue into a database, exactly once.
func ExampleInbox() {
	ctx := context.Background()
	pool := lazy()
	defer pool.Close()
	consume := func(r *queue.Receiver, o postgres.InboxOptions) error {
		inbox, err := postgres.Inbox(ctx, postgres.PGX(pool), bookMiles, o)
		if err != nil {
			return err
		}
		return deliver.Run(ctx, r, inbox, deliver.Options{Guarantee: deliver.ExactlyOnce})
	}
	// A marker has to be kept for as long as its message may come again.
	err := consume(nil, postgres.InboxOptions{Name: "miles", Again: 14 * 24 * time.Hour,
		Window: 24 * time.Hour})
	refused, _, _ := strings.Cut(err.Error(), ": its effect")
	fmt.Println(refused)
	// Output: open inbox: the window is 24h0m0s, and a message may come again after 336h0m0s
}

// An outbox writes a message in the transaction of the change that it tells of.
func ExampleNewOutbox() {
	ctx := context.Background()
	pool := lazy()
	defer pool.Close()
	outbox, err := postgres.NewOutbox(postgres.PGX(pool), postgres.OutboxOptions{Name: "orders"})
	if err != nil {
		fmt.Println(err)
		return
	}
	pay := func(order string) error {
		return pgx.BeginFunc(ctx, pool, func(tx pgx.Tx) error {
			// The row of the order is what puts two changes of it, and their messages, in order.
			_, err := tx.Exec(ctx, "UPDATE orders SET paid = true WHERE id = $1", order)
			if err == nil {
				_, err = outbox.Publish(ctx, tx, ackwise.Message{Topic: "paid", Key: order})
			}
			return err
		})
	}
	if os.Getenv("SHOP") != "" { // there is no such database here
		fmt.Println(pay("o-1"))
	}
	_, err = postgres.NewOutbox(postgres.PGX(pool), postgres.OutboxOptions{})
	fmt.Println(err)
	// Output: make outbox: invalid outbox: the name is empty
}

func ExampleNewOutboxSource() {
	ctx := context.Background()
	pool := lazy()
	defer pool.Close()
	relay := func(o postgres.OutboxSourceOptions) error {
		src, err := postgres.NewOutboxSource(ctx, postgres.PGX(pool), o)
		if err != nil {
			return err
		}
		send := ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
			fmt.Println(d.Topic, d.Key)
			return nil
		})
		return deliver.Run(ctx, src, send, deliver.Options{})
	}
	fmt.Println(relay(postgres.OutboxSourceOptions{Name: "orders", Lease: time.Millisecond}))
	// Output: open outbox source: invalid Lease "1ms": at least 10 ms is needed
}

func ExampleMigrations() {
	for _, m := range postgres.Migrations() {
		fmt.Println(m.Version, m.Name)
	}
	// Output:
	// 1 idempotency
	// 2 table
	// 3 outbox
}

func ExampleUpsertSQL() {
	set, del, err := postgres.UpsertSQL(postgres.UpsertTable{Name: "planes",
		Key: []string{"tail"}, Stamp: "at", Columns: []string{"airport"}, Deleted: "gone"})
	fmt.Println(err)
	fmt.Println(set)
	fmt.Println(del)
	// Output:
	// <nil>
	// INSERT INTO "planes" AS old ("tail", "at", "airport", "gone")
	// VALUES ($1, $2, $3, false)
	// ON CONFLICT ("tail") DO UPDATE
	// SET "at" = EXCLUDED."at", "airport" = EXCLUDED."airport", "gone" = false
	// WHERE old."at" IS NULL OR old."at" COLLATE "C" < EXCLUDED."at" COLLATE "C"
	//   OR old."at" COLLATE "C" = EXCLUDED."at" COLLATE "C" AND old."gone" IS NOT TRUE
	//     AND ROW(old."airport")::record *< ROW(EXCLUDED."airport")::record
	// INSERT INTO "planes" AS old ("tail", "at", "gone")
	// VALUES ($1, $2, true)
	// ON CONFLICT ("tail") DO UPDATE
	// SET "at" = EXCLUDED."at", "gone" = true, "airport" = DEFAULT
	// WHERE old."at" IS NULL OR old."at" COLLATE "C" < EXCLUDED."at" COLLATE "C"
	//   OR old."at" COLLATE "C" = EXCLUDED."at" COLLATE "C" AND old."gone" IS NOT TRUE
}
