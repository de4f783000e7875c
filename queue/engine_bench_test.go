package queue

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// benchStore opens a store with the topic "t" and its subscription "s".
func benchStore(b *testing.B, o Options, sub SubscriptionOptions) *Store {
	b.Helper()
	s, err := Open(b.TempDir(), o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	benchSubscription(b, s, "t", sub)
	return s
}

// benchSubscription makes a topic and its subscription "s".
func benchSubscription(b *testing.B, s *Store, topic string, o SubscriptionOptions) {
	b.Helper()
	if err := s.CreateTopic(b.Context(), topic, TopicOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := s.CreateSubscription(b.Context(), topic, "s", o); err != nil {
		b.Fatal(err)
	}
}

// One operation is one message, published by itself and synced, by so many publishers at once.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 64, 512} {
		for _, given := range []bool{false, true} {
			name := fmt.Sprintf("publishers=%d/id=assigned", publishers)
			if given {
				name = fmt.Sprintf("publishers=%d/id=given", publishers)
			}
			b.Run(name, func(b *testing.B) { benchPublish(b, publishers, given) })
		}
	}
}

func benchPublish(b *testing.B, publishers int, given bool) {
	s := benchStore(b, Options{}, SubscriptionOptions{})
	body := make([]byte, 1024)
	var next, refusals atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	for range publishers {
		wg.Go(func() { // ends when b.N are published
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				m := ackwise.Message{Topic: "t", Body: body}
				if given {
					m.ID = strconv.FormatInt(n, 10)
				}
				r := s.Publish(b.Context(), []ackwise.Message{m})
				if r[0].Class != ackwise.ResultAccepted {
					refusals.Add(1)
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	if n := refusals.Load(); n > 0 {
		b.Fatalf("%d of %d were refused", n, b.N)
	}
}

// One operation is one message of a backlog, received and acked in batches by one consumer. Without
// syncs what is measured is the processor's part.
func BenchmarkReceiveAck(b *testing.B) {
	for _, sync := range []SyncPolicy{SyncAlways, SyncNever} {
		for _, batch := range []int{1, 32, 256} {
			for _, keyed := range []bool{false, true} {
				b.Run(fmt.Sprintf("sync=%t/batch=%d/keyed=%t", sync == SyncAlways, batch, keyed),
					func(b *testing.B) {
						s := benchStore(b, Options{Sync: sync}, SubscriptionOptions{Ordered: keyed})
						benchReceiveAck(b, s, batch, keyed)
					})
			}
		}
	}
}

func benchReceiveAck(b *testing.B, s *Store, batch int, keyed bool) {
	benchBacklog(b, s, keyed)
	r, err := s.Receiver(b.Context(), "t", "s", ReceiverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	cpu := benchCPU()
	for done := 0; done < b.N; {
		n, err := benchTake(b.Context(), r, batch)
		if err != nil {
			b.Fatal(err)
		}
		done += n
	}
	b.StopTimer()
	b.ReportMetric(float64(benchCPU()-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// benchCPU is the processor time that the process has used: what a call costs on a machine that is
// not idle.
func benchCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// benchTake receives a batch and acks it.
func benchTake(ctx context.Context, r *Receiver, batch int) (int, error) {
	ds, err := r.Receive(ctx, batch)
	if err != nil {
		return 0, err
	}
	acks := make([]ackwise.Settlement, len(ds))
	for i, d := range ds {
		acks[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
	}
	for _, res := range r.Settle(ctx, acks) {
		if res.Err != nil {
			return 0, res.Err
		}
	}
	return len(ds), nil
}

// benchBacklog publishes b.N messages of 100 bytes, where keyed with one of 1,000 keys.
func benchBacklog(b *testing.B, s *Store, keyed bool) {
	b.Helper()
	body := make([]byte, 100)
	var msgs []ackwise.Message
	for i := range b.N {
		m := ackwise.Message{Topic: "t", Body: body}
		if keyed {
			m.Key = strconv.Itoa(i * 7919 % 1000)
		}
		if msgs = append(msgs, m); len(msgs) < 1000 && i < b.N-1 {
			continue
		}
		for _, r := range s.Publish(b.Context(), msgs) {
			if r.Class != ackwise.ResultAccepted {
				b.Fatal(r.Err)
			}
		}
		msgs = msgs[:0]
	}
}

// One operation is one message of 1 KiB, published and synced by 64 publishers, while as many
// consumers receive and ack. With no consumers it is what they are measured against.
func BenchmarkSteady(b *testing.B) {
	for _, consumers := range []int{0, 64} {
		b.Run(fmt.Sprintf("consumers=%d", consumers), func(b *testing.B) {
			s := benchStore(b, Options{}, SubscriptionOptions{})
			benchSteady(b, s, consumers)
		})
	}
}

func benchSteady(b *testing.B, s *Store, consumers int) {
	const publishers = 64
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	body := make([]byte, 1024)
	var next, taken, faults atomic.Int64
	var publishing, consuming sync.WaitGroup
	b.ReportAllocs()
	b.ResetTimer()
	cpu := benchCPU()
	for range consumers {
		r, err := s.Receiver(b.Context(), "t", "s", ReceiverOptions{})
		if err != nil {
			b.Fatal(err)
		}
		consuming.Go(func() { // ends when all are taken
			for taken.Load() < int64(b.N) {
				n, err := benchTake(ctx, r, 256)
				if err != nil && ctx.Err() == nil {
					faults.Add(1)
					return
				}
				if taken.Add(int64(n)) == int64(b.N) {
					cancel()
				}
			}
		})
	}
	for range publishers {
		publishing.Go(func() { // ends when b.N are published
			for n := next.Add(1); n <= int64(b.N); n = next.Add(1) {
				r := s.Publish(b.Context(), []ackwise.Message{{Topic: "t", Body: body}})
				if r[0].Class != ackwise.ResultAccepted {
					faults.Add(1)
				}
			}
		})
	}
	publishing.Wait()
	consuming.Wait()
	b.StopTimer()
	b.ReportMetric(float64(benchCPU()-cpu)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
	if n := faults.Load(); n > 0 {
		b.Fatalf("%d calls were refused", n)
	}
}

// One operation is one message of a backlog, received and acked, beside so many subscriptions with
// topics of their own that do nothing but wait.
func BenchmarkManySubs(b *testing.B) {
	for _, subs := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("subs=%d", subs), func(b *testing.B) {
			s := benchStore(b, Options{Sync: SyncNever}, SubscriptionOptions{})
			for i := range subs - 1 {
				benchSubscription(b, s, fmt.Sprintf("idle-%d", i), SubscriptionOptions{})
			}
			benchReceiveAck(b, s, 256, false)
		})
	}
}
