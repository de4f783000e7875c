package queue

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ackwise/ackwise"
)

// benchStore opens a store with the topic "t" and its subscription "s".
func benchStore(b *testing.B, o SubscriptionOptions) *Store {
	b.Helper()
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	if err := s.CreateTopic(b.Context(), "t", TopicOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := s.CreateSubscription(b.Context(), "t", "s", o); err != nil {
		b.Fatal(err)
	}
	return s
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
	s := benchStore(b, SubscriptionOptions{})
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

// One operation is one message of a backlog, received and acked in batches by one consumer.
func BenchmarkReceiveAck(b *testing.B) {
	for _, batch := range []int{1, 256} {
		for _, keyed := range []bool{false, true} {
			b.Run(fmt.Sprintf("batch=%d/keyed=%t", batch, keyed),
				func(b *testing.B) { benchReceiveAck(b, batch, keyed) })
		}
	}
}

func benchReceiveAck(b *testing.B, batch int, keyed bool) {
	s := benchStore(b, SubscriptionOptions{Ordered: keyed})
	benchBacklog(b, s, keyed)
	r, err := s.Receiver(b.Context(), "t", "s", ReceiverOptions{})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		ds, err := r.Receive(b.Context(), batch)
		if err != nil {
			b.Fatal(err)
		}
		acks := make([]ackwise.Settlement, len(ds))
		for i, d := range ds {
			acks[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
		}
		for _, res := range r.Settle(b.Context(), acks) {
			if res.Err != nil {
				b.Fatal(res.Err)
			}
		}
		done += len(ds)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// benchBacklog publishes b.N messages of 200 bytes, where keyed with one of 1,000 keys.
func benchBacklog(b *testing.B, s *Store, keyed bool) {
	b.Helper()
	body := make([]byte, 200)
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
