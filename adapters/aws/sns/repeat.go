package sns

import (
	"context"
	"time"

	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

// Calls that may be repeated without harm, which are all but those that publish, are tried so
// often.
const (
	tries = 4
	pause = 100 * time.Millisecond // after the first failure; one more after each
)

// repeated makes a call again whose answer was lost, or that was refused for now.
func repeated[I, O, F any](ctx context.Context,
	call func(context.Context, I, ...F) (O, error), in I) (out O, err error) {
	for try := 1; ; try++ {
		out, err = call(ctx, in)
		if err == nil || try == tries || !passes(err) {
			return out, err
		}
		timer := time.NewTimer(time.Duration(try) * pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return out, err
		}
	}
}

func passes(err error) bool {
	switch awsconn.KindOf(err) {
	case awsconn.Interrupted, awsconn.ServerFault, awsconn.Throttled:
		return true
	case awsconn.Other, awsconn.Denied, awsconn.Credentials, awsconn.Unreached, awsconn.Untrusted:
	}
	return false
}
