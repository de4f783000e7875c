package queue

import "github.com/ackwise/ackwise/internal/vfs"

// OpenOn opens a store in a directory of a file system, for tests of packages that build on this
// one.
func OpenOn(fs vfs.FS, dir string, o Options) (*Store, error) {
	if err := fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	if err := o.fill(); err != nil {
		return nil, err
	}
	return openOn(fs, dir, o)
}
