package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise/test/lambdahost"
)

// target is a receiver that notes what it accepted, in its order.
type target struct {
	url string

	mu    sync.Mutex // guards the fields below
	got   []string   // IDs
	tries map[string]int
	// answer says what a try of an ID is answered: 0 = accepted. It is called outside of mu.
	answer func(id string, try int, r *http.Request) int
	// name names a message by its body. Default: nil, the ID is its name.
	name func(body []byte) string
}

func newTarget(t *testing.T, answer func(id string, try int, r *http.Request) int) *target {
	t.Helper()
	a := &target{tries: map[string]int{}, answer: answer}
	s := httptest.NewServer(http.HandlerFunc(a.serve))
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

func (a *target) serve(w http.ResponseWriter, r *http.Request) {
	id := r.Header.Get("webhook-id")
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if a.name != nil {
		id = a.name(body)
	}
	a.mu.Lock()
	a.tries[id]++
	try := a.tries[id]
	a.mu.Unlock()
	status := a.answer(id, try, r)
	if status == 0 {
		a.mu.Lock()
		a.got = append(a.got, id)
		a.mu.Unlock()
		status = http.StatusNoContent
	}
	w.WriteHeader(status)
}

func (a *target) accepted() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.got)
}

func (a *target) tried(id string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.tries[id]
}

// lambdaOf is the real binary as a function.
func lambdaOf(t *testing.T, timeout time.Duration, env ...string) *lambdahost.Host {
	t.Helper()
	var log bytes.Buffer
	h, err := lambdahost.New(lambdahost.Options{Command: []string{built(t)}, Timeout: timeout,
		Log: &log,
		Env: append([]string{"AWS_ACCESS_KEY_ID=test", "AWS_SECRET_ACCESS_KEY=test",
			"AWS_REGION=eu-central-1"}, env...)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the function printed:\n%s", &log)
		}
	})
	return h
}

// changes are the records of a stream, of a few items.
func changes(n, items int) []lambdahost.Record {
	var rs []lambdahost.Record
	for i := 1; i <= n; i++ {
		key := fmt.Sprintf("item-%d", i%items)
		rs = append(rs, lambdahost.Record{Sequence: fmt.Sprintf("%021d", i), Key: key, Time: time.Now(),
			Data: json.RawMessage(fmt.Sprintf(`{"eventID":"e%d","eventName":"MODIFY",
				"eventSource":"aws:dynamodb","dynamodb":{"Keys":{"id":{"S":%q}},
				"NewImage":{"id":{"S":%q}},"SequenceNumber":"%021d"},"eventSourceARN":
				"arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/x"}`, i, key, key, i))})
	}
	return rs
}

const patience = 60 * time.Second

// stream runs a mapping until the condition holds.
func stream(t *testing.T, m lambdahost.Mapping, s lambdahost.Shards, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := m.RunStream(ctx, s); err != nil {
			t.Error(err)
		}
	})
	until(t, ctx, done)
	cancel()
	wg.Wait()
}

func until(t *testing.T, ctx context.Context, done func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Errorf("it did not come so far within %s", patience)
			return
		}
	}
}

// ordered reports the first two of an item that stand in the wrong order, by their first copies.
func ordered(ids []string, items int) error {
	last, seen := map[int]int{}, map[string]bool{}
	for _, id := range ids {
		var n int
		if _, err := fmt.Sscanf(id, "e%d", &n); err != nil {
			return err
		}
		if seen[id] {
			continue
		}
		seen[id] = true
		if last[n%items] > n {
			return fmt.Errorf("e%d came after e%d", n, last[n%items])
		}
		last[n%items] = n
	}
	return nil
}

func distinct(ids []string) int {
	ids = slices.Clone(ids)
	slices.Sort(ids)
	return len(slices.Compact(ids))
}

// TestKilledInFlight kills the process while a message is at the target: nothing is lost, the
// order of each item holds, and what came twice is what a kill explains.
func TestKilledInFlight(t *testing.T) {
	t.Parallel()
	const n, items, kills = 60, 4, 4
	var h *lambdahost.Host
	var mu sync.Mutex // guards killed
	killed := 0
	a := newTarget(t, func(id string, try int, r *http.Request) int {
		mu.Lock()
		defer mu.Unlock()
		var at int
		if _, err := fmt.Sscanf(id, "e%d", &at); err != nil {
			return http.StatusBadRequest
		}
		if try == 1 && at%7 == 3 && killed < kills {
			killed += h.Kill() // the target has it, and its answer is lost
		}
		return 0
	})
	h = lambdaOf(t, 20*time.Second, "ACKWISE_TO="+a.url+"/in")
	stream(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true, BatchSize: 20},
		lambdahost.Fixed{"s": changes(n, items)}, func() bool { return distinct(a.accepted()) == n })
	got := a.accepted()
	if killed != kills || h.Starts() != kills+1 {
		t.Errorf("%d kills in flight and %d processes, want %d and %d", killed, h.Starts(), kills,
			kills+1)
	}
	if err := ordered(got, items); err != nil {
		t.Error(err)
	}
	t.Logf("%d messages, %d kills in flight: %d arrivals, %d lost", n, killed, len(got),
		n-distinct(got))
}

// TestFailingTarget: a target that fails is tried again with backoff within the invocation; what
// stays poison fails its whole item without dead letters, and nothing else.
func TestFailingTarget(t *testing.T) {
	t.Parallel()
	a := newTarget(t, func(id string, try int, _ *http.Request) int {
		switch {
		case id == "e5":
			return http.StatusUnprocessableEntity // poison
		case try < 3 && strings.HasSuffix(id, "3"):
			return http.StatusServiceUnavailable
		}
		return 0
	})
	h := lambdaOf(t, 20*time.Second, "ACKWISE_TO="+a.url+"/in", "ACKWISE_BACKOFF_FIRST=10ms",
		"ACKWISE_BACKOFF_CAP=50ms")
	var mu sync.Mutex // guards gone
	var gone []lambdahost.Discarded
	discarded := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(gone)
	}
	stream(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true, MaxAttempts: 2,
		Discarded: func(d lambdahost.Discarded) {
			mu.Lock()
			defer mu.Unlock()
			gone = append(gone, d)
		}}, lambdahost.Fixed{"s": changes(20, 4)}, func() bool { return discarded() > 0 })
	got := a.accepted()
	for i := 1; i <= 20; i++ {
		id := fmt.Sprintf("e%d", i)
		if want := i%4 != 1 || i < 5; slices.Contains(got, id) != want {
			t.Errorf("%s arrived: %t, want %t", id, !want, want)
		}
	}
	if a.tried("e3") != 3 {
		t.Errorf("e3 was tried %d times", a.tried("e3"))
	}
}

// TestSlowTarget: the answer is in time though the target is not; the process is not killed.
func TestSlowTarget(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	a := newTarget(t, func(id string, try int, r *http.Request) int {
		if id == "e2" && try == 1 {
			select {
			case <-release:
			case <-r.Context().Done():
			}
		}
		return 0
	})
	defer close(release)
	h := lambdaOf(t, 4*time.Second, "ACKWISE_TO="+a.url+"/in", "ACKWISE_MARGIN=2s")
	stream(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true},
		lambdahost.Fixed{"s": changes(4, 4)}, func() bool {
			return distinct(a.accepted()) == 4 && a.tried("e2") > 1
		})
	if h.Starts() != 1 {
		t.Errorf("%d processes were started: one was killed at its deadline", h.Starts())
	}
}

// TestInitErrorIsReported: a function that cannot start says why.
func TestInitErrorIsReported(t *testing.T) {
	t.Parallel()
	for _, c := range [][2]string{
		{"ACKWISE_TO=kafka://h/t", "kafka:// is not in this binary"},
		{"ACKWISE_TO=sqs://eu-central-1/orders?endpoint=http://127.0.0.1:1", "Nobody answers"},
	} {
		h := lambdaOf(t, 5*time.Second, c[0])
		_, err := h.Invoke(t.Context(), []byte(`{"Records":[]}`))
		if err == nil || !strings.Contains(err.Error(), "Runtime.InitError") ||
			!strings.Contains(err.Error(), c[1]) {
			t.Errorf("%s: %v", c[0], err)
		}
	}
}

// TestUnknownSource: an event of another source is an error that says so.
func TestUnknownSource(t *testing.T) {
	t.Parallel()
	a := newTarget(t, func(string, int, *http.Request) int { return 0 })
	h := lambdaOf(t, 5*time.Second, "ACKWISE_TO="+a.url+"/in")
	_, err := h.Invoke(t.Context(), []byte(`{"Records":[{"eventSource":"aws:kinesis"}]}`))
	want := `"aws:kinesis"; the known sources are aws:dynamodb`
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Error(err)
	}
	out, err := h.Invoke(t.Context(), []byte(`{"Records":[]}`))
	if err != nil || string(out) != `{"batchItemFailures":[]}` || h.Starts() != 1 {
		t.Errorf("the next event: %s %v", out, err)
	}
}

// TestTopic: a topic's event that fails is tried again by Lambda; with dead letters it becomes one
// within its invocation, and is answered as done.
func TestTopic(t *testing.T) {
	t.Parallel()
	event := []byte(`{"Records":[{"EventSource":"aws:sns","Sns":{"Type":"Notification",
		"MessageId":"n-1","TopicArn":"arn:aws:sns:eu-central-1:000000000000:orders","Message":"hello",
		"MessageAttributes":{"ackwise-id":{"Type":"String","Value":"o-1"}}}}]}`)
	for _, with := range []bool{false, true} {
		a := newTarget(t, func(_ string, _ int, r *http.Request) int {
			if r.URL.Path == "/dead" {
				return 0
			}
			return http.StatusServiceUnavailable
		})
		env := []string{"ACKWISE_TO=" + a.url + "/in", "ACKWISE_BACKOFF_FIRST=1ms",
			"ACKWISE_MAX_FAILURES=2"}
		if with {
			env = append(env, "ACKWISE_DEAD="+a.url+"/dead")
		}
		h := lambdaOf(t, 5*time.Second, env...)
		waits := []time.Duration{time.Millisecond, time.Millisecond}
		n, err := lambdahost.Async{Invoke: h.Invoke, Waits: waits}.Push(t.Context(), event)
		if with && (n != 1 || err != nil || !slices.Equal(a.accepted(), []string{"o-1"})) {
			t.Errorf("with dead letters: %d tries, %v, dead %v", n, err, a.accepted())
		}
		if !with && (n != 3 || err == nil || a.tried("o-1") != 6) {
			t.Errorf("without dead letters: %d tries of %d, %v", n, a.tried("o-1"), err)
		}
	}
}
