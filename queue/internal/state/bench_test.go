package state

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/ackwise/ackwise"
)

// backlog is a state with messages of 200 bytes in line, or scheduled, of 100,000 keys.
func backlog(tb testing.TB, messages int, ahead int64) *State {
	tb.Helper()
	s := New()
	for _, r := range []Record{&CreateTopic{Now: 1, ID: 1, Name: "t"},
		&CreateSub{Now: 1, ID: 2, Topic: 1, Name: "s", Config: SubConfig{Ordered: true,
			MaxParked: 1e6, MaxWaiting: 1e6}},
		&OpenSession{Now: 1, ID: 3, Sub: 2, Word: "w"}} {
		if err := s.Do(r); err != nil {
			tb.Fatal(err)
		}
	}
	p := &Publish{Topic: 1, Message: ackwise.Message{ID: "0123456789"}}
	pos := uint64(4096)
	for i := range messages {
		p.Now = 1000 + int64(i/500)
		p.Message.Key = fmt.Sprint("key-", i*7919%100_000)
		if ahead > 0 {
			p.Due = p.Now + 1 + int64(i)*7919%ahead
		}
		size := 225 + len(p.Message.Key)
		if err := s.ApplyPublish(p, pos, size); err != nil {
			tb.Fatal(err)
		}
		if pos += uint64(size) + 9; i%64 == 63 { // the next group
			pos = (pos+511)/512*512 + 32
		}
	}
	return s
}

func heapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

var kinds = []struct {
	name  string
	ahead int64
}{{"line", 0}, {"scheduled", 24 * 3600 * 1000}}

// One operation is one message that comes; the memory that it takes is reported.
func BenchmarkAdd(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.name, func(b *testing.B) {
			before := heapBytes()
			s := backlog(b, b.N, kind.ahead)
			b.StopTimer()
			b.ReportMetric(float64(heapBytes()-before)/float64(b.N), "B/message")
			runtime.KeepAlive(s)
		})
	}
}

// One operation is one message that leaves the line: read at a cursor, and let go.
func BenchmarkRead(b *testing.B) {
	s := backlog(b, b.N, 0)
	q := s.SubByID(2)
	t := q.Topic
	var r reader
	b.ResetTimer()
	for seq := t.index.first; seq < t.index.next; seq++ {
		if t.index.at(seq, &r).pos == 0 {
			b.Fatal("no position")
		}
		q.cursor++
		if seq%64 == 63 {
			s.trim(t)
		}
	}
}

// One operation is one message that is due.
func BenchmarkDue(b *testing.B) {
	s := backlog(b, b.N, 24*3600*1000)
	t := s.Topic("t")
	b.ResetTimer()
	for range b.N {
		t.schedule.pop()
	}
}

// One operation is what the lock is held for, at a million messages.
func BenchmarkSnapshot(b *testing.B) {
	for _, kind := range kinds {
		b.Run(kind.name, func(b *testing.B) {
			s := backlog(b, 1_000_000, kind.ahead)
			b.ReportAllocs()
			for b.Loop() {
				s.Snapshot()
			}
		})
	}
	b.Run("window", func(b *testing.B) { // a million pulled and not finished
		s := backlog(b, 1_000_000, 0)
		s.pullTo(s.SubByID(2), 1_000_000)
		for b.Loop() {
			s.Snapshot()
		}
	})
}

// One operation is writing down, and reading back, five million messages.
func BenchmarkCheckpoint(b *testing.B) {
	const messages = 5_000_000
	s := backlog(b, messages, 0)
	var buf bytes.Buffer
	b.Run("write", func(b *testing.B) {
		for b.Loop() {
			n, _ := s.Snapshot().WriteTo(io.Discard)
			b.SetBytes(n)
		}
	})
	_, _ = s.Snapshot().WriteTo(&buf)
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(buf.Len()))
		for b.Loop() {
			if err := New().Load(bytes.NewReader(buf.Bytes()), int64(buf.Len())); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(buf.Len())/messages, "B/message")
	})
}

// One operation is one look for where a subscription starts, in five million messages.
func BenchmarkStartAt(b *testing.B) {
	s := backlog(b, 5_000_000, 0)
	for b.Loop() {
		s.Topic("t").StartAt(0, 1<<29)
	}
}
