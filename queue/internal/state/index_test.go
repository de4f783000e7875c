package state

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"testing/iotest"

	"github.com/ackwise/ackwise"
)

// At the real sizes: what is in line and scheduled comes out as it went in, in order, also from a
// checkpoint taken half way, and it takes the memory that the documentation says.
func TestALongLineAndScheduleComeOutAsTheyWentIn(t *testing.T) {
	const messages = 20_000
	rng := rand.New(rand.NewPCG(3, 3))
	s := New()
	for _, r := range []Record{&CreateTopic{Now: 1, ID: 1, Name: "t"},
		&CreateSub{Now: 1, ID: 2, Topic: 1, Name: "s"}} {
		if err := s.Do(r); err != nil {
			t.Fatal(err)
		}
	}
	var line []indexEntry
	var later []scheduled
	pos := uint64(544)
	for i := range messages {
		p := &Publish{Now: int64(i), Topic: 1, Message: ackwise.Message{Key: fmt.Sprint(i % 3)}}
		if i%3 == 0 {
			p.Message.Key = ""
		}
		e := indexEntry{pos: pos, lane: laneHash(p.Message.Key), size: uint32(200 + rng.IntN(3)*i),
			sec: uint32(i / 1000)}
		if i%2 == 0 {
			p.Due = messages + rng.Int64N(50_000)
			later = append(later, scheduled{p.Due, uint64(len(later) + 1), e})
		} else {
			line = append(line, e)
		}
		if err := s.ApplyPublish(p, pos, int(e.size)); err != nil {
			t.Fatal(err)
		}
		pos += uint64(e.size) + 9 + 512*uint64(rng.IntN(2))
	}
	slices.SortFunc(later, compareScheduled)
	compare := func(top *Topic, r *reader, seq, due int) {
		t.Helper()
		if got := *top.index.at(uint64(seq), r); got != line[seq] {
			t.Fatalf("message %d in line is %v, want %v", seq, got, line[seq])
		}
		if got := top.schedule.pop(); got != later[due] {
			t.Fatalf("due message %d is %v, want %v", due, got, later[due])
		}
	}
	var r reader
	for i := range messages / 4 {
		compare(s.Topic("t"), &r, rng.IntN(messages/2), i)
	}
	b := s.Encode(nil)
	if perMessage := len(b) / (messages * 3 / 4); perMessage > 15 {
		t.Errorf("%d bytes a message", perMessage)
	}
	again := New()
	if err := again.Load(iotest.HalfReader(bytes.NewReader(b)), int64(len(b))); err != nil {
		t.Fatal(err)
	}
	for _, st := range []*State{s, again} {
		r = reader{}
		for i := messages / 4; i < messages/2; i++ {
			compare(st.Topic("t"), &r, i, i)
		}
		if _, left := st.Topic("t").schedule.top(); left {
			t.Error("something is left in the schedule")
		}
	}
}

// A snapshot is of its moment: what the state does next does not show in it.
func TestASnapshotStandsStill(t *testing.T) {
	s := backlog(t, 5000, 0)
	q := s.SubByID(2)
	want := s.Encode(nil)
	snapshot := s.Snapshot()
	s.pullTo(q, 3000)
	p := &Publish{Now: 99_999, Topic: 1, Message: ackwise.Message{ID: "m", Key: "k"}, Due: 999_999}
	for i := range 6000 {
		p.Due -= int64(i)
		if err := s.ApplyPublish(p, uint64(1<<30+300*i), 200); err != nil {
			t.Fatal(err)
		}
	}
	s.Tick(1 << 40)
	var got bytes.Buffer
	if _, err := snapshot.WriteTo(&got); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("the snapshot moved on with the state: %d bytes, were %d, %v", got.Len(), len(want), err)
	}
}

// Messages of next year do not hold the memory of the thousands that were scheduled with them.
func TestAFewOldSchedulesHoldLittleMemory(t *testing.T) {
	const rounds = 100
	s := schedule{limit: runLen}
	for i := range uint64(rounds * 2 * runLen) {
		m := scheduled{due: int64(i), order: i}
		if i%runLen == 0 {
			m.due = 1 << 40
		}
		s.push(m)
		for i%(2*runLen) == 2*runLen-1 {
			if top, _ := s.top(); top.due == 1<<40 {
				break
			}
			s.pop()
		}
	}
	bytes := 0
	for _, r := range s.runs {
		bytes += len(r.rest)
	}
	if s.len != 2*rounds || len(s.runs) > 2 || bytes > 20*s.len {
		t.Errorf("%d messages in %d runs of %d bytes", s.len, len(s.runs), bytes)
	}

	s = schedule{limit: 1 << 17}
	for i := range uint64(1<<17 + 1) {
		s.push(scheduled{due: int64(i), order: i * i})
	}
	s.open = nil
	whole := heapBytes()
	for range 1 << 17 * 4 / 5 {
		s.runs[0].next()
	}
	if gone := whole - heapBytes(); gone < int64(len(s.runs[0].rest)) {
		t.Errorf("%d bytes are let go of a run of which %d are left", gone, len(s.runs[0].rest))
	}
}

// A length that is false makes no room for what is not there, and a stream that fails is told.
func TestAFalseLengthAllocatesLittle(t *testing.T) {
	b := putString(putUint(putInt(nil, 1), uint32(1)), "p")
	b = b[:len(b)-2]
	b = putUint(b, uint64(1<<40)) // the owner's name is a terabyte long
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := New().Load(bytes.NewReader(append(b, make([]byte, 200_000)...)), 1<<41)
	runtime.ReadMemStats(&after)
	if err == nil || after.TotalAlloc-before.TotalAlloc > 4<<20 {
		t.Errorf("%v, after %d bytes were allocated", err, after.TotalAlloc-before.TotalAlloc)
	}
	whole := backlog(t, 3000, 0).Encode(nil)
	broken := errors.New("the disk is gone")
	err = New().Load(iotest.ErrReader(broken), int64(len(whole)))
	if !errors.Is(err, broken) {
		t.Errorf("a stream that fails gives %v", err)
	}
	if err := New().Load(bytes.NewReader(whole), int64(len(whole))-1); err == nil {
		t.Error("a byte less was accepted")
	}
	if _, err := decodeState(append(whole, 0)); err == nil {
		t.Error("a byte more was accepted")
	}
}
