package vfs

import (
	"errors"
	"os"
	"syscall"
)

// syncData is fdatasync: it leaves out the time stamps, which saves a journal write a call.
func syncData(f *os.File) error { return call(f, "fdatasync", syscall.Fdatasync) }

// call makes a system call on a file. A signal may interrupt it before it has begun, which is no
// failure.
func call(f *os.File, op string, system func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var sysErr error
	err = conn.Control(func(fd uintptr) {
		for {
			sysErr = system(int(fd))
			if !errors.Is(sysErr, syscall.EINTR) {
				return
			}
		}
	})
	if err == nil && sysErr != nil {
		err = &os.PathError{Op: op, Path: f.Name(), Err: sysErr}
	}
	return err
}

func freeBytes(dir string) (int64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func inodeOf(info os.FileInfo) uint64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Ino
	}
	return 0
}

// allocate is fallocate. A file system that does not have it gets zeros written. One that finds too
// little room may keep what it found, ext4 does: the file is cut to what it was.
func allocate(f *os.File, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	err = fallocate(f, 0, size)
	switch {
	case errors.Is(err, syscall.EOPNOTSUPP):
		return writeZeros(f, size)
	case err != nil:
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return nil
}

const keepSize = 1 // FALLOC_FL_KEEP_SIZE

func ahead(f *os.File, size int64) error { return fallocate(f, keepSize, size) }

func fallocate(f *os.File, mode uint32, size int64) error {
	return call(f, "fallocate", func(fd int) error { return syscall.Fallocate(fd, mode, 0, size) })
}
