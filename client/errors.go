package client

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
)

// errNoOwner: there is nobody to talk to at this moment.
var errNoOwner = errors.New("no process serves the directory")

// OwnerError reports that the directory's owner did not answer, or that there is none. It comes
// with a hint (ackwise.HintError).
type OwnerError struct {
	Dir     string
	PID     int           // the process that the lock file names; 0 = none
	Since   time.Time     // when that process became the owner
	Alive   bool          // it runs, or may run
	Opening bool          // it has not yet begun to serve: it may be reading a long log
	Waited  time.Duration // how long it was given
}

// Error names the directory and its owner.
func (e *OwnerError) Error() string {
	switch {
	case e.PID == 0:
		return fmt.Sprintf("no process owns the directory %s (waited %s)", e.Dir, e.Waited)
	case !e.Alive:
		return fmt.Sprintf("no process owns the directory %s (waited %s): process %d, its owner "+
			"since %s, has ended", e.Dir, e.Waited, e.PID, e.Since.Format(time.RFC3339))
	case e.Opening:
		return fmt.Sprintf("the owner of the directory %s has not opened it yet (waited %s): "+
			"process %d, its owner since %s", e.Dir, e.Waited, e.PID, e.Since.Format(time.RFC3339))
	}
	return fmt.Sprintf("the owner of the directory %s does not answer (waited %s): process %d, its "+
		"owner since %s", e.Dir, e.Waited, e.PID, e.Since.Format(time.RFC3339))
}

// noAnswer says who does not answer, and what to do. Where this process tried to own the directory
// and could not, that is what is wrong.
func (c *Client) noAnswer() error {
	c.mu.Lock()
	fault := c.fault
	c.mu.Unlock()
	if fault != nil {
		return fault
	}
	info, err := lockfile.Read(c.dir)
	if err != nil {
		info = lockfile.Info{}
	}
	e := &OwnerError{Dir: c.dir, PID: info.PID, Since: info.Since, Waited: c.opt.WaitOwner,
		Alive: info.PID != 0 && lockfile.Alive(info.Process), Opening: info.Socket == ""}
	hint := "start a process that may own it"
	switch {
	case e.Alive && e.Opening:
		hint = "it may be reading a long log: try again, or wait longer"
	case e.Alive:
		hint = fmt.Sprintf("if it is stopped, let it go on (kill -CONT %d); if it hangs, end it "+
			"(kill -9 %d): another process takes over and nothing acknowledged is lost", e.PID, e.PID)
	}
	return &ackwise.HintError{Err: e, Hint: hint}
}

// brokenError is a call whose answer did not arrive: what it did is unknown.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return "call the owner: " + e.err.Error() }

// Unwrap hides io.EOF, with which a source says that it has ended: a broken connection is no end.
func (e *brokenError) Unwrap() error {
	if errors.Is(e.err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return e.err
}
