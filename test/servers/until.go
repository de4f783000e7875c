package servers

import (
	"testing"
	"time"
)

// Until waits until ok, and fails the test where that takes longer than within.
func Until(t testing.TB, what string, within time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s", what, within)
		}
		wait(20 * time.Millisecond)
	}
}
