package main

import (
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
)

type migrateCmd struct {
	URL    string `arg:"" name:"url" help:"The database: postgres://USER@HOST:PORT/DATABASE. The password is better given by PGPASSWORD, or by password=env:NAME or password=file:PATH behind a ?."`
	DryRun bool   `name:"dry-run" help:"Change nothing, print the SQL."`
	jsonFlag
}

// migrated is what migrate --json prints.
type migrated struct {
	From       int                  `json:"from"`
	To         int                  `json:"to"`
	DryRun     bool                 `json:"dry_run"`
	Migrations []postgres.Migration `json:"migrations"`
}

// Run brings the database's tables to this program's version.
func (c *migrateCmd) Run(a *app) error {
	pool, err := c.connect(a)
	if err != nil {
		return err
	}
	defer pool.Close()
	applied, err := postgres.Migrate(a.ctx, postgres.PGX(pool), c.DryRun)
	if werr := c.write(a, applied, err == nil); err == nil {
		err = werr
	}
	if _, ok := errors.AsType[*ackwise.HintError](err); err != nil && !ok {
		err = &ackwise.HintError{Err: err, Hint: "See that the server answers there, and that the " +
			"user may create tables in the schema that comes first in its search path."}
	}
	if err != nil && len(applied) > 0 {
		return partial(err)
	}
	return err
}

// connect makes the pool. An error of the client's own about the address is not shown: it may hold
// the password.
func (c *migrateCmd) connect(a *app) (*pgxpool.Pool, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return nil, usage(errors.New("the URL is not one of a Postgres database"),
			"it has the form postgres://USER@HOST:PORT/DATABASE; see ackwise migrate --help")
	}
	password, _, err := takePassword(u)
	if err != nil {
		return nil, usage(fmt.Errorf("the URL of the database at %s: %w", u.Host, err),
			"see ackwise migrate --help")
	}
	address := c.URL
	if password != nil {
		if _, err := password(a.ctx); err != nil {
			return nil, fmt.Errorf("connect to the database at %s: %w", u.Host, err)
		}
		address = u.String()
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, usage(fmt.Errorf("the URL of the database at %s cannot be read", u.Host),
			"see ackwise migrate --help")
	}
	config.BeforeConnect = beforeConnect(password)
	return pgxpool.NewWithConfig(a.ctx, config)
}

// write prints what was applied, or would be; whole says that nothing is left to apply.
func (c *migrateCmd) write(a *app, applied []postgres.Migration, whole bool) error {
	switch {
	case !whole && len(applied) == 0:
		return nil
	case c.JSON:
		to := len(postgres.Migrations())
		if !whole {
			to = applied[len(applied)-1].Version
		}
		from := to - len(applied)
		return writeJSON(a.out, migrated{From: from, To: to, DryRun: c.DryRun,
			Migrations: listed(applied)})
	}
	var err error
	for _, m := range applied {
		if err != nil {
			break
		}
		if c.DryRun {
			_, err = fmt.Fprintf(a.out, "-- migration %d: %s\n\nBEGIN;\n\n%s\nCOMMIT;\n\n", m.Version,
				m.Name, m.SQL)
		} else {
			_, err = fmt.Fprintf(a.out, "applied migration %d: %s\n", m.Version, m.Name)
		}
	}
	if err == nil && whole {
		line := "the database is at version %d\n"
		if c.DryRun {
			line = "-- after this the database is at version %d\n"
		}
		_, err = fmt.Fprintf(a.out, line, len(postgres.Migrations()))
	}
	return err
}
