package postgres

import (
	"database/sql"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
)

// DB is a database whose own transactions are of the type T: pgx.Tx or *sql.Tx. PGX and SQL make
// one. It stays the caller's, who closes it.
type DB[T any] = pg.DB[T]

// PGX makes a DB of a pgx pool, or of a single connection, which serves one goroutine at a time and
// cannot serve NewOutboxSource.
func PGX(pool pg.Client) DB[pgx.Tx] { return pg.OfPGX(pool) }

// SQL makes a DB of a database/sql handle, with any driver of Postgres. With pgx's own driver
// (github.com/jackc/pgx/v5/stdlib) notifications wake an outbox source; with others it polls.
func SQL(db *sql.DB) DB[*sql.Tx] { return pg.OfSQL(db) }
