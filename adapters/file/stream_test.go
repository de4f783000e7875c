package file

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ackwise/ackwise"
)

func openStream(t *testing.T, r io.Reader, o SourceOptions) ackwise.Source {
	t.Helper()
	s, err := NewStream(r, "the input", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestStream(t *testing.T) {
	s := openStream(t, strings.NewReader("a\nb\nno line feed"), SourceOptions{})
	wantBodies(t, s, "a", "b", "no line feed")
	if err := failure(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

// No line waits for the ones behind it.
func TestStreamWaitsForNoBatch(t *testing.T) {
	r, w := io.Pipe()
	s := openStream(t, r, SourceOptions{})
	for _, text := range []string{"a", "b"} {
		if _, err := io.WriteString(w, text+"\n"); err != nil {
			t.Fatal(err)
		}
		wantBodies(t, s, text)
	}
	w.Close()
	if err := failure(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

// The IDs of two streams differ, so that no queue takes one's line for a repeat of the other's.
func TestStreamIDs(t *testing.T) {
	seen := map[string]bool{}
	for range 2 {
		s := openStream(t, strings.NewReader("a\na\n"), SourceOptions{})
		for range 2 {
			d := receive(t, s, 1)[0]
			if seen[d.ID] {
				t.Errorf("the ID %s comes twice", d.ID)
			}
			seen[d.ID] = true
			ack(t, s, d)
		}
	}
}

func TestStreamFaults(t *testing.T) {
	broken := errors.New("the line is dead")
	s := openStream(t, io.MultiReader(strings.NewReader("a\n"), iotest.ErrReader(broken)),
		SourceOptions{})
	if err := failure(t, s); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	bad := 0
	s = openStream(t, strings.NewReader("x\n{\"id\":\"1\"}\n"), SourceOptions{IDField: "id",
		OnBad: SkipBad, Bad: func(line int, _ error) { bad = line }})
	wantBodies(t, s, `{"id":"1"}`)
	if bad != 1 {
		t.Errorf("the skipped line is %d, want 1", bad)
	}
	s = openStream(t, strings.NewReader("x\n"), SourceOptions{IDField: "id"})
	if err := failure(t, s); err == nil || !strings.Contains(err.Error(), "the input, line 1: ") {
		t.Errorf("got %v, want the stream's name and line 1", err)
	}
}

// TestStreamCountsNothing shows that a stream does not claim counts that end with its process.
func TestStreamCountsNothing(t *testing.T) {
	s := openStream(t, strings.NewReader("one\n"), SourceOptions{})
	ds, err := s.Receive(t.Context(), 1)
	if err != nil || len(ds) != 1 {
		t.Fatalf("received %d, %v", len(ds), err)
	}
	if f := s.Features(); f.Counts || f.HandOuts || ds[0].Counts != (ackwise.Counts{}) {
		t.Errorf("the features are %+v, the counts %+v", f, ds[0].Counts)
	}
}
