package pgstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/postgres"
	"github.com/ackwise/ackwise/adapters/postgres/internal/pgtest"
	"github.com/ackwise/ackwise/adapters/postgres/pgstore"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/test/servers"
)

func pool(t testing.TB) *pgxpool.Pool {
	t.Helper()
	return pgtest.Pool(t, servers.Address(t, "ACKWISE_TEST_POSTGRES"))
}

func open[T any](t testing.TB, db postgres.DB[T], o pgstore.Options) *pgstore.Store {
	t.Helper()
	s, err := pgstore.Open(t.Context(), db, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func suite[T any](t *testing.T, db postgres.DB[T]) {
	start := func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
		return open(t, db, pgstore.Options{Name: o.Name, Window: o.Window, MaxKeys: o.MaxKeys})
	}
	storetest.RunStore(t, storetest.StoreHarness{Open: start, Shared: true,
		Reopen: func(t *testing.T, s idempotency.Store, o storetest.StoreOptions) idempotency.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return start(t, o)
		}})
	n := 0
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table {
			n++
			return openTable(t, db, string(rune('a'+n)))
		},
		Reopen: func(t *testing.T, table idempotency.Table) idempotency.Table {
			return openTable(t, db, string(rune('a'+n)))
		}})
}

func openTable[T any](t testing.TB, db postgres.DB[T], name string) *pgstore.Table {
	t.Helper()
	table, err := pgstore.OpenTable(t.Context(), db, name)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func TestSuiteOverPGX(t *testing.T) { suite(t, postgres.PGX(pool(t))) }

func TestSuiteOverSQL(t *testing.T) {
	db := stdlib.OpenDBFromPool(pool(t))
	t.Cleanup(func() { _ = db.Close() })
	suite(t, postgres.SQL(db))
}

// TestBucketsAreDroppedWhole fills a bucket, lets its window pass, and drops it.
func TestBucketsAreDroppedWhole(t *testing.T) {
	keys := 20_000
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		keys = 1_000_000
	}
	p := pool(t)
	const window = 400 * time.Millisecond
	s := open(t, postgres.PGX(p), pgstore.Options{Name: "s", Window: window, MaxKeys: keys})
	exec(t, p, `INSERT INTO ackwise_done SELECT b.id, convert_to('key ' || i, 'UTF8'), '', i, NULL,
		clock_timestamp() FROM ackwise_bucket b, generate_series(1, $1) i`, keys)
	// They count until long after their window, so that the store is surely full for a while.
	exec(t, p, `INSERT INTO ackwise_count SELECT id, 0, $1, clock_timestamp() + interval '5 s'
		FROM ackwise_bucket`, keys)
	ask := []idempotency.Ask{{Key: "another", Lease: time.Minute}}
	got, err := s.Claim(t.Context(), ask)
	if err != nil || !errors.Is(got[0].Err, ackwise.ErrFull) {
		t.Fatalf("claim in a full store: %+v, %v, want ErrFull", got, err)
	}
	was := scalar[int64](t, p, "SELECT min(id) FROM ackwise_bucket")
	pgtest.Until(t, "there is room again", func() bool {
		got, err = s.Claim(t.Context(), ask)
		return err == nil && got[0].Err == nil
	})
	var longest time.Duration // of a claim that drops a bucket, or finds that it is not time
	pgtest.Until(t, "the bucket is dropped", func() bool {
		begin := time.Now()
		_, err := s.Claim(t.Context(), ask)
		longest = max(longest, time.Since(begin))
		return err == nil && !scalar[bool](t, p, `SELECT EXISTS (SELECT 1 FROM ackwise_bucket
			WHERE id = $1) OR to_regclass('ackwise_done_' || $1::bigint) IS NOT NULL`, was)
	})
	t.Logf("%d keys: the longest claim took %s", keys, longest)
	if longest > time.Second && keys == 1_000_000 {
		t.Errorf("dropping a bucket of %d keys took %s", keys, longest)
	}
}

// TestWindowIsExact moves keys and buckets back in time, to both sides of the window's edge.
func TestWindowIsExact(t *testing.T) {
	p := pool(t)
	o := pgstore.Options{Name: "s", Window: time.Hour, MaxKeys: 3}
	s := open(t, postgres.PGX(p), o)
	done(t, s, "a")
	done(t, s, "b")
	was := scalar[int64](t, p, "SELECT id FROM ackwise_bucket")
	age := func(d time.Duration) { // of all that there is
		exec(t, p, `UPDATE ackwise_bucket SET opened = clock_timestamp() - $1::text::interval`,
			(d + time.Minute).String())
		for _, column := range []string{"ackwise_bucket.closed", "ackwise_count.last",
			"ackwise_done.done"} {
			table, name, _ := strings.Cut(column, ".")
			exec(t, p, fmt.Sprintf(`UPDATE %s SET %s = clock_timestamp() - $1::text::interval
				WHERE %[2]s IS NOT NULL`, table, name), d.String())
		}
		// A new process looks after the buckets at once.
		s = open(t, postgres.PGX(p), o)
		for range 3 {
			exec(t, p, "SELECT ackwise_drop('s')")
		}
	}
	status := func(key string) idempotency.Answer {
		t.Helper()
		got, err := s.Claim(t.Context(), []idempotency.Ask{{Key: key, Lease: time.Millisecond}})
		if err != nil {
			t.Fatal(err)
		}
		return got[0]
	}
	age(59 * time.Minute)
	if a := status("a"); a.Status != idempotency.Done {
		t.Errorf("a minute before the window's end: %+v, want done", a)
	}
	if id := scalar[int64](t, p, "SELECT max(id) FROM ackwise_bucket"); id == was {
		t.Error("an old bucket was not closed")
	}
	if a := status("c"); a.Status != idempotency.Claimed {
		t.Errorf("the third key of three: %+v", a)
	}
	if a := status("d"); !errors.Is(a.Err, ackwise.ErrFull) {
		t.Errorf("the fourth key of three: %+v, want ErrFull", a)
	}
	age(time.Hour + time.Second)
	if a := status("a"); a.Status != idempotency.Claimed || a.Takeover {
		t.Errorf("after the window: %+v, want it claimed anew", a)
	}
	if n := scalar[int](t, p, "SELECT count(*) FROM ackwise_bucket WHERE id = $1", was); n != 1 {
		t.Error("a bucket was dropped within its last minute")
	}
	age(time.Hour + 2*time.Minute)
	if n := scalar[int](t, p, "SELECT count(*) FROM ackwise_bucket WHERE id = $1", was); n != 0 {
		t.Error("a bucket whose keys are all out of the window is still there")
	}
}

// TestLongTransactionStopsNobody: a bucket that somebody's transaction uses is not waited for.
func TestLongTransactionStopsNobody(t *testing.T) {
	p := pool(t)
	s := open(t, postgres.PGX(p), pgstore.Options{Name: "s", Window: 200 * time.Millisecond})
	done(t, s, "a")
	tx, err := p.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(t.Context())) }()
	if _, err := tx.Exec(t.Context(), "SELECT count(*) FROM ackwise_done"); err != nil {
		t.Fatal(err)
	}
	was := scalar[int64](t, p, "SELECT min(id) FROM ackwise_bucket")
	gone := `SELECT NOT EXISTS (SELECT 1 FROM ackwise_bucket WHERE id = $1)`
	pgtest.Until(t, "the bucket is out of the window", func() bool {
		done(t, s, "b"+time.Now().String())
		return scalar[bool](t, p, `SELECT closed + interval '600 ms' < clock_timestamp()
			FROM ackwise_bucket WHERE id = $1 AND closed IS NOT NULL
			UNION ALL SELECT false LIMIT 1`, was)
	})
	done(t, s, "c") // beside the transaction
	if scalar[bool](t, p, gone, was) {
		t.Fatal("a bucket was dropped under a transaction that reads it")
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	pgtest.Until(t, "the bucket is dropped", func() bool {
		done(t, s, "d"+time.Now().String())
		return scalar[bool](t, p, gone, was)
	})
}

// TestBatchesCross has many claim and settle the same keys in opposite orders: nobody deadlocks,
// and every key is made once.
func TestBatchesCross(t *testing.T) {
	p := pool(t)
	db := postgres.PGX(p)
	var made sync.Map
	var wg sync.WaitGroup
	for i := range 8 {
		s := open(t, db, pgstore.Options{Name: "s"})
		wg.Go(func() {
			left := make([]string, 200)
			for j := range left {
				left[j] = fmt.Sprint("k", j)
			}
			if i%2 == 0 {
				slices.Reverse(left)
			}
			for len(left) > 0 {
				var err error
				if left, err = claimSome(t.Context(), s, left, &made); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	n := 0
	made.Range(func(key, times any) bool {
		if n++; times.(*atomic.Int64).Load() != 1 {
			t.Errorf("%s was made %d times", key, times.(*atomic.Int64).Load())
		}
		return true
	})
	if n != 200 {
		t.Errorf("%d keys were made, want 200", n)
	}
	if n := scalar[int](t, p, "SELECT sum(keys) FROM ackwise_count"); n != 200 {
		t.Errorf("the store counts %d keys, want 200", n)
	}
}

// TestClaimsAreWrittenInOneOrder: the store makes a deadlocked statement again, so this goes to the
// function itself.
func TestClaimsAreWrittenInOneOrder(t *testing.T) {
	p := pool(t)
	open(t, postgres.PGX(p), pgstore.Options{Name: "s"})
	var wg sync.WaitGroup
	for i := range 4 {
		order := "n"
		if i%2 == 0 {
			order = "-n"
		}
		wg.Go(func() {
			for round := range 10 {
				_, err := p.Exec(t.Context(), `SELECT count(*) FROM (SELECT array_agg(
					convert_to($1 || n, 'UTF8') ORDER BY `+order+`) AS keys FROM generate_series(1, 300) n) k,
					ackwise_claim('s', 3600000, 1000000, k.keys, array_fill(''::bytea, '{300}'),
						array_fill(60000::bigint, '{300}'))`, fmt.Sprint(round, "/"))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// claimSome claims keys, completes what it got, and returns what is not done.
func claimSome(ctx context.Context, s *pgstore.Store, keys []string, made *sync.Map) (
	[]string, error) {
	asks := make([]idempotency.Ask, len(keys))
	for i, k := range keys {
		asks[i] = idempotency.Ask{Key: k, Lease: time.Minute}
	}
	answers, err := s.Claim(ctx, asks)
	if err != nil {
		return nil, err
	}
	var got []idempotency.Settlement
	var left []string
	for i, a := range answers {
		switch a.Status {
		case idempotency.Claimed:
			times, _ := made.LoadOrStore(keys[i], new(atomic.Int64))
			times.(*atomic.Int64).Add(1)
			got = append(got, idempotency.Settlement{Key: keys[i], Fence: a.Fence,
				Verb: idempotency.Complete})
		case idempotency.Busy:
			left = append(left, keys[i])
		case idempotency.Done, idempotency.Conflict:
		}
	}
	errs, err := s.Settle(ctx, got)
	return left, errors.Join(append(errs, err)...)
}

// TestUpsertSQL runs the generated statements on a table of the user's, in every order of arrival.
func TestUpsertSQL(t *testing.T) {
	p := pool(t)
	exec(t, p, `CREATE TABLE "Where" (tail text PRIMARY KEY, place text, miles bigint, ts text,
		gone boolean NOT NULL DEFAULT false)`)
	set, del, err := postgres.UpsertSQL(postgres.UpsertTable{Name: "Where",
		Key: []string{"tail"}, Stamp: "ts", Columns: []string{"place", "miles"}, Deleted: "gone"})
	if err != nil {
		t.Fatal(err)
	}
	at := func(ms int64, node string) string {
		return ackwise.Stamp{Millis: ms, Node: node}.String()
	}
	writes := []write{{at(1, "a"), "JFK", 1}, {at(2, "a"), "SFO", 2}, {at(2, "b"), "LAX", 3},
		{at(2, "b"), "LAX", 4}, {at(2, "B"), "BOS", 9}, {at(2, "b"), nil, 0}, {at(1, "z"), "SEA", 5}}
	for seed := range uint64(40) {
		order := rand.New(rand.NewPCG(seed, 0)).Perm(len(writes))
		most := len(writes) - int(seed%3) // with and without the deletion that wins in the end
		exec(t, p, `DELETE FROM "Where"`)
		want := write{stamp: ""}
		for _, i := range append(order, order...) { // each twice
			if w := writes[i]; i < most {
				if w.place == nil {
					exec(t, p, del, "N1", w.stamp)
				} else {
					exec(t, p, set, "N1", w.stamp, w.place, w.miles)
				}
				if w.beats(want) {
					want = w
				}
			}
		}
		var got write
		var gone bool
		var place *string
		var miles *int64
		if err := p.QueryRow(t.Context(), `SELECT ts, place, miles, gone FROM "Where"`).Scan(
			&got.stamp, &place, &miles, &gone); err != nil {
			t.Fatal(err)
		}
		if got.stamp != want.stamp || gone != (want.place == nil) ||
			!gone && (*place != want.place || *miles != want.miles) {
			t.Errorf("seed %d: the table ends at %s, gone %t; want %+v", seed, got.stamp, gone, want)
		}
	}
}

// write is a write to a table of the user's.
type write struct {
	stamp string
	place any // nil = a deletion
	miles int64
}

// beats is the rule, said once more: stamp, then deletion, then the greater value.
func (w write) beats(old write) bool {
	switch {
	case w.stamp != old.stamp:
		return w.stamp > old.stamp
	case w.place == nil || old.place == nil:
		return w.place == nil && old.place != nil
	}
	return w.miles > old.miles
}

// TestOpenByURL opens a store and a table with pools of their own.
func TestOpenByURL(t *testing.T) {
	url := pool(t).Config().ConnString()
	s, err := pgstore.OpenURL(t.Context(), url, pgstore.Options{Name: "s"})
	if err != nil {
		t.Fatal(err)
	}
	done(t, s, "a")
	table, err := pgstore.OpenTableURL(t.Context(), url, "t")
	if err == nil {
		err = table.Put(t.Context(), "k", []byte("v"))
	}
	if err := errors.Join(err, s.Close(), s.Close(), table.Close()); err != nil {
		t.Error(err)
	}
	empty := pgtest.Database(t, servers.Address(t, "ACKWISE_TEST_POSTGRES"))
	_, err = pgstore.OpenURL(t.Context(), empty, pgstore.Options{Name: "s"})
	if _, ok := errors.AsType[*postgres.VersionError](err); !ok {
		t.Errorf("open a store in an empty database: %v, want a *postgres.VersionError", err)
	}
}

// TestServerAway: a store that cannot be reached says so, and says nothing is done.
func TestServerAway(t *testing.T) {
	server := servers.Start(t, "postgres")
	p := pgtest.Pool(t, server.Address)
	s := open(t, postgres.PGX(p), pgstore.Options{Name: "s"})
	done(t, s, "a")
	server.Kill(t)
	ask := []idempotency.Ask{{Key: "a", Lease: time.Minute}}
	var got []idempotency.Answer
	var err error
	pgtest.Until(t, "the store says that its server is away", func() bool {
		// What serves a connection may outlive the server's first process for a moment.
		got, err = s.Claim(t.Context(), ask)
		if err == nil && got[0].Status != idempotency.Done || err != nil && got != nil {
			t.Fatalf("claim while the server goes: %+v, %v", got, err)
		}
		return err != nil
	})
	server.Restart(t)
	pgtest.Until(t, "it answers again", func() bool {
		got, err = s.Claim(t.Context(), ask)
		return err == nil
	})
	if got[0].Status != idempotency.Done {
		t.Errorf("after a kill of the server: %+v, want what was complete to be done", got[0])
	}
}

func done(t testing.TB, s *pgstore.Store, key string) {
	t.Helper()
	got, err := s.Claim(t.Context(), []idempotency.Ask{{Key: key, Lease: time.Minute}})
	if err != nil || got[0].Status != idempotency.Claimed {
		t.Fatalf("claim %s: %+v, %v", key, got, err)
	}
	errs, err := s.Settle(t.Context(), []idempotency.Settlement{{Key: key, Fence: got[0].Fence,
		Verb: idempotency.Complete}})
	if err := errors.Join(append(errs, err)...); err != nil {
		t.Fatal(err)
	}
}

func exec(t testing.TB, p *pgxpool.Pool, query string, args ...any) {
	t.Helper()
	if _, err := p.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func scalar[T any](t testing.TB, p *pgxpool.Pool, query string, args ...any) (v T) {
	t.Helper()
	if err := p.QueryRow(t.Context(), query, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return v
}
