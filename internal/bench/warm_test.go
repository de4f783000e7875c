package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ackwise/ackwise/queue"
)

// Before a warm start as much is written as the measured run may write, and all of it is drained.
func TestWarmUpFillsAndThenDrains(t *testing.T) {
	const segment, most = 1 << 18, 1<<20 + 1
	b := &bench{Options: Options{SegmentBytes: segment}, dir: t.TempDir()}
	err := b.withStore(t.Context(), storeOptions{free: most}, func(s *queue.Store) error {
		r, err := s.Receiver(t.Context(), topic, subscription, queue.ReceiverOptions{})
		if err != nil {
			return err
		}
		w := newWarming(s, r, segment/stepsPerSegment)
		if err := w.fill(t.Context(), most); err != nil {
			return err
		}
		if size, err := logBytes(s.Dir()); err != nil || size < most || w.drained != 0 {
			t.Errorf("the log has %d bytes, %v, and %d messages are drained", size, err, w.drained)
		}
		if err := w.settle(t.Context()); err != nil {
			return err
		}
		if w.drained < w.published {
			t.Errorf("%d of %d messages are drained", w.drained, w.published)
		}
		if err := r.Close(); err != nil {
			return err
		}
		n, err := b.warmUp(t.Context(), s, most)
		if err != nil {
			return err
		}
		return checkDrained(t.Context(), s, w.published+n)
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheDiskUsedIsThatOfTheSegments(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"1.log", "sub/2.free", "checkpoint-1", "other"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		content := []byte(strings.Repeat("x", 1<<20))
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil { // only then does the file system know its blocks
			t.Fatal(err)
		}
		f.Close()
	}
	const want, slack = 2 << 20, 64 << 10
	if got, err := logBytes(dir); err != nil || got < want || got > want+slack {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
}
