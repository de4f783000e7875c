package client_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise/client"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
	"github.com/ackwise/ackwise/server"
)

// other opens a directory's owner and a client of it that is not.
func other(t *testing.T, dir string) *client.Client {
	t.Helper()
	owner := open(t, dir, owning())
	c := open(t, dir, client.Options{})
	if !owner.Owner() || c.Owner() {
		t.Fatal("the first is to own the directory, the second not")
	}
	return c
}

// TestADedupStoreThroughTheSocket runs the contract of a dedup store through the socket. The
// batches of the contract are larger than those of the other tests' owner.
func TestADedupStoreThroughTheSocket(t *testing.T) {
	dir := t.TempDir()
	o := owning()
	o.Store = queue.Options{}
	open(t, dir, o)
	c := open(t, dir, client.Options{})
	storetest.RunStore(t, storetest.StoreHarness{Shared: true,
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			s, err := queuestore.Open(t.Context(), c, o.Name,
				queuestore.Options{Window: o.Window, MaxKeys: o.MaxKeys})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}})
}

func TestATableThroughTheSocket(t *testing.T) {
	c, n := other(t, t.TempDir()), 0
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table {
			n++
			table, err := queuestore.OpenTable(c, fmt.Sprintf("table-%d", n))
			if err != nil {
				t.Fatal(err)
			}
			return table
		}})
}

// TestClaimsOverKilledOwners kills the owner while clients claim and complete keys, some of them
// the same. The oracle is what the processes said: no key is completed twice, no fence is given
// twice, and what was said to be complete is done at the end.
func TestClaimsOverKilledOwners(t *testing.T) {
	dir := t.TempDir()
	c, err := client.Open(t.Context(), dir, owning())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.OpenSet(t.Context(), claimSet, time.Hour, 1_000_000); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	rec := newRecord()
	children := []*child{rec.start(t, "claim", dir, "p1"), rec.start(t, "claim", dir, "p2"),
		rec.start(t, "claim", dir, "p3")}
	for i := range 4 {
		done, _ := rec.count("done")
		rec.wait(t, "done", done+100)
		at := max(0, ownerAmong(t, dir, children))
		children[at].signal(syscall.SIGKILL)
		children[at] = rec.start(t, "claim", dir, fmt.Sprintf("q%d", i))
	}
	done, _ := rec.count("done")
	rec.wait(t, "done", done+100)
	for _, k := range children {
		k.leave(t)
	}
	judgeClaims(t, dir, rec)
}

const claimSet = "effects"

// TestClaimsOverCutConnections: a claim whose answer is cut off is sent again and gets what it got,
// and so is a completion. The leases outlive the test, so that a claim that was lost would stay.
func TestClaimsOverCutConnections(t *testing.T) {
	t.Logf("repeat with: go test ./client -run TestClaimsOverCutConnections -seed %d", *seed)
	dir := t.TempDir()
	x := &cutter{rng: rand.New(rand.NewPCG(*seed, 1))}
	o := owning()
	o.Serve = serveCut(dir, x)
	c := open(t, dir, o)
	ctx := t.Context()
	if err := c.OpenSet(ctx, claimSet, time.Hour, 10_000); err != nil {
		t.Fatal(err)
	}
	for n := range 150 {
		asks := []idempotency.Ask{{Key: fmt.Sprintf("a-%d", n), Lease: time.Hour},
			{Key: fmt.Sprintf("b-%d", n), Lease: time.Hour}}
		answers, err := c.Claim(ctx, claimSet, asks)
		if err != nil {
			t.Fatal(err)
		}
		settle := make([]idempotency.Settlement, len(asks))
		for i, a := range answers {
			if a.Status != idempotency.Claimed || a.Takeover {
				t.Fatalf("%s: %+v, want it claimed", asks[i].Key, a)
			}
			settle[i] = idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence,
				Verb: idempotency.Complete, Result: []byte(asks[i].Key)}
		}
		errs, err := c.SettleClaims(ctx, claimSet, settle)
		if err = errors.Join(append(errs, err)...); err != nil {
			t.Fatalf("complete %d: %v", n, err)
		}
		a, err := c.Look(ctx, claimSet, asks[0])
		if err != nil || a.Status != idempotency.Done || string(a.Result) != asks[0].Key {
			t.Fatalf("%s: %+v, %v", asks[0].Key, a, err)
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.off = true; x.requests < 5 || x.answer < 5 {
		t.Errorf("only %d requests and %d answers were cut", x.requests, x.answer)
	}
}

// judgeClaims compares what the processes said with each other and with what the store says.
func judgeClaims(t *testing.T, dir string, rec *record) {
	t.Helper()
	claimed := rec.rests("claimed")
	fences := map[string]string{}
	for _, line := range claimed {
		key, fence, _ := strings.Cut(line, " ")
		if was, twice := fences[fence]; twice {
			t.Errorf("the fence %s was given for %s and for %s", fence, was, key)
		}
		fences[fence] = key
	}
	done := rec.rests("done")
	slices.Sort(done)
	if twice := len(done) - len(slices.Compact(slices.Clone(done))); twice > 0 {
		t.Errorf("%d keys were completed twice", twice)
	}
	if busy, _ := rec.count("busy"); busy == 0 {
		t.Error("no two asked for one key at once")
	}
	c := open(t, dir, owning())
	for _, key := range slices.Compact(done) {
		a, err := c.Look(t.Context(), claimSet, idempotency.Ask{Key: key})
		if err != nil || a.Status != idempotency.Done {
			t.Fatalf("%s is %s, %v after it was said to be complete", key, a.Status, err)
		}
	}
	report, err := c.Verify(t.Context())
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("verify: %q, %v", report.Findings, err)
	}
	t.Logf("%d claims, %d completions", len(claimed), len(done))
}

// claiming claims keys that others claim too, with leases that outlive the test but for a few, and
// completes what it got. It says a claim before it completes it.
func claiming(ctx context.Context, c *client.Client) error {
	working := context.WithoutCancel(ctx)
	for n := 0; ctx.Err() == nil; n++ {
		asks := make([]idempotency.Ask, 3)
		for i := range asks {
			asks[i] = idempotency.Ask{Key: fmt.Sprintf("key-%d", n*2+i), Lease: time.Hour}
		}
		answers, err := c.Claim(working, claimSet, asks)
		if err != nil {
			return fmt.Errorf("claim: %w", err)
		}
		var settle []idempotency.Settlement
		for i, a := range answers {
			switch a.Status {
			case idempotency.Claimed:
				say("claimed", fmt.Sprintf("%s %d", asks[i].Key, a.Fence))
				settle = append(settle, idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence,
					Verb: idempotency.Complete})
			case idempotency.Busy:
				say("busy", asks[i].Key)
			case idempotency.Done:
			case idempotency.Conflict:
				return fmt.Errorf("claim %s: %s", asks[i].Key, a.Status)
			}
			if a.Err != nil {
				return fmt.Errorf("claim %s: %w", asks[i].Key, a.Err)
			}
		}
		errs, err := c.SettleClaims(working, claimSet, settle)
		if err != nil {
			return fmt.Errorf("settle: %w", err)
		}
		for i, err := range errs {
			if err != nil {
				return fmt.Errorf("complete %s: %w", settle[i].Key, err)
			}
			say("done", settle[i].Key)
		}
	}
	return nil
}

// serveOlder serves a store as a version does that knows no dedup sets: the call for keys is not
// there, and what a commit says of keys is not read.
func serveOlder(dir string) func(*queue.Store) (io.Closer, error) {
	return func(s *queue.Store) (io.Closer, error) {
		path := filepath.Join(dir, "older")
		ln, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		h := server.Handler(s, server.Options{})
		mux := http.NewServeMux()
		mux.Handle("/", h)
		mux.Handle("/v1/commit/once", http.NotFoundHandler())
		mux.HandleFunc("/v1/commit", func(w http.ResponseWriter, r *http.Request) {
			var all map[string]json.RawMessage
			if err := json.NewDecoder(r.Body).Decode(&all); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			delete(all, "once")
			b, _ := json.Marshal(all) // it was read from JSON
			r.Body = io.NopCloser(bytes.NewReader(b))
			h.ServeHTTP(w, r)
		})
		older := &http.Server{Handler: mux}
		var serving sync.WaitGroup
		serving.Go(func() { _ = older.Serve(ln) }) // ends with Close
		return closers{older, waiter{&serving}}, lockfile.Announce(dir, path)
	}
}

// An owner that knows no dedup sets refuses a commit with keys as a whole.
func TestAnOlderOwnerRefusesKeys(t *testing.T) {
	dir := t.TempDir()
	o := owning()
	o.Serve = serveOlder(dir)
	c, ctx := open(t, dir, o), t.Context()
	commit := queue.Commit{Writes: []queue.TableWrite{{Table: "t", Key: "k", Value: []byte("v")}},
		Once: map[string][]idempotency.Ask{claimSet: {{Key: "a"}}}}
	if _, err := c.Commit(ctx, commit); err == nil {
		t.Error("the commit was carried out without its keys")
	}
	if e, err := c.Get(ctx, "t", "k"); err != nil || e.Version != 0 {
		t.Errorf("of the refused commit: %q, %v", e.Value, err)
	}
	commit.Once = nil
	if _, err := c.Commit(ctx, commit); err != nil {
		t.Errorf("a commit without keys: %v", err)
	}
}
