package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/test/servers"
)

// TestRealMigrate runs the command on a schema of its own.
func TestRealMigrate(t *testing.T) {
	server := servers.Address(t, "ACKWISE_TEST_POSTGRES")
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	t.Cleanup(cancel)
	conn, err := pgx.Connect(ctx, server)
	if err != nil {
		t.Fatal(err)
	}
	exec := func(query string) {
		t.Helper()
		if _, err := conn.Exec(ctx, query); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
	}
	schema := fmt.Sprintf("migrate_%d", time.Now().UnixNano())
	exec("CREATE SCHEMA " + schema)
	exec("SET search_path = " + schema)
	t.Cleanup(func() { exec("DROP SCHEMA " + schema + " CASCADE"); _ = conn.Close(ctx) })
	q := u.Query()
	q.Set("search_path", schema)
	u.RawQuery, u.User = q.Encode(), url.UserPassword("postgres", "geheim")
	address := u.String()

	plan := must(t, "", "migrate", address, "--dry-run")
	all := len(postgres.Migrations())
	got := decode[migrated](t, must(t, "", "migrate", address, "--dry-run", "--json"))
	if got.From != 0 || got.To != all || !got.DryRun || len(got.Migrations) != all {
		t.Errorf("a dry run says %d to %d, %t, %d migrations", got.From, got.To, got.DryRun,
			len(got.Migrations))
	}
	if strings.Count(plan, "\nBEGIN;\n") != all || strings.Count(plan, "\nCOMMIT;\n") != all {
		t.Errorf("a dry run prints migrations that are no transactions:\n%s", plan)
	}
	exec(plan) // what it prints can be run as it is
	out := must(t, "", "migrate", address)
	if !strings.HasPrefix(out, "the database is at version ") {
		t.Errorf("after the printed SQL was run: %s", out)
	}
	exec("DROP SCHEMA " + schema + " CASCADE")
	exec("CREATE SCHEMA " + schema)
	out = must(t, "", "migrate", address)
	if strings.Count(out, "applied migration ") != all {
		t.Errorf("migrate prints %s", out)
	}
	got = decode[migrated](t, must(t, "", "migrate", address, "--json"))
	if got.From != all || got.To != all || got.DryRun || got.Migrations == nil {
		t.Errorf("migrate again says %+v", got)
	}
	exec("INSERT INTO ackwise_migrations VALUES (99, 'of the future')")
	r := run(t, "", "migrate", address)
	r.want(t, exitFailed, "version 99", "newer", "hint: Use a newer ackwise")
	for _, text := range []string{plan, out, r.out, r.err} {
		if strings.Contains(text, "geheim") {
			t.Errorf("the password is shown:\n%s", text)
		}
	}
}
