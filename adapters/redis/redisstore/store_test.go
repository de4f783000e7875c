package redisstore_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/redis/redisstore"
	"github.com/ackwise/ackwise/idempotency"
)

// config is the answer of a server to Open.
func config() string { return list(bulk("24h0m0s"), bulk("1")) }

// openFake opens a store on a fake that answers the script after Open's with reply.
func openFake(t *testing.T, reply string) *redisstore.Store {
	t.Helper()
	client, _ := fakeClient(func(_ string, n int) string {
		if n == 0 {
			return config()
		}
		return reply
	})
	t.Cleanup(func() { client.Close() })
	s, err := redisstore.Open(t.Context(), client, redisstore.Options{Name: "store"})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Whatever the server says that is not an answer is an error of the call, and never one of "done".
func TestErrorsOfTheServer(t *testing.T) {
	for _, c := range []struct {
		name, reply string
		full        bool
	}{
		{"loading", "-LOADING Redis is loading the dataset in memory\r\n", false},
		{"a replica", "-READONLY You can't write against a read only replica.\r\n", false},
		{"a cluster that is down", "-CLUSTERDOWN The cluster is down\r\n", false},
		{"a slot that moves", "-TRYAGAIN Multiple keys request during rehashing of slot\r\n", false},
		{"a disk that fails", "-MISCONF Errors writing to the AOF file\r\n", false},
		{"no password", "-NOAUTH Authentication required.\r\n", false},
		{"a busy script", "-BUSY Redis is busy running a script.\r\n", false},
		{"no memory", "-OOM command not allowed when used memory > 'maxmemory'.\r\n", true},
		{"no memory within a script", "-ERR Error running script: @user_script:1: -OOM command " +
			"not allowed when used memory > 'maxmemory'.\r\n", true},
		{"nil", "$-1\r\n", false},
		{"a word", "+OK\r\n", false},
		{"an empty list", list(), false},
		{"two answers to one ask", list(list(bulk("conflict")), list(bulk("conflict"))), false},
		{"an unknown word", list(list(bulk("free"))), false},
		{"done without a time", list(list(bulk("done"))), false},
		{"done without a result", list(list(bulk("done"), ":1\r\n")), false},
		{"claimed without a fence", list(list(bulk("claimed"))), false},
		{"claimed with a word", list(list(bulk("claimed"), bulk("x"), ":0\r\n")), false},
		{"busy without a time", list(list(bulk("busy"))), false},
		{"a number", list(":7\r\n"), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openFake(t, c.reply)
			ask := []idempotency.Ask{{Key: "m1", Lease: time.Minute}}
			answers, err := s.Claim(t.Context(), ask)
			if err == nil || answers != nil || errors.Is(err, ackwise.ErrFull) != c.full {
				t.Errorf("claim: %+v, %v; want an error, full: %t", answers, err, c.full)
			}
			results, err := s.Settle(t.Context(), []idempotency.Settlement{{Key: "m1", Fence: 1,
				Verb: idempotency.Complete}})
			if err == nil || results != nil || errors.Is(err, ackwise.ErrFull) != c.full {
				t.Errorf("settle: %v, %v; want an error, full: %t", results, err, c.full)
			}
		})
	}
}

// A server that does not know a script is sent it, once.
func TestScriptsAreSentOnce(t *testing.T) {
	client, f := fakeClient(func(command string, n int) string {
		switch {
		case command == "EVALSHA":
			return "-NOSCRIPT No matching script.\r\n"
		case n == 1:
			return config()
		}
		return list(list(bulk("conflict")))
	})
	defer client.Close()
	s, err := redisstore.Open(t.Context(), client, redisstore.Options{Name: "store"})
	if err != nil {
		t.Fatal(err)
	}
	answers, err := s.Claim(t.Context(), []idempotency.Ask{{Key: "m1", Lease: time.Minute}})
	if err != nil || answers[0].Status != idempotency.Conflict {
		t.Errorf("claim: %+v, %v, want what the script answers", answers, err)
	}
	if want := []string{"EVALSHA", "EVAL", "EVALSHA", "EVAL"}; !slices.Equal(f.calls, want) {
		t.Errorf("the server was sent %q, want %q", f.calls, want)
	}
}

// A swap whose answer is lost is sent once, by a client that repeats whatever it may, and applied
// once: its outcome is unknown. What may be repeated is.
func TestLostSwapIsSentOnce(t *testing.T) {
	for _, c := range []struct {
		name    string
		answers []string // after that of OpenTable; "" = it is lost
		use     func(table *redisstore.Table) error
		fails   bool
	}{
		{"swap", []string{""}, func(table *redisstore.Table) error {
			_, err := table.Swap(t.Context(), "k", 0, []byte("v"))
			return err
		}, true},
		{"removal", []string{""}, func(table *redisstore.Table) error {
			_, err := table.Swap(t.Context(), "k", 7, nil)
			return err
		}, true},
		{"apply", []string{list(), ""}, func(table *redisstore.Table) error {
			_, err := idempotency.Apply(t.Context(), table, "k",
				func([]byte) ([]byte, error) { return []byte("v"), nil })
			return err
		}, true},
		{"put", []string{"", list(bulk("wrote"), ":7\r\n")}, func(table *redisstore.Table) error {
			return table.Put(t.Context(), "k", []byte("v"))
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			client, f := fakeClient(func(_ string, n int) string {
				if n == 0 {
					return list(bulk("1"))
				}
				if n > len(c.answers) {
					return list(bulk("changed"))
				}
				return c.answers[n-1]
			}, func(o *redis.Options) { o.MaxRetries, o.MinRetryBackoff = 3, -1 })
			defer client.Close()
			table, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{Name: "t"})
			if err != nil {
				t.Fatal(err)
			}
			err = c.use(table)
			if (err != nil) != c.fails || errors.Is(err, idempotency.ErrChanged) {
				t.Errorf("the answer was lost: %v, want an error that is not ErrChanged: %t", err,
					c.fails)
			}
			if want := 1 + len(c.answers); len(f.calls) != want {
				t.Errorf("the server ran %d scripts, want %d", len(f.calls), want)
			}
		})
	}
}

func TestOptions(t *testing.T) {
	client, f := fakeClient(func(string, int) string { return config() })
	defer client.Close()
	for _, c := range []struct {
		o    redisstore.Options
		want string
	}{
		{redisstore.Options{}, "invalid dedup store"},
		{redisstore.Options{Name: "a:b"}, "invalid dedup store"},
		{redisstore.Options{Name: "n", Window: time.Millisecond}, "invalid Window"},
		{redisstore.Options{Name: "n", MaxKeys: -1}, "invalid MaxKeys"},
		{redisstore.Options{Name: "n", Shards: 257}, "invalid Shards"},
		{redisstore.Options{Name: "n", Persist: 9}, "invalid Persist"},
	} {
		if _, err := redisstore.Open(t.Context(), client, c.o); err == nil ||
			!strings.Contains(err.Error(), c.want) {
			t.Errorf("open with %+v: %v, want %q", c.o, err, c.want)
		}
	}
	if _, err := redisstore.OpenTable(t.Context(), client, redisstore.TableOptions{}); err == nil {
		t.Error("a table without a name is opened")
	}
	if len(f.calls) != 0 {
		t.Errorf("the server was asked %q before the options were checked", f.calls)
	}
	_, err := redisstore.Open(t.Context(), client, redisstore.Options{Name: "n", Window: time.Hour})
	if _, ok := errors.AsType[*ackwise.HintError](err); !ok ||
		!strings.Contains(err.Error(), "a window of 24h0m0s and 1 shards, not 1h0m0s and 1") {
		t.Errorf("open with another window: %v, want a hint that names both", err)
	}
	ring := redis.NewRing(&redis.RingOptions{})
	defer ring.Close()
	if _, err := redisstore.Open(t.Context(), ring, redisstore.Options{Name: "n"}); err == nil {
		t.Error("a Ring is accepted")
	}
}
