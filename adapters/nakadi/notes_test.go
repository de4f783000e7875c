package nakadi_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ackwise/ackwise/adapters/nakadi"
	"github.com/ackwise/ackwise/internal/lockfile"
)

// TestANoteThatIsLockedForAMoment: a child of this process that has inherited the lock, or another
// member that writes, is waited for.
func TestANoteThatIsLockedForAMoment(t *testing.T) {
	dir := t.TempDir()
	notes := nakadi.FileNotes(dir)
	place := filepath.Join(dir, "n.lock")
	if err := os.Mkdir(place, 0o700); err != nil {
		t.Fatal(err)
	}
	lock, err := lockfile.Acquire(place)
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = lock.Release() })
	if ok, err := notes.Swap(t.Context(), "n", nil, []byte("note")); !ok || err != nil {
		t.Errorf("swap: %t, %v", ok, err)
	}
}
