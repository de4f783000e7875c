// Package reserve keeps room for a full disk. It is a file system around another one that owns one
// file in the store's directory, filled with room that is really allocated. When a call finds the
// disk full, a piece is cut off the end of that file and the call is made again. So the log, the
// list of segments and the checkpoints go on by themselves, without a branch of their own:
//
//	log, checkpoint ──▶ reserve.FS ──▶ vfs.FS        reserve  ██████████░░░░░░
//	                      │ no space: cut, again               ├─ Left ──┤
//
// It promises that a call fails for want of room only when the reserve is used up, or when too
// little would be left for others (see Sparing). A failed sync is final and is never made again.
// The user of the package stops what can wait while the reserve is not whole, and calls Refill
// until it is. An example is the test TestCutsUntilItFits. It does not count who used the room.
package reserve

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"sync/atomic"
	"syscall"

	"github.com/ackwise/ackwise/internal/vfs"
)

// Name is the name of the file in its directory.
const Name = "reserve"

// stepBytes is the least that is cut off at once: a new file takes a few blocks of the disk, also
// where little is written to it.
const stepBytes = 64 << 10

// ErrNoSync says that the file system has no working sync: nothing on it is ever known to be
// durable.
var ErrNoSync = errors.New("the file system does not support syncing")

// FS is a file system whose calls fall back on the reserve. It is safe for concurrent use.
type FS struct {
	vfs.FS
	pool  *pool
	floor func() int64 // what its calls leave of disk and reserve together; nil = nothing
}

// pool is the file.
type pool struct {
	fs   vfs.FS
	dir  string
	size int64 // of a whole reserve

	slot chan struct{} // capacity 1: who holds it may change the file
	file vfs.File      // changed only by who holds slot; nil = there was no room to make it
	left atomic.Int64  // its length
	cuts chan struct{} // capacity 1: something was cut off
}

// Open makes the reserve of size bytes in dir, or takes up the one that is there. A length that is
// wrong is put right where there is room. A disk without room is no error: then the reserve is not
// whole. A file system that cannot sync is ErrNoSync, and has not been changed.
func Open(fs vfs.FS, dir string, size int64) (*FS, error) {
	p := &pool{fs: fs, dir: dir, size: size, slot: make(chan struct{}, 1),
		cuts: make(chan struct{}, 1)}
	if err := p.open(); err != nil {
		if p.file != nil {
			err = errors.Join(err, p.file.Close())
		}
		return nil, fmt.Errorf("open reserve: %w", err)
	}
	return &FS{FS: fs, pool: p}, nil
}

// Left returns how many bytes the reserve has.
func (f *FS) Left() int64 { return f.pool.left.Load() }

// Whole reports whether nothing of the reserve is used.
func (f *FS) Whole() bool { return f.Left() == f.pool.size }

// Cuts returns a channel that gets a word when some of the reserve was used.
func (f *FS) Cuts() <-chan struct{} { return f.pool.cuts }

// Sparing returns the same file system for a user that can do without: a call of it that would
// leave less room than floor returns, of disk and reserve together, finds the disk full.
func (f *FS) Sparing(floor func() int64) *FS {
	return &FS{FS: f.FS, pool: f.pool, floor: floor}
}

// Refill makes the reserve whole again if there is room for all of it, and does nothing where it
// is whole or there is none. It never takes from the reserve.
func (f *FS) Refill() error {
	if f.Whole() {
		return nil
	}
	f.pool.slot <- struct{}{}
	defer func() { <-f.pool.slot }()
	if err := f.pool.fill(); err != nil {
		return fmt.Errorf("refill reserve: %w", err)
	}
	return nil
}

// Close closes the file, which stays as it is.
func (f *FS) Close() error {
	f.pool.slot <- struct{}{}
	defer func() { <-f.pool.slot }()
	if f.pool.file == nil {
		return nil
	}
	file := f.pool.file
	f.pool.file = nil
	f.pool.left.Store(0)
	return file.Close()
}

func (p *pool) path() string { return filepath.Join(p.dir, Name) }

// open is Open without the file's own errors in words.
func (p *pool) open() error {
	file, err := p.fs.Edit(p.path())
	if errors.Is(err, fs.ErrNotExist) {
		return p.fill()
	}
	if err != nil {
		return err
	}
	p.file = file
	size, err := file.Size()
	if err != nil {
		return err
	}
	if size > p.size {
		if err := file.Truncate(p.size); err != nil {
			return err
		}
		size = p.size
	}
	p.left.Store(size)
	if err := p.fill(); err != nil {
		return err
	}
	return p.sync()
}

// fill makes the reserve whole where there is room. The caller holds slot, or nobody else knows p.
func (p *pool) fill() error {
	if p.file == nil {
		return p.make()
	}
	err := p.file.Allocate(p.size)
	switch {
	case full(err):
		return nil
	case err == nil:
		p.left.Store(p.size)
	}
	return err
}

// make makes the file. If that does not work, there is none as before.
func (p *pool) make() error {
	file, err := p.fs.Create(p.path())
	if err != nil {
		if full(err) {
			return nil
		}
		return err
	}
	p.file = file
	if err = file.Allocate(p.size); err == nil {
		err = p.sync()
	}
	if err == nil {
		p.left.Store(p.size)
		return nil
	}
	p.file = nil
	undo := errors.Join(file.Close(), p.fs.Remove(p.path()))
	if full(err) && undo == nil {
		return nil
	}
	return errors.Join(err, undo)
}

// sync makes the file durable, and so tells whether the file system can sync at all.
func (p *pool) sync() error {
	err := errors.Join(p.file.Sync(), p.fs.SyncDir(p.dir))
	for _, no := range []error{syscall.EINVAL, syscall.ENOSYS, syscall.ENOTSUP,
		syscall.EOPNOTSUPP} {
		if errors.Is(err, no) {
			return fmt.Errorf("%w: %w", ErrNoSync, err)
		}
	}
	return err
}

// full reports whether a call failed for want of room.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// cut gives at least need bytes of the reserve back to the disk, or what is left.
func (p *pool) cut(need int64) bool {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	left := p.left.Load()
	if p.file == nil || left == 0 {
		return false
	}
	to := left - min(left, max(need, stepBytes))
	if err := p.file.Truncate(to); err != nil {
		return false // the caller gets the error that it had
	}
	p.left.Store(to)
	select {
	case p.cuts <- struct{}{}:
	default:
	}
	return true
}

// flush has the file system carry out what was cut: some hand blocks out again only after their
// journal was written.
func (p *pool) flush() {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	if p.file != nil {
		_ = p.file.Sync() // it holds nothing that could be lost
	}
}

// again makes a call that failed with err again as long as the disk is full and the reserve has
// something to give. need is what the call takes, as far as that is known.
func (f *FS) again(err error, need int64, call func() error) error {
	for full(err) {
		if errors.Is(err, syscall.EDQUOT) && f.floor != nil && f.Left()-need < f.floor() {
			return err // a quota is the bound: what the disk has free is not ours
		}
		if !f.pool.cut(need) {
			return err
		}
		if err = call(); full(err) {
			f.pool.flush()
			err = call()
		}
	}
	return err
}

// mayTake is asked before a call that takes need bytes, so that it does not take half of them.
func (f *FS) mayTake(op, name string, need int64) error {
	if f.floor == nil {
		return nil
	}
	free, err := f.FreeBytes(f.pool.dir)
	if err != nil {
		return err
	}
	if min(free, math.MaxInt64/2)+f.Left()-need < f.floor() {
		return &fs.PathError{Op: op, Path: name, Err: syscall.ENOSPC}
	}
	return nil
}
