package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// stream is the logsource.Log of a stream: its positions are line numbers that nobody remembers.
type stream struct {
	name string
	form form
	o    SourceOptions
	in   chan *line // from the reader
	err  error      // why in was closed; nil = the stream has ended

	mu      sync.Mutex // guards the fields of this group
	paused  bool
	turned  chan struct{} // closed and replaced when paused changes
	reading bool          // the reader is in a read, which nobody can end
	closed  bool

	reader sync.WaitGroup
	quit   chan struct{} // closed by Close
	begun  bool          // what follows belongs to Poll's goroutine
	number int
	ended  error
}

// ahead is how many lines are read before they are asked for.
const ahead = 64

func newStream(r io.Reader, name string, o SourceOptions, now time.Time) *stream {
	s := &stream{name: name, o: o, in: make(chan *line, ahead), turned: make(chan struct{}),
		quit: make(chan struct{})}
	s.form = form{o: &s.o, prefix: ackwise.NewID(now)}
	l := newLines(gate{s, r}, 0, o.MaxLine)
	s.reader.Go(func() { s.read(l) }) // ends with the stream, or with Close
	return s
}

// gate lets no read of r begin once the stream is closed.
type gate struct {
	s *stream
	r io.Reader
}

// Read reads, unless the stream is closed.
func (g gate) Read(p []byte) (int, error) {
	if !g.s.setReading(true) {
		return 0, ackwise.ErrClosed
	}
	defer g.s.setReading(false)
	return g.r.Read(p)
}

func (s *stream) setReading(reading bool) (open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = reading && !s.closed
	return !s.closed
}

func (s *stream) read(lines *lines) {
	defer close(s.in)
	for {
		l, err := lines.next()
		if errors.Is(err, io.EOF) {
			if l = lines.rest(); l == nil {
				return
			}
			err = nil
		}
		if err != nil {
			s.err = fmt.Errorf("read %s: %w", s.name, err)
			return
		}
		select {
		case s.in <- l:
		case <-s.quit:
			return
		}
	}
}

// Poll returns the next line, and what else was read already.
func (s *stream) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	if !s.begun {
		s.begun = true
		return []logsource.Change{{Kind: logsource.Assigned, Partition: s.name}}, nil
	}
	for {
		if s.ended != nil {
			return nil, s.ended
		}
		s.mu.Lock()
		turned, in := s.turned, s.in
		if s.paused {
			in = nil
		}
		s.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-turned:
		case l, ok := <-in:
			if records := s.take(l, ok, most); len(records) > 0 {
				return recordsOf(s.name, records), nil
			}
		}
	}
}

// take makes records of a line and of what waits behind it.
func (s *stream) take(l *line, ok bool, most int) []logsource.Record {
	var records []logsource.Record
	for {
		if !ok {
			s.ended = io.EOF
			if s.err != nil {
				s.ended = &finalError{s.err}
			}
			return records
		}
		s.number++
		m, err := s.form.message(l, fmt.Sprintf("%s:%d", s.form.prefix, s.number))
		switch {
		case err == nil:
			records = append(records, logsource.Record{Message: m,
				Position: ackwise.Position(fmt.Sprintf("%012d", s.number))})
		case s.o.OnBad == SkipBad:
			s.o.Bad(s.number, err)
		default:
			s.ended = &lineError{path: s.name, line: s.number, err: err}
			return records
		}
		if len(records) >= most {
			return records
		}
		select {
		case l, ok = <-s.in:
		default:
			return records
		}
	}
}

// Commit remembers nothing: a stream cannot be read again.
func (s *stream) Commit(_ context.Context, marks []logsource.Mark) []error {
	return make([]error, len(marks))
}

// Pause stops the lines, or lets them come again.
func (s *stream) Pause(_ string, paused bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paused = paused
	close(s.turned)
	s.turned = make(chan struct{})
}

// Release has nothing to do.
func (s *stream) Release(string) {}

// Close stops reading. It waits for the reader, unless that is in a read: it ends after it then.
func (s *stream) Close() error {
	s.mu.Lock()
	first, reading := !s.closed, s.reading
	s.closed = true
	s.mu.Unlock()
	if first {
		close(s.quit)
	}
	if !reading {
		s.reader.Wait()
	}
	return nil
}
