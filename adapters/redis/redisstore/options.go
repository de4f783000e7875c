package redisstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

// Persistence says how much the server must keep over a crash of its own. A completion is as
// durable as that: one that a server forgets is made again.
type Persistence uint8

const (
	// PersistSome wants a server that writes to a disk: an append-only file, or save points. What
	// it acknowledged in the last second, or since the last save point, may be lost with it.
	PersistSome Persistence = iota
	// PersistAlways wants an append-only file that is synced before a write is answered
	// (appendonly yes, appendfsync always). Nothing that was acknowledged is lost with a process
	// or a machine; a failover to a replica may still lose the last writes.
	PersistAlways
	// PersistNone takes a server that forgets everything when it ends.
	PersistNone
)

// Options configure a store.
type Options struct {
	// Name tells the stores of a server apart. Required.
	Name string
	// Window is how long a key stays done; it may be an eighth longer. All users of a name have the
	// same one. At least 80 ms. Default: 24 h.
	Window time.Duration
	// MaxKeys bounds the keys that are claimed or done. A full store answers ackwise.ErrFull, as
	// does one whose server has no memory left. Default: 1,000,000.
	MaxKeys int
	// Shards is over how many slots of a cluster the keys are spread. A shard has its part of
	// MaxKeys, and a call is one script a shard: on a single server more than one is of no use. All
	// users of a name have the same number. 1 to 256. Default: 1.
	Shards int
	// Persist says what the server must keep. Default: PersistSome.
	Persist Persistence
}

// Bounds of the options.
const (
	ringLength = 9 // buckets: eight in the window, and the one that is filled
	minWindow  = 80 * time.Millisecond
	maxShards  = 256
)

func (o Options) check() (Options, error) {
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 1_000_000
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	faults := []error{ackwise.ValidateName("dedup store", o.Name), checkShards(o.Shards),
		checkPersist(o.Persist)}
	if o.Window < minWindow {
		faults = append(faults, &ackwise.InvalidError{Field: "Window", Value: o.Window.String(),
			Reason: fmt.Sprintf("at least %s is needed", minWindow)})
	}
	if o.MaxKeys < o.Shards {
		faults = append(faults, &ackwise.InvalidError{Field: "MaxKeys",
			Reason: fmt.Sprintf("%d is less than a key for each of %d shards", o.MaxKeys, o.Shards)})
	}
	return o, errors.Join(faults...)
}

func checkShards(n int) error {
	if n < 1 || n > maxShards {
		return &ackwise.InvalidError{Field: "Shards",
			Reason: fmt.Sprintf("%d is not between 1 and %d", n, maxShards)}
	}
	return nil
}

func checkPersist(p Persistence) error {
	if p > PersistNone {
		return &ackwise.InvalidError{Field: "Persist",
			Reason: "it is none of PersistSome, PersistAlways and PersistNone"}
	}
	return nil
}

// width is a bucket's, in milliseconds: an eighth of the window, rounded up.
func (o Options) width() int64 { return (o.Window.Milliseconds() + 7) / 8 }

// TableOptions configure a table.
type TableOptions struct {
	// Name tells the tables of a server apart. Required.
	Name string
	// MaxKeys bounds the keys, tombstones included. A full table answers ackwise.ErrFull to a key
	// that it does not have, as does one whose server has no memory left. Default: 10,000,000.
	MaxKeys int
	// Shards is over how many slots of a cluster the keys are spread, see Options.Shards. Default: 1.
	Shards int
	// Persist says what the server must keep. Default: PersistSome.
	Persist Persistence
}

func (o TableOptions) check() (TableOptions, error) {
	if o.MaxKeys == 0 {
		o.MaxKeys = 10_000_000
	}
	if o.Shards == 0 {
		o.Shards = 1
	}
	faults := []error{ackwise.ValidateName("table", o.Name), checkShards(o.Shards),
		checkPersist(o.Persist)}
	if o.MaxKeys < o.Shards {
		faults = append(faults, &ackwise.InvalidError{Field: "MaxKeys",
			Reason: fmt.Sprintf("%d is less than a key for each of %d shards", o.MaxKeys, o.Shards)})
	}
	return o, errors.Join(faults...)
}
