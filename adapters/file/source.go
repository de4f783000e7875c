package file

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// NewSource makes a source of the lines of a file. It goes on behind the last position below which
// all is settled, and hands out again, with its count and cause, what was in flight then. Where the
// file ends, and is not followed, so does the source, with io.EOF.
func NewSource(path string, o SourceOptions) (ackwise.Source, error) {
	o = o.withDefaults(path)
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open source %s: %w", path, err)
	}
	t, err := newTail(path, o)
	if err != nil {
		return nil, err
	}
	return newSource(t, o)
}

// NewStream makes a source of the lines of a stream, whose name goes into errors. It has no
// position: what was read and not settled is lost when the process ends, and IDs that no field
// gives are new at every start. r is read until it ends; a read that blocks then outlives the
// source.
func NewStream(r io.Reader, name string, o SourceOptions) (ackwise.Source, error) {
	o = o.withDefaults(name)
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open source %s: %w", name, err)
	}
	s, err := newSource(newStream(r, name, o, time.Now()), o)
	if err != nil {
		return nil, err
	}
	return uncounted{s}, nil
}

// uncounted is the source of a stream: what it counts ends with the process, so it counts nothing,
// and the loop counts failures itself.
type uncounted struct{ ackwise.Source }

// Features says that no counts outlive the process.
func (s uncounted) Features() ackwise.Features {
	f := s.Source.Features()
	f.Counts = false
	return f
}

// Receive returns deliveries without counts.
func (s uncounted) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	ds, err := s.Source.Receive(ctx, most)
	for _, d := range ds {
		d.Counts = ackwise.Counts{}
	}
	return ds, err
}

func newSource(l logsource.Log, o SourceOptions) (ackwise.Source, error) {
	return logsource.New(l, logsource.Options{Pipeline: o.Pipeline, NoteBytes: noteBytes})
}
