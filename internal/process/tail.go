package process

import (
	"bytes"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// tail passes a process's standard error on and keeps its last line.
type tail struct {
	pass io.Writer // nil = nowhere

	mu   sync.Mutex // guards the fields below
	last []byte     // the last whole line that was not empty
	part []byte     // what follows it
}

// Write never fails: a process must not die because nobody reads its errors.
func (t *tail) Write(p []byte) (int, error) {
	if t.pass != nil {
		_, _ = t.pass.Write(p)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for rest := p; ; {
		line, after, found := bytes.Cut(rest, []byte{'\n'})
		if room := ackwise.MaxErrorBytes - len(t.part); room > 0 {
			t.part = append(t.part, line[:min(room, len(line))]...)
		}
		if !found {
			return len(p), nil
		}
		if len(bytes.TrimSpace(t.part)) > 0 {
			t.last = append(t.last[:0], t.part...)
		}
		t.part, rest = t.part[:0], after
	}
}

func (t *tail) line() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	line := t.last
	if len(bytes.TrimSpace(t.part)) > 0 {
		line = t.part
	}
	return strings.ToValidUTF8(string(bytes.TrimSpace(line)), "\uFFFD")
}

// drainTime is how long the streams of an ended process are read on. Only a process that left its
// group can hold them open that long.
const drainTime = 200 * time.Millisecond

// copyFrom copies a stream to w until its end. The returned function waits for that, once the
// process has ended.
func copyFrom(r *os.File, w io.Writer) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { // ends with the stream, or drainTime after the process
		_, _ = io.Copy(w, r)
	})
	return func() {
		_ = r.SetReadDeadline(time.Now().Add(drainTime))
		wg.Wait()
		_ = r.Close()
	}
}
