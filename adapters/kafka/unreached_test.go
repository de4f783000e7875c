package kafka

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise"
)

// TestUnreachedKinds: errors of a first connection that servers give only sometimes, or late.
func TestUnreachedKinds(t *testing.T) {
	read := func(err error) error { return &net.OpError{Op: "read", Net: "tcp", Err: err} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{read(os.ErrDeadlineExceeded), "perhaps no Kafka broker listens at h:1"}, // a request's own
		{errors.New(openLate + " of 15s"), "perhaps no Kafka broker listens at h:1"},
		{fmt.Errorf("unable to dial: %w", read(os.ErrDeadlineExceeded)), "that a broker listens at h:1"},
		{read(syscall.ECONNRESET), "set tls=true"},
		{&net.OpError{Op: "write", Net: "tcp", Err: syscall.EPIPE}, "set tls=true"},
		{io.EOF, "check tls"},
	} {
		err := explainConn(unreached(fmt.Errorf("reach: %w", c.err), "h:1"), "h:1")
		hint, ok := errors.AsType[*ackwise.HintError](err)
		if !ok || !strings.Contains(hint.Hint, c.want) || strings.Count(err.Error(), "hint:") != 1 {
			t.Errorf("%v: %v, want the hint %q", c.err, err, c.want)
		}
	}
}
