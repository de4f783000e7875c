package state

import (
	"fmt"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// benchState is a state with so many topics of one subscription each, and a session on the first.
type benchState struct {
	b     *testing.B
	st    *State
	topic *Topic
	busy  *Session
	pos   uint64
}

func newBenchState(b *testing.B, subs int, ordered bool) *benchState {
	s := &benchState{b: b, st: New()}
	s.do(&Open{Now: 1, Number: 1})
	for i := range subs {
		topic := s.st.NextID()
		s.do(&CreateTopic{ID: topic, Name: fmt.Sprint("t", i), Config: TopicConfig{
			MaxMessages: 1e9, MaxBytes: 1e12}})
		s.do(&CreateSub{ID: s.st.NextID(), Topic: topic, Name: "s", Config: SubConfig{
			Ordered: ordered, LeaseMillis: 1000, MaxParked: 1000, MaxWaiting: 1e6}})
		s.do(&OpenSession{ID: s.st.NextID(), Sub: s.st.lastID, Word: fmt.Sprint("w", i)})
	}
	s.topic, s.busy = s.st.Topic("t0"), s.st.Session("w0")
	return s
}

func (s *benchState) do(r Record) {
	if err := s.st.Do(r); err != nil {
		s.b.Fatal(err)
	}
}

func (s *benchState) publish(now int64, topic uint32, key string) {
	s.pos += 128
	r := Publish{Now: now, Topic: topic, Message: ackwise.Message{ID: "m", Key: key}}
	if err := s.st.ApplyPublish(&r, s.pos, 100); err != nil {
		s.b.Fatal(err)
	}
}

// take hands a batch out to a session and, where settle is set, acks it.
func (s *benchState) take(now int64, ss *Session, settle bool) int {
	_, out := s.st.HandOut(now, Ask{Session: ss, Max: 256, MaxBytes: 1 << 20, Lease: 1000,
		Synced: s.pos + 1})
	var records []Record
	for i := range out {
		if !settle {
			break
		}
		var err error
		records, _, err = s.st.Settle(now, Settling{Sub: ss.Sub, Seq: out[i].Seq, Gen: out[i].Gen},
			records)
		if err != nil {
			s.b.Fatal(err)
		}
	}
	s.st.Tick(now)
	s.st.Touched(func(*Sub) bool { return true })
	s.st.NextWake()
	return len(out)
}

// run publishes b.N messages with keys in turn, in batches, and takes them as they come.
func (s *benchState) run(keys []string) {
	s.b.ReportAllocs()
	s.b.ResetTimer()
	cpu := benchCPU()
	for done := 0; done < s.b.N; {
		now := int64(done / 100)
		for i := range min(256, s.b.N-done) {
			s.publish(now, s.topic.ID, keys[(done+i)%len(keys)])
		}
		for taken := 1; taken > 0; done += taken {
			taken = s.take(now, s.busy, true)
		}
	}
	s.b.ReportMetric(float64(benchCPU()-cpu)/float64(s.b.N), "cpu-ns/op")
}

// benchCPU is the processor time that the process has used: what a step costs on a machine that is
// not idle.
func benchCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// One operation is one message, published, handed out and acked on a busy subscription, while each
// of the others holds a message whose lease runs out in time.
func BenchmarkManySubs(b *testing.B) {
	for _, subs := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("subs=%d", subs), func(b *testing.B) {
			s := newBenchState(b, subs, false)
			for i := 1; i < subs; i++ {
				s.publish(1, s.st.Topic(fmt.Sprint("t", i)).ID, "")
				s.take(1, s.st.Session(fmt.Sprint("w", i)), false)
			}
			s.run([]string{""})
		})
	}
}

// One operation is one message, published, handed out and acked on an ordered subscription.
func BenchmarkManyKeys(b *testing.B) {
	for _, n := range []int{1, 1_000, 1_000_000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			s := newBenchState(b, 1, true)
			keys := make([]string, n)
			for i := range keys {
				keys[i] = strconv.Itoa(i * 7919 % n)
			}
			s.run(keys)
		})
	}
}
