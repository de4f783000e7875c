// Package pause waits between two attempts. It promises that a wait ends with its context. It
// decides no times: those are the caller's.
package pause

import (
	"context"
	"time"
)

// For waits for d, or until ctx ends, and reports whether ctx goes on. With d of 0 or less it does
// not wait.
func For(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
