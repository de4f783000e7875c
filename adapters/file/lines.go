package file

import (
	"bytes"
	"io"
	"slices"
)

// line is one line without its line feed.
type line struct {
	text    []byte // nil where tooLong
	tooLong bool
	start   int64 // offset of its first byte
	end     int64 // offset behind its line feed
}

// lines cuts what it reads into lines of bounded length. A line that is too long is passed over, so
// that one bad line costs no other and no memory.
type lines struct {
	r     io.Reader
	max   int
	buf   []byte // read
	at    int    // what stands before in buf is cut already
	start int64  // offset of the line that is being read
	over  int64  // bytes of it that were passed over
}

const chunkBytes = 64 << 10

func newLines(r io.Reader, start int64, max int) *lines {
	return &lines{r: r, max: max, start: start}
}

// read is how far the reader was read.
func (l *lines) read() int64 { return l.start + l.over + int64(len(l.buf)-l.at) }

// next returns the next whole line, or nil and the reader's error: at the end that is io.EOF, and
// next may be called again when there is more.
func (l *lines) next() (*line, error) {
	searched := l.at
	for {
		if i := bytes.IndexByte(l.buf[searched:], '\n'); i >= 0 {
			return l.cut(searched+i-l.at, 1), nil
		}
		l.buf = append(l.buf[:0], l.buf[l.at:]...)
		l.at = 0
		if len(l.buf) > l.max || l.over > 0 {
			l.over += int64(len(l.buf))
			l.buf = l.buf[:0]
		}
		searched = len(l.buf)
		l.buf = slices.Grow(l.buf, chunkBytes)
		n, err := l.r.Read(l.buf[searched : searched+chunkBytes])
		l.buf = l.buf[:searched+n]
		if n == 0 && err != nil {
			return nil, err // where there was something, it says so again
		}
	}
}

// rest returns what stands behind the last line feed as a line, or nil where that is nothing.
func (l *lines) rest() *line {
	if l.over == 0 && len(l.buf) == l.at {
		return nil
	}
	return l.cut(len(l.buf)-l.at, 0)
}

// cut ends the line after n bytes and a line feed of so many bytes.
func (l *lines) cut(n, feed int) *line {
	out := &line{start: l.start, end: l.start + l.over + int64(n+feed),
		tooLong: l.over > 0 || n > l.max}
	if !out.tooLong {
		out.text = append(make([]byte, 0, n), l.buf[l.at:l.at+n]...)
	}
	l.at += n + feed
	l.start, l.over = out.end, 0
	return out
}
