package nakadi_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
)

// TestPoisonHoldsBackNothingBeforeIt: a message of the same key that stands before one that cannot
// be sent goes out; what stands behind it does not.
func TestPoisonHoldsBackNothingBeforeIt(t *testing.T) {
	b := ordersBed(t)
	bad := object(1, "k")
	bad.Body = []byte("no JSON")
	got := classes(t, b.sink(plain), object(0, "k"), bad, object(2, "k"), object(3, "other"))
	if got != "accepted rejected not-attempted accepted" {
		t.Error(got)
	}
	if n := b.copies(); n["m0"] != 1 || n["m2"] != 0 || n["m3"] != 1 {
		t.Errorf("stored %v", n)
	}
}

// TestNoBytesAreReplaced: JSON whose texts are no UTF-8 would come back with other characters.
func TestNoBytesAreReplaced(t *testing.T) {
	b := ordersBed(t)
	b.kind("changes", 1, map[string]any{"category": "data", "partition_strategy": "random",
		"partition_key_fields": nil})
	for _, to := range []string{plain, "/changes?tls=false&wrap=data"} {
		m := object(1, "k")
		m.Body = []byte("{\"key\":\"\xff\"}")
		r := b.sink(to).Publish(t.Context(), []ackwise.Message{m})[0]
		if r.Class != ackwise.ResultRejected || !strings.Contains(r.Err.Error(), "UTF-8") {
			t.Errorf("%s: %+v", to, r)
		}
	}
	m := object(1, "k")
	m.ID = "\xff"
	if r := b.sink(plain).Publish(t.Context(), []ackwise.Message{m})[0]; r.Class !=
		ackwise.ResultRejected || !strings.Contains(r.Err.Error(), "id") {
		t.Errorf("an ID that would be another one: %+v", r)
	}
}

// stand answers each publish as the test says, and the event type as every Nakadi does.
func stand(t *testing.T, publish http.HandlerFunc) ackwise.Sink {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			publish(w, r)
			return
		}
		fmt.Fprint(w, `{"name":"orders","category":"business","partition_strategy":"random"}`)
	}))
	t.Cleanup(h.Close)
	o, err := nakadi.ParseSink("nakadi://" + strings.TrimPrefix(h.URL, "http://") + plain)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := nakadi.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return sink
}

const eid = "b35ce5bc-8d33-4c5b-8c4c-00000000000"

// TestItemsOfOthers: items that do not name the events that were sent say nothing of them.
func TestItemsOfOthers(t *testing.T) {
	sink := stand(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusMultiStatus)
		fmt.Fprintf(w, `[{"eid":"%s2","publishing_status":"failed","step":"publishing"},
			{"eid":"%s1","publishing_status":"submitted","step":"none"}]`, eid, eid)
	})
	one, two := object(1, "a"), object(2, "b")
	one.ID, two.ID = eid+"1", eid+"2"
	if got := classes(t, sink, one, two); got != "unknown unknown" {
		t.Error(got)
	}
}

// TestMissingTypeIsAskedOnce: a batch to an event type that is not there costs one look-up.
func TestMissingTypeIsAskedOnce(t *testing.T) {
	var asked int
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked++
		w.WriteHeader(http.StatusNotFound)
	}))
	defer h.Close()
	b := &bed{T: t, host: strings.TrimPrefix(h.URL, "http://")}
	got := classes(t, b.sink("?tls=false"), objects(20)...)
	if strings.Count(got, "retryable") != 20 || asked != 1 {
		t.Errorf("asked %d times: %s", asked, got)
	}
}

// subscribed is a server with a subscription of one event type, whose stream the test answers.
func subscribed(t *testing.T, stream http.HandlerFunc) *bed {
	t.Helper()
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/events"):
			stream(w, r)
		case strings.HasSuffix(r.URL.Path, "/stats"):
			fmt.Fprint(w, `{"items":[]}`)
		case strings.HasPrefix(r.URL.Path, "/subscriptions"):
			fmt.Fprint(w, `{"id":"x","owning_application":"a","event_types":["orders"]}`)
		default:
			fmt.Fprint(w, `{"name":"orders","category":"business"}`)
		}
	}))
	t.Cleanup(h.Close)
	return &bed{T: t, host: strings.TrimPrefix(h.URL, "http://")}
}

// TestSilentFromTheStart: a server that begins a stream and then says nothing is given up.
func TestSilentFromTheStart(t *testing.T) {
	t.Parallel()
	var streams atomic.Int32
	b := subscribed(t, func(w http.ResponseWriter, r *http.Request) {
		streams.Add(1)
		w.Header().Set("X-Nakadi-StreamId", "s")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	src := b.source("subscription=x&keep_alive=1s&commit_timeout=1s", nil)
	defer src.Close()
	until(t, "a second stream", func() bool { return streams.Load() > 1 })
}

// TestEndlessLine: a line that is longer than any event ends the source; it is not read for ever.
func TestEndlessLine(t *testing.T) {
	b := subscribed(t, func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := fmt.Fprint(w, strings.Repeat("x", 1<<20)); err != nil {
				return
			}
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, err := b.source("subscription=x", nil).Receive(ctx, 1)
	var final interface{ Final() bool }
	if !errors.As(err, &final) || !strings.Contains(err.Error(), "16777216") {
		t.Errorf("received: %v", err)
	}
}

// TestEndIsTold: what ends a source is told, also where nobody has asked for what went wrong
// before.
func TestEndIsTold(t *testing.T) {
	t.Parallel()
	var streams atomic.Int32
	b := subscribed(t, func(w http.ResponseWriter, _ *http.Request) {
		if streams.Add(1) <= 3 {
			w.WriteHeader(http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNotFound)
	})
	src := b.source("subscription=x", nil)
	defer src.Close()
	until(t, "the subscription is gone", func() bool { return streams.Load() == 4 })
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var final interface{ Final() bool }
	for {
		_, err := src.Receive(ctx, 1)
		if ctx.Err() != nil {
			t.Fatal("the end was never told")
		}
		if errors.As(err, &final) {
			return
		}
	}
}

// noNotes is a place for notes that cannot be read.
type noNotes struct{ nakadi.Notes }

func (noNotes) Load(context.Context, string) ([]byte, error) {
	return nil, errors.New("the place is away")
}

// TestNotesThatCannotBeRead: a partition that cannot be taken in is told, not tried in silence.
func TestNotesThatCannotBeRead(t *testing.T) {
	b := ordersBed(t)
	src := b.source(mine, func(o *nakadi.SourceOptions) {
		o.Notes = noNotes{nakadi.FileNotes(t.TempDir())}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	_, err := src.Receive(ctx, 1)
	if err == nil || !strings.Contains(err.Error(), "the place is away") {
		t.Errorf("received: %v", err)
	}
}
