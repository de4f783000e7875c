package bench

import (
	"io/fs"
	"syscall"
)

// tmpfsMagic and ramfsMagic are the types of file systems in memory, see statfs(2).
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

// fileSystem tells whether a sync in dir reaches a disk.
func fileSystem(dir string) string {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return "unknown"
	}
	switch uint32(st.Type) {
	case tmpfsMagic, ramfsMagic:
		return "memory"
	}
	return "disk"
}

// allocated is what a file takes of the disk.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}
