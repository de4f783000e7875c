package nakadi_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
	fake "github.com/ackwise/ackwise/test/nakadi"
)

// bed is a fake server in this process.
type bed struct {
	*testing.T
	s    *fake.Server
	host string
}

func newBed(t *testing.T, o fake.Options) *bed {
	t.Helper()
	s, err := fake.New(o)
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
	return &bed{t, s, strings.TrimPrefix(h.URL, "http://")}
}

// makeKind makes an event type of some partitions; more overrides members of it.
func makeKind(host, name string, parts int, more map[string]any) error {
	d := map[string]any{"name": name, "owning_application": "test", "category": "business",
		"enrichment_strategies": []string{"metadata_enrichment"},
		"partition_strategy":    "hash", "partition_key_fields": []string{"key"},
		"default_statistic": map[string]int{"read_parallelism": parts, "write_parallelism": 1},
		"schema":            map[string]string{"type": "json_schema", "schema": `{"type":"object"}`}}
	maps.Copy(d, more)
	text, err := json.Marshal(d)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost,
		"http://"+host+"/event-types", bytes.NewReader(text))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusCreated {
		return fmt.Errorf("make event type: %s", res.Status)
	}
	return nil
}

func (b *bed) kind(name string, parts int, more map[string]any) {
	b.Helper()
	if err := makeKind(b.host, name, parts, more); err != nil {
		b.Fatal(err)
	}
}

func (b *bed) sink(path string) ackwise.Sink {
	b.Helper()
	o, err := nakadi.ParseSink("nakadi://" + b.host + path)
	if err != nil {
		b.Fatal(err)
	}
	sink, err := nakadi.OpenSink(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { sink.Close() })
	return sink
}

func (b *bed) source(query string, change func(*nakadi.SourceOptions)) ackwise.Source {
	b.Helper()
	o, err := nakadi.ParseSource("nakadi://" + b.host + "?" + query + "&tls=false")
	if err != nil {
		b.Fatal(err)
	}
	if change != nil {
		change(&o)
	}
	src, err := nakadi.OpenSource(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { src.Close() })
	return src
}

const mine = "event_types=orders&application=test&create=true&keep_alive=1s&check_every=100ms"

// object makes a message whose body is a JSON object.
func object(n int, key string) ackwise.Message {
	return ackwise.Message{ID: fmt.Sprintf("m%d", n), Key: key, Topic: "orders",
		Body: fmt.Appendf(nil, `{"key":%q,"n":%d}`, key, n)}
}

func objects(n int) (list []ackwise.Message) {
	for i := range n {
		list = append(list, object(i, fmt.Sprintf("k%d", i)))
	}
	return list
}

// classes publishes and returns the classes in one text.
func classes(t *testing.T, sink ackwise.Sink, msgs ...ackwise.Message) string {
	t.Helper()
	results := sink.Publish(t.Context(), msgs)
	if len(results) != len(msgs) {
		t.Fatalf("%d results for %d messages", len(results), len(msgs))
	}
	var said []string
	for _, r := range results {
		if (r.Err == nil) != (r.Class == ackwise.ResultAccepted) {
			t.Errorf("%s with %v", r.Class, r.Err)
		}
		said = append(said, r.Class.String())
	}
	return strings.Join(said, " ")
}

// copies counts what is stored, by our own IDs.
func (b *bed) copies() map[string]int {
	b.Helper()
	n := map[string]int{}
	for _, e := range b.s.Events("orders") {
		var event struct {
			Metadata struct {
				Span map[string]string `json:"span_ctx"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal(e.Event, &event); err != nil {
			b.Fatal(err)
		}
		n[event.Metadata.Span["ackwise-id"]]++
	}
	return n
}

// receive waits for n deliveries and settles none.
func receive(t *testing.T, src ackwise.Source, n int) (ds []*ackwise.Delivery) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	for len(ds) < n {
		more, err := src.Receive(ctx, n-len(ds))
		if ctx.Err() != nil {
			t.Fatalf("%d of %d came: %v", len(ds), n, err)
		}
		ds = append(ds, more...)
	}
	return ds
}

func settle(t *testing.T, src ackwise.Source, ds ...*ackwise.Delivery) {
	t.Helper()
	for _, d := range ds {
		if r := src.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}}); r[0].Err != nil {
			t.Errorf("settle %s: %v", d.ID, r[0].Err)
		}
	}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	end := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			t.Fatalf("still not: %s", what)
		}
		timer := time.NewTimer(5 * time.Millisecond)
		<-timer.C
	}
}
