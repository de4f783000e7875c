package ddbstore

import (
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
)

// Options configure a store.
type Options struct {
	// Table is the DynamoDB table, which several stores and tables may share. Required.
	Table string
	// Name tells the stores of a DynamoDB table apart. Required.
	Name string
	// Window is how long a key stays done, and at least MaxSkew longer. All users of a name have
	// the same one. Default: 24 h.
	Window time.Duration
	// MaxSkew is how far the clocks of the machines that use the store may be apart. Where they
	// are further, the window ends early by the difference. Default: 1 min.
	MaxSkew time.Duration
	// MaxKeys bounds the keys that are claimed or done. It may be passed by a thousandth of it, and
	// one, for each handle, and for each of a handle's deaths within a window; and by as many asks
	// as are under way at once. A full store answers ackwise.ErrFull. Default: 1,000,000.
	MaxKeys int
	// Concurrency is how many items of one call are written at once. Default: 32.
	Concurrency int
	// MaxWatched bounds the claims of others that a handle remembers to have seen, some 150 bytes
	// each. With more, some are taken over later than their lease. Default: 100,000.
	MaxWatched int
}

// cleanLate is how long an item stays after its end, beside twice MaxSkew.
const cleanLate = time.Hour

func (o Options) check() (Options, error) {
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.MaxSkew == 0 {
		o.MaxSkew = time.Minute
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 1_000_000
	}
	if o.Concurrency == 0 {
		o.Concurrency = 32
	}
	if o.MaxWatched == 0 {
		o.MaxWatched = 100_000
	}
	faults := []error{checkName(o.Table), ackwise.ValidateName("dedup store", o.Name)}
	for _, c := range []struct {
		field string
		bad   bool
		value any
	}{
		{"Window", o.Window < 8*time.Millisecond, o.Window},
		{"MaxSkew", o.MaxSkew < 0, o.MaxSkew},
		{"MaxKeys", o.MaxKeys < 1, o.MaxKeys},
		{"Concurrency", o.Concurrency < 1 || o.Concurrency > 1024, o.Concurrency},
		{"MaxWatched", o.MaxWatched < 1, o.MaxWatched},
	} {
		if c.bad {
			faults = append(faults, &ackwise.InvalidError{Field: c.field,
				Value: fmt.Sprint(c.value), Reason: "it is out of its range"})
		}
	}
	return o, errors.Join(faults...)
}

func checkName(table string) error {
	if table == "" {
		return &ackwise.InvalidError{Field: "Table", Reason: "the DynamoDB table's name is empty"}
	}
	return nil
}

// TableOptions configure a table.
type TableOptions struct {
	// Table is the DynamoDB table, which several stores and tables may share. Required.
	Table string
	// Name tells the tables of a DynamoDB table apart. Required.
	Name string
}

func (o TableOptions) check() error {
	return errors.Join(checkName(o.Table), ackwise.ValidateName("table", o.Name))
}
