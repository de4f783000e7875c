package pgtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise/adapters/postgres"
)

// limit bounds what is done around a test.
const limit = 30 * time.Second

// Database makes an empty schema, which is a database to all that looks for its tables by the
// search path, and is made much faster. It returns its address.
func Database(t testing.TB, server string) string {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	var b [6]byte
	rand.Read(b[:]) // never fails, see crypto/rand
	name := "test_" + hex.EncodeToString(b[:])
	Exec(t, server, "CREATE SCHEMA "+name)
	t.Cleanup(func() { Exec(t, server, "DROP SCHEMA "+name+" CASCADE") })
	q := u.Query()
	q.Set("search_path", name)
	u.RawQuery = q.Encode()
	return u.String()
}

// Exec runs statements over a connection of their own.
func Exec(t testing.TB, address string, statements ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), limit) // for a Cleanup
	defer cancel()
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close(ctx) }() // the test has what it wanted
	for _, s := range statements {
		if _, err := conn.Exec(ctx, s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// Pool makes a database with ackwise's tables and connects to it.
func Pool(t testing.TB, server string) *pgxpool.Pool {
	t.Helper()
	pool := Connect(t, Database(t, server))
	if _, err := postgres.Migrate(t.Context(), postgres.PGX(pool), false); err != nil {
		t.Fatal(err)
	}
	return pool
}

// Connect connects to a database.
func Connect(t testing.TB, address string) *pgxpool.Pool {
	t.Helper()
	pool, err := pgxpool.New(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	return pool
}
