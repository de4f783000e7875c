package pg

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Rows is the answer to a query.
type Rows interface {
	Next() bool
	Scan(dest ...any) error
	Err() error
	Close() error
}

// Conn runs statements, in a transaction or each in its own.
type Conn interface {
	Exec(ctx context.Context, query string, args ...any) (rows int64, err error)
	Query(ctx context.Context, query string, args ...any) (Rows, error)
}

// Tx is a transaction.
type Tx interface {
	Conn
	Commit(ctx context.Context) error
	Rollback(ctx context.Context) error
}

// Session is a connection of its own.
type Session interface {
	Conn
	// Wait returns nil at a notification, errors.ErrUnsupported where the driver gives none, and
	// any other error when the connection or ctx has ended.
	Wait(ctx context.Context) error
	// Close ends the connection, and with it every lock that it holds.
	Close() error
}

// DB is a database whose own transactions are of the type T. OfPGX and OfSQL make one.
type DB[T any] struct {
	Conn
	begin   func(ctx context.Context, serializable bool) (Tx, error)
	native  func(Tx) T
	wrap    func(T) Conn
	session func(ctx context.Context) (Session, error)
}

// Begin begins a transaction in which each statement sees what was committed before it (READ
// COMMITTED), or a serializable one.
func (db DB[T]) Begin(ctx context.Context, serializable bool) (Tx, error) {
	return db.begin(ctx, serializable)
}

// Native returns a transaction of Begin in the client's own type.
func (db DB[T]) Native(tx Tx) T { return db.native(tx) }

// Wrap makes a transaction of the client's own a Conn.
func (db DB[T]) Wrap(tx T) Conn { return db.wrap(tx) }

// Session opens a connection of its own.
func (db DB[T]) Session(ctx context.Context) (Session, error) { return db.session(ctx) }

// Valid reports whether db was made by OfPGX or OfSQL.
func (db DB[T]) Valid() bool { return db.begin != nil }

// Limits of the end of a transaction, which does not end with its context: a commit that is
// interrupted leaves its outcome unknown.
const (
	commitLimit   = 10 * time.Second
	rollbackLimit = 5 * time.Second
)

// Do runs f in a transaction and commits it. Where f or the commit fails it is rolled back.
func Do[T any](ctx context.Context, db DB[T], f func(tx Tx) error) error {
	return do(ctx, db, false, f)
}

// DoSerializable is Do in a serializable transaction.
func DoSerializable[T any](ctx context.Context, db DB[T], f func(tx Tx) error) error {
	return do(ctx, db, true, f)
}

func do[T any](ctx context.Context, db DB[T], serializable bool, f func(tx Tx) error) error {
	tx, err := db.Begin(ctx, serializable)
	if err != nil {
		return err
	}
	open := true
	defer func() { // also where f panics
		if open {
			_ = rollback(ctx, tx) // the error that led here is the one to tell
		}
	}()
	if err := f(tx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	open = false
	return commit(ctx, tx)
}

func commit(ctx context.Context, tx Tx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	return tx.Commit(ctx)
}

func rollback(ctx context.Context, tx Tx) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), rollbackLimit)
	defer cancel()
	return tx.Rollback(ctx)
}

// Each runs a query and calls scan for each row.
func Each(ctx context.Context, c Conn, scan func(Rows) error, query string, args ...any) (
	err error) {
	rows, err := c.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// One runs a query whose first row it scans into dest. It reports whether there was one.
func One(ctx context.Context, c Conn, dest []any, query string, args ...any) (
	found bool, err error) {
	err = Each(ctx, c, func(r Rows) error {
		if found {
			return nil
		}
		found = true
		return r.Scan(dest...)
	}, query, args...)
	return found, err
}

// SQLState returns the five characters by which Postgres names an error; "" = it is not one of
// Postgres.
func SQLState(err error) string {
	var s interface{ SQLState() string }
	if errors.As(err, &s) {
		return s.SQLState()
	}
	return ""
}

// The states that this adapter acts on.
const (
	StateSerialization   = "40001"
	StateDeadlock        = "40P01"
	StateLockTimeout     = "55P03"
	StateUndefinedTable  = "42P01"
	StateUndefinedColumn = "42703"
	StateUndefinedFunc   = "42883"
	StateAborted         = "25P02" // an earlier statement of the transaction failed
	StateRaised          = "P0001" // by RAISE, as in a trigger of the user's
)

// OfOneRow reports whether a transaction that wrote much may have ended with err for the sake of
// little of it: a constraint, which may be looked at as late as the commit, or another transaction.
func OfOneRow(err error) bool {
	const constraints = "23" // the class
	switch state := SQLState(err); state {
	case StateAborted, StateRaised:
		return true
	default:
		return strings.HasPrefix(state, constraints) || Again(err)
	}
}

// Again reports whether a transaction that ended with err has left nothing behind and may go
// through when it is simply made once more: Postgres gave up this one for the sake of another.
func Again(err error) bool {
	switch SQLState(err) {
	case StateSerialization, StateDeadlock:
		return true
	}
	return false
}
