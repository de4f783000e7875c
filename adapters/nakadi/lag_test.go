package nakadi_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	fake "github.com/ackwise/ackwise/test/nakadi"
)

// lagging is what a pipeline asks how far behind it is.
type lagging interface {
	Lag(ctx context.Context) (records int64, oldest time.Time, err error)
}

// TestLag: what is not committed is told from the first moment on.
func TestLag(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	b.oneKey(3)
	src := b.source(mine+"&read_from=begin", nil)
	var at time.Time
	lag := func(want int64) {
		t.Helper()
		until(t, fmt.Sprintf("the lag is %d", want), func() bool {
			n, oldest, err := src.(lagging).Lag(t.Context())
			if err != nil && !strings.Contains(err.Error(), "no stream") {
				t.Fatal(err)
			}
			if err == nil && n < want {
				t.Fatalf("the lag is %d, want %d", n, want)
			}
			at = oldest
			return err == nil && n == want
		})
	}
	lag(3)
	if since := time.Since(at); since < 0 || since > time.Minute {
		t.Errorf("the oldest is of %s", at)
	}
	for left, d := range receive(t, src, 3) {
		lag(int64(3 - left))
		settle(t, src, d)
	}
	if lag(0); !at.IsZero() {
		t.Errorf("nothing is old, and the oldest is of %s", at)
	}
}
