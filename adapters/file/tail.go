package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// tail is the logsource.Log of one file: one partition, whose positions hold the generation (how
// many files have been under the name), the offset behind a line, and the line's number.
type tail struct {
	path  string // absolute: the partition's name
	o     SourceOptions
	form  form
	place *place

	mu     sync.Mutex // guards the fields of this group; never held during I/O
	heads  map[int]head
	paused bool
	turned chan struct{} // closed and replaced when paused changes

	// What follows belongs to Poll's goroutine.
	start      *logsource.Change // the assignment, until it is told
	f          *os.File
	generation int
	number     int // of the last line that was read
	lines      *lines
	ended      error // what every later Poll answers
	atEnd      bool  // the last read met the end
	leaving    bool  // another file is under the name: this one is read to its end
	waited     bool  // and was given the time of one more look
}

// head is the fingerprint of a file: its first bytes, which never change while it only grows.
type head struct {
	Generation int    `json:"generation"`
	Bytes      int    `json:"bytes"`
	Sum        uint32 `json:"sum"`
}

const (
	headBytes = 1024
	maxHeads  = 16 // files under the name while lines of the first are not settled
)

// positionOf writes a place in the order of reading.
func positionOf(generation int, end int64, line int) ackwise.Position {
	return ackwise.Position(fmt.Sprintf("%04x%012x%010x", generation, end, line))
}

func readPosition(p ackwise.Position) (generation int, end int64, line int, err error) {
	if p == "" {
		return 1, 0, 0, nil
	}
	_, err = fmt.Sscanf(string(p), "%04x%012x%010x", &generation, &end, &line)
	return generation, end, line, err
}

func newTail(path string, o SourceOptions) (*tail, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	t := &tail{path: path, o: o, heads: map[int]head{}, turned: make(chan struct{}),
		generation: 1, start: &logsource.Change{Kind: logsource.Assigned, Partition: path}}
	t.form = form{o: &t.o, prefix: idPrefix(path)}
	if t.f, err = openRegular(path); err != nil {
		return nil, err
	}
	place, m, err := openPlace(o.Position)
	if err != nil {
		return nil, errors.Join(err, t.f.Close())
	}
	t.place = place
	if err := t.resume(m); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

func openRegular(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &ackwise.HintError{Err: fmt.Errorf("%s is not a regular file, so it has no position",
			path), Hint: "Read a stream as standard input, with the endpoint -."}
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// resume goes on where m says. A file that m does not belong to is refused, or begun anew.
func (t *tail) resume(m *mark) error {
	if m == nil {
		t.lines = newLines(io.NewSectionReader(t.f, 0, maxOffset), 0, t.o.MaxLine)
		return nil
	}
	t.generation, t.number = m.Generation, m.Line
	for _, h := range m.Heads {
		t.heads[h.Generation] = h
	}
	if m.Offset > 0 || m.Generation > 1 {
		t.start.Position = positionOf(m.Generation, m.Offset, m.Line)
	}
	t.start.Note = m.Note
	reason, err := t.changed(m)
	if err != nil {
		return err
	}
	if reason == "" {
		t.read(m.Offset)
		return nil
	}
	if err := t.restart(reason); err != nil {
		return err
	}
	// The new file may have been begun before, with nothing of it settled below all else.
	if h, begun := t.heads[t.generation]; begun {
		if now, err := t.readHead(h.Bytes); err != nil {
			return err
		} else if now.Sum != h.Sum {
			t.generation++
		}
	}
	t.read(0)
	return nil
}

const maxOffset = 1 << 47

// read reads from an offset on.
func (t *tail) read(offset int64) {
	t.lines = newLines(io.NewSectionReader(t.f, offset, maxOffset), offset, t.o.MaxLine)
}

// changed says how the file that is open differs from the one that m belongs to; "" = it does not.
func (t *tail) changed(m *mark) (string, error) {
	info, err := t.f.Stat()
	if err != nil {
		return "", fmt.Errorf("open source: %w", err)
	}
	if info.Size() < m.Offset {
		return fmt.Sprintf("it has %d bytes, and %d were settled", info.Size(), m.Offset), nil
	}
	if was := t.heads[m.Generation]; was.Bytes > 0 {
		now, err := t.readHead(was.Bytes)
		if err != nil {
			return "", err
		}
		if now.Sum != was.Sum {
			return "its beginning is another", nil
		}
	}
	if m.Offset == 0 || info.Size() == m.Offset {
		return "", nil
	}
	around := make([]byte, 2)
	if _, err := t.f.ReadAt(around, m.Offset-1); err != nil {
		return "", fmt.Errorf("read source: %w", err)
	}
	if around[0] != '\n' && around[1] != '\n' {
		return fmt.Sprintf("the line that ended at byte %d, then the last one, goes on", m.Offset),
			nil
	}
	return "", nil
}

func (t *tail) readHead(n int) (head, error) {
	b := make([]byte, min(n, headBytes))
	got, err := t.f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return head{}, fmt.Errorf("read source: %w", err)
	}
	return head{t.generation, got, checksum(b[:got])}, nil
}

// restart counts a new file under the name, where that is allowed.
func (t *tail) restart(reason string) error {
	if t.o.OnChange != RestartAtChange {
		return &ackwise.HintError{
			Err: &ChangedError{Path: t.path, Position: t.o.Position, Reason: reason},
			Hint: fmt.Sprintf("Put the file back; or remove %s, or set on_change: restart, and "+
				"what is there now is read from its start.", t.o.Position),
		}
	}
	t.o.Report(fmt.Sprintf("%s is read from its start: %s", t.path, reason))
	t.generation++
	t.number, t.atEnd, t.leaving, t.waited = 0, false, false, false
	return nil
}

// Poll returns the file's next lines. At its end it waits where the file is followed.
func (t *tail) Poll(ctx context.Context, most int) ([]logsource.Change, error) {
	if t.start != nil {
		change := *t.start
		t.start = nil
		return []logsource.Change{change}, nil
	}
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		turned, paused := t.isPaused()
		var wake <-chan time.Time
		if !paused {
			records, err := t.take(most)
			if len(records) > 0 || err != nil {
				return recordsOf(t.path, records), err
			}
			tick.Reset(t.o.Every)
			wake = tick.C
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-turned:
		case <-wake:
		}
	}
}

func recordsOf(partition string, records []logsource.Record) []logsource.Change {
	if len(records) == 0 {
		return nil
	}
	return []logsource.Change{{Kind: logsource.Records, Partition: partition, Records: records}}
}

func (t *tail) isPaused() (turned <-chan struct{}, paused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.turned, t.paused
}

// take reads up to most lines. Nothing and no error means that the end is to be waited at.
func (t *tail) take(most int) ([]logsource.Record, error) {
	if err := t.place.fault(); err != nil {
		return nil, &finalError{err}
	}
	if t.ended != nil {
		return nil, t.ended
	}
	if t.atEnd {
		if err := t.look(); err != nil {
			t.end(err)
			return nil, t.ended
		}
	}
	t.atEnd = false
	var records []logsource.Record
	for len(records) < most {
		l, err := t.lines.next()
		if l == nil && errors.Is(err, io.EOF) {
			l, err = t.meetEnd()
		}
		if err != nil {
			t.end(err)
			break
		}
		if l == nil {
			break
		}
		records, err = t.add(records, l)
		if err != nil {
			t.end(err)
			break
		}
	}
	reason, err := t.seeHead()
	switch {
	case err != nil:
		t.end(err)
	case reason != "" && t.ended == nil: // changed since the look: what was read is not what follows
		if err := t.turn(reason); err != nil {
			t.end(err)
		}
		return nil, t.ended
	}
	if len(records) > 0 {
		return records, nil // what ended the reading is told by the next call
	}
	return nil, t.ended
}

// end ends the source: with io.EOF, or with what is wrong.
func (t *tail) end(err error) {
	if !errors.Is(err, io.EOF) {
		err = &finalError{err}
	}
	if t.ended == nil {
		t.ended = err
	}
}

// finalError is an error after which nothing more comes.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }
func (e *finalError) Final() bool   { return true }

// meetEnd is what the file's end means: its last line, io.EOF, or nothing, which is to wait.
func (t *tail) meetEnd() (*line, error) {
	t.atEnd = true
	info, err := t.f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read source: %w", err)
	}
	if info.Size() < t.lines.read() {
		return nil, t.turn(fmt.Sprintf("it has %d bytes, and %d were read", info.Size(),
			t.lines.read()))
	}
	if !t.o.Follow || t.waited {
		if l := t.lines.rest(); l != nil {
			return l, nil
		}
	}
	switch {
	case t.waited:
		return nil, t.turn("another file is under its name")
	case t.o.Follow && !t.o.Once:
		return nil, nil
	}
	return nil, io.EOF
}

// turn goes on with the file that is under the name now. The next line is for the next call.
func (t *tail) turn(reason string) error {
	if err := t.restart(reason); err != nil {
		return err
	}
	t.mu.Lock()
	files := len(t.heads)
	t.mu.Unlock()
	if files >= maxHeads {
		return fmt.Errorf("%s was replaced %d times while a line of the first file was not settled",
			t.path, files)
	}
	f, err := openRegular(t.path)
	if err != nil {
		return err
	}
	old := t.f
	t.f = f
	t.read(0)
	return old.Close()
}

// look sees, before more is read behind an end, whether the file is still the same.
func (t *tail) look() error {
	if t.leaving {
		t.waited = true
		return nil
	}
	open, err := t.f.Stat()
	if err != nil {
		return fmt.Errorf("read source: %w", err)
	}
	named, err := os.Stat(t.path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil // it is being renamed, or is gone: what is open can still be read
	case err != nil:
		return fmt.Errorf("read source: %w", err)
	case !os.SameFile(open, named):
		t.leaving = true // what was written to it until now is read first
		return nil
	}
	if open.Size() < t.lines.read() {
		return t.turn(fmt.Sprintf("it has %d bytes, and %d were read", open.Size(), t.lines.read()))
	}
	t.mu.Lock()
	was := t.heads[t.generation]
	t.mu.Unlock()
	now, err := t.readHead(was.Bytes)
	switch {
	case err != nil:
		return err
	case now.Bytes < was.Bytes: // it was cut after the look at its size
		return t.turn(fmt.Sprintf("it has %d bytes, and %d were read", now.Bytes, t.lines.read()))
	case now.Sum != was.Sum:
		return t.turn("its beginning is another")
	}
	return nil
}

// seeHead remembers the fingerprint of what was read. reason says how the file is another by now:
// the look may have been too early. What is compared and what is remembered are of one reading, so
// that nothing comes between them.
func (t *tail) seeHead() (reason string, err error) {
	t.mu.Lock()
	was, known := t.heads[t.generation]
	t.mu.Unlock()
	b := make([]byte, max(was.Bytes, int(min(t.lines.read(), headBytes))))
	got, err := t.f.ReadAt(b, 0)
	switch {
	case err != nil && !errors.Is(err, io.EOF):
		return "", fmt.Errorf("read source: %w", err)
	case got < len(b): // it was cut behind what was read
		return fmt.Sprintf("it has %d bytes, and %d were read", got, t.lines.read()), nil
	case known && checksum(b[:was.Bytes]) != was.Sum:
		return "its beginning is another", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.heads[t.generation] = head{t.generation, len(b), checksum(b)}
	return "", nil
}

// add makes a record of a line, unless it is a bad one that is skipped.
func (t *tail) add(records []logsource.Record, l *line) ([]logsource.Record, error) {
	if l.end == l.start+1 && t.continued(l) {
		return records, nil
	}
	t.number++
	m, err := t.form.message(l, t.id(l))
	if err != nil {
		if t.o.OnBad == SkipBad {
			t.o.Bad(t.number, err)
			return records, nil
		}
		return records, &lineError{path: t.path, line: t.number, err: err}
	}
	return append(records, logsource.Record{Message: m,
		Position: positionOf(t.generation, l.end, t.number)}), nil
}

// continued reports whether an empty line is only the late line feed of the one before, which was
// the file's last and had none.
func (t *tail) continued(l *line) bool {
	if l.start == 0 {
		return false
	}
	before := make([]byte, 1)
	_, err := t.f.ReadAt(before, l.start-1)
	return err == nil && before[0] != '\n'
}

func (t *tail) id(l *line) string {
	if t.generation > 1 {
		return fmt.Sprintf("%s#%d:%d", t.form.prefix, t.generation, l.start)
	}
	return fmt.Sprintf("%s:%d", t.form.prefix, l.start)
}

// Commit writes the position and its note.
func (t *tail) Commit(_ context.Context, marks []logsource.Mark) []error {
	errs := make([]error, len(marks))
	for i, m := range marks {
		errs[i] = t.commit(m)
	}
	return errs
}

func (t *tail) commit(m logsource.Mark) error {
	generation, end, line, err := readPosition(m.Position)
	if err != nil {
		return fmt.Errorf("read position %q: %w", m.Position, err)
	}
	saved := mark{Generation: generation, Offset: end, Line: line, Note: m.Note}
	t.mu.Lock()
	for g := range t.heads {
		if g < generation {
			delete(t.heads, g)
		}
	}
	for _, g := range slices.Sorted(maps.Keys(t.heads)) {
		saved.Heads = append(saved.Heads, t.heads[g])
	}
	t.mu.Unlock()
	return t.place.save(saved)
}

// Pause stops the lines, or lets them come again.
func (t *tail) Pause(_ string, paused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.paused = paused
	close(t.turned)
	t.turned = make(chan struct{})
}

// Release has nothing to do: nobody else waits for the file.
func (t *tail) Release(string) {}

// Close gives the file and its position up.
func (t *tail) Close() error { return t.close() }

func (t *tail) close() error { return errors.Join(t.f.Close(), t.place.close()) }
