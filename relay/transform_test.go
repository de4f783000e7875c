package relay

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// sendOne relays one delivery and returns what the sink got, or how it was settled.
func sendOne(t *testing.T, d *ackwise.Delivery, o Options) (ackwise.Message, ackwise.Verdict) {
	t.Helper()
	sink := &scripted{}
	v := ackwise.OutcomeOf(Handler(sink, o).Handle(t.Context(), d))
	if v.Outcome != ackwise.OutcomeAck {
		if len(sink.sent) > 0 {
			t.Errorf("%s, and yet it was published", v.Outcome)
		}
		return ackwise.Message{}, v
	}
	return sink.sent[0], v
}

func headersOf(m ackwise.Message) string {
	var all []string
	for _, h := range m.Headers {
		all = append(all, h.Name+"="+string(h.Value))
	}
	return strings.Join(all, " ")
}

func TestTransform(t *testing.T) {
	for _, c := range []struct {
		name string
		t    Transform
		want string // topic key headers
		dead string // part of the reason, where it is rejected
	}{
		{"nothing", Transform{}, "from k a=1 b-x=2 a=3", ""},
		{"topic", Transform{Topic: "to"}, "to k a=1 b-x=2 a=3", ""},
		{"key of a header", Transform{KeyHeader: "b-x"}, "from 2 a=1 b-x=2 a=3", ""},
		{"no such header", Transform{KeyHeader: "c"}, "", `no header "c"`},
		{"key of a field", Transform{KeyField: "customer.id"}, "from c-7 a=1 b-x=2 a=3", ""},
		{"a number", Transform{KeyField: "n"}, "from 12.50 a=1 b-x=2 a=3", ""},
		{"no such field", Transform{KeyField: "customer.no"}, "", "no field customer.no"},
		{"a field that is null", Transform{KeyField: "null"}, "", "no field null"},
		{"a field that is an object", Transform{KeyField: "customer"}, "", "neither a text"},
		{"a field of a text", Transform{KeyField: "customer.id.x"}, "", "no JSON object"},
		{"headers", Transform{RemoveHeaders: []string{"b-*"},
			SetHeaders: map[string]string{"z": "9", "a": "5"}}, "from k a=5 z=9", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := delivery("1@k")
			d.Body = []byte(`{"customer": {"id": "c-7"}, "n": 12.50, "null": null}`)
			d.Headers = []ackwise.Header{{Name: "a", Value: []byte("1")},
				{Name: "b-x", Value: []byte("2")}, {Name: "a", Value: []byte("3")}}
			m, v := sendOne(t, d, Options{Transform: c.t})
			got := strings.TrimSpace(strings.Join([]string{m.Topic, m.Key, headersOf(m)}, " "))
			if got != c.want || !strings.Contains(v.Reason, c.dead) ||
				(c.dead != "") != (v.Outcome == ackwise.OutcomeDead) {
				t.Errorf("got %q %+v, want %q %q", got, v, c.want, c.dead)
			}
			if v.Outcome == ackwise.OutcomeAck && (m.ID != "1" || string(m.Body) != string(d.Body)) {
				t.Errorf("the ID or the body was changed: %+v", m)
			}
			if headersOf(d.Message) != "a=1 b-x=2 a=3" || d.Key != "k" || d.Topic != "from" {
				t.Error("the delivery itself was changed")
			}
		})
	}
}

func TestATombstoneKeepsItsKey(t *testing.T) {
	m, _ := sendOne(t, delivery("1@k"), Options{Transform: Transform{KeyField: "id"}})
	if m.Key != "k" || m.Body != nil {
		t.Errorf("got %+v", m)
	}
}

// Of the new keys, too, no more than one message is in a batch, and nothing passes a failure.
func TestBatchesGoByTheNewKey(t *testing.T) {
	sink := &scripted{answers: map[string]ackwise.Result{"f": {Class: ackwise.ResultRetryable,
		Err: errSink}}}
	in := deliveries("1@a", "2@b", "f@c", "3@d", "4@e", "5@f")
	for i, key := range []string{"x", "x", "y", "y", "z", ""} {
		if key != "" {
			in[i].Headers = []ackwise.Header{{Name: "new", Value: []byte(key)}}
		}
	}
	errs := BatchHandler(sink, Options{Transform: Transform{KeyHeader: "new"}}).
		HandleBatch(t.Context(), in)
	var got []string
	for _, err := range errs {
		got = append(got, ackwise.OutcomeOf(err).Outcome.String())
	}
	if !slices.Equal(sink.batches, []string{"1", "2 f", "4"}) ||
		!slices.Equal(got, []string{"ack", "ack", "nack", "snooze", "ack", "dead"}) {
		t.Errorf("batches %q, outcomes %v", sink.batches, got)
	}
}

func event(t *testing.T, m ackwise.Message) map[string]any {
	t.Helper()
	var e map[string]any
	if err := json.Unmarshal(m.Body, &e); err != nil {
		t.Fatalf("%v in %s", err, m.Body)
	}
	return e
}

func TestStructuredCloudEvents(t *testing.T) {
	for _, c := range []struct {
		name, kind string
		body       []byte
		member     string
		want       any
	}{
		{"an object", "", []byte(`{"a": 1}`), "data", map[string]any{"a": 1.0}},
		{"JSON of a kind", "application/vnd.x+json", []byte(`[1]`), "data", []any{1.0}},
		{"text", "text/plain; charset=utf-8", []byte("grüße"), "data", "grüße"},
		{"bytes", "application/octet-stream", []byte{0xff, 0}, "data_base64",
			base64.StdEncoding.EncodeToString([]byte{0xff, 0})},
		{"not the JSON that it says", "", []byte("no JSON"), "data_base64",
			base64.StdEncoding.EncodeToString([]byte("no JSON"))},
		{"empty", "text/plain", []byte{}, "data", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := delivery("1@k")
			d.Body, d.Time = c.body, time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
			d.Headers = []ackwise.Header{{Name: "mine", Value: []byte("v")}}
			m, _ := sendOne(t, d, Options{Transform: Transform{CloudEvents: Structured,
				EventSource: "/orders", EventType: "order.changed", ContentType: c.kind}})
			want := map[string]any{"specversion": "1.0", "id": "1", "source": "/orders",
				"type": "order.changed", "time": "2026-01-02T03:04:05.000006Z",
				"partitionkey": "k", c.member: c.want}
			if c.kind != "" {
				want["datacontenttype"] = c.kind
			}
			if got := event(t, m); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := headersOf(m); got != "mine=v content-type=application/cloudevents+json" {
				t.Errorf("headers %s", got)
			}
		})
	}
	m, _ := sendOne(t, delivery("1"), Options{Transform: Transform{CloudEvents: Structured,
		EventSource: "/s", EventType: "t"}})
	names := slices.Sorted(maps.Keys(event(t, m)))
	if !slices.Equal(names, []string{"id", "source", "specversion", "type"}) {
		t.Errorf("a tombstone without a key is %s", m.Body)
	}
}

func TestBinaryCloudEvents(t *testing.T) {
	for prefix, key := range map[string]string{"": "h%C3%A4%20%22%25", "ce-": "h%C3%A4%20%22%25",
		"ce_": `hä "%`} {
		d := delivery(`1@hä "%`)
		d.Body = []byte("body")
		d.Headers = []ackwise.Header{{Name: "content-type", Value: []byte("text/plain")},
			{Name: "ce-id", Value: []byte("of an earlier hop")}}
		m, _ := sendOne(t, d, Options{Transform: Transform{CloudEvents: Binary,
			EventSource: "/s", EventType: "t", HeaderPrefix: prefix}})
		p := prefix
		if p == "" {
			p = "ce-"
		}
		want := []string{p + "specversion=1.0", p + "id=1", p + "source=/s", p + "type=t",
			p + "partitionkey=" + key, "content-type=text/plain"}
		if p == "ce_" {
			want = append([]string{"ce-id=of an earlier hop"}, want...)
		}
		if got := headersOf(m); got != strings.Join(want, " ") || string(m.Body) != "body" {
			t.Errorf("%q: got %s, want %v", prefix, got, want)
		}
	}
	// Binary keys are the sink's to carry; no attribute can.
	d := delivery("1@\xff")
	m, _ := sendOne(t, d, Options{Transform: Transform{CloudEvents: Binary, EventSource: "/s",
		EventType: "t"}})
	if _, ok := m.Header("ce-partitionkey"); ok || m.Key != "\xff" {
		t.Errorf("got %+v", m)
	}
	if _, v := sendOne(t, delivery(""), Options{Transform: Transform{CloudEvents: Binary,
		EventSource: "/s", EventType: "t"}}); v.Outcome != ackwise.OutcomeDead {
		t.Errorf("a message without an ID: %+v", v)
	}
}

func TestTransformSaysAllThatIsWrong(t *testing.T) {
	wrong := Transform{KeyHeader: "h", KeyField: "a..b", RemoveHeaders: []string{"*"},
		SetHeaders: map[string]string{"a\n": "v"}, CloudEvents: Binary}
	err := wrong.Validate()
	for _, field := range []string{"KeyField", "RemoveHeaders", "SetHeaders", "EventSource",
		"EventType"} {
		if err == nil || !strings.Contains(err.Error(), "invalid "+field) {
			t.Errorf("%s is not named in: %v", field, err)
		}
	}
	var bad *ackwise.InvalidError
	if err := (&Transform{EventType: "t"}).Validate(); !errors.As(err, &bad) {
		t.Errorf("an attribute without an envelope: %v", err)
	}
	defer func() {
		if recover() == nil {
			t.Error("a handler with a wrong transform is made")
		}
	}()
	Handler(&scripted{}, Options{Transform: wrong})
}

// A dead letter that goes through a redrive loses what made it one, and nothing else.
func TestRedriveStripsADeadLetter(t *testing.T) {
	d := delivery("1@k")
	d.Body = []byte("b")
	d.Headers = []ackwise.Header{{Name: "h", Value: []byte("v")},
		{Name: ackwise.HeaderEpoch, Value: []byte("2")}}
	for round := range 3 {
		letter := deadLetter(d, "pipe", "why", time.Now())
		back := &ackwise.Delivery{Message: letter}
		m, _ := sendOne(t, back, Options{Redrive: true})
		want := fmt.Sprintf("h=v ackwise-epoch=2 ackwise-redrives=%d", round+1)
		if got := headersOf(m); got != want || m.ID != "1" || m.Key != "k" || string(m.Body) != "b" {
			t.Errorf("round %d: got %+v with %s, want %s", round, m, got, want)
		}
		d = &ackwise.Delivery{Message: m}
	}
}

// TestCloudEventKeepsBytes: JSON whose texts are no UTF-8 is carried as base64, since a reader of
// the envelope would replace what it cannot read.
func TestCloudEventKeepsBytes(t *testing.T) {
	tr := Transform{CloudEvents: Structured, EventSource: "/s", EventType: "t"}
	body := []byte("{\"a\":\"\xff\"}")
	m := ackwise.Message{ID: "1", Body: slices.Clone(body)}
	if err := tr.apply(&m); err != nil {
		t.Fatal(err)
	}
	var event struct {
		Data   json.RawMessage `json:"data"`
		Data64 []byte          `json:"data_base64"`
	}
	if err := json.Unmarshal(m.Body, &event); err != nil || event.Data != nil ||
		!bytes.Equal(event.Data64, body) {
		t.Errorf("the envelope is %q: %v", m.Body, err)
	}
}
