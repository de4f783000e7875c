package client

import (
	"errors"
	"fmt"
	"io"
	"testing"
)

// A connection that breaks in the middle of a Receive looks like io.EOF, with which a source says
// that it has ended: a loop would end with success and leave messages behind.
func TestABrokenConnectionIsNoEnd(t *testing.T) {
	err := fmt.Errorf("receive: %w", &brokenError{err: fmt.Errorf("post: %w", io.EOF)})
	if errors.Is(err, io.EOF) {
		t.Errorf("%v passes for the end of the source", err)
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%v does not say that the answer was cut off", err)
	}
}
