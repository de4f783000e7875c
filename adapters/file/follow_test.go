package file

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
)

func TestFollow(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "")
	s := open(t, path, SourceOptions{Follow: true})
	for _, step := range []struct {
		text string
		want []string
	}{
		{"a\n", []string{"a"}}, {"b\nc\nhalf", []string{"b", "c"}},
		{" whole\nd\n", []string{"half whole", "d"}},
	} {
		add(t, path, step.text)
		wantBodies(t, s, step.want...)
	}
}

// With Once a followed file ends where it ends now, but for a line that is still being written.
func TestFollowOnce(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\nhalf")
	s := open(t, path, SourceOptions{Follow: true, Once: true})
	wantBodies(t, s, "a")
	if err := failure(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want io.EOF", err)
	}
	s.Close()
	add(t, path, " whole\n")
	s = open(t, path, SourceOptions{Follow: true, Once: true})
	wantBodies(t, s, "half whole")
}

func wantChanged(t *testing.T, err error, reason string) {
	t.Helper()
	var changed *ChangedError
	var hint *ackwise.HintError
	if !errors.As(err, &changed) || !errors.As(err, &hint) || !strings.Contains(err.Error(), reason) {
		t.Errorf("got %v, want a *ChangedError with a hint that says %q", err, reason)
	}
}

// overwrite writes over a file's start in one call: at no moment is the file empty.
func overwrite(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt([]byte(text), 0)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// change is one way in which a file stops being the one that was read.
type change struct {
	name   string
	do     func(t *testing.T, path string)
	reason string
	rest   []string // what of the old file is still read
}

func changes() []change {
	return []change{
		{"cut to nothing", func(t *testing.T, path string) {
			if err := os.Truncate(path, 0); err != nil {
				t.Fatal(err)
			}
		}, "it has 0 bytes, and 6 were", nil},
		{"overwritten in place by a longer one", func(t *testing.T, path string) {
			overwrite(t, path, "other\nlines\nand more\n")
		}, "its beginning is another", nil},
		{"renamed, and another made", func(t *testing.T, path string) {
			add(t, path, "late\n")
			if err := os.Rename(path, path+".1"); err != nil {
				t.Fatal(err)
			}
			write(t, path, "other\n")
		}, "another file is under its name", []string{"late"}},
	}
}

func TestFollowedFileChanges(t *testing.T) {
	for _, c := range changes() {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "in"), "a\nb\nc\n")
			s := open(t, path, SourceOptions{Follow: true})
			wantBodies(t, s, "a", "b", "c")
			c.do(t, path)
			wantBodies(t, s, c.rest...)
			wantChanged(t, failure(t, s), c.reason)
		})
		t.Run(c.name+", begun anew", func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "in"), "a\nb\nc\n")
			told := make(chan string, 10)
			s := open(t, path, SourceOptions{Follow: true, OnChange: RestartAtChange,
				Report: func(text string) { told <- text }})
			wantBodies(t, s, "a", "b", "c")
			c.do(t, path)
			wantBodies(t, s, c.rest...)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			wantBodies(t, s, strings.FieldsFunc(string(text), isLineFeed)...)
			add(t, path, "and on\n")
			wantBodies(t, s, "and on")
			if got := <-told; !strings.Contains(got, "is read from its start") {
				t.Errorf("reported %q", got)
			}
		})
	}
}

// TestOverwrittenAfterTheLook: what is written over between the look at a file's beginning and the
// reading of its end is begun anew all the same.
func TestOverwrittenAfterTheLook(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\nb\nc\n")
	s, err := newTail(path, SourceOptions{Follow: true, OnChange: RestartAtChange,
		Position: path + ".position", Report: func(string) {}}.withDefaults(path))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.close() }()
	read := func(want ...string) {
		t.Helper()
		records, err := s.take(10)
		var got []string
		for _, r := range records {
			got = append(got, string(r.Message.Body))
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	read("a", "b", "c")
	s.atEnd = false // it has just looked
	overwrite(t, path, "other\nlines\nand more\n")
	read()
	read("other", "lines", "and more")
}

func isLineFeed(r rune) bool { return r == '\n' }

func TestFileChangesWhileNobodyReads(t *testing.T) {
	for _, c := range []struct{ name, text, reason string }{
		{"shorter", "a\n", "it has 2 bytes, and 6 were settled"},
		{"another", "d\ne\nf\ng\n", "its beginning is another"},
		{"another of the same length", "d\ne\nf\n", "its beginning is another"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "in"), "a\nb\nc\n")
			s := open(t, path, SourceOptions{})
			wantBodies(t, s, "a", "b", "c")
			s.Close()
			write(t, path, c.text)
			_, err := NewSource(path, SourceOptions{})
			wantChanged(t, err, c.reason)
			s = open(t, path, SourceOptions{OnChange: RestartAtChange})
			d := receive(t, s, 1)[0]
			if want := path + "#2:0"; d.ID != want {
				t.Errorf("the new file's first ID is %s, want %s: another than the old one's",
					d.ID, want)
			}
			ack(t, s, d)
			wantBodies(t, s, strings.Fields(c.text)[1:]...)
			s.Close()
			s = open(t, path, SourceOptions{}) // it is known now
			if err := failure(t, s); !errors.Is(err, io.EOF) {
				t.Errorf("after all is settled: %v, want io.EOF", err)
			}
		})
	}
}

// A file is replaced, and replaced again, while a line of the first one is not settled: what was
// settled of the second one must not count for the third.
func TestFileChangesTwice(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\n")
	o := SourceOptions{Follow: true, OnChange: RestartAtChange, Every: fast}
	s := open(t, path, o)
	held := receive(t, s, 1)
	write(t, path, "second file\nx\n")
	wantBodies(t, s, "second file", "x")
	kill(t, s, path+".position")
	write(t, path, "third file!\ny\nz\n")
	s = open(t, path, o)
	wantBodies(t, s, "third file!", "y", "z")
	if string(held[0].Body) != "a" {
		t.Errorf("the line that was never settled is %q", held[0].Body)
	}
}

// The same second file is not read twice when only the first one holds the position back.
func TestFileChangedOnceAndReadOn(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\n")
	o := SourceOptions{Follow: true, OnChange: RestartAtChange, Every: fast}
	s := open(t, path, o)
	receive(t, s, 1)
	write(t, path, "second file\nx\n")
	wantBodies(t, s, "second file", "x")
	kill(t, s, path+".position")
	add(t, path, "more\n")
	s = open(t, path, o)
	wantBodies(t, s, "more")
}

// A last line without a line feed is read as a line. What comes behind it later is told apart.
func TestLastLineWithoutLineFeed(t *testing.T) {
	path := write(t, filepath.Join(t.TempDir(), "in"), "a\nb")
	s := open(t, path, SourceOptions{})
	wantBodies(t, s, "a", "b")
	s.Close()
	add(t, path, "\nc")
	s = open(t, path, SourceOptions{})
	wantBodies(t, s, "c") // and not an empty line before it
	s.Close()
	add(t, path, " goes on\n")
	_, err := NewSource(path, SourceOptions{})
	wantChanged(t, err, "goes on")
}

// TestTheHeadIsOfWhatWasRead changes a file between the reading of its first lines and the look at
// its beginning: what is there by then is not remembered as what was read.
func TestTheHeadIsOfWhatWasRead(t *testing.T) {
	for name, c := range map[string]struct{ now, want string }{
		"cut":          {"", "it has 0 bytes, and 6 were read"},
		"cut shorter":  {"fir", "it has 3 bytes, and 6 were read"},
		"not touched":  {"first\n", ""},
		"more of it":   {"first\nsecond\n", ""},
		"written anew": {"other\nsecond\n", "its beginning is another"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, filepath.Join(t.TempDir(), "in"), "first\n")
			s, err := newTail(path, SourceOptions{Follow: true, OnChange: RestartAtChange,
				Position: path + ".position", Report: func(string) {}}.withDefaults(path))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.close() }()
			if name == "written anew" { // its beginning is known by then
				_, err = s.take(1)
			} else {
				_, err = s.lines.next()
			}
			if err != nil {
				t.Fatal(err)
			}
			overwrite(t, path, c.now)
			if err := os.Truncate(path, int64(len(c.now))); err != nil {
				t.Fatal(err)
			}
			if reason, err := s.seeHead(); err != nil || reason != c.want {
				t.Errorf("%q %v, want %q", reason, err, c.want)
			}
		})
	}
}
