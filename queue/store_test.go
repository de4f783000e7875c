package queue

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// open opens a store that is closed with the test.
func open(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func create(t *testing.T, s *Store, topic, sub string, o SubscriptionOptions) {
	t.Helper()
	if s.st.Topic(topic) == nil {
		if err := s.CreateTopic(t.Context(), topic, TopicOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.CreateSubscription(t.Context(), topic, sub, o); err != nil {
		t.Fatal(err)
	}
}

func publish(t *testing.T, s *Store, msgs ...ackwise.Message) []ackwise.Result {
	t.Helper()
	results := s.Publish(t.Context(), msgs)
	for i, r := range results {
		if r.Class != ackwise.ResultAccepted {
			t.Fatalf("message %d: %v %v", i, r.Class, r.Err)
		}
	}
	return results
}

func receiver(t *testing.T, s *Store, topic, sub string, o ReceiverOptions) *Receiver {
	t.Helper()
	r, err := s.Receiver(t.Context(), topic, sub, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func receive(t *testing.T, r *Receiver, max int) []*ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	ds, err := r.Receive(ctx, max)
	if err != nil {
		t.Fatal(err)
	}
	return ds
}

func settle(t *testing.T, r *Receiver, d *ackwise.Delivery, o ackwise.Outcome) {
	t.Helper()
	st := ackwise.Settlement{Token: d.Token, Outcome: o, Reason: "because"}
	if res := r.Settle(t.Context(), []ackwise.Settlement{st}); res[0].Err != nil {
		t.Fatalf("settle %s %s: %v", d.ID, o, res[0].Err)
	}
}

func verify(t *testing.T, s *Store) {
	t.Helper()
	report, err := s.Verify(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range report.Findings {
		t.Error(f)
	}
	books, err := s.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range books {
		if !b.Balanced() {
			t.Errorf("books do not balance: %+v", b)
		}
	}
}

func TestPublishReceiveAckReopen(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "orders", "billing", SubscriptionOptions{})
	for i := range 10 {
		publish(t, s, ackwise.Message{ID: fmt.Sprint("m", i), Topic: "orders", Body: []byte{byte(i)}})
	}
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	ds := receive(t, r, 4)
	if len(ds) != 4 || ds[3].ID != "m3" || ds[3].Cause != ackwise.CauseFirst {
		t.Fatalf("got %d deliveries, last %+v", len(ds), ds[len(ds)-1])
	}
	settle(t, r, ds[0], ackwise.OutcomeAck)
	settle(t, r, ds[1], ackwise.OutcomeNack)
	verify(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	verify(t, s)
	r = receiver(t, s, "orders", "billing", ReceiverOptions{})
	got := map[string]ackwise.Cause{}
	for range 20 {
		if len(got) == 9 {
			break
		}
		for _, d := range receive(t, r, 100) {
			got[d.ID] = d.Cause
			settle(t, r, d, ackwise.OutcomeAck)
		}
	}
	want := map[string]ackwise.Cause{"m1": ackwise.CauseFailed, "m2": ackwise.CauseRestarted,
		"m3": ackwise.CauseRestarted}
	for i := 1; i < 10; i++ {
		id := fmt.Sprint("m", i)
		cause, ok := want[id]
		if !ok {
			cause = ackwise.CauseFirst
		}
		if got[id] != cause {
			t.Errorf("%s: cause %v, want %v", id, got[id], cause)
		}
	}
	books, _ := s.Books(t.Context())
	if b := books[0]; b.Acked != 10 || b.Waiting() != 0 {
		t.Errorf("books: %+v", b)
	}
	verify(t, s)
}
