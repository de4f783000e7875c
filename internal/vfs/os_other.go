//go:build !linux

package vfs

import (
	"errors"
	"math"
	"os"
)

func syncData(f *os.File) error { return f.Sync() }

// freeBytes knows nothing here, and says that there is enough: a full disk is then seen at the
// write.
func freeBytes(dir string) (int64, error) {
	if _, err := os.Stat(dir); err != nil {
		return 0, errors.Join(errors.New("free space"), err)
	}
	return math.MaxInt64, nil
}

// inodeOf knows no inodes here: a copy is not told from its original.
func inodeOf(os.FileInfo) uint64 { return 0 }

func allocate(f *os.File, size int64) error { return writeZeros(f, size) }

func ahead(*os.File, int64) error { return errors.ErrUnsupported }
