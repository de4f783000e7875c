package pg

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Client is what *pgxpool.Pool and *pgx.Conn have in common.
type Client interface {
	BeginTx(ctx context.Context, o pgx.TxOptions) (pgx.Tx, error)
	pgxQueryer
}

type pgxQueryer interface {
	Exec(ctx context.Context, query string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, query string, args ...any) (pgx.Rows, error)
}

// OfPGX makes a DB of a pgx pool or connection.
func OfPGX(c Client) DB[pgx.Tx] {
	return DB[pgx.Tx]{
		Conn: pgxConn{c},
		begin: func(ctx context.Context, serializable bool) (Tx, error) {
			level := pgx.ReadCommitted
			if serializable {
				level = pgx.Serializable
			}
			tx, err := c.BeginTx(ctx, pgx.TxOptions{IsoLevel: level})
			if err != nil {
				return nil, err
			}
			return pgxTx{pgxConn{tx}, tx}, nil
		},
		native: func(tx Tx) pgx.Tx { return tx.(pgxTx).tx },
		wrap:   func(tx pgx.Tx) Conn { return pgxConn{tx} },
		session: func(ctx context.Context) (Session, error) {
			pool, ok := c.(interface {
				Acquire(ctx context.Context) (*pgxpool.Conn, error)
			})
			if !ok {
				return nil, fmt.Errorf("a %T has no second connection: use a pool: %w", c,
					errors.ErrUnsupported)
			}
			own, err := pool.Acquire(ctx)
			if err != nil {
				return nil, err
			}
			conn := own.Hijack() // it holds locks: nobody else may have it after us
			return pgxSession{pgxConn{conn}, conn}, nil
		},
	}
}

type pgxConn struct{ on pgxQueryer }

func (c pgxConn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	tag, err := c.on.Exec(ctx, query, args...)
	return tag.RowsAffected(), err
}

func (c pgxConn) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	rows, err := c.on.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return pgxRows{rows}, nil
}

type pgxRows struct{ pgx.Rows }

func (r pgxRows) Close() error {
	r.Rows.Close()
	return nil
}

type pgxTx struct {
	pgxConn
	tx pgx.Tx
}

func (t pgxTx) Commit(ctx context.Context) error   { return t.tx.Commit(ctx) }
func (t pgxTx) Rollback(ctx context.Context) error { return t.tx.Rollback(ctx) }

type pgxSession struct {
	pgxConn
	conn *pgx.Conn
}

func (s pgxSession) Wait(ctx context.Context) error {
	_, err := s.conn.WaitForNotification(ctx)
	return err
}

func (s pgxSession) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), rollbackLimit)
	defer cancel()
	return s.conn.Close(ctx)
}
