package pg

import (
	"context"
	"errors"
)

// Committed returns a Conn whose statements each run at READ COMMITTED: db itself where that is the
// default of its server, user and address, and otherwise one that begins a transaction for each.
func Committed[T any](ctx context.Context, db DB[T]) (Conn, error) {
	var level string
	_, err := One(ctx, db, []any{&level}, `SELECT current_setting('transaction_isolation')`)
	switch {
	case err != nil:
		return nil, err
	case level == "read committed":
		return db, nil
	}
	return committed[T]{db}, nil
}

type committed[T any] struct{ db DB[T] }

func (c committed[T]) Exec(ctx context.Context, query string, args ...any) (n int64, err error) {
	err = Do(ctx, c.db, func(tx Tx) (err error) {
		n, err = tx.Exec(ctx, query, args...)
		return err
	})
	return n, err
}

func (c committed[T]) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	tx, err := c.db.Begin(ctx, false)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, errors.Join(err, rollback(ctx, tx))
	}
	return &committedRows{Rows: rows, ctx: ctx, tx: tx}, nil
}

// committedRows are rows whose transaction ends with them.
type committedRows struct {
	Rows
	ctx   context.Context //nolint:containedctx // of the query, which lasts until Close
	tx    Tx
	ended bool
}

// Close commits, or rolls back where the query failed, which Err tells.
func (r *committedRows) Close() error {
	if r.ended {
		return nil
	}
	r.ended = true
	err := r.Rows.Close()
	if err != nil || r.Err() != nil {
		return errors.Join(err, rollback(r.ctx, r.tx))
	}
	return commit(r.ctx, r.tx)
}
