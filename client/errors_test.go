package client

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
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

// A call that finds nobody listening waits for the next owner: that the old one is gone is noticed
// late where the machine is busy, later than a few quick tries take.
func TestACallThatNobodyListensToWaitsForTheNextOwner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{opt: Options{}.withDefaults()}
		gone := make(chan struct{})
		late := 5 * time.Second
		time.AfterFunc(late, func() { close(gone) })
		begin := time.Now()
		err := c.again(t.Context(), target{live: t.Context(), gone: gone}, 1,
			&brokenError{err: fmt.Errorf("dial: %w", syscall.ECONNREFUSED)})
		if waited := time.Since(begin); err != nil || waited != late {
			t.Errorf("the call goes on after %s with %v, want %s and no error", waited, err, late)
		}
	})
}

// An owner that is gone is asked nothing, also before this client has forgotten it: a call would
// spend all its tries on it in no time.
func TestAnOwnerThatIsGoneIsAskedNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		link := func() *link { return &link{down: make(chan struct{}), live: t.Context()} }
		old, next := link(), link()
		c := &Client{opt: Options{}.withDefaults(), ctx: t.Context(), changed: make(chan struct{}),
			link: old}
		close(old.down)
		time.AfterFunc(time.Second, func() { c.set(nil, nil) })
		time.AfterFunc(2*time.Second, func() { c.set(next, nil) })
		if got, err := c.current(t.Context()); err != nil || got.link != next {
			t.Errorf("the call is sent to the old owner: %t, %v", got.link == old, err)
		}
	})
}
