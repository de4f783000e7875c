package dedup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"path/filepath"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
)

// What a checkpoint holds of a window, all integers little-endian:
//
//	window: topic 4 · store id 16 · time of the last entry 8 · number of the open bucket 8
//	        · buckets 4 · buckets, oldest first
//	bucket: kind 1 · number 8 · count 4 · first 8 · last 8 · in memory only: the entries
const (
	snapshotHead = 40
	bucketHead   = 29
	kindFile     = 1 // listed: its file is durable
	kindMemory   = 2 // closed
	kindOpen     = 3 // the last one
)

var (
	errMissing  = errors.New("the file is missing, and its IDs are in the window")
	errSnapshot = errors.New("the list of dedup buckets contradicts itself")
)

// Snapshot is what a window held at a moment. It does not change.
type Snapshot struct {
	opt     Options
	last    int64
	open    uint64
	buckets []savedBucket
}

// savedBucket is a bucket in a snapshot.
type savedBucket struct {
	kind        byte
	number      uint64
	count       int
	first, last int64
	chunks      [][]byte // of a snapshot that was taken
	memory      *memory  // of one that was read
}

// Snapshot returns what the window holds, for the checkpoint of this moment. It copies no entry:
// those that are there do not change.
func (w *Window) Snapshot() *Snapshot {
	v := w.view.Load()
	s := &Snapshot{opt: w.opt, last: w.last, open: v.open.number,
		buckets: make([]savedBucket, 0, len(v.closed)+1)}
	for _, b := range v.closed {
		kind := byte(kindMemory)
		if b.memory == nil {
			kind = kindFile
		}
		s.add(kind, b)
	}
	if v.open.count > 0 {
		s.add(kindOpen, closedBucket(v.open))
	}
	return s
}

func (s *Snapshot) add(kind byte, b *bucket) {
	saved := savedBucket{kind: kind, number: b.number, count: b.count, first: b.first, last: b.last}
	if b.memory != nil {
		saved.chunks = append(saved.chunks, b.memory.chunks...)
	}
	s.buckets = append(s.buckets, saved)
}

// Topic returns the number of the window's topic.
func (s *Snapshot) Topic() uint32 { return s.opt.Topic }

// Size returns how many bytes WriteTo writes.
func (s *Snapshot) Size() int64 {
	n := int64(snapshotHead)
	for _, saved := range s.buckets {
		n += bucketHead
		for _, chunk := range saved.chunks {
			n += int64(len(chunk))
		}
	}
	return n
}

// WriteTo implements io.WriterTo. It needs no lock.
func (s *Snapshot) WriteTo(out io.Writer) (n int64, err error) {
	put := func(b []byte) {
		if err == nil {
			var k int
			k, err = out.Write(b)
			n += int64(k)
		}
	}
	b := binary.LittleEndian.AppendUint32(nil, s.opt.Topic)
	b = append(b, s.opt.StoreID[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.last))
	b = binary.LittleEndian.AppendUint64(b, s.open)
	put(binary.LittleEndian.AppendUint32(b, uint32(len(s.buckets))))
	for _, saved := range s.buckets {
		b := binary.LittleEndian.AppendUint64([]byte{saved.kind}, saved.number)
		b = binary.LittleEndian.AppendUint32(b, uint32(saved.count))
		b = binary.LittleEndian.AppendUint64(b, uint64(saved.first))
		put(binary.LittleEndian.AppendUint64(b, uint64(saved.last)))
		for _, chunk := range saved.chunks {
			put(chunk)
		}
	}
	return n, err
}

// ReadSnapshot reads what WriteTo wrote, and nothing beyond it.
func ReadSnapshot(in *bufio.Reader) (*Snapshot, error) {
	var b [snapshotHead]byte
	if _, err := io.ReadFull(in, b[:]); err != nil {
		return nil, fmt.Errorf("read dedup window: %w", err)
	}
	s := &Snapshot{last: int64(binary.LittleEndian.Uint64(b[20:])),
		open: binary.LittleEndian.Uint64(b[28:])}
	s.opt.Topic = binary.LittleEndian.Uint32(b[:])
	copy(s.opt.StoreID[:], b[4:20])
	for range binary.LittleEndian.Uint32(b[36:]) {
		saved, err := s.readBucket(in)
		if err != nil {
			return nil, fmt.Errorf("read dedup window of topic %d: %w", s.opt.Topic, err)
		}
		s.buckets = append(s.buckets, saved)
	}
	return s, nil
}

func (s *Snapshot) readBucket(in *bufio.Reader) (b savedBucket, err error) {
	var h [bucketHead]byte
	if _, err := io.ReadFull(in, h[:]); err != nil {
		return b, err
	}
	b = savedBucket{kind: h[0], number: binary.LittleEndian.Uint64(h[1:]),
		count: int(binary.LittleEndian.Uint32(h[9:])),
		first: int64(binary.LittleEndian.Uint64(h[13:])),
		last:  int64(binary.LittleEndian.Uint64(h[21:]))}
	low, from := uint64(0), int64(math.MinInt64)
	if n := len(s.buckets); n > 0 {
		low, from = s.buckets[n-1].number+1, s.buckets[n-1].last
	}
	open := b.kind == kindOpen
	if b.kind < kindFile || b.kind > kindOpen || b.number < low || b.number > s.open ||
		open != (b.number == s.open) || b.first < from || b.last < b.first || b.last > s.last ||
		uint64(b.last-b.first) > math.MaxUint32 || b.count == 0 {
		return b, errSnapshot
	}
	if b.kind != kindFile {
		b.memory, err = readMemory(in, &b, seedOf(s.opt.StoreID))
	}
	return b, err
}

// readMemory reads the entries of a bucket in memory.
func readMemory(in *bufio.Reader, b *savedBucket, s seed) (*memory, error) {
	m := newMemory(b.number, s, bucketIDs)
	m.first, m.last = b.first, b.first
	id := make([]byte, maxIDBytes)
	for range b.count {
		var h [entryHead]byte
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return nil, err
		}
		n := binary.LittleEndian.Uint16(h[20:])
		if n > maxIDBytes {
			return nil, errSnapshot
		}
		if _, err := io.ReadFull(in, id[:n]); err != nil {
			return nil, err
		}
		seen := Seen{Pos: binary.LittleEndian.Uint64(h[:]), Sum: binary.LittleEndian.Uint64(h[8:]),
			At: b.first + int64(binary.LittleEndian.Uint32(h[16:]))}
		if seen.At < m.last || m.count == 0 && seen.At != b.first || m.bytes >= 2*bucketBytes {
			return nil, errSnapshot
		}
		key := string(id[:n])
		m.put(s.hash(key), key, seen)
	}
	if m.last != b.last {
		return nil, errSnapshot
	}
	return m, nil
}

// Open returns the window that a snapshot describes. It reads what memory keeps of each file; a
// damaged one is refused. A missing one is no fault yet, see Check. The store's ID is that of the
// snapshot: the files' hashes were made with it.
func Open(o Options, s *Snapshot) (*Window, error) {
	o.StoreID, o.Topic = s.opt.StoreID, s.opt.Topic
	w := New(o)
	w.last = s.last
	v := &view{open: newMemory(s.open, w.seed, w.opt.BucketIDs)}
	for _, saved := range s.buckets {
		b := &bucket{number: saved.number, count: saved.count, first: saved.first,
			last: saved.last, memory: saved.memory}
		w.total += b.count
		if saved.kind == kindOpen {
			v.open = saved.memory
			continue
		}
		if saved.kind == kindFile {
			if err := w.openBucket(b); err != nil {
				return nil, err
			}
		}
		if w.waits(b) {
			w.waiting++
		}
		v.closed = append(v.closed, b)
	}
	w.view.Store(v)
	return w, nil
}

func (w *Window) openBucket(b *bucket) error {
	path := w.path(b.number)
	f, err := openFile(w.opt.FS, path)
	if errors.Is(err, fs.ErrNotExist) {
		b.missing = path
		return nil
	}
	if err != nil {
		return err
	}
	h := f.head
	if h.storeID != w.opt.StoreID || h.topic != w.opt.Topic || h.number != b.number ||
		int(h.count) != b.count || h.first != b.first || h.last != b.last {
		return &DamageError{File: path, Err: errors.New("it is not the bucket that is listed")}
	}
	b.file = f
	return nil
}

// Check reports a missing file whose IDs are still in the window at the last time in the log. Those
// of older ones were removed after the checkpoint that lists them.
func (w *Window) Check(now int64) error {
	for _, b := range w.view.Load().closed {
		if b.missing != "" && b.last > now-w.opt.WindowMillis {
			return &DamageError{File: b.missing, Err: errMissing}
		}
	}
	return nil
}

// RemoveUnlisted removes the bucket files that no snapshot of the newest checkpoint lists. A crash
// left them: the log behind the checkpoint makes them again.
func RemoveUnlisted(fsys vfs.FS, dir string, listed []*Snapshot) error {
	type place struct {
		topic  uint32
		number uint64
	}
	keep := make(map[place]bool)
	for _, s := range listed {
		for _, b := range s.buckets {
			if b.kind == kindFile {
				keep[place{s.opt.Topic, b.number}] = true
			}
		}
	}
	names, err := fsys.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("list dedup buckets: %w", err)
	}
	for _, name := range names {
		base, temp := strings.CutSuffix(name, tempSuffix)
		topic, number, ok := parseFileName(base)
		if !ok || !temp && keep[place{topic, number}] {
			continue
		}
		if err := fsys.Remove(filepath.Join(dir, name)); err != nil {
			return fmt.Errorf("remove unlisted dedup bucket: %w", err)
		}
	}
	return nil
}
