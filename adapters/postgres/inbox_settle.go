package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// Pauses between the attempts to settle.
const (
	settleFirst = 50 * time.Millisecond
	settleCap   = time.Second
)

// settleAll settles, and tries again until ctx ends what may pass, such as a group that is being
// rebalanced: the effects are made, and a failure would count against the messages. It returns an
// error, or nil, for each.
func settleAll(ctx context.Context, src ackwise.Source, list []ackwise.Settlement) []error {
	errs := make([]error, len(list))
	left := make([]int, len(list)) // indexes of what is still to be settled
	for i := range list {
		left[i] = i
	}
	for delay := settleFirst; ; delay = min(2*delay, settleCap) {
		batch := make([]ackwise.Settlement, len(left))
		for k, i := range left {
			batch[k] = list[i]
		}
		results := src.Settle(ctx, batch)
		again := left[:0]
		for k, i := range left {
			if len(results) == len(batch) {
				errs[i] = results[k].Err
			} else {
				errs[i] = fmt.Errorf("the source gave %d results for %d settlements", len(results),
					len(batch))
			}
			if errs[i] != nil && mayPass(errs[i]) {
				again = append(again, i)
			}
		}
		if left = again; len(left) == 0 || !pause.For(ctx, delay) {
			return errs
		}
	}
}

// mayPass reports whether another attempt to settle may end otherwise.
func mayPass(err error) bool {
	for _, final := range []error{ackwise.ErrLeaseLost, ackwise.ErrSettled, ackwise.ErrBadToken,
		ackwise.ErrClosed} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}
