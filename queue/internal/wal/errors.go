package wal

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/ackwise/ackwise"
)

// ErrNoSpace says that the disk is full. At a write it is final like every failed write: nothing
// that was released is lost, and the log is opened again once there is space. It wraps the system's
// error.
var ErrNoSpace = errors.New("no space left on the disk of the log")

// errTooLarge: more bytes than one group can hold.
var errTooLarge = errors.New("records too large for one group")

// CorruptionError reports damage: bytes that were synced and are no longer what was written, or a
// segment that is missing, shortened or another's. Nothing was changed on the disk.
type CorruptionError struct {
	Dir     string
	Segment string // the file's name in Dir
	Offset  int64  // in the file
	Err     error  // what is wrong there
}

// Error names the file, the offset and what is wrong.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("damaged log: %s/%s at offset %d: %v", e.Dir, e.Segment, e.Offset, e.Err)
}

// Unwrap returns Err.
func (e *CorruptionError) Unwrap() error { return e.Err }

// FormatError reports a file of a format version that this program does not know.
type FormatError struct {
	File      string
	Found     uint32 // the file's version
	Supported uint32 // the newest version that this program reads
}

// Error names the file and both versions.
func (e *FormatError) Error() string {
	return fmt.Sprintf("%s has format version %d; this program reads versions up to %d",
		e.File, e.Found, e.Supported)
}

const (
	damageHint = "nothing was changed; copy the directory before anything else, then restore the " +
		"named file from a backup, or let a person decide what to give up"
	formatHint = "nothing was changed; open the directory with the newer version that wrote it"
	spaceHint  = "free some space, then open the store again; nothing that was accepted is lost"
)

// explain adds to an error what an operator should do next.
func explain(err error) error {
	var (
		damage *CorruptionError
		format *FormatError
		hinted *ackwise.HintError
	)
	switch {
	case err == nil || errors.As(err, &hinted):
		return err
	case errors.As(err, &damage):
		return &ackwise.HintError{Err: err, Hint: damageHint}
	case errors.As(err, &format):
		return &ackwise.HintError{Err: err, Hint: formatHint}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &ackwise.HintError{Err: fmt.Errorf("%w: %w", ErrNoSpace, err), Hint: spaceHint}
	}
	return err
}
