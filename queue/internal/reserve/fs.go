package reserve

import "github.com/ackwise/ackwise/internal/vfs"

// Create implements vfs.Files.
func (f *FS) Create(name string) (vfs.File, error) {
	if err := f.mayTake("create", name, 0); err != nil {
		return nil, err
	}
	made, err := f.FS.Create(name)
	err = f.again(err, 0, func() (err error) {
		made, err = f.FS.Create(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &file{made, f, name}, nil
}

// Edit implements vfs.Files.
func (f *FS) Edit(name string) (vfs.File, error) {
	opened, err := f.FS.Edit(name)
	if err != nil {
		return nil, err
	}
	return &file{opened, f, name}, nil
}

// Rename implements vfs.Files.
func (f *FS) Rename(from, to string) error {
	return f.again(f.FS.Rename(from, to), 0, func() error { return f.FS.Rename(from, to) })
}

// SyncDir implements vfs.Dirs.
func (f *FS) SyncDir(dir string) error {
	return f.again(f.FS.SyncDir(dir), 0, func() error { return f.FS.SyncDir(dir) })
}

// file is a file that is written to.
type file struct {
	vfs.File
	fs   *FS
	name string
}

// WriteAt implements io.WriterAt. A write that found too little room is made again whole: the same
// bytes at the same place.
func (f *file) WriteAt(b []byte, off int64) (int, error) {
	if err := f.fs.mayTake("write", f.name, int64(len(b))); err != nil {
		return 0, err
	}
	n, err := f.File.WriteAt(b, off)
	if err == nil || !full(err) {
		return n, err
	}
	err = f.fs.again(err, int64(len(b)), func() (err error) {
		n, err = f.File.WriteAt(b, off)
		return err
	})
	return n, err
}

// Allocate implements vfs.Room. Room that is wanted ahead and is more than all of the reserve is
// refused without touching it: who asks can do without, and who writes cannot.
func (f *file) Allocate(size int64) error {
	have, err := f.Size()
	if err == nil {
		err = f.fs.mayTake("allocate", f.name, size-have)
	}
	if err != nil {
		return err
	}
	err = f.File.Allocate(size)
	if err == nil || !full(err) || size-have > f.fs.Left() {
		return err
	}
	return f.fs.again(err, size-have, func() error { return f.File.Allocate(size) })
}
