package pg

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"

	"github.com/jackc/pgx/v5"
)

// OfSQL makes a DB of a database/sql handle, with any Postgres driver. Notifications need pgx's.
func OfSQL(db *sql.DB) DB[*sql.Tx] {
	return DB[*sql.Tx]{
		Conn: sqlConn{db},
		begin: func(ctx context.Context, serializable bool) (Tx, error) {
			level := sql.LevelReadCommitted
			if serializable {
				level = sql.LevelSerializable
			}
			tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
			if err != nil {
				return nil, err
			}
			return sqlTx{sqlConn{tx}, tx}, nil
		},
		native: func(tx Tx) *sql.Tx { return tx.(sqlTx).tx },
		wrap:   func(tx *sql.Tx) Conn { return sqlConn{tx} },
		session: func(ctx context.Context) (Session, error) {
			conn, err := db.Conn(ctx)
			if err != nil {
				return nil, err
			}
			return sqlSession{sqlConn{conn}, conn}, nil
		},
	}
}

type sqlQueryer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

type sqlConn struct{ on sqlQueryer }

func (c sqlConn) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	result, err := c.on.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return result.RowsAffected()
}

func (c sqlConn) Query(ctx context.Context, query string, args ...any) (Rows, error) {
	rows, err := c.on.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	return rows, nil
}

type sqlTx struct {
	sqlConn
	tx *sql.Tx
}

func (t sqlTx) Commit(context.Context) error   { return t.tx.Commit() }
func (t sqlTx) Rollback(context.Context) error { return t.tx.Rollback() }

type sqlSession struct {
	sqlConn
	conn *sql.Conn
}

func (s sqlSession) Wait(ctx context.Context) error {
	return s.conn.Raw(func(c any) error {
		own, ok := c.(interface{ Conn() *pgx.Conn })
		if !ok {
			return errors.ErrUnsupported
		}
		_, err := own.Conn().WaitForNotification(ctx)
		return err
	})
}

// Close ends the connection instead of giving it back: it holds locks.
func (s sqlSession) Close() error {
	err := s.conn.Raw(func(any) error { return driver.ErrBadConn })
	if errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) {
		err = nil
	}
	if cerr := s.conn.Close(); cerr != nil && !errors.Is(cerr, sql.ErrConnDone) {
		err = errors.Join(err, cerr)
	}
	return err
}
