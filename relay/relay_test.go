package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// scripted is a sink that answers by a message's ID, and remembers the batches it got.
type scripted struct {
	features ackwise.SinkFeatures
	answers  map[string]ackwise.Result // accepted where there is none
	batches  []string
	sent     []ackwise.Message
	short    bool // answers one result too few
}

func (s *scripted) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	var ids []string
	results := make([]ackwise.Result, len(msgs))
	for i, m := range msgs {
		ids = append(ids, m.ID)
		r, ok := s.answers[m.ID]
		if !ok {
			r.Class = ackwise.ResultAccepted
		}
		results[i] = r
	}
	s.sent = append(s.sent, msgs...)
	s.batches = append(s.batches, strings.Join(ids, " "))
	if s.short {
		return results[1:]
	}
	return results
}

func (s *scripted) Features() ackwise.SinkFeatures { return s.features }
func (s *scripted) Close() error                   { return nil }

// delivery makes a delivery of "ID" or "ID@KEY".
func delivery(text string) *ackwise.Delivery {
	id, key, _ := strings.Cut(text, "@")
	return &ackwise.Delivery{Message: ackwise.Message{ID: id, Key: key, Topic: "from"}}
}

func deliveries(texts ...string) []*ackwise.Delivery {
	var ds []*ackwise.Delivery
	for _, text := range texts {
		ds = append(ds, delivery(text))
	}
	return ds
}

var errSink = errors.New("what the sink says")

// TestOutcomes holds each class of a result against the settlement that it becomes.
func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		name   string
		result ackwise.Result
		want   ackwise.Verdict
		closed bool
	}{
		{"accepted", ackwise.Result{Class: ackwise.ResultAccepted},
			ackwise.Verdict{Outcome: ackwise.OutcomeAck}, false},
		{"retryable", ackwise.Result{Class: ackwise.ResultRetryable, Err: errSink},
			ackwise.Verdict{Outcome: ackwise.OutcomeNack,
				Reason: "publish (retryable): what the sink says"}, false},
		{"retryable, and when", ackwise.Result{Class: ackwise.ResultRetryable, Err: errSink,
			After: time.Minute}, ackwise.Verdict{Outcome: ackwise.OutcomeNack, Delay: time.Minute,
			After: true, Reason: "publish (retryable): what the sink says"}, false},
		{"unknown", ackwise.Result{Err: errSink}, ackwise.Verdict{Outcome: ackwise.OutcomeNack,
			Reason: "publish (unknown): what the sink says"}, false},
		{"rejected", ackwise.Result{Class: ackwise.ResultRejected, Err: errSink},
			ackwise.Verdict{Outcome: ackwise.OutcomeDead,
				Reason: "publish (rejected): what the sink says"}, false},
		{"not attempted", ackwise.Result{Class: ackwise.ResultNotAttempted, Err: errSink},
			ackwise.Verdict{Outcome: ackwise.OutcomeSnooze, Delay: time.Second}, false},
		{"closed", ackwise.Result{Class: ackwise.ResultRetryable, Err: ackwise.ErrClosed},
			ackwise.Verdict{Outcome: ackwise.OutcomeSnooze, Delay: time.Second}, true},
		{"without a reason", ackwise.Result{}, ackwise.Verdict{Outcome: ackwise.OutcomeNack,
			Reason: "publish (unknown): the sink gave no reason"}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := &scripted{answers: map[string]ackwise.Result{"1": c.result}}
			closed := false
			h := Handler(sink, Options{Closed: func(error) { closed = true }})
			if got := ackwise.OutcomeOf(h.Handle(t.Context(), delivery("1"))); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
			if closed != c.closed {
				t.Errorf("told that the sink is closed: %t, want %t", closed, c.closed)
			}
		})
	}
}

func TestHandlerKeepsTheMessage(t *testing.T) {
	sink := &scripted{}
	d := delivery("1@k")
	d.Body, d.Epoch = []byte("body"), 2
	d.Headers = []ackwise.Header{{Name: ackwise.HeaderEpoch, Value: []byte("1")},
		{Name: "h", Value: []byte("v")}}
	if err := Handler(sink, Options{Topic: "to"}).Handle(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	m := sink.sent[0]
	if m.ID != "1" || m.Key != "k" || m.Topic != "to" || string(m.Body) != "body" {
		t.Errorf("sent %+v", m)
	}
	if epoch, _ := m.Header(ackwise.HeaderEpoch); string(epoch) != "2" || len(m.Headers) != 2 {
		t.Errorf("its headers are %v", m.Headers)
	}
	if epoch, _ := d.Header(ackwise.HeaderEpoch); string(epoch) != "1" || d.Topic != "from" {
		t.Error("the delivery itself was changed")
	}
	if err := Handler(sink, Options{}).Handle(t.Context(), delivery("2")); err != nil {
		t.Fatal(err)
	}
	if got := sink.sent[1].Topic; got != "from" {
		t.Errorf("without a topic it is sent to %q, want its own", got)
	}
}

// TestBatches checks what is published together, and that nothing of a key passes a failure.
func TestBatches(t *testing.T) {
	fail := map[string]ackwise.Result{"f": {Class: ackwise.ResultRetryable, Err: errSink}}
	runs := ackwise.SinkFeatures{KeyRunSafe: true}
	for _, c := range []struct {
		name     string
		features ackwise.SinkFeatures
		in       []*ackwise.Delivery
		batches  []string
		outcomes string // a = ack, n = nack, s = snooze
	}{
		{"all together", runs, deliveries("1@k", "2@k", "3", "4"), []string{"1 2 3 4"}, "aaaa"},
		{"one of a key at a time", ackwise.SinkFeatures{}, deliveries("1@k", "2@l", "3@k", "4", "5"),
			[]string{"1 2", "3 4 5"}, "aaaaa"},
		{"at most so many", ackwise.SinkFeatures{KeyRunSafe: true, MaxBatch: 2},
			deliveries("1@k", "2@k", "3"), []string{"1 2", "3"}, "aaa"},
		{"behind a failure", ackwise.SinkFeatures{}, deliveries("f@k", "2@k", "3@l", "4@k"),
			[]string{"f", "3"}, "nsas"},
		{"messages without a key do not wait", ackwise.SinkFeatures{MaxBatch: 1},
			deliveries("f", "2"), []string{"f", "2"}, "na"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sink := &scripted{features: c.features, answers: fail}
			errs := BatchHandler(sink, Options{}).HandleBatch(t.Context(), c.in)
			got := ""
			for _, err := range errs {
				got += ackwise.OutcomeOf(err).Outcome.String()[:1]
			}
			if !slices.Equal(sink.batches, c.batches) || got != c.outcomes {
				t.Errorf("batches %q with outcomes %s, want %q with %s", sink.batches, got,
					c.batches, c.outcomes)
			}
		})
	}
}

func TestTooFewResults(t *testing.T) {
	errs := BatchHandler(&scripted{short: true}, Options{}).HandleBatch(t.Context(),
		deliveries("1", "2"))
	for _, err := range errs {
		if ackwise.OutcomeOf(err).Outcome != ackwise.OutcomeNack {
			t.Errorf("got %v, want a failure: an answer that cannot be assigned is none", err)
		}
	}
}

func TestDeadLetters(t *testing.T) {
	seen := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	d := delivery("1@k")
	d.Partition, d.Position, d.Attempt = "path", "0007", 3
	d.Cause, d.Counts.Redrives = ackwise.CauseFailed, 2
	d.History = []ackwise.Attempt{{Time: seen}}
	d.Headers = []ackwise.Header{{Name: "h", Value: []byte("v")},
		{Name: ackwise.HeaderError, Value: []byte("of an earlier life")}}
	sink := &scripted{}
	store := DeadLetters(sink, "pipe", Options{Topic: "dead"})
	if err := store.Put(t.Context(), d, strings.Repeat("x", 2000)); err != nil {
		t.Fatal(err)
	}
	m := sink.sent[0]
	if m.ID != "1" || m.Key != "k" || m.Topic != "dead" {
		t.Errorf("the dead letter is %+v", m)
	}
	var got []string
	for _, h := range m.Headers {
		got = append(got, fmt.Sprintf("%s=%.30s", h.Name, h.Value))
	}
	want := []string{"h=v", "ackwise-error=" + strings.Repeat("x", 30), "ackwise-attempts=3",
		"ackwise-cause=failed", "ackwise-origin=path", "ackwise-position=0007",
		"ackwise-pipeline=pipe", "ackwise-first-seen=2026-01-02T03:04:05Z", "ackwise-redrives=2"}
	if !slices.Equal(got, want) {
		t.Errorf("its headers are\n%q, want\n%q", got, want)
	}
	if e, _ := m.Header(ackwise.HeaderError); len(e) != ackwise.MaxErrorBytes {
		t.Errorf("its error has %d bytes, want it cut at %d", len(e), ackwise.MaxErrorBytes)
	}
	for _, r := range []ackwise.Result{{Class: ackwise.ResultRejected, Err: errSink},
		{Class: ackwise.ResultUnknown, Err: errSink}} {
		sink.answers = map[string]ackwise.Result{"1": r}
		if err := store.Put(t.Context(), d, "x"); !errors.Is(err, errSink) {
			t.Errorf("%s: Put says %v: it is not durable", r.Class, err)
		}
	}
	sink.short = true
	if err := store.Put(t.Context(), d, "x"); err == nil {
		t.Error("without a result, Put says that it is durable")
	}
}

// A message whose own headers leave no room still becomes a valid dead letter.
func TestDeadLetterOfAFullMessage(t *testing.T) {
	d := delivery("1")
	for range ackwise.MaxHeaders - 2 {
		d.Headers = append(d.Headers, ackwise.Header{Name: "h"})
	}
	m := deadLetter(d, "pipe", "why", time.Now())
	if err := m.Validate(); err != nil {
		t.Error(err)
	}
	if why, ok := m.Header(ackwise.HeaderError); !ok || string(why) != "why" {
		t.Errorf("the most important header is missing: %v", m.Headers)
	}
}

// narrow takes messages with few bytes of headers.
type narrow struct{ scripted }

func (s *narrow) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	size := 0
	for _, h := range msgs[0].Headers {
		size += len(h.Name) + len(h.Value)
	}
	if size > 50 {
		return []ackwise.Result{{Class: ackwise.ResultRejected, Err: ackwise.ErrTooLarge}}
	}
	return s.scripted.Publish(ctx, msgs)
}

// TestDeadLetterAtTheLimit: a message that the store of dead letters takes only without our headers
// is kept without them, not tried for ever.
func TestDeadLetterAtTheLimit(t *testing.T) {
	sink, d := &narrow{}, delivery("1@k")
	d.Headers = []ackwise.Header{{Name: "h", Value: []byte("v")}}
	store := DeadLetters(sink, "pipe", Options{})
	if err := store.Put(t.Context(), d, "it was refused"); err != nil {
		t.Fatal(err)
	}
	if m := sink.sent[0]; m.ID != "1" || m.Key != "k" || len(m.Headers) != 1 {
		t.Errorf("the dead letter is %+v", m)
	}
	d.Headers[0].Value = make([]byte, 60)
	err := store.Put(t.Context(), d, "x")
	var hint *ackwise.HintError
	if !errors.Is(err, ackwise.ErrTooLarge) || !errors.As(err, &hint) {
		t.Errorf("Put says %v: it is not durable, and what is to be done about it", err)
	}
}
