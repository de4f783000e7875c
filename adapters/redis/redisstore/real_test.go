package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/redis/redisstore"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/test/servers"
)

// connect makes a client of a server's address.
func connect(t *testing.T, address string, with ...func(*redis.Options)) *redis.Client {
	t.Helper()
	o, err := redis.ParseURL(address)
	if err != nil {
		t.Fatal(err)
	}
	o.ContextTimeoutEnabled = true
	for _, f := range with {
		f(o)
	}
	client := redis.NewClient(o)
	t.Cleanup(func() { client.Close() })
	return client
}

// tryOnce has a call tried once only.
func tryOnce(o *redis.Options) { o.MaxRetries, o.DialerRetries = -1, 1 }

func shared(t *testing.T) *redis.Client {
	t.Helper()
	return connect(t, servers.Address(t, "ACKWISE_TEST_REDIS"))
}

func open(t *testing.T, client redis.UniversalClient, o redisstore.Options) *redisstore.Store {
	t.Helper()
	o.Persist = redisstore.PersistAlways
	s, err := redisstore.Open(t.Context(), client, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func harness(client redis.UniversalClient, shards int) storetest.StoreHarness {
	make := func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
		return open(t, client, redisstore.Options{Name: o.Name, Window: o.Window,
			MaxKeys: o.MaxKeys, Shards: shards})
	}
	return storetest.StoreHarness{
		Shared: true,
		Open:   make,
		Reopen: func(t *testing.T, s idempotency.Store, o storetest.StoreOptions) idempotency.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return make(t, o)
		},
	}
}

func TestRealStore(t *testing.T) { storetest.RunStore(t, harness(shared(t), 1)) }

// The server's clock is the test's, so that leases and windows are long and their ends exact.
func TestRealStoreByTheHands(t *testing.T) {
	client := shared(t)
	h := setClock(t, client)
	real := harness(client, 1)
	storetest.RunStore(t, storetest.StoreHarness{
		Shared: true,
		Open: func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
			s := real.Open(t, o)
			redisstore.UseClock(s.(*redisstore.Store), h.key)
			return s
		},
		Advance: h.advance,
	})
}

// A server's clock that is set back, by less and by more than a bucket, makes no lease and no
// window longer, forgets nothing, and brings no fence back.
func TestRealClockIsSetBack(t *testing.T) {
	for _, back := range []time.Duration{time.Second, 100 * time.Second, 10_000 * time.Hour} {
		t.Run(back.String(), func(t *testing.T) {
			client := shared(t)
			h := setClock(t, client)
			s := open(t, client, redisstore.Options{Name: name(t), Window: 800 * time.Second})
			redisstore.UseClock(s, h.key)
			h.advance(50 * time.Second)
			for i := range 20 { // in buckets of 100 s
				key := fmt.Sprint("before-", i)
				if ok, err := once(t.Context(), s, key); err != nil || !ok {
					t.Fatal(ok, err)
				}
				h.advance(10 * time.Second)
			}
			held := claim(t, s, idempotency.Ask{Key: "held", Lease: time.Minute})[0]
			h.advance(-back)
			for i := range 20 {
				ask := idempotency.Ask{Key: fmt.Sprint("before-", i), Lease: time.Minute}
				if a := claim(t, s, ask)[0]; a.Status != idempotency.Done {
					t.Fatalf("%s after the clock was set back: %s, want done", ask.Key, a.Status)
				}
			}
			if ok, err := once(t.Context(), s, "after"); err != nil || !ok {
				t.Fatal(ok, err)
			}
			h.advance(time.Minute)
			over := claim(t, s, idempotency.Ask{Key: "held", Lease: time.Minute})[0]
			if over.Status != idempotency.Claimed || over.Fence <= held.Fence {
				t.Errorf("a lease of a minute, a minute later: %+v, want it taken over", over)
			}
			h.advance(700 * time.Second)
			ask := idempotency.Ask{Key: "after", Lease: time.Minute}
			if a := claim(t, s, ask)[0]; a.Status != idempotency.Done {
				t.Errorf("within its window: %s, want done", a.Status)
			}
			h.advance(300 * time.Second)
			if a := claim(t, s, ask)[0]; a.Status != idempotency.Claimed {
				t.Errorf("after its window: %s, want claimed", a.Status)
			}
		})
	}
}

// A failover forgets a claim, or a write: its fence, or version, is not given to another, also
// where the clock stands behind the greatest of before.
func TestRealFailoverForgets(t *testing.T) {
	client := shared(t)
	h := setClock(t, client)
	t.Run("a claim", func(t *testing.T) {
		n := name(t)
		s := open(t, client, redisstore.Options{Name: n})
		redisstore.UseClock(s, h.key)
		ask := idempotency.Ask{Key: "held", Lease: time.Minute}
		claim(t, s, idempotency.Ask{Key: "before", Lease: time.Minute})
		h.advance(-time.Hour)
		claim(t, s, idempotency.Ask{Key: "after", Lease: time.Minute})
		failover := replica(t, client, "ackwise:dedup:{"+n+":0}:*")
		h.advance(time.Second)
		a := claim(t, s, ask)[0]
		failover()
		h.advance(time.Second)
		b := claim(t, s, ask)[0]
		if b.Status != idempotency.Claimed || b.Takeover || b.Fence == a.Fence {
			t.Fatalf("the claim %+v is forgotten, the next one is %+v", a, b)
		}
		results, err := s.Settle(t.Context(), []idempotency.Settlement{{Key: "held",
			Fence: a.Fence, Verb: idempotency.Complete}})
		if err != nil || !errors.Is(results[0], idempotency.ErrFence) {
			t.Errorf("who holds the forgotten claim completes: %v, %v, want ErrFence", results, err)
		}
	})
	t.Run("a write", func(t *testing.T) {
		n := name(t)
		table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: n})
		if err != nil {
			t.Fatal(err)
		}
		redisstore.UseTableClock(table, h.key)
		if err := table.Put(t.Context(), "before", []byte("v")); err != nil {
			t.Fatal(err)
		}
		failover := replica(t, client, "ackwise:table:{"+n+":0}:*")
		h.advance(-time.Hour)
		a, err := table.Swap(t.Context(), "k", 0, []byte("a"))
		if err != nil {
			t.Fatal(err)
		}
		failover()
		if b, err := table.Swap(t.Context(), "k", 0, []byte("b")); err != nil || b == a {
			t.Errorf("swapped after version %d was forgotten: %d, %v", a, b, err)
		}
		if _, err := table.Swap(t.Context(), "k", a, []byte("a")); !errors.Is(err,
			idempotency.ErrChanged) {
			t.Errorf("swap from a forgotten version: %v, want ErrChanged", err)
		}
	})
}

// replica keeps what a server holds under a pattern. What it returns brings that back, as a
// failover to a replica does that has missed everything since.
func replica(t *testing.T, client *redis.Client, pattern string) (failover func()) {
	t.Helper()
	ctx := t.Context()
	keys := func() []string {
		all, err := client.Keys(ctx, pattern).Result()
		if err != nil || len(all) == 0 {
			t.Fatalf("%d keys fit %s: %v", len(all), pattern, err)
		}
		return all
	}
	kept := make(map[string]string)
	for _, key := range keys() {
		kept[key] = client.Dump(ctx, key).Val()
	}
	return func() {
		t.Helper()
		if err := client.Del(ctx, keys()...).Err(); err != nil {
			t.Fatal(err)
		}
		for key, value := range kept {
			if err := client.Restore(ctx, key, 0, value).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// hands are a clock of the server's that a test moves.
type hands struct {
	t      *testing.T
	client *redis.Client
	key    string
}

func setClock(t *testing.T, client *redis.Client) hands {
	t.Helper()
	h := hands{t, client, "clock-" + name(t)}
	if err := client.Set(t.Context(), h.key, time.Now().Truncate(1000*time.Second).UnixMicro(),
		0).Err(); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h hands) advance(d time.Duration) {
	h.t.Helper()
	if err := h.client.IncrBy(h.t.Context(), h.key, d.Microseconds()).Err(); err != nil {
		h.t.Fatal(err)
	}
}

// The bound holds within one call too.
func TestRealBatchIsBounded(t *testing.T) {
	s := open(t, shared(t), redisstore.Options{Name: name(t), MaxKeys: 3})
	var asks []idempotency.Ask
	for i := range 5 {
		asks = append(asks, idempotency.Ask{Key: fmt.Sprint(i), Lease: time.Minute})
	}
	for i, a := range claim(t, s, asks...) {
		if full := errors.Is(a.Err, ackwise.ErrFull); full != (i >= 3) {
			t.Errorf("key %d of 3 that fit: %+v", i, a)
		}
	}
}

// Keys spread over shards are answered in the order of the asks.
func TestRealShardedStore(t *testing.T) { sharded(t, shared(t)) }

func sharded(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	name := name(t)
	s := open(t, client, redisstore.Options{Name: name, Shards: 4})
	var asks []idempotency.Ask
	for i := range 1000 {
		asks = append(asks, idempotency.Ask{Key: fmt.Sprint(i), Lease: time.Minute})
	}
	claimed := claim(t, s, asks...)
	var done []idempotency.Settlement
	for i, a := range claimed {
		if a.Status != idempotency.Claimed {
			t.Fatalf("key %d: %+v", i, a)
		}
		done = append(done, idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence,
			Verb: idempotency.Complete, Result: []byte(asks[i].Key)})
	}
	settle(t, s, done...)
	for i, a := range claim(t, s, asks...) {
		if a.Status != idempotency.Done || string(a.Result) != asks[i].Key {
			t.Fatalf("key %d again: %+v", i, a)
		}
	}
	_, err := redisstore.Open(t.Context(), client, redisstore.Options{Name: name, Shards: 2})
	if _, ok := errors.AsType[*ackwise.HintError](err); !ok {
		t.Errorf("open with another number of shards: %v, want a hint", err)
	}
}

func TestRealTable(t *testing.T) {
	client := shared(t)
	var n int
	names := make(map[idempotency.Table]string)
	make := func(t *testing.T, name string) idempotency.Table {
		table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		names[table] = name
		t.Cleanup(func() { table.Close() })
		return table
	}
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table {
			n++
			return make(t, fmt.Sprint(name(t), n))
		},
		Reopen: func(t *testing.T, table idempotency.Table) idempotency.Table {
			if err := table.(*redisstore.Table).Close(); err != nil {
				t.Fatal(err)
			}
			return make(t, names[table])
		},
	})
}

// name returns one that no other run of a test has used on the shared server.
func name(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("real-", time.Now().UnixNano())
}

func claim(t *testing.T, s idempotency.Store, asks ...idempotency.Ask) []idempotency.Answer {
	t.Helper()
	answers, err := s.Claim(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func settle(t *testing.T, s idempotency.Store, claims ...idempotency.Settlement) {
	t.Helper()
	results, err := s.Settle(t.Context(), claims)
	if err = errors.Join(append(results, err)...); err != nil {
		t.Fatal(err)
	}
}

// What was acknowledged before the server was killed is done after its restart.
func TestRealServerIsKilled(t *testing.T) {
	server := servers.Start(t, "redis")
	s := open(t, connect(t, server.Address, tryOnce), redisstore.Options{Name: "killed"})
	const kills, workers, keys = 3, 4, 400
	var mu sync.Mutex // guards done and failed
	done := make(map[string]bool)
	failed := 0
	complete := func(key string) {
		for t.Context().Err() == nil {
			ok, err := once(t.Context(), s, key)
			mu.Lock()
			if err != nil {
				failed++
			} else if ok {
				done[key] = true
			}
			mu.Unlock()
			if ok {
				return
			}
			pause(2 * time.Millisecond)
		}
	}
	so := func(far func() bool) bool {
		mu.Lock()
		defer mu.Unlock()
		return far()
	}
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < keys; i += workers {
				complete(fmt.Sprint("key-", i))
			}
		})
	}
	for k := range kills {
		for !so(func() bool { return len(done) >= keys*(k+1)/(kills+1) }) {
			pause(time.Millisecond)
		}
		server.Kill(t)
		if _, err := once(t.Context(), s, fmt.Sprint("meanwhile-", k)); err == nil {
			t.Error("a server that was killed has answered")
		}
		server.Restart(t)
	}
	wg.Wait()
	for key := range done {
		if a := claim(t, s, idempotency.Ask{Key: key, Lease: time.Minute})[0]; a.Status !=
			idempotency.Done || string(a.Result) != key {
			t.Errorf("%s was completed and is now %s (%q)", key, a.Status, a.Result)
		}
	}
	t.Logf("%d keys completed, %d calls failed over %d kills", len(done), failed, kills)
}

// once claims and completes a key, and reports whether it is done.
func once(ctx context.Context, s idempotency.Store, key string) (bool, error) {
	answers, err := s.Claim(ctx, []idempotency.Ask{{Key: key, Lease: 50 * time.Millisecond}})
	if err != nil {
		return false, err
	}
	if answers[0].Status != idempotency.Claimed {
		return answers[0].Status == idempotency.Done, answers[0].Err
	}
	results, err := s.Settle(ctx, []idempotency.Settlement{{Key: key, Fence: answers[0].Fence,
		Verb: idempotency.Complete, Result: []byte(key)}})
	if err == nil {
		err = results[0]
	}
	return err == nil, err
}

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// A server that answers nothing is an error by the context's deadline, never an answer.
func TestRealServerIsFrozen(t *testing.T) {
	server := servers.Start(t, "redis")
	client := connect(t, server.Address)
	s := open(t, client, redisstore.Options{Name: "frozen"})
	table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: "frozen"})
	if err != nil {
		t.Fatal(err)
	}
	a := claim(t, s, idempotency.Ask{Key: "held", Lease: time.Minute})[0]
	server.Freeze(t)
	for what, use := range map[string]func(ctx context.Context) error{
		"claim": func(ctx context.Context) error {
			answers, err := s.Claim(ctx, []idempotency.Ask{{Key: "held", Lease: time.Minute}})
			if answers != nil {
				t.Errorf("a frozen server answered %+v", answers)
			}
			return err
		},
		"settle": func(ctx context.Context) error {
			_, err := s.Settle(ctx, []idempotency.Settlement{{Key: "held", Fence: a.Fence,
				Verb: idempotency.Extend, Lease: time.Minute}})
			return err
		},
		"read": func(ctx context.Context) error {
			_, err := table.Get(ctx, "key")
			return err
		},
		"put": func(ctx context.Context) error { return table.Put(ctx, "key", []byte("v")) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		begun := time.Now()
		err := use(ctx)
		cancel()
		took := time.Since(begun)
		if !errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
			t.Errorf("%s at a frozen server: %v after %s, want the context's end", what, err, took)
		}
	}
	server.Thaw(t)
	settle(t, s, idempotency.Settlement{Key: "held", Fence: a.Fence, Verb: idempotency.Complete})
}

// A server without memory takes no new key, forgets none, and still takes completions.
func TestRealServerIsFull(t *testing.T) {
	client := connect(t, servers.Start(t, "redis").Address)
	s := open(t, client, redisstore.Options{Name: "full"})
	table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: "full"})
	if err != nil {
		t.Fatal(err)
	}
	a := claim(t, s, idempotency.Ask{Key: "held", Lease: time.Minute},
		idempotency.Ask{Key: "done", Lease: time.Minute})
	settle(t, s, idempotency.Settlement{Key: "done", Fence: a[1].Fence, Verb: idempotency.Complete})
	if err := client.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	got := claim(t, s, idempotency.Ask{Key: "done", Lease: time.Minute},
		idempotency.Ask{Key: "new", Lease: time.Minute},
		idempotency.Ask{Key: "held", Lease: time.Minute})
	if got[0].Status != idempotency.Done || got[2].Status != idempotency.Busy {
		t.Errorf("known keys in a full server: %+v and %+v, want done and busy", got[0], got[2])
	}
	if !errors.Is(got[1].Err, ackwise.ErrFull) || got[1].Status != 0 {
		t.Errorf("a new key in a full server: %+v, want ErrFull", got[1])
	}
	if err := table.Put(t.Context(), "key", []byte("v")); !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("put in a full server: %v, want ErrFull", err)
	}
	settle(t, s, idempotency.Settlement{Key: "held", Fence: a[0].Fence, Verb: idempotency.Complete})
	if err := client.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	got = claim(t, s, idempotency.Ask{Key: "held", Lease: time.Minute},
		idempotency.Ask{Key: "new", Lease: time.Minute})
	if got[0].Status != idempotency.Done || got[1].Status != idempotency.Claimed {
		t.Errorf("with memory again: %+v, want done and claimed", got)
	}
}

// Each server that would forget is refused, with what to do.
func TestRealServerForgets(t *testing.T) {
	client := connect(t, servers.Start(t, "redis").Address)
	ctx := t.Context()
	set := func(name, value string) {
		t.Helper()
		if err := client.ConfigSet(ctx, name, value).Err(); err != nil {
			t.Fatal(err)
		}
	}
	try := func(p redisstore.Persistence) error {
		_, err := redisstore.Open(ctx, client, redisstore.Options{Name: "n", Persist: p})
		return err
	}
	refused := func(what string, err error) {
		t.Helper()
		if _, ok := errors.AsType[*ackwise.HintError](err); !ok {
			t.Errorf("open a server %s: %v, want a hint", what, err)
		}
	}
	for _, policy := range []string{"allkeys-lru", "volatile-ttl", "allkeys-random"} {
		set("maxmemory-policy", policy)
		refused("that evicts by "+policy, try(redisstore.PersistNone))
	}
	set("maxmemory-policy", "noeviction")
	if err := try(redisstore.PersistAlways); err != nil {
		t.Error(err)
	}
	set("appendfsync", "everysec")
	refused("that syncs each second", try(redisstore.PersistAlways))
	if err := try(redisstore.PersistSome); err != nil {
		t.Error(err)
	}
	set("appendonly", "no")
	refused("that writes nothing down", try(redisstore.PersistSome))
	if err := try(redisstore.PersistNone); err != nil {
		t.Error(err)
	}
	set("save", "3600 1")
	if err := try(redisstore.PersistSome); err != nil {
		t.Error(err)
	}
	deaf := redis.NewClient(&redis.Options{Addr: client.Options().Addr})
	defer deaf.Close()
	_, err := redisstore.Open(ctx, deaf, redisstore.Options{Name: "n"})
	refused("through a client without deadlines", err)
}

// A server that lost its scripts is given them again.
func TestRealScriptsAreFlushed(t *testing.T) {
	client := shared(t)
	s := open(t, client, redisstore.Options{Name: name(t)})
	for i := range 3 {
		if err := client.ScriptFlush(t.Context()).Err(); err != nil {
			t.Fatal(err)
		}
		key := fmt.Sprint(i)
		if ok, err := once(t.Context(), s, key); err != nil || !ok {
			t.Fatalf("complete a key after the scripts went: %t, %v", ok, err)
		}
	}
}

// The answer to a call is lost and the client asks again: the second ask finds what the first did.
func TestRealAnswersAreLost(t *testing.T) {
	var lose, lost atomic.Int32 // answers to lose; answers that were lost
	client := connect(t, servers.Address(t, "ACKWISE_TEST_REDIS"), func(o *redis.Options) {
		o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, address)
			return &lossy{Conn: c, lose: &lose, lost: &lost}, err
		}
	})
	s := open(t, client, redisstore.Options{Name: name(t)})
	table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: name(t)})
	if err != nil {
		t.Fatal(err)
	}
	if ok, err := once(t.Context(), s, "warm"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	lose.Store(1)
	a := claim(t, s, idempotency.Ask{Key: "m1", Lease: time.Minute},
		idempotency.Ask{Key: "m1", Lease: time.Minute})
	if a[0].Status != idempotency.Claimed || a[0].Takeover || a[1].Status != idempotency.Busy {
		t.Errorf("claimed twice, the answer lost: %+v, want claimed and busy", a)
	}
	lose.Store(1)
	settle(t, s, idempotency.Settlement{Key: "m1", Fence: a[0].Fence, Verb: idempotency.Complete})
	if err := table.Put(t.Context(), "k", []byte("warm")); err != nil {
		t.Fatal(err)
	}
	lose.Store(1)
	if err := table.Put(t.Context(), "k", []byte("v")); err != nil {
		t.Errorf("put, the answer lost: %v", err)
	}
	lose.Store(1)
	wrote, err := table.Upsert(t.Context(), "u", ackwise.Stamp{Millis: 1, Node: "n"}, []byte("v"))
	if err != nil || !wrote {
		t.Errorf("upsert, the answer lost: %t, %v", wrote, err)
	}
	if lost.Load() != 4 {
		t.Errorf("%d answers were lost, want 4", lost.Load())
	}
}

// A swap whose answer is lost is an error of unknown outcome, and never ErrChanged, which says that
// it wrote nothing: also where another one has built on it meanwhile.
func TestRealSwapAnswersAreLost(t *testing.T) {
	plain := shared(t)
	for _, c := range []struct {
		name      string
		swap      []byte
		meanwhile bool   // somebody swaps on top before the answer is lost
		want      string // what is there afterwards
	}{
		{"a value", []byte("old+a"), false, "old+a"},
		{"a removal", nil, false, ""},
		{"a value, built on", []byte("old+a"), true, "old+a+b"},
		{"a removal, built on", nil, true, "+b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := redisstore.TableOptions{Name: name(t)}
			b, err := redisstore.OpenTable(t.Context(), plain, o)
			if err != nil {
				t.Fatal(err)
			}
			var lose, lost atomic.Int32
			meanwhile := func() {
				if e, err := b.Get(t.Context(), "k"); err != nil {
					t.Error(err)
				} else if _, err = b.Swap(t.Context(), "k", e.Version,
					append(e.Data, "+b"...)); err != nil {
					t.Error(err)
				}
			}
			if !c.meanwhile {
				meanwhile = nil
			}
			client := connect(t, servers.Address(t, "ACKWISE_TEST_REDIS"), func(o *redis.Options) {
				o.Dialer = func(ctx context.Context, network, address string) (net.Conn, error) {
					c, err := new(net.Dialer).DialContext(ctx, network, address)
					return &lossy{Conn: c, lose: &lose, lost: &lost, meanwhile: meanwhile}, err
				}
			})
			a, err := redisstore.OpenTable(t.Context(), client, o)
			if err != nil {
				t.Fatal(err)
			}
			old, err := a.Swap(t.Context(), "k", 0, []byte("old"))
			if err != nil {
				t.Fatal(err)
			}
			lose.Store(1)
			_, err = a.Swap(t.Context(), "k", old, c.swap)
			if err == nil || errors.Is(err, idempotency.ErrChanged) || lost.Load() != 1 {
				t.Errorf("swap, %d answers lost: %v, want an error of unknown outcome", lost.Load(), err)
			}
			if e, err := b.Get(t.Context(), "k"); err != nil || string(e.Data) != c.want {
				t.Errorf("afterwards there is %q, %v, want %q", e.Data, err, c.want)
			}
		})
	}
}

// lossy breaks its connection in the place of an answer that has come.
type lossy struct {
	net.Conn
	lose, lost *atomic.Int32
	meanwhile  func() // between the two; nil = nothing
}

func (l *lossy) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if err == nil && n > 0 && l.lose.CompareAndSwap(1, 0) {
		l.lost.Add(1)
		if l.meanwhile != nil {
			l.meanwhile()
		}
		l.Close()
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// Nothing is left of the done keys of a store that nobody uses any more.
func TestRealBucketsGoByThemselves(t *testing.T) {
	client := shared(t)
	name := name(t)
	s := open(t, client, redisstore.Options{Name: name, Window: 2 * time.Second})
	for i := range 20 {
		if ok, err := once(t.Context(), s, fmt.Sprint(i)); err != nil || !ok {
			t.Fatal(ok, err)
		}
	}
	left := func() int {
		keys, err := client.Keys(t.Context(), "ackwise:dedup:{"+name+":0}:done:*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return len(keys)
	}
	if left() == 0 {
		t.Fatal("there are no buckets: the test looks at the wrong keys")
	}
	for end := time.Now().Add(30 * time.Second); left() > 0; pause(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d buckets are still there", left())
		}
	}
}

// In a cluster every script stays within one slot, and each server is looked at.
func TestRealCluster(t *testing.T) {
	server := servers.Start(t, "redis", "--cluster-enabled", "yes")
	node := connect(t, server.Address)
	if err := node.ClusterAddSlotsRange(t.Context(), 0, 16383).Err(); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); ; pause(10 * time.Millisecond) {
		state, err := node.ClusterInfo(t.Context()).Result()
		if err == nil && strings.Contains(state, "cluster_state:ok") {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("the cluster is not up: %v\n%s", err, state)
		}
	}
	client := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{node.Options().Addr},
		ContextTimeoutEnabled: true})
	defer client.Close()
	storetest.RunStore(t, harness(client, 1))
	sharded(t, client)
	if err := node.ConfigSet(t.Context(), "maxmemory-policy", "allkeys-lfu").Err(); err != nil {
		t.Fatal(err)
	}
	_, err := redisstore.Open(t.Context(), client, redisstore.Options{Name: "n"})
	if _, ok := errors.AsType[*ackwise.HintError](err); !ok {
		t.Errorf("open a cluster that evicts: %v, want a hint", err)
	}
}
