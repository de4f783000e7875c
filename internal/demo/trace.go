package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"
)

// What a line of a trace says. Each line is "WHAT NANOSECONDS ID [TEXT]".
const (
	markBegin    = "begin"    // a handler begins; text = the cause
	markEffect   = "effect"   // the effect is applied; text = miles
	markRepeat   = "repeat"   // the effect was applied before and is not applied again
	markEnd      = "end"      // the handler returned; text = done or failed
	markWithheld = "withheld" // the ack is not sent now
	markSending  = "sending"  // it is sent now, too late
	markLate     = "late"     // its answer; text as below
	markLeave    = "leave"    // the consumer leaves; id = its name, text = handlers at work
	markMove     = "move"     // a partition moves; id = its name, text = handlers at work on it
	markHanded   = "handed"   // id = a cause, text = how many hand-outs had it
)

// The texts of markLate.
const (
	lateRefused = "refused"
	lateTaken   = "taken"
	lateUnknown = "unknown"
	// lateByItself: it was refused, and nobody had withheld it.
	lateByItself = "by-itself"
)

// mark is one line of a trace.
type mark struct {
	what string
	at   int64
	id   string
	text string
}

// number is the text as a number; a text that is none was never written by a consumer.
func (m mark) number() (int64, error) {
	n, err := strconv.ParseInt(m.text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read trace, %s of %s: %w", m.what, m.id, err)
	}
	return n, nil
}

func (m mark) line() []byte {
	return fmt.Appendf(nil, "%s %d %s %s\n", m.what, m.at, m.id, m.text)
}

func parseMark(line string) (mark, error) {
	parts := strings.SplitN(line, " ", 4)
	if len(parts) < 4 {
		return mark{}, fmt.Errorf("read trace: the line %.80q has too few words", line)
	}
	at, err := strconv.ParseInt(parts[1], 10, 64)
	if err != nil {
		return mark{}, fmt.Errorf("read trace: the line %.80q: %w", line, err)
	}
	return mark{parts[0], at, parts[2], parts[3]}, nil
}

// trace is what a consumer writes about itself: one write a line, so that it survives SIGKILL.
type trace struct{ file *os.File }

func openTrace(path string) (*trace, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open trace: %w", err)
	}
	return &trace{file}, nil
}

func (t *trace) write(what, id, text string) error {
	m := mark{what, time.Now().UnixNano(), id, text}
	if _, err := t.file.Write(m.line()); err != nil {
		return fmt.Errorf("write trace: %w", err)
	}
	return nil
}

// reader reads the whole lines that were added to a file since it last looked. What follows the
// last line feed was cut off by a kill, or is still being written: it is not there.
type reader struct {
	path string
	at   int64
}

func (r *reader) next() ([]mark, error) {
	file, err := os.Open(r.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // its process has not come that far
	}
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	defer func() { _ = file.Close() }() // read only
	data, err := io.ReadAll(io.NewSectionReader(file, r.at, 1<<40))
	if err != nil {
		return nil, fmt.Errorf("read trace: %w", err)
	}
	data = data[:bytes.LastIndexByte(data, '\n')+1]
	r.at += int64(len(data))
	var marks []mark
	for line := range strings.Lines(string(data)) {
		m, err := parseMark(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.path, err)
		}
		marks = append(marks, m)
	}
	return marks, nil
}
