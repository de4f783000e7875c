package queue

import (
	"errors"
	"fmt"

	"github.com/ackwise/ackwise/queue/internal/wal"
)

// Errors of a store.
var (
	// ErrConflict: a value that a transaction had read was changed before it could commit.
	ErrConflict = errors.New("a value read by the transaction was changed meanwhile")
	// ErrFatal: a write or a sync failed. The store accepts nothing more and is opened again from
	// the disk. Which publishes of the last group are durable is unknown.
	ErrFatal = errors.New("the store has stopped after a failed write or sync")
)

// LockedError reports a directory that another process owns.
type LockedError struct {
	Dir    string
	Owner  string // what its lock file says: pid, start time, socket
	Socket string // the owner's socket; "" = it serves none
}

// Error names the directory and its owner.
func (e *LockedError) Error() string {
	return fmt.Sprintf("the directory %s is owned by another process (%s)", e.Dir, e.Owner)
}

// CorruptionError reports damage of something that was durable: file, offset, what was found. The
// directory was not changed.
type CorruptionError = wal.CorruptionError

// FormatError reports a directory that a newer version wrote.
type FormatError = wal.FormatError
