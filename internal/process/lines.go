package process

import (
	"bufio"
	"errors"
	"io"
)

// LineReader reads lines of bounded length and counts them. A line that is too long is skipped to
// its end, so that one bad line costs no other.
type LineReader struct {
	r      *bufio.Reader
	max    int
	number int
}

// InputLine is one line without its line feed.
type InputLine struct {
	Number  int    // from 1
	Text    []byte // nil where TooLong
	TooLong bool   // longer than the reader's bound
}

// NewLineReader reads lines of at most max bytes from r.
func NewLineReader(r io.Reader, max int) *LineReader {
	return &LineReader{r: bufio.NewReaderSize(r, 64<<10), max: max}
}

// Next returns the next line, which belongs to the caller. At the end of the input it is io.EOF; a
// last line without a line feed counts.
func (l *LineReader) Next() (InputLine, error) {
	line := InputLine{Number: l.number + 1, Text: []byte{}}
	read := false
	for {
		part, err := l.r.ReadSlice('\n')
		read = read || len(part) > 0
		ended := err == nil
		if ended {
			part = part[:len(part)-1]
		}
		if !line.TooLong && len(line.Text)+len(part) > l.max {
			line.TooLong, line.Text = true, nil
		}
		if !line.TooLong {
			line.Text = append(line.Text, part...)
		}
		switch {
		case ended, errors.Is(err, io.EOF) && read:
			l.number++
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		default:
			return InputLine{}, err
		}
	}
}
