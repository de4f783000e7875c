package nakadi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	fake "github.com/ackwise/ackwise/test/nakadi"
)

func ordersBed(t *testing.T) *bed {
	t.Helper()
	b := newBed(t, fake.Options{})
	b.kind("orders", 4, nil)
	return b
}

const plain = "/orders?tls=false"

func TestPublish(t *testing.T) {
	for _, gzip := range []string{"", "&gzip=true"} {
		b := ordersBed(t)
		if got := classes(t, b.sink(plain+gzip), objects(3)...); got != "accepted accepted accepted" {
			t.Error(got)
		}
		if n := b.copies(); len(n) != 3 || n["m0"] != 1 {
			t.Errorf("stored %v", n)
		}
	}
}

// TestPartialIsUnknown: what 207 calls failed may be stored; sent again it has the same eid.
func TestPartialIsUnknown(t *testing.T) {
	b := ordersBed(t)
	sink := b.sink(plain)
	b.s.Inject(fake.Fault{Kind: fake.Partial, Times: 1, Every: 2, Store: true})
	if got := classes(t, sink, objects(4)...); got != "unknown accepted unknown accepted" {
		t.Error(got)
	}
	if got := classes(t, sink, object(0, "k0"), object(2, "k2")); got != "accepted accepted" {
		t.Error(got)
	}
	eids := map[int]int{}
	for _, n := range b.s.Copies("orders") {
		eids[n]++
	}
	if b.s.Fired(fake.Partial) != 1 || eids[2] != 2 || eids[1] != 2 {
		t.Errorf("eids by copies: %v", eids)
	}
}

// TestPoisonIsFound: the good ones of a batch get through in the same call, whatever the number of
// the bad ones, and whether Nakadi says which they are (422) or not (400).
func TestPoisonIsFound(t *testing.T) {
	for name, poison := range map[string][]int{"first": {0}, "last": {9}, "some": {2, 3, 7},
		"all": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}} {
		t.Run(name, func(t *testing.T) {
			b := ordersBed(t)
			b.s.Inject(fake.Fault{Kind: fake.Poison, Match: "PILL"})
			msgs := objects(10)
			want := strings.Fields(strings.Repeat("accepted ", 10))
			for _, i := range poison {
				msgs[i].Body = fmt.Appendf(nil, `{"key":"k","x":"PILL"}`)
				want[i] = "rejected"
			}
			if got := classes(t, b.sink(plain), msgs...); got != strings.Join(want, " ") {
				t.Error(got)
			}
			if n := len(b.s.Events("orders")); n != 10-len(poison) || b.s.Fired(fake.Poison) == 0 {
				t.Errorf("%d stored", n)
			}
		})
	}
}

func TestRefusalWithoutItems(t *testing.T) {
	b := ordersBed(t)
	// The first answers are 400 for the batch, its first half and its first quarter.
	b.s.Inject(fake.Fault{Kind: fake.Status, Code: 400, Times: 3})
	if got := classes(t, b.sink(plain), objects(4)...); got != "rejected accepted accepted accepted" {
		t.Error(got)
	}
	if n := len(b.s.Events("orders")); n != 3 || b.s.Fired(fake.Status) != 3 {
		t.Errorf("%d stored", n)
	}
}

func TestPoisonIsBounded(t *testing.T) {
	b := ordersBed(t)
	b.s.Inject(fake.Fault{Kind: fake.Poison, Match: "key"})
	got := classes(t, b.sink(plain+"&max_requests=2"), objects(5)...)
	if got != "rejected rejected rejected not-attempted not-attempted" {
		t.Error(got)
	}
}

// TestEachFault: what class each thing that goes wrong has, and what is stored.
func TestEachFault(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  fake.Fault
		want   string
		stored int
	}{
		{"no answer, not stored", fake.Fault{Kind: fake.Down, Times: 2}, "unknown unknown", 0},
		{"no answer, stored", fake.Fault{Kind: fake.LoseAnswer}, "unknown unknown", 2},
		{"500", fake.Fault{Kind: fake.Status, Code: 500}, "unknown unknown", 0},
		{"503 of its own", fake.Fault{Kind: fake.Status, Code: 503}, "retryable retryable", 0},
		{"403", fake.Fault{Kind: fake.Status, Code: 403}, "retryable retryable", 0},
		{"429", fake.Fault{Kind: fake.Status, Code: 429}, "retryable retryable", 0},
		{"a redirect", fake.Fault{Kind: fake.Status, Code: 307}, "retryable retryable", 0},
		{"413", fake.Fault{Kind: fake.Status, Code: 413}, "rejected rejected", 0},
		{"slow", fake.Fault{Kind: fake.Slow, Delay: 50 * time.Millisecond}, "accepted accepted", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := ordersBed(t)
			sink := b.sink(plain)
			b.s.Inject(c.fault)
			if got := classes(t, sink, objects(2)...); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
			if n := len(b.s.Events("orders")); n != c.stored || b.s.Fired(c.fault.Kind) == 0 {
				t.Errorf("%d stored, fired %d", n, b.s.Fired(c.fault.Kind))
			}
			b.s.Heal()
			if got := classes(t, sink, objects(2)...); got != "accepted accepted" {
				t.Errorf("again: %s", got)
			}
		})
	}
}

func TestTimeoutIsUnknown(t *testing.T) {
	b := ordersBed(t)
	sink := b.sink(plain + "&timeout=200ms")
	b.s.Inject(fake.Fault{Kind: fake.Slow, Delay: time.Second, Times: 1})
	if got := classes(t, sink, objects(1)...); got != "unknown" {
		t.Error(got)
	}
	until(t, "stored all the same", func() bool { return len(b.s.Events("orders")) == 1 })
}

func TestNobodyThereIsRetryable(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.host = "127.0.0.1:1"
	if got := classes(t, b.sink("?tls=false"), objects(2)...); got != "retryable not-attempted" {
		t.Error(got)
	}
}

func TestRetryAfter(t *testing.T) {
	b := ordersBed(t)
	sink := b.sink(plain)
	b.s.Inject(fake.Fault{Kind: fake.Status, Code: 503, RetryAfter: "7"})
	if r := sink.Publish(t.Context(), objects(1)); r[0].After != 7*time.Second {
		t.Errorf("%+v", r[0])
	}
}

// TestKeyIsInFlightOnce: of a key's run no message is sent before the one in front is accepted,
// also from several calls; nothing passes one that was not.
func TestKeyIsInFlightOnce(t *testing.T) {
	b := ordersBed(t)
	sink := b.sink(plain)
	b.s.Inject(fake.Fault{Kind: fake.Partial, Times: 1})
	got := classes(t, sink, object(0, "k"), object(1, "k"), object(2, "other"), object(3, "k"))
	if got != "unknown not-attempted unknown not-attempted" {
		t.Error(got)
	}
	if got := classes(t, sink, object(4, "k"), object(5, "k"), object(6, "k")); got !=
		"accepted accepted accepted" {
		t.Error(got)
	}
	// A slow request holds the key; the next call waits for it.
	b.s.Inject(fake.Fault{Kind: fake.Slow, Delay: 300 * time.Millisecond, Times: 1})
	var wg sync.WaitGroup
	wg.Go(func() { classes(t, sink, object(7, "k"), object(8, "a")) })
	until(t, "slow", func() bool { return b.s.Fired(fake.Slow) == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if r := sink.Publish(ctx, []ackwise.Message{object(9, "k")}); r[0].Class !=
		ackwise.ResultNotAttempted {
		t.Errorf("a second one of the key: %+v", r[0])
	}
	if got := classes(t, sink, object(10, "k")); got != "accepted" {
		t.Error(got)
	}
	wg.Wait()
	var order []string
	for _, e := range b.s.Events("orders") {
		if text := string(e.Event); strings.Contains(text, `"key":"k"`) {
			order = append(order, text[strings.Index(text, `"n":`)+4:])
		}
	}
	if text := fmt.Sprint(order); strings.Index(text, "7}") > strings.Index(text, "10}") {
		t.Error("10 is stored before 7")
	}
}

func TestWhatIsRejected(t *testing.T) {
	b := ordersBed(t)
	b.kind("compacted", 1, map[string]any{"cleanup_policy": "compact"})
	sink := b.sink("?tls=false")
	for name, m := range map[string]ackwise.Message{
		"no JSON":             {Topic: "orders", Body: []byte("text")},
		"nil":                 {Topic: "orders"},
		"no object":           {Topic: "orders", Body: []byte("[1]")},
		"metadata of its own": {Topic: "orders", Body: []byte(`{"metadata":{"a":1}}`)},
		"1000500 bytes": {Topic: "orders",
			Body: []byte(`{"x":"` + strings.Repeat("y", 1_000_350) + `"}`)},
		"no name of an event": {Topic: "9", Body: []byte("{}")},
		"needs one":           {Topic: "compacted", Body: []byte("{}")},
		"Failed to get value": {Topic: "orders", Body: []byte("{}")},
		"the name is not valid ": {Topic: "orders", Body: []byte("{}"),
			Headers: []ackwise.Header{{Name: "\xff"}}},
	} {
		r := sink.Publish(t.Context(), []ackwise.Message{m})[0]
		if r.Class != ackwise.ResultRejected {
			t.Errorf("%s: %s %v", name, r.Class, r.Err)
		}
		if name[0] == '1' && (!errors.Is(r.Err, ackwise.ErrTooLarge) ||
			!strings.Contains(r.Err.Error(), "999000")) {
			t.Errorf("too large: %v", r.Err)
		}
	}
	if len(b.s.Events("orders")) > 0 {
		t.Error("something is stored")
	}
	got := sink.Publish(t.Context(), []ackwise.Message{{Topic: "unknown", Body: []byte("{}")}})[0]
	if got.Class != ackwise.ResultRetryable || !strings.Contains(got.Err.Error(), "hint") {
		t.Errorf("unknown type: %+v", got)
	}
}

// TestTokens: a token is read for each request; one that has expired is read anew once.
func TestTokens(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.s.SetTokens(map[string]string{"tok-one": "me"})
	path := filepath.Join(t.TempDir(), "token")
	put := func(token string) {
		if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("tok-one")
	sink := b.sink(plain + "&token=file:" + path)
	if got := classes(t, sink, objects(1)...); got != "accepted" {
		t.Error(got)
	}
	b.s.SetTokens(map[string]string{"tok-two": "me"})
	r := sink.Publish(t.Context(), objects(1))[0]
	if r.Class != ackwise.ResultRetryable || !strings.Contains(r.Err.Error(), "option token") ||
		strings.Contains(r.Err.Error(), "tok-") {
		t.Errorf("expired: %+v", r)
	}
	put("tok-two")
	if got := classes(t, sink, objects(1)...); got != "accepted" {
		t.Error(got)
	}
}

func TestUserDefinedPartitions(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 4, map[string]any{"partition_strategy": "user_defined"})
	sink := b.sink(plain)
	if got := classes(t, sink, object(1, "a"), object(2, "a"), object(3, "b")); strings.Count(got,
		"accepted") != 3 {
		t.Error(got)
	}
	at := map[string]string{}
	for _, e := range b.s.Events("orders") {
		at[e.EID] = e.Partition
	}
	if len(at) != 3 { // java: "a" = 97, by 4 = 1; "b" = 98, by 4 = 2
		t.Errorf("%v", at)
	}
	parts := map[string]int{}
	for _, p := range at {
		parts[p]++
	}
	if parts["1"] != 2 || parts["2"] != 1 {
		t.Errorf("%v", parts)
	}
}
