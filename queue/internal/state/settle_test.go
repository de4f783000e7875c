package state

import (
	"testing"

	"github.com/ackwise/ackwise"
)

// A damaged record of many settlements is refused, and changes nothing.
func TestSettlementsThatDoNotFitAreRefused(t *testing.T) {
	s := newSim(t, 1)
	s.do(&CreateTopic{ID: s.live.NextID(), Name: "t", Config: TopicConfig{MaxMessages: 100}})
	topic := s.live.Topic("t")
	s.do(&CreateSub{ID: s.live.NextID(), Topic: topic.ID, Name: "s",
		Config: SubConfig{LeaseMillis: 100, MaxParked: 100, MaxWaiting: 100}})
	for len(s.line["t"]) < 3 {
		s.publish(topic)
	}
	q := topic.Subs[0]
	records, out := s.live.HandOut(s.now, Ask{Session: s.session(q), Max: 3, MaxBytes: 1 << 20,
		Lease: 100, Synced: s.pos + 1})
	if s.log(records...); len(out) != 3 {
		t.Fatalf("%d messages are handed out, want 3", len(out))
	}
	for name, r := range map[string]*settleManyRecord{
		"a message twice":      {Sub: q.ID, Seqs: []uint64{1, 0, 1}},
		"an unknown message":   {Sub: q.ID, Seqs: []uint64{0, 99}},
		"an unknown number":    {Sub: 99, Seqs: []uint64{0}},
		"an outcome with more": {Sub: q.ID, Outcome: ackwise.OutcomeNack, Seqs: []uint64{0}},
	} {
		before := string(s.copy.Encode(nil))
		if s.copy.Apply(s.pos, r.Type(), r.Append(nil)) == nil {
			t.Errorf("%s: accepted", name)
		}
		if string(s.copy.Encode(nil)) != before {
			t.Errorf("%s: it changed the state", name)
		}
	}
	r := &settleManyRecord{Sub: q.ID, Seqs: []uint64{1, 0}}
	if err := s.copy.Apply(s.pos, r.Type(), r.Append(nil)); err != nil {
		t.Errorf("two that fit are refused: %v", err)
	}
}
