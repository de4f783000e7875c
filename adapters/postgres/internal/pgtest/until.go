package pgtest

import (
	"testing"
	"time"
)

// Until polls until ok, for a minute at most.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	limit := time.NewTimer(60 * time.Second)
	defer limit.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: it is not so, after a minute", what)
		}
	}
}
