package file

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
)

// cutAll reads all lines as a file that ends.
func cutAll(t *testing.T, r io.Reader, max int) []line {
	t.Helper()
	l := newLines(r, 0, max)
	var out []line
	for {
		one, err := l.next()
		if errors.Is(err, io.EOF) {
			if one = l.rest(); one == nil {
				return out
			}
			err = nil
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, *one)
	}
}

// TestLinesAgainstSplit cuts random texts, in pieces of random size, as strings.Split does.
func TestLinesAgainstSplit(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	long, short := 0, 0
	for range 500 {
		var text []byte
		for range rng.IntN(40) {
			text = append(text, bytes.Repeat([]byte{'x'}, rng.IntN(30))...)
			text = append(text, '\n')
		}
		text = append(text, bytes.Repeat([]byte{'y'}, rng.IntN(3)*12)...)
		const max = 20
		var want []line
		at := int64(0)
		for part := range strings.Lines(string(text)) {
			w := line{start: at, end: at + int64(len(part))}
			body := strings.TrimSuffix(part, "\n")
			if w.tooLong = len(body) > max; !w.tooLong {
				w.text = []byte(body)
				short++
			} else {
				long++
			}
			at = w.end
			want = append(want, w)
		}
		for name, r := range map[string]io.Reader{
			"whole": bytes.NewReader(text), "bytes": iotest.OneByteReader(bytes.NewReader(text)),
			"early end": iotest.DataErrReader(bytes.NewReader(text)),
		} {
			got := cutAll(t, r, max)
			same := func(a, b line) bool {
				return a.start == b.start && a.end == b.end && a.tooLong == b.tooLong &&
					bytes.Equal(a.text, b.text)
			}
			if !slices.EqualFunc(got, want, same) {
				t.Fatalf("%s: %q is cut into\n%+v, want\n%+v", name, text, got, want)
			}
		}
	}
	if long == 0 || short == 0 {
		t.Errorf("%d lines were too long and %d were not: both must be tried", long, short)
	}
}

// A line far beyond the bound takes no memory beyond a chunk or two.
func TestLongLineTakesNoMemory(t *testing.T) {
	endless := io.LimitReader(zeroReader{}, 64<<20)
	l := newLines(io.MultiReader(endless, strings.NewReader("\nnext\n")), 0, 100)
	first, err := l.next()
	if err != nil || !first.tooLong || first.end != 64<<20+1 {
		t.Fatalf("got %+v, %v; want a line that is too long and ends at %d", first, err, 64<<20+1)
	}
	if c := cap(l.buf); c > 4*chunkBytes {
		t.Errorf("the buffer has grown to %d bytes", c)
	}
	if second, err := l.next(); err != nil || string(second.text) != "next" {
		t.Errorf("after it came %+v, %v; want next", second, err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { return len(p), nil }

func TestLinesGoOnWhenThereIsMore(t *testing.T) {
	var in bytes.Buffer
	l := newLines(&in, 7, 100)
	var got []string
	for _, part := range []string{"a", "b\nc", "", "\n\n", "d"} {
		in.WriteString(part)
		for {
			one, err := l.next()
			if one == nil {
				if !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				break
			}
			got = append(got, fmt.Sprintf("%d-%d %s", one.start, one.end, one.text))
		}
	}
	want := []string{"7-10 ab", "10-12 c", "12-13 "}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if r := l.rest(); r == nil || string(r.text) != "d" {
		t.Errorf("the rest is %+v, want d", r)
	}
}
