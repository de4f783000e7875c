package pgstore_test

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
	"github.com/ackwise/ackwise/idempotency"
)

// lazy connects when it is first used.
func lazy() *pgxpool.Pool {
	pool, err := pgxpool.New(context.Background(), "postgres://app@127.0.0.1:1/shop")
	if err != nil {
		panic(err)
	}
	return pool
}

// A store lets idempotency.Dedup make each effect once, over any number of processes.
func ExampleOpen() {
	ctx := context.Background()
	pool := lazy()
	defer pool.Close()
	once := func(h ackwise.Handler, o pgstore.Options) (ackwise.Handler, error) {
		store, err := pgstore.Open(ctx, postgres.PGX(pool), o)
		if err != nil {
			return nil, err
		}
		return idempotency.Dedup(ctx, store, h, idempotency.Options{Again: 24 * time.Hour})
	}
	_, err := once(nil, pgstore.Options{Name: "mails", Window: time.Microsecond, MaxKeys: -1})
	fmt.Println(err)
	// Output:
	// open dedup store: invalid Window "1µs": at least 1 ms is needed
	// invalid MaxKeys: -1 is less than one key
}

// A table holds what idempotency.Write, Upsert and Compare write.
func ExampleOpenTable() {
	pool := lazy()
	defer pool.Close()
	_, err := pgstore.OpenTable(context.Background(), postgres.PGX(pool), ".where")
	fmt.Println(err)
	// Output: open table: invalid table ".where": the name begins with '.'
}

func ExampleOpenURL() {
	_, err := pgstore.OpenURL(context.Background(), "postgres://app:secret@host:port/shop",
		pgstore.Options{Name: "mails"})
	fmt.Println(err)
	// Output:
	// open dedup store mails: the URL of the database cannot be read
	//   hint: It has the form postgres://USER@HOST:PORT/DATABASE.
}

func ExampleOpenTableURL() {
	_, err := pgstore.OpenTableURL(context.Background(), "postgres://app:secret@host:port/shop",
		"places")
	fmt.Println(err)
	// Output:
	// open table places: the URL of the database cannot be read
	//   hint: It has the form postgres://USER@HOST:PORT/DATABASE.
}
