package nakadi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/pause"
)

// Notes keeps what Nakadi's cursors cannot carry: what is in flight in each partition, and how
// often it was handed out. All members of a subscription have to share one place; then the next
// owner of a partition knows what the last one did, on whatever machine. Its methods may be called
// from several goroutines and processes.
//
// Load returns the note under a name, nil = none. Swap replaces the note old (nil = none) by new,
// durably, and reports false where another note stands there by now: another member has the
// partition. That is the fence of hand-outs.
type Notes interface {
	Load(ctx context.Context, name string) ([]byte, error)
	Swap(ctx context.Context, name string, old, new []byte) (bool, error)
}

// FileNotes keeps notes as files of a directory, which is made where it is missing: for members on
// one machine. A network file system will do only where its flock is shared by all machines.
func FileNotes(dir string) Notes { return &fileNotes{dir: dir} }

type fileNotes struct {
	dir string
	mu  sync.Mutex // serializes this process's swaps; held while a file is written, on purpose
}

func (f *fileNotes) path(name string) string { return filepath.Join(f.dir, name+".note") }

func (f *fileNotes) Load(_ context.Context, name string) ([]byte, error) {
	b, err := os.ReadFile(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read note: %w", err)
	}
	return b, nil
}

func (f *fileNotes) Swap(ctx context.Context, name string, old, data []byte) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	lockDir := filepath.Join(f.dir, name+".lock")
	if err := os.MkdirAll(lockDir, 0o700); err != nil {
		return false, fmt.Errorf("make place for notes: %w", err)
	}
	lock, err := lockNote(ctx, lockDir)
	if err != nil {
		return false, fmt.Errorf("lock note: %w", err)
	}
	defer lock.Release() //nolint:errcheck // the lock goes with the file
	now, err := f.Load(ctx, name)
	if err != nil || !bytes.Equal(now, old) || (now == nil) != (old == nil) {
		return false, err
	}
	if err := replace(f.path(name), data); err != nil {
		return false, fmt.Errorf("write note: %w", err)
	}
	return true, nil
}

// How long, and how often, a lock is asked for that is held.
const (
	lockPatience = time.Second
	lockAgain    = 2 * time.Millisecond
)

// lockNote waits for a lock: whoever holds it does so for a moment. That is another member that
// writes, or a child of this process that has inherited the open file and not begun its program.
func lockNote(ctx context.Context, dir string) (*lockfile.Lock, error) {
	for end := time.Now().Add(lockPatience); ; {
		lock, err := lockfile.Acquire(dir)
		_, held := errors.AsType[*lockfile.HeldError](err)
		if !held || time.Now().After(end) || !pause.For(ctx, lockAgain) {
			return lock, err
		}
	}
}

// replace writes a file that is whole at every time.
func replace(path string, data []byte) error {
	tmp, err := os.OpenFile(path+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	if err == nil {
		err = tmp.Sync()
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(path+".tmp", path)
}

// memoryNotes is what a source has without Notes: it knows its own hand-outs, as long as it lives.
type memoryNotes struct {
	mu    sync.Mutex // guards notes
	notes map[string][]byte
}

func (m *memoryNotes) Load(_ context.Context, name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.notes[name], nil
}

func (m *memoryNotes) Swap(_ context.Context, name string, _, data []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.notes[name] = data
	return true, nil
}
