package main

import (
	"fmt"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/test/servers"
)

// realStore returns the URL of a store of a name in a real server, and what the command needs to
// reach it.
func realStore(t *testing.T, kind, name string) (address string, env []string) {
	t.Helper()
	server := servers.Address(t, "ACKWISE_TEST_"+strings.ToUpper(kind))
	switch kind {
	case "postgres":
		pool, err := pgxpool.New(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		defer pool.Close()
		if _, err := postgres.Migrate(t.Context(), postgres.PGX(pool), false); err != nil {
			t.Fatal(err)
		}
		return server + "&name=" + name, nil
	case "redis":
		return server + "?name=" + name, nil
	}
	return "dynamodb://eu-west-1/ackwise-cmd?name=" + name + "&endpoint=" + url.QueryEscape(server),
		[]string{"AWS_ACCESS_KEY_ID=local", "AWS_SECRET_ACCESS_KEY=local"}
}

func realKinds() []string { return []string{"postgres", "redis", "dynamodb"} }

// TestRealRunDedup delivers each message three times, in two runs with one memory between them.
func TestRealRunDedup(t *testing.T) {
	for _, kind := range realKinds() {
		t.Run(kind, func(t *testing.T) {
			const n = 40
			dir := t.TempDir()
			name := fmt.Sprintf("run-%d", time.Now().UnixNano())
			store, env := realStore(t, kind, name)
			doubled(t, dir, n)
			from := func(sub string) *exec.Cmd {
				c := runFile(t, dir, pipelineOf("from: queue://data/t/"+sub, note, "create: true",
					"concurrency: 2", "pattern: dedup", "dedup: {store: \""+store+"\"}"),
					"--until-empty")
				c.Env = append(c.Env, env...)
				return c
			}
			finish(t, from("s")).want(t, 0)
			finish(t, from("again")).want(t, 0) // another subscription, from the beginning
			got := lines(content(filepath.Join(dir, "out.txt")))
			slices.Sort(got)
			if len(got) != n || len(slices.Compact(got)) != n {
				t.Errorf("%d effects of %d messages: %q", len(got), n, got)
			}
		})
	}
}

func TestRealBenchDedup(t *testing.T) {
	for _, kind := range realKinds() {
		t.Run(kind, func(t *testing.T) {
			store, env := realStore(t, kind, "bench")
			c := command(t, "bench", "dedup", "--json", "--dir", t.TempDir(), "--seconds", "0.05",
				"--rounds", "1", "--workers", "2", "--store", store)
			c.Env = append(c.Env, env...)
			r := finish(t, c)
			r.want(t, 0)
			rows := decode[bench.DedupReport](t, r.out).Dedup
			if len(rows) != 12 {
				t.Fatalf("got %+v", rows)
			}
			for _, d := range rows[8:] {
				if d.Store != kind || d.Claims <= 0 || d.Inserts <= 0 || d.ClaimRatio <= 0 {
					t.Errorf("got %+v", d)
				}
			}
		})
	}
}
