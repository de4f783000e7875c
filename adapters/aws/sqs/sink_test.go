package sqs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

func classes(rs []ackwise.Result) string {
	var all []string
	for _, r := range rs {
		all = append(all, r.Class.String())
	}
	return strings.Join(all, " ")
}

func wantClasses(t *testing.T, rs []ackwise.Result, want string) {
	t.Helper()
	if got := classes(rs); got != want {
		t.Errorf("got %s\nwant %s", got, want)
		for _, r := range rs {
			t.Logf("%s: %v", r.Class, r.Err)
		}
	}
	for i, r := range rs {
		if (r.Err == nil) != (r.Class == ackwise.ResultAccepted) {
			t.Errorf("result %d: %s with %v", i, r.Class, r.Err)
		}
	}
}

func TestClasses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		fault fakeFault
		want  string
	}{
		"entry, ours": {fakeFault{entry: "InvalidMessageContents", index: 1},
			"accepted rejected accepted"},
		"entry, theirs": {fakeFault{entry: "InternalError", index: 1}, "accepted unknown accepted"},
		"entry, late": {fakeFault{entry: "InternalError", index: 0, late: true},
			"unknown accepted accepted"},
		"entry, throttled": {fakeFault{entry: "RequestThrottled", index: 2},
			"accepted accepted retryable"},
		"not named":  {fakeFault{entry: unnamed, index: 1}, "accepted unknown accepted"},
		"throttled":  {fakeFault{code: "RequestThrottled"}, "retryable retryable retryable"},
		"denied":     {fakeFault{code: "AccessDeniedException"}, "retryable retryable retryable"},
		"expired":    {fakeFault{code: "ExpiredToken"}, "retryable retryable retryable"},
		"server":     {fakeFault{code: "InternalError"}, "unknown unknown unknown"},
		"cut":        {fakeFault{cut: true}, "unknown unknown unknown"},
		"other":      {fakeFault{code: "NeverHeardOf"}, "unknown unknown unknown"},
		"as a whole": {fakeFault{code: "BatchRequestTooLong"}, "accepted accepted accepted"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			_, snk := openBoth(t, f, "q", "")
			c.fault.action, c.fault.times = "SendMessageBatch", 1
			f.fail(c.fault)
			wantClasses(t, snk.Publish(t.Context(), keyed("", "1", "2", "3")), c.want)
		})
	}
	t.Run("unreached", func(t *testing.T) {
		f := newFake(t)
		_, snk := openBoth(t, f, "q", "")
		snk.q.api = unreached(snk)
		wantClasses(t, snk.Publish(t.Context(), keyed("", "1")), "retryable")
	})
	t.Run("not sent", func(t *testing.T) {
		f := newFake(t)
		_, snk := openBoth(t, f, "q", "")
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		wantClasses(t, snk.Publish(ctx, keyed("", "1")), "not-attempted")
	})
	t.Run("gone", func(t *testing.T) {
		f := newFake(t)
		_, snk := openBoth(t, f, "q", "")
		f.mu.Lock()
		delete(f.queues, "q")
		f.mu.Unlock()
		rs := snk.Publish(t.Context(), keyed("", "1"))
		wantClasses(t, rs, "retryable")
		if !strings.Contains(rs[0].Err.Error(), "the queue q is gone") {
			t.Error(rs[0].Err)
		}
	})
}

// Batches hold at most ten messages and 1 MiB.
func TestBatches(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, snk := openBoth(t, f, "q", "")
	var ms []ackwise.Message
	for i := range 25 {
		ms = append(ms, ackwise.Message{ID: fmt.Sprint(i)})
	}
	publish(t, snk, ms...)
	if n := f.count("SendMessageBatch"); n != 3 {
		t.Errorf("%d calls for 25 messages", n)
	}
	big := bytes.Repeat([]byte("b"), 700_000)
	binary := bytes.Repeat([]byte{0xff}, 780_000) // 1,040,000 as base64
	publish(t, snk, ackwise.Message{ID: "a", Body: big}, ackwise.Message{ID: "b", Body: big},
		ackwise.Message{ID: "c", Body: binary})
	if n := f.count("SendMessageBatch"); n != 6 {
		t.Errorf("%d calls for three large ones", n-3)
	}
	rs := snk.Publish(t.Context(), []ackwise.Message{{ID: "1", Body: bytes.Repeat(big, 2)}, {ID: "2"},
		{ID: "a\x00b"}, {ID: "3", Key: strings.Repeat("k", 2000)}, {}})
	wantClasses(t, rs, "rejected accepted rejected rejected accepted")
	if !errors.Is(rs[0].Err, ackwise.ErrTooLarge) || rs[4].ID == "" {
		t.Errorf("got %v, %q", rs[0].Err, rs[4].ID)
	}
}

// The queue's own limit counts.
func TestQueuesLimit(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	openBoth(t, f, "q", "")
	f.mu.Lock()
	f.queues["q"].attributes["MaximumMessageSize"] = "1024"
	f.mu.Unlock()
	snk := openTestSink(t, f, "q", "")
	rs := snk.Publish(t.Context(), []ackwise.Message{{ID: "1", Body: make([]byte, 1024)}, {ID: "2"}})
	wantClasses(t, rs, "rejected accepted")
	if !errors.Is(rs[0].Err, ackwise.ErrTooLarge) {
		t.Errorf("it was sent, it seems: %v", rs[0].Err)
	}
}

func TestFIFOSinkStopsTheGroup(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	ms := append(keyed("k", "1", "2", "3"), keyed("l", "4", "5")...)
	ms = append(ms, keyed("", "6", "7")...)
	f.fail(fakeFault{action: "SendMessageBatch", times: 1, entry: "InternalError", index: 0})
	rs := snk.Publish(t.Context(), ms)
	wantClasses(t, rs, "unknown not-attempted not-attempted accepted accepted accepted accepted")
	publish(t, snk, ms...) // again, with the same IDs
	got := take(t, src, 7)
	want := map[string]string{"k": "1 2 3", "l": "4 5", "": "6 7"}
	for key, ids := range want {
		var have []string
		for _, d := range got {
			if d.Key == key {
				have = append(have, d.ID)
			}
		}
		if strings.Join(have, " ") != ids {
			t.Errorf("key %q: %v, want %s", key, have, ids)
		}
	}
	if n := len(f.stored("q.fifo")); n != 7 {
		t.Errorf("%d messages, want each once", n)
	}
}

// A resend of what may have been accepted is one message of a FIFO queue, and may be two of
// another.
func TestUnknownResent(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"q.fifo": 1, "q": 2} {
		f := newFake(t)
		_, snk := openBoth(t, f, name, "")
		f.fail(fakeFault{action: "SendMessageBatch", times: 1, cut: true})
		wantClasses(t, snk.Publish(t.Context(), keyed("k", "1")), "unknown")
		publish(t, snk, keyed("k", "1")...)
		if got := len(f.stored(name)); got != want {
			t.Errorf("%s holds %d", name, got)
		}
	}
}

// Groups and deduplication IDs are such as the service takes.
func TestTokens(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("k", 129)
	for name, c := range map[string]struct {
		m          ackwise.Message
		group, dup string // "" = a hash
	}{
		"plain":     {ackwise.Message{ID: "1", Key: "N12345"}, "N12345", "1"},
		"space":     {ackwise.Message{ID: "a b", Key: "a b"}, "", ""},
		"bytes":     {ackwise.Message{ID: "ü", Key: "\xff"}, "", ""},
		"long":      {ackwise.Message{ID: long, Key: long}, "", ""},
		"like ours": {ackwise.Message{ID: "~1", Key: "~x"}, "", ""},
		"no key":    {ackwise.Message{ID: "1"}, "", "1"},
		"redone":    {ackwise.Message{ID: "1", Headers: header(ackwise.HeaderEpoch, "1")}, "", ""},
		"redriven":  {ackwise.Message{ID: "1", Headers: header(ackwise.HeaderRedrives, "2")}, "", ""},
		"never":     {ackwise.Message{ID: "1", Headers: header(ackwise.HeaderRedrives, "0")}, "", "1"},
		"a letter":  {ackwise.Message{ID: "1", Headers: header(ackwise.HeaderPipeline, "p")}, "", ""},
	} {
		for got, want := range map[string]string{attr.Group(&c.m): c.group, attr.DedupID(&c.m): c.dup} {
			switch {
			case !groupToken.MatchString(got):
				t.Errorf("%s: %q is refused by the service", name, got)
			case want != "" && got != want, want == "" && !strings.HasPrefix(got, "~"):
				t.Errorf("%s: got %q, want %q", name, got, want)
			}
		}
	}
}

func header(name, value string) []ackwise.Header {
	return []ackwise.Header{{Name: name, Value: []byte(value)}}
}

// The service forgets an ID after 5 minutes.
func TestFIFODedupWindow(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "1")...)
	f.advance(5 * time.Minute)
	publish(t, snk, keyed("k", "1")...)
	if n := len(f.stored("q.fifo")); n != 2 {
		t.Errorf("%d messages", n)
	}
}
