package file

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
)

func openTestSink(t *testing.T, path string, o SinkOptions) *Sink {
	t.Helper()
	s, err := OpenSink(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func message(id, body string) ackwise.Message {
	return ackwise.Message{ID: id, Body: []byte(body)}
}

func wantFile(t *testing.T, path, want string) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Errorf("the file holds %q, %v; want %q", got, err, want)
	}
}

func TestSinkAppends(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	for _, body := range []string{"a", "b"} {
		s := openTestSink(t, path, SinkOptions{})
		rs := s.Publish(t.Context(), []ackwise.Message{message("1", body), message("", "")})
		for _, r := range rs {
			if r.Class != ackwise.ResultAccepted || r.Err != nil || r.ID == "" || r.Position == "" {
				t.Errorf("the result is %+v, want accepted with ID and position", r)
			}
		}
		s.Close()
	}
	wantFile(t, path, "a\n\nb\n\n")
}

// A line that a crash cut short stays as it is, and nothing is written into it.
func TestSinkAfterACutLine(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "out"), "whole\ncut sho")
	s := openTestSink(t, path, SinkOptions{})
	s.Publish(t.Context(), []ackwise.Message{message("1", "next")})
	wantFile(t, path, "whole\ncut sho\nnext\n")
}

func TestSinkRejectsWhatIsNotOneLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	s := openTestSink(t, path, SinkOptions{})
	rs := s.Publish(t.Context(), []ackwise.Message{message("1", "a"), message("2", "b\nc"),
		{ID: "3"}, message("4", "d")})
	want := []ackwise.ResultClass{ackwise.ResultAccepted, ackwise.ResultRejected,
		ackwise.ResultRejected, ackwise.ResultAccepted}
	for i, r := range rs {
		if r.Class != want[i] || (r.Err == nil) != (want[i] == ackwise.ResultAccepted) {
			t.Errorf("message %s is %s, %v; want %s", r.ID, r.Class, r.Err, want[i])
		}
	}
	wantFile(t, path, "a\nd\n")
}

func TestSinkIsLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	openTestSink(t, path, SinkOptions{})
	if _, err := OpenSink(path, SinkOptions{}); err == nil ||
		!strings.Contains(err.Error(), "another pipeline writes it") {
		t.Errorf("the second open says %v", err)
	}
	if _, err := OpenSink(os.DevNull, SinkOptions{}); err == nil ||
		!strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a device: %v", err)
	}
}

// A write that fails and cannot be undone leaves nothing that can be relied on: what was asked for
// is unknown, and nothing more is attempted.
func TestSinkBreaks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	s := openTestSink(t, path, SinkOptions{})
	s.f.Close()
	for _, want := range []ackwise.ResultClass{ackwise.ResultUnknown, ackwise.ResultNotAttempted} {
		r := s.Publish(t.Context(), []ackwise.Message{message("1", "a")})[0]
		if r.Class != want {
			t.Errorf("got %s, %v; want %s", r.Class, r.Err, want)
		}
		if !errors.Is(r.Err, ackwise.ErrClosed) {
			t.Errorf("%s: %v is not ErrClosed, so its publisher tries again", want, r.Err)
		}
	}
}

// halfWriter takes half of what it is given once.
type halfWriter struct {
	f     *os.File
	fails int
}

var errNoSpace = errors.New("no space")

func (w *halfWriter) Write(p []byte) (int, error) {
	if w.fails == 0 {
		return w.f.Write(p)
	}
	w.fails--
	n, _ := w.f.Write(p[:len(p)/2])
	return n, errNoSpace
}

// A full disk takes part of a line: it is taken back, and the same message may be sent again.
func TestSinkOnAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	s := openTestSink(t, path, SinkOptions{})
	s.w = &halfWriter{f: s.f, fails: 1}
	for _, want := range []ackwise.ResultClass{ackwise.ResultRetryable, ackwise.ResultAccepted} {
		r := s.Publish(t.Context(), []ackwise.Message{message("1", "a line")})[0]
		if r.Class != want || want == ackwise.ResultRetryable && !errors.Is(r.Err, errNoSpace) {
			t.Errorf("got %s, %v; want %s", r.Class, r.Err, want)
		}
	}
	wantFile(t, path, "a line\n")
}

func TestWriterSink(t *testing.T) {
	var out bytes.Buffer
	s := NewWriterSink(&out, "the buffer", SinkOptions{})
	if r := s.Publish(t.Context(), []ackwise.Message{message("1", "a")})[0]; r.Err != nil {
		t.Error(r.Err)
	}
	if err := s.Close(); err != nil || out.String() != "a\n" {
		t.Errorf("wrote %q, %v", out.String(), err)
	}
	r := s.Publish(t.Context(), []ackwise.Message{message("1", "a")})[0]
	if r.Class != ackwise.ResultNotAttempted || !errors.Is(r.Err, ackwise.ErrClosed) {
		t.Errorf("after Close: %s, %v", r.Class, r.Err)
	}
}

// TestPublishThatIsOver shows that a call whose context is over takes nothing, ever.
func TestPublishThatIsOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	s := openTestSink(t, path, SinkOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 {
		res := s.Publish(ctx, []ackwise.Message{{ID: "1", Body: []byte("line")}})[0]
		if res.Class != ackwise.ResultNotAttempted || res.Err == nil {
			t.Fatalf("the result is %s, %v", res.Class, res.Err)
		}
	}
	wantFile(t, path, "")
}
