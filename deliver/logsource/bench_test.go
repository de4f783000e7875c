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
// handler that does nothing and a log that costs nothing. hot: four of five messages have one key
// of a hundred.
func BenchmarkBatches(b *testing.B) {
	uniform := func(i int) int { return i * 7919 % 10_000 }
	hot := func(i int) int {
		if i%5 > 0 {
			return i * 7919 % 100
		}
		return uniform(i)
	}
	for _, batch := range []int{1, 1000, 8000} {
		b.Run(fmt.Sprint("uniform-", batch), func(b *testing.B) { benchBatches(b, batch, uniform) })
		b.Run(fmt.Sprint("hot-", batch), func(b *testing.B) { benchBatches(b, batch, hot) })
	}
}

func benchBatches(b *testing.B, batch int, key func(i int) int) {
	l := memlog.New("t", 6)
	for i := range b.N {
		l.Append(i%6, ackwise.Message{ID: fmt.Sprint("m-", i), Topic: "t",
			Key: fmt.Sprint("key-", key(i)), Body: []byte("x")})
	}
	m := l.Join("a")
	src, err := logsource.New(m, logsource.Options{NoteBytes: 3072})
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	b.ReportAllocs()
	b.ResetTimer()
	for p := range 6 {
		l.Move(p, m, time.Time{})
	}
	done := 0
	err = deliver.RunBatch(ctx, src, ackwise.BatchHandlerFunc(
		func(_ context.Context, ds []*ackwise.Delivery) []error {
			if done += len(ds); done >= b.N {
				cancel()
			}
			return make([]error, len(ds))
		}), deliver.Options{Concurrency: 1, BatchSize: batch, MaxInFlight: 2 * batch,
		NoDeadLetters: true})
	if err != nil {
		b.Error(err)
	}
}
