package postgres

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pg"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// Migration is one step of the tables' history. Its SQL notes in ackwise_migrations that it was
// applied, so that it may be run with psql, too.
type Migration struct {
	Version int    `json:"version"`
	Name    string `json:"name"`
	SQL     string `json:"sql"`
}

// Migrations returns every migration that this program knows, the oldest first.
func Migrations() []Migration {
	files, err := fs.ReadDir(migrationFiles, "migrations") // in the order of their names
	if err != nil {
		panic(err) // they are part of the program
	}
	all := make([]Migration, len(files))
	for i, f := range files {
		text, err := migrationFiles.ReadFile("migrations/" + f.Name())
		number, name, ok := strings.Cut(strings.TrimSuffix(f.Name(), ".sql"), "_")
		version, nerr := strconv.Atoi(number)
		if err != nil || nerr != nil || !ok || version != i+1 {
			panic(fmt.Sprintf("migration %s: %v", f.Name(), errors.Join(err, nerr)))
		}
		all[i] = Migration{Version: version, Name: name, SQL: string(text)}
	}
	return all
}

// VersionError reports a database whose migrations are not those of this program.
type VersionError struct {
	Have, Want int // the database's version, 0 = none was ever made; and the program's
}

// Error names both versions.
func (e *VersionError) Error() string {
	if e.Have == 0 {
		return fmt.Sprintf("the database has no tables of ackwise, version %d is needed", e.Want)
	}
	word := "older"
	if e.Have > e.Want {
		word = "newer"
	}
	return fmt.Sprintf("the database is at version %d of ackwise's tables, %s than this program's "+
		"version %d", e.Have, word, e.Want)
}

// ColumnsError reports a table that is not as the migrations made it.
type ColumnsError struct {
	Table   string
	Missing []string // the columns that are not there; nil = the whole table is missing
}

// Error names the table and the columns.
func (e *ColumnsError) Error() string {
	if e.Missing == nil {
		return fmt.Sprintf("the table %s is missing", e.Table)
	}
	return fmt.Sprintf("the table %s has no column %s", e.Table, strings.Join(e.Missing, ", "))
}

// Migrate brings the database to the program's version, under a lock that lets one migrate at a
// time, each migration in its own transaction, and returns what it applied. With dryRun it changes
// nothing and returns what it would apply. The tables are made in the first schema of the search
// path. A database that is newer than the program is refused with a *VersionError.
func Migrate[T any](ctx context.Context, db DB[T], dryRun bool) ([]Migration, error) {
	if dryRun {
		have, err := version(ctx, db)
		if err != nil {
			return nil, fmt.Errorf("migrate: %w", err)
		}
		return due(have)
	}
	var applied []Migration
	for {
		var step *Migration
		err := pg.Do(ctx, db, func(tx pg.Tx) (err error) {
			step, err = migrate(ctx, tx)
			return err
		})
		if err != nil {
			return applied, fmt.Errorf("migrate: %w", err)
		}
		if step == nil {
			return applied, nil
		}
		applied = append(applied, *step)
	}
}

// migrate applies the next migration, nil = there is none.
func migrate(ctx context.Context, tx pg.Tx) (*Migration, error) {
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(
		hashtextextended(current_schema() || ' ackwise migrate', 0))`); err != nil {
		return nil, err
	}
	have, err := version(ctx, tx)
	if err != nil {
		return nil, err
	}
	todo, err := due(have)
	if err != nil || len(todo) == 0 {
		return nil, err
	}
	m := todo[0]
	for _, query := range statements(m.SQL) {
		if _, err := tx.Exec(ctx, query); err != nil {
			return nil, fmt.Errorf("apply %d %s: %w", m.Version, m.Name, err)
		}
	}
	return &m, nil
}

// due returns the migrations that a database of a version lacks.
func due(have int) ([]Migration, error) {
	all := Migrations()
	if have > len(all) {
		return nil, newer(have, len(all))
	}
	return all[have:], nil
}

func newer(have, want int) error {
	return &ackwise.HintError{Err: &VersionError{Have: have, Want: want},
		Hint: "Use a newer ackwise, the one that migrated this database or a later one."}
}

// version returns the database's version, 0 where it has no table of migrations. It reads pg_class
// and does not ask to_regclass: a session remembers that a table was not there, and within a
// transaction it forgets that only when it locks a table, which an advisory lock is not.
func version(ctx context.Context, c pg.Conn) (have int, err error) {
	var there bool
	_, err = pg.One(ctx, c, []any{&there}, `SELECT EXISTS (SELECT FROM pg_class
		WHERE relname = 'ackwise_migrations' AND pg_table_is_visible(oid))`)
	if err != nil || !there {
		return 0, err
	}
	_, err = pg.One(ctx, c, []any{&have}, `SELECT coalesce(max(version), 0) FROM ackwise_migrations`)
	return have, err
}

// statements splits a migration at the semicolons that end a line, but not within the body of a
// function ($$ … $$): a driver may take one statement at a time only.
func statements(text string) []string {
	var all []string
	var now strings.Builder
	body := false
	for line := range strings.Lines(text) {
		now.WriteString(line)
		if strings.Count(line, "$$")%2 == 1 {
			body = !body
		}
		code, _, _ := strings.Cut(line, "--")
		if !body && strings.HasSuffix(strings.TrimSpace(code), ";") {
			all = append(all, now.String())
			now.Reset()
		}
	}
	if strings.TrimSpace(now.String()) != "" {
		all = append(all, now.String())
	}
	return all
}

// Check reports whether the database is as this program needs it: a *VersionError that names both
// versions, or a *ColumnsError that names what a table lacks, each with what to do.
func Check[T any](ctx context.Context, db DB[T]) error {
	if err := check(ctx, db); err != nil {
		return fmt.Errorf("check the database: %w", err)
	}
	return nil
}

func check(ctx context.Context, c pg.Conn) error {
	have, err := version(ctx, c)
	if err != nil {
		return err
	}
	switch want := len(Migrations()); {
	case have > want:
		return newer(have, want)
	case have < want:
		return &ackwise.HintError{Err: &VersionError{Have: have, Want: want},
			Hint: "Run `ackwise migrate URL`; with --dry-run it only prints the SQL."}
	}
	there, err := columns(ctx, c)
	if err != nil {
		return err
	}
	var faults []error
	for _, t := range tables() {
		if e := t.lacks(there[t.name]); e != nil {
			faults = append(faults, e)
		}
	}
	if len(faults) > 0 {
		return &ackwise.HintError{Err: errors.Join(faults...),
			Hint: "Somebody changed the table: `ackwise migrate --dry-run` on an empty database " +
				"prints how it was made. Or another schema comes first in the search path."}
	}
	return nil
}

// columns returns the columns of ackwise's tables, by table.
func columns(ctx context.Context, c pg.Conn) (map[string][]string, error) {
	names := make([]string, 0, len(tables()))
	for _, t := range tables() {
		names = append(names, t.name)
	}
	there := make(map[string][]string)
	return there, pg.Each(ctx, c, func(r pg.Rows) error {
		var table, column string
		err := r.Scan(&table, &column)
		there[table] = append(there[table], column)
		return err
	}, `SELECT t.name, a.attname::text FROM unnest($1::text::text[]) AS t(name)
		JOIN pg_attribute a ON a.attrelid = to_regclass(t.name)
		WHERE a.attnum > 0 AND NOT a.attisdropped`, pg.Array(names))
}
