package relay_test

import (
	"context"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/relay"
)

// appending is a sink that puts a message of its own behind each batch, as an audit trail.
type appending struct{ got []string }

func (s *appending) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{MaxBatch: 1} }
func (s *appending) Close() error                   { return nil }
func (s *appending) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	for i := range results {
		results[i] = ackwise.Result{ID: msgs[i].ID, Class: ackwise.ResultAccepted}
	}
	for _, m := range append(msgs, ackwise.Message{ID: "audit", Topic: "audit"}) {
		s.got = append(s.got, m.ID)
	}
	return results
}

// TestABatchEndsWhereItEnds: what a sink appends to its batch does not replace the next message,
// which would be acked and never published.
func TestABatchEndsWhereItEnds(t *testing.T) {
	s := &appending{}
	var ds []*ackwise.Delivery
	for _, id := range []string{"1", "2", "3"} {
		ds = append(ds, &ackwise.Delivery{Message: ackwise.Message{ID: id, Topic: "t"}})
	}
	errs := relay.BatchHandler(s, relay.Options{}).HandleBatch(t.Context(), ds)
	published := map[string]bool{}
	for _, id := range s.got {
		published[id] = true
	}
	for i, d := range ds {
		if errs[i] == nil && !published[d.ID] {
			t.Errorf("%s is acked and was not published: %v", d.ID, s.got)
		}
	}
}
