package vfs

import (
	"sync"
)

// Op is a kind of call.
type Op uint8

// The kinds of calls. OpAny matches all of them.
const (
	OpAny Op = iota
	OpCreate
	OpOpen
	OpRename
	OpRemove
	OpMkdir
	OpReadDir
	OpSyncDir
	OpFree
	OpRead
	OpWrite
	OpSync
	OpSize
	OpAllocate
	OpTruncate
	OpInode
	OpClose
	opCount
)

// Changes reports whether such a call changes the disk or makes a change durable.
func (o Op) Changes() bool {
	switch o {
	case OpCreate, OpRename, OpRemove, OpMkdir, OpSyncDir, OpWrite, OpSync, OpAllocate,
		OpTruncate:
		return true
	case OpAny, OpOpen, OpReadDir, OpFree, OpRead, OpSize, OpInode, OpClose, opCount:
	}
	return false
}

// Fault makes calls of a kind fail.
type Fault struct {
	Op      Op
	Changes bool            // with OpAny: only calls that change the disk are counted
	N       int             // the call of this kind that fails, counted from 1 on
	Onward  bool            // all calls after it fail too
	Err     error           // what it returns; nil = nothing fails, see Block
	Short   int             // a failing write has written so many bytes before
	Block   <-chan struct{} // the call waits until it is closed, before anything else

	seen, fired int // guarded by Faults.mu
}

// Faults is a file system some of whose calls fail. It is safe for concurrent use.
type Faults struct {
	fs FS

	mu     sync.Mutex // guards all below, and the counts in the faults
	faults []*Fault
	calls  [opCount]int
}

// NewFaults wraps a file system. Without a fault set, it only counts.
func NewFaults(fs FS, faults ...*Fault) *Faults { return &Faults{fs: fs, faults: faults} }

// Set adds a fault.
func (f *Faults) Set(fault *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.faults = append(f.faults, fault)
}

// Lift has a fault strike no more.
func (f *Faults) Lift(fault *Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fault.Err = nil
}

// Fired counts how often a fault struck.
func (f *Faults) Fired(fault *Fault) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fault.fired
}

// Calls counts the calls of a kind; OpAny counts those that change the disk.
func (f *Faults) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if op != OpAny {
		return f.calls[op]
	}
	n := 0
	for o := range opCount {
		if o.Changes() {
			n += f.calls[o]
		}
	}
	return n
}

func (f *Fault) matches(op Op) bool {
	return f.Op == op || f.Op == OpAny && (!f.Changes || op.Changes())
}

// strike counts a call and returns the error that it shall give, and how much of a write is done.
func (f *Faults) strike(op Op) (short int, err error) {
	var wait []<-chan struct{}
	f.mu.Lock()
	f.calls[op]++
	for _, t := range f.faults {
		if !t.matches(op) {
			continue
		}
		t.seen++
		if t.seen == t.N || t.Onward && t.seen > t.N {
			t.fired++
			if t.Block != nil {
				wait = append(wait, t.Block)
			}
			if err == nil && t.Err != nil {
				short, err = t.Short, t.Err
			}
		}
	}
	f.mu.Unlock()
	for _, c := range wait {
		<-c
	}
	return short, err
}

// Create implements Files.
func (f *Faults) Create(name string) (File, error) {
	if _, err := f.strike(OpCreate); err != nil {
		return nil, pathError("create", name, err)
	}
	file, err := f.fs.Create(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{f, file, name}, nil
}

// Open implements Files.
func (f *Faults) Open(name string) (File, error) { return f.open(name, f.fs.Open) }

// Edit implements Files. It counts as an OpOpen.
func (f *Faults) Edit(name string) (File, error) { return f.open(name, f.fs.Edit) }

func (f *Faults) open(name string, open func(string) (File, error)) (File, error) {
	if _, err := f.strike(OpOpen); err != nil {
		return nil, pathError("open", name, err)
	}
	file, err := open(name)
	if err != nil {
		return nil, err
	}
	return &faultFile{f, file, name}, nil
}

// Rename implements Files.
func (f *Faults) Rename(from, to string) error {
	if _, err := f.strike(OpRename); err != nil {
		return pathError("rename", to, err)
	}
	return f.fs.Rename(from, to)
}

// Remove implements Files.
func (f *Faults) Remove(name string) error {
	if _, err := f.strike(OpRemove); err != nil {
		return pathError("remove", name, err)
	}
	return f.fs.Remove(name)
}

// MkdirAll implements Dirs.
func (f *Faults) MkdirAll(dir string) error {
	if _, err := f.strike(OpMkdir); err != nil {
		return pathError("mkdir", dir, err)
	}
	return f.fs.MkdirAll(dir)
}

// ReadDir implements Dirs.
func (f *Faults) ReadDir(dir string) ([]string, error) {
	if _, err := f.strike(OpReadDir); err != nil {
		return nil, pathError("readdir", dir, err)
	}
	return f.fs.ReadDir(dir)
}

// SyncDir implements Dirs.
func (f *Faults) SyncDir(dir string) error {
	if _, err := f.strike(OpSyncDir); err != nil {
		return pathError("syncdir", dir, err)
	}
	return f.fs.SyncDir(dir)
}

// FreeBytes implements Dirs.
func (f *Faults) FreeBytes(dir string) (int64, error) {
	if _, err := f.strike(OpFree); err != nil {
		return 0, pathError("free", dir, err)
	}
	return f.fs.FreeBytes(dir)
}

// Inode implements Dirs.
func (f *Faults) Inode(dir string) (uint64, error) {
	if _, err := f.strike(OpInode); err != nil {
		return 0, pathError("stat", dir, err)
	}
	return f.fs.Inode(dir)
}

type faultFile struct {
	faults *Faults
	file   File
	name   string
}

// ReadAt implements io.ReaderAt.
func (f *faultFile) ReadAt(p []byte, off int64) (int, error) {
	if _, err := f.faults.strike(OpRead); err != nil {
		return 0, pathError("read", f.name, err)
	}
	return f.file.ReadAt(p, off)
}

// WriteAt implements io.WriterAt.
func (f *faultFile) WriteAt(p []byte, off int64) (int, error) {
	short, err := f.faults.strike(OpWrite)
	if err == nil {
		return f.file.WriteAt(p, off)
	}
	n, writeErr := f.file.WriteAt(p[:min(short, len(p))], off)
	if writeErr != nil {
		return n, writeErr
	}
	return n, pathError("write", f.name, err)
}

// Sync implements File.
func (f *faultFile) Sync() error {
	if _, err := f.faults.strike(OpSync); err != nil {
		return pathError("sync", f.name, err)
	}
	return f.file.Sync()
}

// Size implements File.
func (f *faultFile) Size() (int64, error) {
	if _, err := f.faults.strike(OpSize); err != nil {
		return 0, pathError("stat", f.name, err)
	}
	return f.file.Size()
}

// Allocate implements File.
func (f *faultFile) Allocate(size int64) error {
	if _, err := f.faults.strike(OpAllocate); err != nil {
		return pathError("allocate", f.name, err)
	}
	return f.file.Allocate(size)
}

// Ahead implements File. It cannot fail in a way that matters, and no fault counts it.
func (f *faultFile) Ahead(size int64) error { return f.file.Ahead(size) }

// Truncate implements File.
func (f *faultFile) Truncate(size int64) error {
	if _, err := f.faults.strike(OpTruncate); err != nil {
		return pathError("truncate", f.name, err)
	}
	return f.file.Truncate(size)
}

// Close implements io.Closer. The file is closed in any case.
func (f *faultFile) Close() error {
	_, err := f.faults.strike(OpClose)
	closeErr := f.file.Close()
	if err != nil {
		return pathError("close", f.name, err)
	}
	return closeErr
}
