package file

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
)

// SinkOptions configure a Sink. The zero value is ready to use.
type SinkOptions struct {
	// Format is how a message stands on a line. With Body, one whose body is nil or holds a line
	// feed is rejected. Default: Body.
	Format Format
}

// Sink appends messages to a file or a stream, one line each. It does not deduplicate.
type Sink struct {
	o    SinkOptions
	name string
	turn chan struct{} // holds one token: whoever has it writes
	// What follows belongs to the holder of the token.
	w      io.Writer
	f      *os.File // nil = a stream: accepted is what was written
	size   int64    // of what is known to be whole
	broken error    // why nothing more is taken: a failed sync, or a stream that is gone
}

// OpenSink opens a file for appending, makes it where it is missing, and locks it: one process
// writes it at a time. What it accepts is synced. A last line that an earlier end cut short is
// given its line feed, so that no new message is written into it; it stays as it is.
func OpenSink(path string, o SinkOptions) (*Sink, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open sink: %w", err)
	}
	s := newSink(f, path, o)
	s.f = f
	if err := s.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("open sink %s: %w", path, err), f.Close())
	}
	return s, nil
}

// NewWriterSink makes a sink of a stream. A message is accepted once it is written.
func NewWriterSink(w io.Writer, name string, o SinkOptions) *Sink { return newSink(w, name, o) }

func newSink(w io.Writer, name string, o SinkOptions) *Sink {
	s := &Sink{o: o, name: name, w: w, turn: make(chan struct{}, 1)}
	s.turn <- struct{}{}
	return s
}

func (s *Sink) begin() error {
	info, err := s.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file")
	}
	if err := syscall.Flock(int(s.f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return errors.New("another pipeline writes it")
		}
		return fmt.Errorf("lock: %w", err)
	}
	if s.size = info.Size(); s.size > 0 {
		last := make([]byte, 1)
		if _, err := s.f.ReadAt(last, s.size-1); err != nil {
			return err
		}
		if last[0] != '\n' {
			if err := s.write([]byte("\n")); err != nil {
				return err
			}
		}
	}
	return syncDir(filepath.Dir(s.name))
}

// Features says that batches keep their order and nothing is deduplicated.
func (s *Sink) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{KeyRunSafe: true} }

// Publish appends the messages in one write and syncs once. Messages without an ID get one.
func (s *Sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	var text []byte
	for i, m := range msgs {
		if m.ID == "" {
			m.ID = ackwise.NewID(time.Now())
		}
		results[i].ID = m.ID
		line, err := s.line(&m)
		if err != nil {
			results[i].Class, results[i].Err = ackwise.ResultRejected, err
			continue
		}
		text = append(text, line...)
	}
	class, position, err := s.append(ctx, text)
	for i := range results {
		if results[i].Class != ackwise.ResultRejected {
			results[i].Class, results[i].Position, results[i].Err = class, position, err
		}
	}
	return results
}

func (s *Sink) line(m *ackwise.Message) ([]byte, error) {
	if s.o.Format == JSON {
		text, err := json.Marshal(m)
		return append(text, '\n'), err
	}
	switch {
	case m.Body == nil:
		return nil, &ackwise.InvalidError{Field: "body",
			Reason: "it is absent, which a line cannot tell from an empty one; use format: json"}
	case bytes.IndexByte(m.Body, '\n') >= 0:
		return nil, &ackwise.InvalidError{Field: "body",
			Reason: "it holds a line feed, so it is not one line; use format: json"}
	}
	return append(append(make([]byte, 0, len(m.Body)+1), m.Body...), '\n'), nil
}

func (s *Sink) append(ctx context.Context, text []byte) (
	ackwise.ResultClass, ackwise.Position, error) {
	if ctx.Err() != nil { // else a call that is over could still get the turn
		return ackwise.ResultNotAttempted, "", context.Cause(ctx)
	}
	select {
	case <-s.turn:
	case <-ctx.Done():
		return ackwise.ResultNotAttempted, "", context.Cause(ctx)
	}
	defer func() { s.turn <- struct{}{} }()
	if s.broken != nil {
		return ackwise.ResultNotAttempted, "", s.broken
	}
	if len(text) > 0 {
		if err := s.write(text); err != nil {
			return classOf(s.broken), "", err
		}
	}
	return ackwise.ResultAccepted, ackwise.Position(fmt.Sprintf("%012x", s.size)), nil
}

// classOf sorts a failed write: where the sink is not broken, what was written of it is gone again.
func classOf(broken error) ackwise.ResultClass {
	if broken != nil {
		return ackwise.ResultUnknown
	}
	return ackwise.ResultRetryable
}

// write appends text whole or not at all.
func (s *Sink) write(text []byte) error {
	_, err := s.w.Write(text)
	if s.f == nil {
		if err != nil {
			return s.breakBy(fmt.Errorf("write %s: %w", s.name, err))
		}
		return nil
	}
	if err != nil {
		err = fmt.Errorf("write %s: %w", s.name, err)
		if cut := s.f.Truncate(s.size); cut != nil { // our own bytes only
			return s.breakBy(fmt.Errorf("%w (and what was written of it cannot be cut: %w)", err, cut))
		}
		return err
	}
	if err := s.f.Sync(); err != nil {
		// What the system says of this file from now on cannot be relied on.
		return s.breakBy(fmt.Errorf("sync %s: %w", s.name, err))
	}
	s.size += int64(len(text))
	return nil
}

// breakBy lets the sink take nothing more. The error is ackwise.ErrClosed too, so that whoever
// publishes stops instead of trying again.
func (s *Sink) breakBy(err error) error {
	s.broken = fmt.Errorf("%w: %w", ackwise.ErrClosed, err)
	return s.broken
}

// Close gives the file up. A stream stays open.
func (s *Sink) Close() error {
	<-s.turn
	defer func() { s.turn <- struct{}{} }()
	if s.broken == nil {
		s.broken = ackwise.ErrClosed
	}
	if s.f == nil {
		return nil
	}
	f := s.f
	s.f, s.w = nil, nil
	return f.Close()
}
