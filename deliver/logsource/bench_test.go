package logsource_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

// BenchmarkBatches is what a message costs between Log.Poll and its position's Commit, with a
// handler that does nothing and a log that costs nothing.
func BenchmarkBatches(b *testing.B) {
	for _, keys := range []int{100, 10_000} {
		b.Run(fmt.Sprint(keys, " keys"), func(b *testing.B) { benchBatches(b, keys) })
	}
}

func benchBatches(b *testing.B, keys int) {
	l := memlog.New("t", 6)
	for i := range b.N {
		l.Append(i%6, ackwise.Message{ID: fmt.Sprint("m-", i), Topic: "t",
			Key: fmt.Sprint("key-", i*7919%keys), Body: []byte("x")})
	}
	m := l.Join("a")
	src, err := logsource.New(m, logsource.Options{NoteBytes: 3072})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	for p := range 6 {
		l.Move(p, m, time.Time{})
	}
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	b.ResetTimer()
	done := 0
	err = deliver.RunBatch(ctx, src, ackwise.BatchHandlerFunc(
		func(_ context.Context, ds []*ackwise.Delivery) []error {
			if done += len(ds); done >= b.N {
				cancel()
			}
			return make([]error, len(ds))
		}), deliver.Options{Concurrency: 1, BatchSize: 4096, MaxInFlight: 8192, NoDeadLetters: true})
	if err != nil {
		b.Error(err)
	}
}
