package dedup

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"

	"github.com/ackwise/ackwise/internal/vfs"
)

// writeBytes is how much one write of a file carries.
const writeBytes = 64 * blockBytes

// file is a bucket on disk. It is opened for each read: reads are rare, one for a thousand absent
// IDs in a bucket, and so many buckets would hold as many file handles.
type file struct {
	path  string
	head  header
	crc   uint32
	index index
}

// find looks for an ID.
func (f *file) find(fsys vfs.FS, hash uint64, id string) (Seen, bool, error) {
	if !f.index.filter.may(hash) {
		return Seen{}, false, nil
	}
	// The last block that begins at or before the hash; equal hashes may stand in those before it.
	i := sort.Search(len(f.index.firsts), func(i int) bool { return f.index.firsts[i] > hash }) - 1
	if i < 0 {
		return Seen{}, false, nil
	}
	in, err := fsys.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return Seen{}, false, &DamageError{File: f.path, Err: err}
	}
	if err != nil {
		return Seen{}, false, fmt.Errorf("open dedup bucket: %w", err)
	}
	defer func() { _ = in.Close() }() // it was read only: there is nothing that could be lost
	return f.search(in, i, hash, id)
}

func (f *file) search(in vfs.File, i int, hash uint64, id string) (Seen, bool, error) {
	block := make([]byte, blockBytes)
	for ; i >= 0; i-- {
		if n, err := in.ReadAt(block, blockAt(i)); n < blockBytes {
			return Seen{}, false, readFault(f.path, blockAt(i)+int64(n), err)
		}
		s, delta, ok, err := findInBlock(block, blockSeed(f.crc, i), hash, id)
		if err != nil {
			return Seen{}, false, &DamageError{File: f.path, Offset: blockAt(i), Err: err}
		}
		if ok {
			s.At = f.head.first + int64(delta)
			return s, true, nil
		}
		if f.index.firsts[i] < hash {
			break
		}
	}
	return Seen{}, false, nil
}

// readFault tells a file that ends too early, which is damage, from a disk that does not answer.
func readFault(path string, offset int64, err error) error {
	if errors.Is(err, io.EOF) {
		return &DamageError{File: path, Offset: offset, Err: errors.New("the file ends here")}
	}
	return fmt.Errorf("read dedup bucket: %w", err)
}

// openFile reads a file's header and index.
func openFile(fsys vfs.FS, path string) (f *file, err error) {
	in, err := fsys.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	size, err := in.Size()
	if err != nil {
		return nil, fmt.Errorf("read dedup bucket: %w", err)
	}
	b := make([]byte, blockBytes)
	if n, err := in.ReadAt(b, 0); n < blockBytes {
		return nil, readFault(path, int64(n), err)
	}
	f = &file{path: path}
	if f.head, err = decodeHeader(path, b); err != nil {
		return nil, err
	}
	if size != f.head.size() {
		return nil, &DamageError{File: path, Offset: size, Err: fmt.Errorf(
			"the file ends here, its header says at %d", f.head.size())}
	}
	b = make([]byte, size-f.head.indexAt())
	if n, err := in.ReadAt(b, f.head.indexAt()); n < len(b) {
		return nil, readFault(path, f.head.indexAt()+int64(n), err)
	}
	f.crc = f.head.crc()
	f.index, err = decodeIndex(b, f.head, blockSeed(f.crc, int(f.head.blocks)))
	if err != nil {
		return nil, &DamageError{File: path, Offset: f.head.indexAt(), Err: err}
	}
	return f, nil
}

// sorted is an entry's place in memory, by hash and ID.
type sorted struct {
	hash uint64
	ref  uint32
}

// sort returns a bucket's entries by hash and ID, and how many each block holds.
func (m *memory) sort() (entries []sorted, blocks []int) {
	entries = make([]sorted, 0, m.count)
	m.each(func(ref uint32, id []byte) {
		entries = append(entries, sorted{m.seed.hash(string(id)), ref})
	})
	slices.SortFunc(entries, func(a, b sorted) int {
		if c := cmp.Compare(a.hash, b.hash); c != 0 {
			return c
		}
		return bytes.Compare(m.id(a.ref), m.id(b.ref))
	})
	n, room := 0, blockBytes-blockHead
	for _, e := range entries {
		size := fileEntry + len(m.id(e.ref))
		if size > room {
			blocks = append(blocks, n)
			n, room = 0, blockBytes-blockHead
		}
		n++
		room -= size
	}
	return entries, append(blocks, n)
}

// writeFile writes a closed bucket as a file, which is durable when it returns. Where it fails, the
// bucket can be written again: nothing lists its file.
func writeFile(fsys vfs.FS, dir string, m *memory, h header) (*file, error) {
	entries, blocks := m.sort()
	h.number, h.first, h.last = m.number, m.first, m.last
	h.count, h.blocks = uint32(m.count), uint32(len(blocks))
	h.lines = uint32(filterLines(m.count))
	f := &file{path: filepath.Join(dir, fileName(h.topic, h.number)), head: h, crc: h.crc(),
		index: index{filter: newFilter(m.count)}}
	out, err := vfs.WriteNew(fsys, f.path, func(out vfs.File) error {
		return f.write(out, m, entries, blocks)
	})
	if err == nil {
		if err = out.Close(); err != nil {
			err = errors.Join(err, fsys.Remove(f.path+tempSuffix))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("write dedup bucket: %w", err)
	}
	if err := vfs.GiveName(fsys, f.path); err != nil {
		return nil, fmt.Errorf("rename dedup bucket: %w", err)
	}
	return f, nil
}

// write writes the whole file and makes its index.
func (f *file) write(out vfs.File, m *memory, entries []sorted, blocks []int) error {
	w := writer{out: out, b: make([]byte, 0, writeBytes)}
	w.b = append(w.b, f.head.encode()...)
	for i, n := range blocks {
		if err := w.room(blockBytes); err != nil {
			return err
		}
		f.index.firsts = append(f.index.firsts, entries[0].hash)
		block := w.b[len(w.b) : len(w.b)+blockHead]
		for _, e := range entries[:n] {
			block = appendEntry(block, e, m)
			f.index.filter.add(e.hash)
		}
		sealBlock(block, n, blockSeed(f.crc, i))
		w.b = w.b[:len(w.b)+blockBytes]
		entries = entries[n:]
	}
	if err := w.room(writeBytes); err != nil {
		return err
	}
	_, err := out.WriteAt(f.index.encode(blockSeed(f.crc, len(blocks))), w.off)
	return err
}

// writer gathers blocks for larger writes.
type writer struct {
	out vfs.File
	off int64
	b   []byte
}

// room makes room for n bytes in b.
func (w *writer) room(n int) error {
	if len(w.b)+n <= cap(w.b) {
		return nil
	}
	_, err := w.out.WriteAt(w.b, w.off)
	w.off += int64(len(w.b))
	w.b = w.b[:0]
	return err
}
