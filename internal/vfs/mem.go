package vfs

import (
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// Mem is a file system in memory that knows what was synced apart from what was not. It is safe for
// concurrent use.
type Mem struct {
	mu       sync.Mutex // guards all below, and the content of the files
	dirs     map[string]*memDir
	capacity int64 // bytes; < 0 = no end
	used     int64
	inode    uint64

	watch atomic.Pointer[func(Op)]
}

// memDir is a directory: what it shows, and what a power cut leaves of it for sure.
type memDir struct {
	names  map[string]*memNode
	synced map[string]*memNode
	ops    []memOp // since the last SyncDir, in order
}

// memOp gives a node a name and takes one away; either may be "".
type memOp struct {
	name string
	node *memNode
	gone string
}

// memNode is a file. Its two contents may share memory with each other and with those of clones,
// until one of them is written to.
type memNode struct {
	data         []byte
	synced       []byte
	dirty        map[int64]struct{} // blocks written since the last sync
	dataShared   bool
	syncedShared bool
}

// own makes the contents nobody else's, before they are changed.
func (n *memNode) own() {
	if n.dataShared {
		n.data, n.dataShared = slices.Clone(n.data), false
	}
	if n.syncedShared {
		n.synced, n.syncedShared = slices.Clone(n.synced), false
	}
}

// share returns a file with the same contents.
func (n *memNode) share(data, synced []byte) *memNode {
	n.dataShared, n.syncedShared = true, true
	return &memNode{data: slices.Clip(data), synced: slices.Clip(synced), dataShared: true,
		syncedShared: true, dirty: map[int64]struct{}{}}
}

// NewMem returns an empty file system.
func NewMem() *Mem { return &Mem{dirs: map[string]*memDir{}, capacity: -1, inode: 1} }

// Copied makes the file system one whose directories were copied: they have other inodes.
func (m *Mem) Copied() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inode++
}

// Inode implements Dirs.
func (m *Mem) Inode(string) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inode, nil
}

// SetCapacity bounds the bytes of all files; a write beyond fails with ENOSPC after what fits.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// dirLocked returns the directory of a file.
func (m *Mem) dirLocked(op, name string) (*memDir, string, error) {
	dir, base := filepath.Split(name)
	d := m.dirs[filepath.Clean(dir)]
	if d == nil {
		return nil, "", pathError(op, name, fs.ErrNotExist)
	}
	return d, base, nil
}

// Create implements Files.
func (m *Mem) Create(name string) (File, error) {
	m.called(OpCreate)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("create", name)
	if err != nil {
		return nil, err
	}
	if d.names[base] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	if m.capacity >= 0 && m.used >= m.capacity { // a name needs room too
		return nil, pathError("create", name, syscall.ENOSPC)
	}
	n := &memNode{dirty: map[int64]struct{}{}}
	d.apply(memOp{name: base, node: n})
	return &memFile{mem: m, node: n, name: name, writable: true}, nil
}

// apply carries an operation out and remembers it until the next SyncDir.
func (d *memDir) apply(op memOp) {
	op.applyTo(d.names)
	d.ops = append(d.ops, op)
}

func (op memOp) applyTo(names map[string]*memNode) {
	if op.gone != "" {
		delete(names, op.gone)
	}
	if op.name != "" {
		names[op.name] = op.node
	}
}

// Open implements Files.
func (m *Mem) Open(name string) (File, error) { return m.open(name, false) }

// Edit implements Files.
func (m *Mem) Edit(name string) (File, error) { return m.open(name, true) }

func (m *Mem) open(name string, writable bool) (File, error) {
	m.called(OpOpen)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("open", name)
	if err != nil {
		return nil, err
	}
	n := d.names[base]
	if n == nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{mem: m, node: n, name: name, writable: writable}, nil
}

// Rename implements Files.
func (m *Mem) Rename(from, to string) error {
	m.called(OpRename)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("rename", from)
	if err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		return pathError("rename", to, syscall.EXDEV)
	}
	n := d.names[base]
	if n == nil {
		return pathError("rename", from, fs.ErrNotExist)
	}
	if old := d.names[filepath.Base(to)]; old != nil && old != n {
		m.used -= int64(len(old.data))
	}
	d.apply(memOp{name: filepath.Base(to), node: n, gone: base})
	return nil
}

// Remove implements Files.
func (m *Mem) Remove(name string) error {
	m.called(OpRemove)
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("remove", name)
	if err != nil {
		return err
	}
	n := d.names[base]
	if n == nil {
		return pathError("remove", name, fs.ErrNotExist)
	}
	d.apply(memOp{gone: base})
	m.used -= int64(len(n.data))
	return nil
}

// MkdirAll implements Dirs.
func (m *Mem) MkdirAll(dir string) error {
	m.called(OpMkdir)
	m.mu.Lock()
	defer m.mu.Unlock()
	for dir = filepath.Clean(dir); m.dirs[dir] == nil; dir = filepath.Dir(dir) {
		m.dirs[dir] = &memDir{names: map[string]*memNode{}, synced: map[string]*memNode{}}
	}
	return nil
}

// ReadDir implements Dirs. It lists files only.
func (m *Mem) ReadDir(dir string) ([]string, error) {
	m.called(OpReadDir)
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Clean(dir)]
	if d == nil {
		return nil, pathError("readdir", dir, fs.ErrNotExist)
	}
	return slices.Sorted(maps.Keys(d.names)), nil
}

// SyncDir implements Dirs.
func (m *Mem) SyncDir(dir string) error {
	m.called(OpSyncDir)
	m.mu.Lock()
	defer m.mu.Unlock()
	d := m.dirs[filepath.Clean(dir)]
	if d == nil {
		return pathError("syncdir", dir, fs.ErrNotExist)
	}
	d.synced, d.ops = maps.Clone(d.names), nil
	return nil
}

// FreeBytes implements Dirs.
func (m *Mem) FreeBytes(string) (int64, error) {
	m.called(OpFree)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.capacity < 0 {
		return 1 << 50, nil
	}
	return max(0, m.capacity-m.used), nil
}

// ReadFile returns a copy of a file's content, for tests.
func (m *Mem) ReadFile(name string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("read", name)
	if err != nil {
		return nil, err
	}
	if d.names[base] == nil {
		return nil, pathError("read", name, fs.ErrNotExist)
	}
	return slices.Clone(d.names[base].data), nil
}

// WriteFile puts a synced file in place of what had its name, for tests that play a rotten disk.
func (m *Mem) WriteFile(name string, content []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	d, base, err := m.dirLocked("write", name)
	if err != nil {
		return err
	}
	d.names[base] = &memNode{data: slices.Clone(content), synced: slices.Clone(content),
		dirty: map[int64]struct{}{}}
	d.synced[base] = d.names[base]
	return nil
}

// Clone returns a copy as a killed process leaves it: all that was written is there, and what was
// not synced is still not synced.
func (m *Mem) Clone() *Mem { return m.clone(nil) }

// CrashClone returns a copy as a power cut leaves it, after the legal model in the package comment.
// m is not changed, so that one state gives many.
func (m *Mem) CrashClone(rng *rand.Rand) *Mem { return m.clone(newCut(rng)) }

func (m *Mem) clone(c cutter) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := NewMem()
	to.capacity, to.inode = m.capacity, m.inode
	nodes := map[*memNode]*memNode{}
	copyNames := func(names map[string]*memNode) map[string]*memNode {
		out := make(map[string]*memNode, len(names))
		for _, name := range slices.Sorted(maps.Keys(names)) {
			n := names[name]
			if nodes[n] == nil {
				nodes[n] = n.clone(c)
			}
			out[name] = nodes[n]
		}
		return out
	}
	for _, dir := range slices.Sorted(maps.Keys(m.dirs)) {
		d := m.dirs[dir]
		if c != nil {
			names := maps.Clone(d.synced)
			for i := range d.ops {
				if c.keepOp(&d.ops[i]) {
					d.ops[i].applyTo(names)
				}
			}
			names = copyNames(names)
			to.dirs[dir] = &memDir{names: names, synced: maps.Clone(names)}
			continue
		}
		next := &memDir{names: copyNames(d.names), synced: copyNames(d.synced)}
		for _, op := range d.ops {
			if op.node != nil {
				op.node = copyNames(map[string]*memNode{"": op.node})[""]
			}
			next.ops = append(next.ops, op)
		}
		to.dirs[dir] = next
	}
	for _, d := range to.dirs {
		for _, n := range d.names {
			to.used += int64(len(n.data))
		}
	}
	return to
}

// clone copies a file. With a cut, only what persists.
func (n *memNode) clone(c cutter) *memNode {
	if c == nil {
		to := n.share(n.data, n.synced)
		maps.Copy(to.dirty, n.dirty)
		return to
	}
	if len(n.dirty) == 0 && len(n.data) == len(n.synced) {
		return n.share(n.synced, n.synced)
	}
	size := len(n.synced)
	switch grown := len(n.data) - size; {
	case grown > 0:
		size += c.length(n, grown)
	case grown < 0:
		size -= c.length(n, -grown)
	}
	data := make([]byte, size)
	copy(data, n.synced)
	for _, b := range slices.Sorted(maps.Keys(n.dirty)) {
		from := int(b) * BlockBytes
		if to := min(from+BlockBytes, size, len(n.data)); from < to && c.keepBlock(n, b) {
			copy(data[from:to], n.data[from:to])
		}
	}
	return (&memNode{}).share(data, data)
}

// cut decides what of the unsynced persists. Extreme choices find more than even ones, so that each
// cut has its own bias: none, all, few, half, most.
type cut struct {
	rng  *rand.Rand
	bias float64
}

func newCut(rng *rand.Rand) *cut {
	return &cut{rng: rng, bias: [...]float64{0, 1, 0.1, 0.5, 0.9}[rng.IntN(5)]}
}

func (c *cut) keep() bool { return c.rng.Float64() < c.bias }

func (c *cut) keepOp(*memOp) bool { return c.keep() }

func (c *cut) keepBlock(*memNode, int64) bool { return c.keep() }

// length says how much of what a file grew by is in its length: all, nothing, or any part.
func (c *cut) length(_ *memNode, grown int) int {
	switch c.rng.IntN(4) {
	case 0:
		return 0
	case 1:
		return c.rng.IntN(grown + 1)
	}
	return grown
}

// memFile is an open file.
type memFile struct {
	mem      *Mem
	node     *memNode
	name     string
	writable bool
	closed   bool // guarded by Mem.mu
}

func (f *memFile) checkLocked(op string) error {
	if f.closed {
		return pathError(op, f.name, fs.ErrClosed)
	}
	return nil
}

// ReadAt implements io.ReaderAt.
func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mem.called(OpRead)
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.checkLocked("read"); err != nil {
		return 0, err
	}
	if off >= int64(len(f.node.data)) && len(p) > 0 {
		return 0, io.EOF
	}
	n := copy(p, f.node.data[min(off, int64(len(f.node.data))):])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	m := f.mem
	m.called(OpWrite)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f.checkLocked("write"); err != nil {
		return 0, err
	}
	if !f.writable {
		return 0, pathError("write", f.name, syscall.EBADF)
	}
	var full error
	grow := off + int64(len(p)) - int64(len(f.node.data))
	if lack := m.used + grow - m.capacity; m.capacity >= 0 && grow > 0 && lack > 0 {
		p = p[:max(0, int64(len(p))-lack)]
		full = pathError("write", f.name, syscall.ENOSPC)
	}
	if grow = off + int64(len(p)) - int64(len(f.node.data)); grow > 0 && len(p) > 0 {
		f.node.data = append(f.node.data, make([]byte, grow)...)
		m.used += grow
	}
	f.node.own()
	copy(f.node.data[min(off, int64(len(f.node.data))):], p)
	for b := off / BlockBytes; b*BlockBytes < off+int64(len(p)); b++ {
		f.node.dirty[b] = struct{}{}
	}
	return len(p), full
}

// Sync implements File.
func (f *memFile) Sync() error {
	f.mem.called(OpSync)
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	if err := f.checkLocked("sync"); err != nil {
		return err
	}
	n := f.node
	n.own()
	for b := range n.dirty {
		from := int(b) * BlockBytes
		if grow := min(from+BlockBytes, len(n.data)) - len(n.synced); grow > 0 {
			n.synced = append(n.synced, make([]byte, grow)...)
		}
		copy(n.synced[from:], n.data[from:min(from+BlockBytes, len(n.data))])
	}
	if grow := len(n.data) - len(n.synced); grow > 0 {
		n.synced = append(n.synced, make([]byte, grow)...)
	}
	n.synced = n.synced[:len(n.data)]
	clear(n.dirty)
	return nil
}

// Allocate implements File.
func (f *memFile) Allocate(size int64) error {
	m := f.mem
	m.called(OpAllocate)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f.checkLocked("allocate"); err != nil {
		return err
	}
	grow := size - int64(len(f.node.data))
	switch {
	case !f.writable:
		return pathError("allocate", f.name, syscall.EBADF)
	case grow <= 0:
		return nil
	case m.capacity >= 0 && m.used+grow > m.capacity:
		return pathError("allocate", f.name, syscall.ENOSPC)
	}
	f.node.data = append(f.node.data, make([]byte, grow)...)
	m.used += grow
	return nil
}

// Ahead implements File. It has no room to give: writing costs the same everywhere.
func (f *memFile) Ahead(int64) error { return nil }

// Truncate implements File.
func (f *memFile) Truncate(size int64) error {
	m := f.mem
	m.called(OpTruncate)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := f.checkLocked("truncate"); err != nil {
		return err
	}
	n := f.node
	switch {
	case !f.writable:
		return pathError("truncate", f.name, syscall.EBADF)
	case size < 0 || size > int64(len(n.data)):
		return pathError("truncate", f.name, syscall.EINVAL)
	}
	m.used -= int64(len(n.data)) - size
	n.data = n.data[:size:size]
	for b := range n.dirty {
		if b*BlockBytes >= size {
			delete(n.dirty, b)
		}
	}
	return nil
}

// Size implements File.
func (f *memFile) Size() (int64, error) {
	f.mem.called(OpSize)
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	return int64(len(f.node.data)), f.checkLocked("size")
}

// Close implements io.Closer.
func (f *memFile) Close() error {
	f.mem.called(OpClose)
	f.mem.mu.Lock()
	defer f.mem.mu.Unlock()
	err := f.checkLocked("close")
	f.closed = true
	return err
}
