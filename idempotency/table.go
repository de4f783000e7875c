package idempotency

import (
	"bytes"
	"context"
	"time"

	"github.com/ackwise/ackwise"
)

// Table is state that effects are written to: values by key, each with a version that changes with
// every write. Its methods may be called from several goroutines and processes at once, and return
// when the write is as durable as the table.
//
// Values written with a stamp (Upsert) and without (Put, Swap) are two uses of a table: one key is
// written in one of the two ways only. ErrStamped answers a Put or Swap of a stamped key, and an
// Upsert of one without a stamp.
type Table interface {
	// Get reads a key. A missing key has version 0 and is no error.
	Get(ctx context.Context, key string) (Entry, error)
	// Put sets a key, whatever it holds; nil data removes it.
	Put(ctx context.Context, key string, data []byte) error
	// Swap sets a key if its version still is old (0 = it is missing), else ErrChanged; nil data
	// removes it. It returns the new version. ErrChanged says that it wrote nothing: whoever reads
	// again and swaps again writes once. So a swap whose answer was lost is not tried again by the
	// table; it is another error, and whether it wrote is unknown.
	Swap(ctx context.Context, key string, old uint64, data []byte) (uint64, error)
	// Upsert sets a key if the write wins over what is there, see Wins; nil data leaves a
	// tombstone, which loses to later stamps only. It reports whether it wrote. A stamp that is zero
	// or that Stamp.Validate refuses is an *ackwise.InvalidError.
	Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (bool, error)
	// Purge removes tombstones that were written more than age ago by the table's clock, and
	// returns how many. An upsert that is older than a purged tombstone brings the key back: age
	// has to be longer than any message can be late.
	Purge(ctx context.Context, age time.Duration) (int, error)
}

// Entry is what a table holds of a key.
type Entry struct {
	Data    []byte        // nil = missing, or a tombstone
	Version uint64        // 0 = missing; else it changes with every write and never comes again
	Stamp   ackwise.Stamp // of the last Upsert; zero = written without
	Deleted bool          // a tombstone
}

// Stamped reports whether the key is written with logical timestamps.
func (e Entry) Stamped() bool { return e.Deleted || !e.Stamp.IsZero() }

// ValidateStamp refuses a stamp that no table takes: the zero one would say "written without". The
// error is an *ackwise.InvalidError.
func ValidateStamp(s ackwise.Stamp) error {
	if s.IsZero() {
		return &ackwise.InvalidError{Field: "stamp", Reason: "it is zero"}
	}
	return s.Validate()
}

// Wins reports whether a write of data (nil = a deletion) at stamp wins over what is there. The
// later stamp wins. Of two writes with equal stamps a deletion wins over a value, and of two values
// the greater one byte by byte: a fixed rule, so that every order of arrival ends alike.
// An equal write does not win: it is there already.
func Wins(stamp ackwise.Stamp, data []byte, there Entry) bool {
	if there.Version == 0 {
		return true
	}
	if order := stamp.Compare(there.Stamp); order != 0 || there.Deleted {
		return order > 0
	}
	return data == nil || bytes.Compare(data, there.Data) > 0
}
