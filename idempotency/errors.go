package idempotency

import (
	"errors"
	"fmt"
)

// Errors of stores and tables. A full store answers ackwise.ErrFull, one that was closed
// ackwise.ErrClosed.
var (
	// ErrFence: the claim ran out and was taken over, or the key is done by another one.
	ErrFence = errors.New("the claim is no longer held")
	// ErrChanged: the value was changed since it was read.
	ErrChanged = errors.New("the value was changed meanwhile")
	// ErrStamped: the key is written with logical timestamps and without.
	ErrStamped = errors.New("the key is written both with logical timestamps and without")
)

// RuleError reports a store whose keys and sums are made by another rule than this handler's: two
// handlers share one name, and each would take the other's effects for its own.
type RuleError struct {
	Store     string // the store's name
	Kept, Got string // the rule that the store keeps, and the one that was refused
}

// Error names the store and both rules.
func (e *RuleError) Error() string {
	return fmt.Sprintf("dedup store %s is used with the rule %q, not %q: give each handler a store "+
		"name of its own", e.Store, e.Kept, e.Got)
}
