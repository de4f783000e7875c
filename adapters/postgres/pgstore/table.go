package pgstore

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
	"github.com/ackwise/ackwise/idempotency"
)

// Table is an idempotency.Table in Postgres.
type Table struct {
	name string
	db   pg.Conn
	free func() // closes what OpenTableURL opened
}

// OpenTable opens the table of a name, in a database that postgres.Migrate has prepared. The
// database stays the caller's, who closes it after the table.
func OpenTable[T any](ctx context.Context, db postgres.DB[T], name string) (*Table, error) {
	if err := ackwise.ValidateName("table", name); err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	if err := postgres.Check(ctx, db); err != nil {
		return nil, fmt.Errorf("open table %s: %w", name, err)
	}
	return &Table{name: name, db: db, free: func() {}}, nil
}

// OpenTableURL is OpenTable with a pool of its own, which Close closes:
// postgres://USER@HOST:PORT/DATABASE.
func OpenTableURL(ctx context.Context, url, name string) (*Table, error) {
	pool, err := connect(ctx, url, nil)
	if err != nil {
		return nil, fmt.Errorf("open table %s: %w", name, err)
	}
	t, err := OpenTable(ctx, postgres.PGX(pool), name)
	if err != nil {
		pool.Close()
		return nil, err
	}
	t.free = pool.Close
	return t, nil
}

// Close lets go of what the table holds in this process.
func (t *Table) Close() error {
	t.free()
	return nil
}

func (t *Table) wrap(verb string, err error) error {
	return fmt.Errorf("%s table %s: %w", verb, t.name, err)
}

// Get reads a key.
func (t *Table) Get(ctx context.Context, key string) (idempotency.Entry, error) {
	var (
		e       idempotency.Entry
		version int64
		stamp   string
	)
	found, err := pg.One(ctx, t.db, []any{&e.Data, &version, &stamp, &e.Deleted},
		`SELECT data, version, stamp, deleted FROM ackwise_table WHERE name = $1 AND key = $2`,
		t.name, []byte(key))
	if err != nil || !found {
		if err != nil {
			err = t.wrap("read", err)
		}
		return idempotency.Entry{}, err
	}
	e.Version = uint64(version)
	switch {
	case e.Deleted:
		e.Data = nil
	case e.Data == nil:
		e.Data = []byte{}
	}
	if stamp != "" {
		if e.Stamp, err = ackwise.ParseStamp(stamp); err != nil {
			return idempotency.Entry{}, t.wrap("read", err)
		}
	}
	return e, nil
}

// Put sets a key; nil data removes it.
func (t *Table) Put(ctx context.Context, key string, data []byte) error {
	var n int64
	err := again(ctx, func() (err error) {
		if data == nil {
			n, err = t.db.Exec(ctx, `DELETE FROM ackwise_table
				WHERE name = $1 AND key = $2 AND stamp = ''`, t.name, []byte(key))
			return err
		}
		n, err = t.db.Exec(ctx, `INSERT INTO ackwise_table AS t
			(name, key, data, version, stamp, deleted, written)
			VALUES ($1, $2, $3, nextval('ackwise_version'), '', false, clock_timestamp())
			ON CONFLICT (name, key) DO UPDATE SET data = excluded.data,
				version = nextval('ackwise_version'), written = clock_timestamp()
			WHERE t.stamp = ''`, t.name, []byte(key), data)
		return err
	})
	if err != nil {
		return t.wrap("write", err)
	}
	if n == 0 {
		return t.refused(ctx, key, nil)
	}
	return nil
}

// Swap sets a key if its version still is old; nil data removes it.
func (t *Table) Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error) {
	query := `UPDATE ackwise_table SET data = $4, version = nextval('ackwise_version'),
		written = clock_timestamp() WHERE name = $1 AND key = $2 AND version = $3 AND stamp = ''
		RETURNING version`
	args := []any{t.name, []byte(key), int64(old), data}
	switch {
	case old == 0 && data == nil:
		e, err := t.Get(ctx, key)
		if err == nil && e.Version != 0 {
			err = t.refused(ctx, key, idempotency.ErrChanged)
		}
		return 0, err
	case old == 0:
		query = `INSERT INTO ackwise_table (name, key, data, version, stamp, deleted, written)
			VALUES ($1, $2, $3, nextval('ackwise_version'), '', false, clock_timestamp())
			ON CONFLICT DO NOTHING RETURNING version`
		args = []any{t.name, []byte(key), data}
	case data == nil:
		query = `DELETE FROM ackwise_table WHERE name = $1 AND key = $2 AND version = $3
			AND stamp = '' RETURNING 0::bigint`
		args = args[:3]
	}
	var version int64
	var done bool
	err := again(ctx, func() (err error) {
		done, err = pg.One(ctx, t.db, []any{&version}, query, args...)
		return err
	})
	switch {
	case err != nil:
		return 0, t.wrap("write", err)
	case !done:
		return 0, t.refused(ctx, key, idempotency.ErrChanged)
	}
	return uint64(version), nil
}

// refused says why a write did not find what it wanted.
func (t *Table) refused(ctx context.Context, key string, otherwise error) error {
	e, err := t.Get(ctx, key)
	switch {
	case err != nil:
		return err
	case !e.Stamp.IsZero():
		return t.wrap("write", idempotency.ErrStamped)
	case otherwise != nil:
		return t.wrap("write", otherwise)
	}
	return nil
}

// Upsert sets a key if the write wins over what is there, see idempotency.Wins.
func (t *Table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	bool, error) {
	if err := idempotency.ValidateStamp(stamp); err != nil {
		return false, t.wrap("write", err)
	}
	bytes := data
	if bytes == nil {
		bytes = []byte{}
	}
	var n int64
	err := again(ctx, func() (err error) {
		n, err = t.db.Exec(ctx, `INSERT INTO ackwise_table AS t
			(name, key, data, version, stamp, deleted, written)
			VALUES ($1, $2, $3, nextval('ackwise_version'), $4, $5, clock_timestamp())
			ON CONFLICT (name, key) DO UPDATE SET data = excluded.data,
				version = nextval('ackwise_version'), stamp = excluded.stamp,
				deleted = excluded.deleted, written = clock_timestamp()
			WHERE t.stamp <> '' AND (excluded.stamp > t.stamp
				OR excluded.stamp = t.stamp AND NOT t.deleted
					AND (excluded.deleted OR excluded.data > t.data))`,
			t.name, []byte(key), bytes, stamp.String(), data == nil)
		return err
	})
	if err != nil {
		return false, t.wrap("write", err)
	}
	if n > 0 {
		return true, nil
	}
	e, err := t.Get(ctx, key)
	if err == nil && e.Version != 0 && e.Stamp.IsZero() {
		err = t.wrap("write", idempotency.ErrStamped)
	}
	return false, err
}

// Purge removes tombstones that were written more than age ago.
func (t *Table) Purge(ctx context.Context, age time.Duration) (int, error) {
	var n sql.NullInt64
	_, err := pg.One(ctx, t.db, []any{&n}, `WITH gone AS (DELETE FROM ackwise_table
		WHERE name = $1 AND deleted AND written < clock_timestamp() - $2::bigint * interval '1 us'
		RETURNING 1) SELECT count(*) FROM gone`, t.name, age.Microseconds())
	if err != nil {
		return 0, t.wrap("purge", err)
	}
	return int(n.Int64), nil
}
