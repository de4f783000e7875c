package queue

import (
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// benchKeys are the same rows for each benchmark: keys from a number on, with a fingerprint.
func benchKeys(from, n int) []idempotency.Ask {
	asks := make([]idempotency.Ask, n)
	for i := range asks {
		asks[i] = idempotency.Ask{Key: fmt.Sprintf("0197f3c2-aaaa-7bbb-8ccc-%012d", from+i),
			Sum: idempotency.Sum{byte(i), 1}, Lease: time.Minute}
	}
	return asks
}

func benchClaim(b *testing.B, s *Store, asks []idempotency.Ask,
	want idempotency.Status) []idempotency.Settlement {
	b.Helper()
	answers, err := s.Claim(b.Context(), "set", asks)
	if err != nil {
		b.Fatal(err)
	}
	settle := make([]idempotency.Settlement, len(asks))
	for i, a := range answers {
		if a.Status != want {
			b.Fatalf("%s: %s, %v, want %s", asks[i].Key, a.Status, a.Err, want)
		}
		settle[i] = idempotency.Settlement{Key: asks[i].Key, Fence: a.Fence,
			Verb: idempotency.Complete}
	}
	return settle
}

func benchComplete(b *testing.B, s *Store, claims []idempotency.Settlement) {
	b.Helper()
	errs, err := s.SettleClaims(b.Context(), "set", claims)
	if err != nil {
		b.Fatal(err)
	}
	for i, err := range errs {
		if err != nil {
			b.Fatalf("%s: %v", claims[i].Key, err)
		}
	}
}

// One operation is one row, by one caller in batches: published, or claimed and completed, both
// synced in the end. "again" claims what is done.
func BenchmarkClaims(b *testing.B) {
	for _, batch := range []int{1, 100} {
		for _, what := range []string{"publish", "claim", "complete", "both", "again"} {
			b.Run(fmt.Sprintf("batch=%d/%s", batch, what), func(b *testing.B) {
				benchClaims(b, batch, what)
			})
		}
	}
}

func benchClaims(b *testing.B, batch int, what string) {
	s := benchStore(b, Options{}, SubscriptionOptions{})
	if err := s.OpenSet(b.Context(), "set", time.Hour, 1<<24); err != nil {
		b.Fatal(err)
	}
	if what == "again" {
		benchComplete(b, s, benchClaim(b, s, benchKeys(0, batch), idempotency.Claimed))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += batch {
		b.StopTimer()
		asks := benchKeys(done, batch)
		msgs := make([]ackwise.Message, batch)
		for i := range msgs {
			msgs[i] = ackwise.Message{Topic: "t", ID: asks[i].Key, Body: asks[i].Sum[:]}
		}
		b.StartTimer()
		switch what {
		case "publish":
			for _, r := range s.Publish(b.Context(), msgs) {
				if r.Class != ackwise.ResultAccepted {
					b.Fatal(r.Err)
				}
			}
		case "again":
			benchClaim(b, s, benchKeys(0, batch), idempotency.Done)
		case "claim":
			claims := benchClaim(b, s, asks, idempotency.Claimed)
			b.StopTimer()
			benchComplete(b, s, claims)
			b.StartTimer()
		case "complete":
			b.StopTimer()
			claims := benchClaim(b, s, asks, idempotency.Claimed)
			b.StartTimer()
			benchComplete(b, s, claims)
		case "both":
			benchComplete(b, s, benchClaim(b, s, asks, idempotency.Claimed))
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
