package kill

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
)

// journal is what handler processes wrote to their file, read as it grows.
type journal struct {
	path string

	mu   sync.Mutex // guards the fields below
	size int64      // of what was read
	all  []handling
	done map[string]int // how often each ID was answered done
	err  error          // the first line that nobody can have written
}

// read returns all that was written so far.
func (j *journal) read() ([]handling, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err == nil {
		j.err = j.more()
	}
	return slices.Clip(j.all), j.err
}

func (j *journal) more() error {
	f, err := os.Open(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	b, err := io.ReadAll(io.NewSectionReader(f, j.size, 1<<40))
	if err != nil {
		return err
	}
	b = b[:bytes.LastIndexByte(b, '\n')+1]
	for line := range bytes.Lines(b) {
		var h handling
		if err := json.Unmarshal(line, &h); err != nil {
			return fmt.Errorf("the handler's file: %w in %q", err, line)
		}
		j.all = append(j.all, h)
		if h.Outcome == "done" {
			j.done[h.ID]++
		}
	}
	j.size += int64(len(b))
	return nil
}

// count returns how many messages were done, and how often one was done beyond the first time.
func (j *journal) count() (done, again int) {
	_, _ = j.read() // an error is told by whoever reads the lines
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, n := range j.done {
		again += n - 1
	}
	return len(j.done), again
}
