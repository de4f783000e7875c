package kafka

import (
	"context"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// TestAnAnswerAfterTheCall changes nothing of what was said, and its record is nobody else's.
func TestAnAnswerAfterTheCall(t *testing.T) {
	s := &Sink{o: SinkOptions{Topic: "t"}}
	msgs := []ackwise.Message{{ID: "1", Key: "k", Body: []byte("a")},
		{ID: "2", Key: "l", Body: []byte("b")}}
	c := newCall(s, msgs)
	c.all, c.left = make(chan struct{}), 1
	for i := range msgs {
		if !c.next(i) {
			t.Fatal("it is not produced")
		}
	}
	c.mu.Lock()
	c.done()
	c.mu.Unlock()
	c.recs[1].rec.Offset = 5
	c.answer(1, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	c.abandon(ctx)
	late := make(chan struct{})
	go func() { // the producer's goroutine
		defer close(late)
		rec := c.recs[0].rec
		rec.Offset, rec.Partition, rec.Attrs = 7, 3, kgo.RecordAttrs{}
		c.answer(0, nil)
	}()
	out := make([]ackwise.Result, 2)
	c.results(out)
	<-late
	c.results(out)
	<-c.all
	if out[0].Class != ackwise.ResultUnknown || out[1].Class != ackwise.ResultAccepted ||
		out[1].Position != "t/0/00000000000000000005" {
		t.Errorf("%+v", out)
	}
	// A caller's slices are its own, and what stands in one record reaches into no other.
	for i, r := range []*kgo.Record{c.recs[0].rec, c.recs[1].rec} {
		_ = append(r.Key, "over"...)
		_ = append(r.Headers, kgo.RecordHeader{Key: "over"})
		if string(r.Key) != msgs[i].Key || string(r.Headers[0].Value) != msgs[i].ID {
			t.Errorf("record %d: %s %s", i, r.Key, r.Headers)
		}
	}
}
