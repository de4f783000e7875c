package bench_test

import (
	"context"
	"fmt"
	"time"

	"github.com/ackwise/ackwise/internal/bench"
)

func ExampleRun() {
	report, err := bench.Run(context.Background(), bench.Options{Publishers: []int{1},
		Sizes: []int{100}, Window: 5 * time.Millisecond, Rounds: 1, Keys: 1000,
		Subscriptions: 20, SegmentBytes: 1 << 20})
	if err != nil {
		fmt.Println(err)
		return
	}
	p := report.Publish[0]
	fmt.Println(p.Publishers, p.Size, p.Start, p.Ratio > 0)
	// Output: 1 100 cold true
}
