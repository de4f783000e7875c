package state

import (
	"bytes"
	"testing"
	"testing/iotest"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// seedRecords is one record of each type.
func seedRecords() []Record {
	return []Record{&Open{Now: 1, Number: 1, Process: "p"},
		&CreateTopic{Now: 1, ID: 1, Name: "t", Config: TopicConfig{DedupMillis: 5}},
		&DeleteTopic{ID: 1, Reason: "r"}, &CreateSub{ID: 2, Topic: 1, Name: "s"},
		&DeleteSub{ID: 2, Reason: "r"}, &Publish{Topic: 1, Message: ackwise.Message{ID: "m"}},
		&dueRecord{Topic: 1, Count: 1}, &pullRecord{Sub: 2, To: 1},
		&leaseRecord{Sub: 2, Session: 3, Gen: 9, Seqs: []uint64{0}, Runs: []uint32{0}},
		&settleRecord{Sub: 2, Outcome: ackwise.OutcomeNack, Reason: "r"},
		&settleManyRecord{Sub: 2, Seqs: []uint64{0, 1}},
		&expireRecord{Sub: 2, Seqs: []uint64{0}}, &wakeRecord{Sub: 2, Count: 1},
		&OpenSession{ID: 3, Sub: 2, Word: "w", Foreign: true}, &EndSession{ID: 3, How: EndLost},
		&redriveRecord{Sub: 2, Redo: true}, &dropDeadRecord{Sub: 2, Reason: "r"},
		&TablePut{Table: "t", Key: "k", Value: []byte{1}, Version: 1}, &trimRecord{Topic: 1},
		&ackLostRecord{Sub: 2, Gen: 9}, &producedAgainRecord{Topic: 1, Count: 1},
		&committedRecord{ID: "c"},
		&makeSetRecord{ID: 4, Name: "x", Config: setConfig{WindowMillis: 100, MaxKeys: 9}},
		&bindSetRecord{Set: 4, Rule: "r"},
		&claimsRecord{Set: 4, Call: 1, First: 7, Asks: []asked{{"k", 1, 50}, {"l", 0, 60}}},
		&settleClaimsRecord{Set: 4, Claims: []settledClaim{
			{verb: idempotency.Complete, key: "k", fence: 5},
			{verb: idempotency.Extend, key: "l", fence: 6, until: 9}}},
		&completeClaimRecord{Set: 4, Key: "k", Fence: 5, Result: []byte("r")},
		&onceRecord{Set: 4, Keys: []asked{{key: "m", sum: 3}}}, &expireSetRecord{Set: 4, To: 1}}
}

func (r *Publish) check(*State) error { return nil }
func (r *Publish) apply(*State)       {}

// decodeState reads a state from all of b.
func decodeState(b []byte) (*State, error) {
	s := New()
	return s, s.decode(&decoder{b: b})
}

// FuzzRecord feeds any bytes to the state as a record: it is refused, or it is applied and leaves a
// state that can be written down and read back.
func FuzzRecord(f *testing.F) {
	for _, r := range seedRecords() {
		f.Add(r.Type(), r.Append(nil))
	}
	f.Fuzz(func(t *testing.T, typ byte, payload []byte) {
		s := New()
		for _, r := range []Record{&CreateTopic{ID: 1, Name: "t"}, &CreateSub{ID: 2, Topic: 1},
			&OpenSession{ID: 3, Sub: 2, Word: "w"},
			&makeSetRecord{ID: 4, Name: "x", Config: setConfig{WindowMillis: 100, MaxKeys: 9}},
			&claimsRecord{Set: 4, Call: 1, First: 5, Asks: []asked{{"k", 1, 50}, {"l", 0, 60}}}} {
			if err := s.Do(r); err != nil {
				t.Fatal(err)
			}
		}
		if s.Apply(4096, typ, payload) != nil {
			return
		}
		b := s.Encode(nil)
		again, err := decodeState(b)
		if err != nil || !bytes.Equal(again.Encode(nil), b) {
			t.Errorf("the state does not survive its checkpoint: %v", err)
		}
	})
}

// FuzzCheckpoint feeds any bytes to Decode: it refuses them, or what it reads can be written again.
func FuzzCheckpoint(f *testing.F) {
	s := newSim(&testing.T{}, 1)
	s.do(&CreateTopic{ID: s.live.NextID(), Name: "t"})
	s.do(&CreateSub{ID: s.live.NextID(), Topic: 1, Name: "s", Config: SubConfig{Ordered: true,
		Hold: true, LeaseMillis: 100, MaxParked: 100, MaxWaiting: 100}})
	for range 200 {
		s.step()
	}
	f.Add(s.live.Encode(nil))
	long := newState(4, 4) // with frozen chunks and runs
	top := long.newTopic(1, "t")
	long.topics[1], long.byName["t"] = top, top
	for i := range uint64(30) {
		e := indexEntry{pos: 100 + 64*i, size: 40, lane: i % 2}
		top.index.add(e)
		e.pos += 10_000
		top.schedule.push(scheduled{due: int64(i * 7 % 31), order: i, indexEntry: e})
	}
	f.Add(long.Encode(nil))
	sets := newSetSim(newSim(&testing.T{}, 2))
	for range 200 {
		sets.step()
	}
	f.Add(sets.live.Encode(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := decodeState(b)
		if err == nil {
			st.Encode(nil)
		}
		streamed := New().Load(iotest.HalfReader(bytes.NewReader(b)), int64(len(b)))
		if (err == nil) != (streamed == nil) {
			t.Errorf("read whole: %v, as a stream: %v", err, streamed)
		}
	})
}
