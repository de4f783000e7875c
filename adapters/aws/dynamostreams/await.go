package dynamostreams

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// awaitPatience is how long a table or a stream may take to be as it should be.
const awaitPatience = 2 * time.Minute

// await asks until what is asked for is ready: until ask gives no state that it is in instead. What
// ends it before that passes, since the next opening may find it ready.
func await[T any](ctx context.Context, what string,
	ask func(context.Context) (v T, state string, err error)) (T, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, awaitPatience,
		fmt.Errorf("it is not ready after %s: %w", awaitPatience, context.DeadlineExceeded))
	defer cancel()
	last := ""
	for {
		v, state, err := ask(ctx)
		if err == nil && state == "" {
			return v, nil
		}
		if err == nil {
			last = state
			if pause.For(ctx, 500*time.Millisecond) {
				continue
			}
		}
		if ctx.Err() != nil && last != "" {
			err = fmt.Errorf("wait for %s, which is %s: %w", what, last, context.Cause(ctx))
		}
		return v, err
	}
}

// awaitTable describes a table until wanted finds no state that it is in instead.
func (l *stream) awaitTable(ctx context.Context, table string,
	wanted func(*types.TableDescription) string) (*types.TableDescription, error) {
	return await(ctx, "the table "+table,
		func(ctx context.Context) (*types.TableDescription, string, error) {
			t, err := l.describe(ctx, table)
			if err != nil {
				return nil, "", err
			}
			return t, wanted(t), nil
		})
}

// awaitMade waits for a table that was just made. It may not be described at once: descriptions are
// eventually consistent.
func (l *stream) awaitMade(ctx context.Context, table string) (*types.TableDescription, error) {
	return await(ctx, "the table "+table,
		func(ctx context.Context) (*types.TableDescription, string, error) {
			t, err := l.describe(ctx, table)
			if isMissing(err) {
				return nil, "not there yet", nil
			}
			if err != nil {
				return nil, "", err
			}
			return t, closed(t), nil
		})
}

// closed returns the state of a table that takes no reads and writes: it answers them as if it were
// not there while it is made.
func closed(t *types.TableDescription) string {
	switch t.TableStatus {
	case types.TableStatusActive, types.TableStatusUpdating:
		return ""
	}
	return string(t.TableStatus)
}

func isMissing(err error) bool {
	_, missing := errors.AsType[*ackwise.NotFoundError](err)
	return missing
}
