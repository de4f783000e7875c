package reach

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// silentError says that nobody answered in time.
type silentError struct{ patience time.Duration }

func (e *silentError) Error() string {
	return fmt.Sprintf("it did not answer within %s", e.patience)
}

// Is makes it what passes.
func (e *silentError) Is(target error) bool { return target == context.DeadlineExceeded }

// Within opens something that may not answer. After patience the error says so, and passes.
func Within[T any](ctx context.Context, patience time.Duration,
	open func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, &silentError{patience})
	defer cancel()
	v, err := open(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	return v, err
}
