package ddbstore_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/ddbstore"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/storetest"
	"github.com/ackwise/ackwise/test/servers"
)

const table = "ackwise"

// connect makes a client of a server's address, and the DynamoDB table.
func connect(t *testing.T, address string, with ...func(*dynamodb.Options)) *dynamodb.Client {
	t.Helper()
	client := dynamodb.New(dynamodb.Options{
		Region:       "eu-central-1",
		BaseEndpoint: aws.String(address),
		Credentials:  credentials.NewStaticCredentialsProvider("local", "local", ""),
	}, with...)
	if err := ddbstore.CreateTable(t.Context(), client, table); err != nil {
		t.Fatal(err)
	}
	return client
}

func shared(t *testing.T) *dynamodb.Client {
	t.Helper()
	return connect(t, servers.Address(t, "ACKWISE_TEST_DYNAMODB"))
}

func open(t *testing.T, api ddbstore.API, o ddbstore.Options) *ddbstore.Store {
	t.Helper()
	o.Table = table
	s, err := ddbstore.Open(t.Context(), api, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRealStore(t *testing.T) {
	client := shared(t)
	make := func(t *testing.T, o storetest.StoreOptions) idempotency.Store {
		return open(t, client, ddbstore.Options{Name: o.Name, Window: o.Window,
			MaxSkew: time.Millisecond, MaxKeys: o.MaxKeys})
	}
	storetest.RunStore(t, storetest.StoreHarness{
		Shared: true,
		Excess: 1,               // two handles are two counters
		Window: 2 * time.Second, // a claim that is held for longer counts no more
		Open:   make,
		Reopen: func(t *testing.T, s idempotency.Store, o storetest.StoreOptions) idempotency.Store {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return make(t, o)
		},
	})
}

func TestRealTable(t *testing.T) {
	client := shared(t)
	names := make(map[idempotency.Table]string)
	make := func(t *testing.T, name string) idempotency.Table {
		one, err := ddbstore.OpenTable(t.Context(), client,
			ddbstore.TableOptions{Table: table, Name: name})
		if err != nil {
			t.Fatal(err)
		}
		names[one] = name
		t.Cleanup(func() { one.Close() })
		return one
	}
	storetest.RunTable(t, storetest.TableHarness{
		Open: func(t *testing.T) idempotency.Table { return make(t, name()) },
		Reopen: func(t *testing.T, one idempotency.Table) idempotency.Table {
			if err := one.(*ddbstore.Table).Close(); err != nil {
				t.Fatal(err)
			}
			return make(t, names[one])
		},
	})
}

// name returns one that no other run of a test has used on the shared server.
func name() string { return fmt.Sprint("real-", time.Now().UnixNano()) }

// What was acknowledged before the server was killed is done after its restart.
func TestRealServerIsKilled(t *testing.T) {
	t.Parallel() // a server takes seconds to start
	server := servers.Start(t, "dynamodb")
	client := connect(t, server.Address, func(o *dynamodb.Options) { o.RetryMaxAttempts = 1 })
	s := open(t, client, ddbstore.Options{Name: "killed"})
	const workers, keys = 4, 60
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
			pause(20 * time.Millisecond)
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
	for !so(func() bool { return len(done) >= keys/2 }) {
		pause(time.Millisecond)
	}
	server.Kill(t)
	for !so(func() bool { return failed > 0 }) {
		pause(time.Millisecond)
	}
	server.Restart(t)
	wg.Wait()
	for key := range done {
		answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: key, Lease: time.Minute}})
		if err != nil {
			t.Fatal(err)
		}
		if a := answers[0]; a.Status != idempotency.Done || string(a.Result) != key {
			t.Errorf("%s was completed and is now %s (%q)", key, a.Status, a.Result)
		}
	}
	t.Logf("%d keys completed, %d calls failed", len(done), failed)
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
	t.Parallel()
	server := servers.Start(t, "dynamodb")
	client := connect(t, server.Address)
	s := open(t, client, ddbstore.Options{Name: "frozen"})
	one, err := ddbstore.OpenTable(t.Context(), client,
		ddbstore.TableOptions{Table: table, Name: "frozen"})
	if err != nil {
		t.Fatal(err)
	}
	asks := []idempotency.Ask{{Key: "held", Lease: time.Minute}}
	answers, err := s.Claim(t.Context(), asks)
	if err != nil {
		t.Fatal(err)
	}
	complete := []idempotency.Settlement{{Key: "held", Fence: answers[0].Fence,
		Verb: idempotency.Complete}}
	server.Freeze(t)
	for what, use := range map[string]func(ctx context.Context) error{
		"claim": func(ctx context.Context) error {
			answers, err := s.Claim(ctx, asks)
			if answers != nil {
				t.Errorf("a frozen server answered %+v", answers)
			}
			return err
		},
		"settle": func(ctx context.Context) error {
			_, err := s.Settle(ctx, complete)
			return err
		},
		"read": func(ctx context.Context) error {
			_, err := one.Get(ctx, "key")
			return err
		},
		"put": func(ctx context.Context) error { return one.Put(ctx, "key", []byte("v")) },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		begun := time.Now()
		err := use(ctx)
		cancel()
		took := time.Since(begun)
		if !errors.Is(err, context.DeadlineExceeded) || took > 10*time.Second {
			t.Errorf("%s at a frozen server: %v after %s, want the context's end", what, err, took)
		}
	}
	server.Thaw(t)
	results, err := s.Settle(t.Context(), complete)
	if err = errors.Join(append(results, err)...); err != nil {
		t.Error(err)
	}
}

// The answer to a write is lost and the client writes again: the second finds what the first did. A
// swap it does not write again: that it wrote, or did not, is unknown.
func TestRealAnswersAreLost(t *testing.T) {
	lossy := &lossy{}
	client := connect(t, servers.Address(t, "ACKWISE_TEST_DYNAMODB"), func(o *dynamodb.Options) {
		o.HTTPClient = lossy
	})
	s := open(t, client, ddbstore.Options{Name: name()})
	lossy.lose.Store(true)
	answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}})
	if err != nil || answers[0].Status != idempotency.Claimed || answers[0].Takeover {
		t.Fatalf("claimed twice, the answer lost: %+v, %v, want claimed", answers, err)
	}
	lossy.lose.Store(true)
	results, err := s.Settle(t.Context(), []idempotency.Settlement{{Key: "m1",
		Fence: answers[0].Fence, Verb: idempotency.Complete}})
	if err = errors.Join(append(results, err)...); err != nil {
		t.Errorf("completed twice, the answer lost: %v", err)
	}
	one, err := ddbstore.OpenTable(t.Context(), client,
		ddbstore.TableOptions{Table: table, Name: name()})
	if err != nil {
		t.Fatal(err)
	}
	for _, data := range [][]byte{[]byte("v"), nil} {
		e, err := one.Get(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		lossy.lose.Store(true)
		if _, err = one.Swap(t.Context(), "k", e.Version, data); err == nil ||
			errors.Is(err, idempotency.ErrChanged) {
			t.Errorf("swap to %q, the answer lost: %v, want an error of unknown outcome", data, err)
		}
		if e, err = one.Get(t.Context(), "k"); err != nil || string(e.Data) != string(data) {
			t.Errorf("after the swap to %q there is %q, %v", data, e.Data, err)
		}
	}
	lossy.lose.Store(true)
	wrote, err := one.Upsert(t.Context(), "u", ackwise.Stamp{Millis: 1, Node: "n"}, []byte("v"))
	if err != nil || !wrote {
		t.Errorf("upsert, the answer lost: %t, %v", wrote, err)
	}
	if lossy.lost.Load() != 5 {
		t.Errorf("%d answers were lost, want 5", lossy.lost.Load())
	}
}

// lossy breaks the connection in the place of an answer to a write that has come.
type lossy struct {
	lose atomic.Bool
	lost atomic.Int32
}

func (l *lossy) Do(r *http.Request) (*http.Response, error) {
	answer, err := http.DefaultClient.Do(r)
	if err == nil && l.lose.CompareAndSwap(true, false) {
		l.lost.Add(1)
		answer.Body.Close()
		return nil, &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	}
	return answer, err
}
