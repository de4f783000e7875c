package main

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/reach"
	"github.com/ackwise/ackwise/test/lambdahost"
	"github.com/ackwise/ackwise/test/nakadi"
)

// nakadiServer is the strict fake with an event type of orders.
func nakadiServer(t *testing.T) (s *nakadi.Server, host string) {
	t.Helper()
	s, err := nakadi.New(nakadi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		h.CloseClientConnections()
		h.Close()
	})
	kind := `{"name":"orders","owning_application":"test","category":"business",
		"enrichment_strategies":["metadata_enrichment"],"partition_strategy":"random",
		"schema":{"type":"json_schema","schema":"{}"}}`
	res, err := http.Post(h.URL+"/event-types", "application/json", bytes.NewBufferString(kind))
	if err != nil || res.StatusCode != http.StatusCreated {
		t.Fatalf("make event type: %v %v", res, err)
	}
	_ = res.Body.Close()
	return s, strings.TrimPrefix(h.URL, "http://")
}

// TestNakadi: changes of a stream go through the real binary to Nakadi, which is down, answers 503,
// says "unknown" (207) and loses an answer on the way: every change is there, the order of each
// item holds by the first copies, and what is there twice is what it answered without a verdict.
func TestNakadi(t *testing.T) {
	t.Parallel()
	const n, items = 60, 4
	s, host := nakadiServer(t)
	for _, f := range []nakadi.Fault{
		{Kind: nakadi.Status, Code: 503, Times: 2}, {Kind: nakadi.Down, Times: 1, After: 2},
		{Kind: nakadi.Partial, Times: 1, Every: 2, Store: true, After: 4},
		{Kind: nakadi.LoseAnswer, Times: 1, After: 6},
	} {
		s.Inject(f)
	}
	h := lambdaOf(t, 20*time.Second, "ACKWISE_TO=nakadi://"+host+"/orders?tls=false&gzip=true",
		"ACKWISE_BACKOFF_FIRST=10ms", "ACKWISE_BACKOFF_CAP=50ms", "ACKWISE_MAX_FAILURES=unlimited")
	stored := func() (ids []string) {
		for _, e := range s.Events("orders") {
			var event struct {
				Metadata struct {
					Span map[string]string `json:"span_ctx"`
				} `json:"metadata"`
			}
			if err := json.Unmarshal(e.Event, &event); err != nil {
				t.Error(err)
			}
			ids = append(ids, event.Metadata.Span["ackwise-id"])
		}
		return ids
	}
	stream(t, lambdahost.Mapping{Invoke: h.Invoke, Report: true, BatchSize: 20},
		lambdahost.Fixed{"s": changes(n, items)}, func() bool { return distinct(stored()) == n })
	for _, kind := range []nakadi.FaultKind{nakadi.Status, nakadi.Down, nakadi.Partial,
		nakadi.LoseAnswer} {
		if s.Fired(kind) == 0 {
			t.Errorf("the fault %s never happened", kind)
		}
	}
	ids := stored()
	if err := ordered(ids, items); err != nil {
		t.Error(err)
	}
	eids := map[string]string{}
	for i, e := range s.Events("orders") {
		if old, ok := eids[ids[i]]; ok && old != e.EID {
			t.Errorf("%s has the eids %s and %s", ids[i], old, e.EID)
		}
		eids[ids[i]] = e.EID
	}
	if len(ids) == n {
		t.Error("nothing is there twice, though answers were lost")
	}
	t.Logf("%d changes, %d events, %d lost", n, len(ids), n-distinct(ids))
}

// TestTargetAwayAtTheStart: a topic's message is not lost with a function that cannot reach its
// target when it starts; it becomes a dead letter. What is wrong for good is an error of the start.
func TestTargetAwayAtTheStart(t *testing.T) {
	t.Parallel()
	event := []byte(`{"Records":[{"EventSource":"aws:sns","Sns":{"Type":"Notification",
		"MessageId":"n-1","TopicArn":"arn:aws:sns:eu-central-1:000000000000:orders","Message":"hello",
		"MessageAttributes":{"ackwise-id":{"Type":"String","Value":"o-1"}}}}]}`)
	a := newTarget(t, func(string, int, *http.Request) int { return 0 })
	_, host := nakadiServer(t)
	for _, c := range []struct {
		to    string
		tries int
		dead  []string
	}{
		{"nakadi://127.0.0.1:1/orders?tls=false", 1, []string{"o-1"}},
		{"nakadi://" + host + "/orders?tls=false&wrap=data", 3, []string{"o-1"}},
		{"nakadi://" + host + "/orders?tls=false&token=env:NOT_THERE", 3, []string{"o-1"}},
		{"nakadi://" + host + "/ordres?tls=false", 3, []string{"o-1"}},
	} {
		h := lambdaOf(t, 10*time.Second, "ACKWISE_TO="+c.to, "ACKWISE_DEAD="+a.url+"/dead",
			"ACKWISE_BACKOFF_FIRST=1ms", "ACKWISE_MAX_FAILURES=2")
		waits := []time.Duration{time.Millisecond, time.Millisecond}
		n, err := lambdahost.Async{Invoke: h.Invoke, Waits: waits}.Push(t.Context(), event)
		if n != c.tries || (err != nil) != (c.tries > 1) || !slices.Equal(a.accepted(), c.dead) {
			t.Errorf("%s: %d tries, %v, dead letters %v", c.to, n, err, a.accepted())
		}
	}
}

// TestLateSink: a target that was away is opened when it is back.
func TestLateSink(t *testing.T) {
	s, host := nakadiServer(t)
	open, err := readSink("nakadi://" + host + "/orders?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(nakadi.Fault{Kind: nakadi.Status, Code: 503, On: "types", Times: 2})
	sink, late, err := reach.Open(t.Context(), open, false)
	if err != nil || late == nil {
		t.Fatalf("opened: %v %v", late, err)
	}
	for _, want := range []ackwise.ResultClass{ackwise.ResultRetryable, ackwise.ResultAccepted,
		ackwise.ResultAccepted} {
		m := ackwise.Message{ID: "1", Body: []byte("{}")}
		if r := sink.Publish(t.Context(), []ackwise.Message{m})[0]; r.Class != want || r.ID != "1" {
			t.Errorf("%+v, want %s", r, want)
		}
	}
	if err := sink.Close(); err != nil {
		t.Error(err)
	}
}
