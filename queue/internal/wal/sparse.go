package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"sort"

	"github.com/ackwise/ackwise/internal/vfs"
)

// The table of a sparse segment stands behind its records: pages of entries that are sorted by
// position, each with a checksum of its own, so that a search trusts no byte that it has not
// checked and keeps none of it in memory.
const (
	pageBytes   = 4 << 10
	pageHead    = 8  // checksum and number of entries
	entryBytes  = 16 // position and offset in the file
	pageEntries = (pageBytes - pageHead) / entryBytes
)

var (
	errPageCRC = errors.New("the checksum of a page of the table does not match")
	errOffset  = errors.New("an entry of the table points to where no record can be")
	errSparse  = errors.New("its segment was compacted, and cannot be replayed")
)

// tablePages returns how many pages hold so many entries.
func tablePages(entries uint64) int64 {
	return int64((entries + pageEntries - 1) / pageEntries)
}

// sparseWriter writes the file of a sparse segment: records in order of position, then the table.
type sparseWriter struct {
	file    vfs.File
	header  segmentHeader
	seed    uint32
	buf     []byte // what is not written yet
	off     int64  // where it goes
	entries []byte // of the table, encoded
}

// sealPage makes the checksum of a page that stands at an offset of a file.
func sealPage(page []byte, seed uint32, off int64) {
	sum := crc32.Update(seedAt(seed, uint64(off)), castagnoli, page[4:])
	binary.LittleEndian.PutUint32(page, sum)
}

func newSparseWriter(f vfs.File, h segmentHeader) *sparseWriter {
	seed := segmentSeed(h.storeID, h.epoch, h.number)
	return &sparseWriter{file: f, header: h, seed: seed, off: blockBytes}
}

// add writes a record at its old position.
func (w *sparseWriter) add(r Record) error {
	start := len(w.buf)
	w.entries = binary.LittleEndian.AppendUint64(w.entries, r.Pos)
	w.entries = binary.LittleEndian.AppendUint64(w.entries, uint64(w.off)+uint64(start))
	w.header.count++
	w.buf = appendRecord(w.buf, &r)
	sealRecord(w.buf[start:], w.seed, r.Pos)
	if len(w.buf) < batchRead {
		return nil
	}
	return w.flush()
}

func (w *sparseWriter) flush() error {
	_, err := w.file.WriteAt(w.buf, w.off)
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
	return err
}

// finish writes the table and the header.
func (w *sparseWriter) finish() error {
	if err := w.flush(); err != nil {
		return err
	}
	w.off = int64(alignUp(uint64(w.off)))
	w.header.table = w.off
	for e := w.entries; len(e) > 0; {
		n := min(len(e), pageEntries*entryBytes)
		page := make([]byte, pageBytes)
		binary.LittleEndian.PutUint32(page[4:], uint32(n/entryBytes))
		copy(page[pageHead:], e[:n])
		sealPage(page, w.seed, w.off+int64(len(w.buf)))
		w.buf = append(w.buf, page...)
		e = e[n:]
		if len(w.buf) >= batchRead {
			if err := w.flush(); err != nil {
				return err
			}
		}
	}
	if err := w.flush(); err != nil {
		return err
	}
	_, err := w.file.WriteAt(w.header.encode(), 0)
	return err
}

// tableReader searches the tables of sparse segments, and remembers the page that it read last,
// since positions that are asked for one after another are often neighbours.
type tableReader struct {
	segment *segment // whose page it is; nil = none
	number  int64    // of the page
	page    []byte
}

func (t *tableReader) entry(i int) (pos uint64, off int64) {
	e := t.page[pageHead+i*entryBytes:]
	return binary.LittleEndian.Uint64(e), int64(binary.LittleEndian.Uint64(e[8:]))
}

func (t *tableReader) entries() int { return int(binary.LittleEndian.Uint32(t.page[4:])) }

// find returns the offset of the record at a position. One that is not in the table is errNotKept.
func (t *tableReader) find(dir string, h handle, pos uint64) (int64, error) {
	low, high := int64(0), tablePages(h.segment.count)-1
	for low <= high {
		middle := (low + high) / 2
		if t.segment == h.segment && t.number >= low && t.number <= high {
			middle = t.number
		}
		if err := t.read(dir, h, middle); err != nil {
			return 0, err
		}
		n := t.entries()
		first, _ := t.entry(0)
		last, _ := t.entry(n - 1)
		switch {
		case pos < first:
			high = middle - 1
		case pos > last:
			low = middle + 1
		default:
			i := sort.Search(n, func(i int) bool { p, _ := t.entry(i); return p >= pos })
			if p, off := t.entry(i); p == pos && off >= blockBytes && off < h.segment.table {
				return off, nil
			} else if p == pos {
				return 0, h.segment.damage(dir, h.segment.table+middle*pageBytes, errOffset)
			}
			low = high + 1
		}
	}
	return 0, fmt.Errorf("read position %d: %w", pos, errNotKept)
}

// read makes a page the current one.
func (t *tableReader) read(dir string, h handle, number int64) error {
	s := h.segment
	if t.segment == s && t.number == number {
		return nil
	}
	t.segment = nil
	if t.page == nil {
		t.page = make([]byte, pageBytes)
	}
	off := s.table + number*pageBytes
	if err := readFull(h.file, t.page, off); err != nil {
		if errors.Is(err, errShort) {
			return s.damage(dir, off, err)
		}
		return fmt.Errorf("read segment %s: %w", s.name(), err)
	}
	sum := crc32.Update(seedAt(s.seed, uint64(off)), castagnoli, t.page[4:])
	if binary.LittleEndian.Uint32(t.page) != sum || t.entries() == 0 || t.entries() > pageEntries {
		return s.damage(dir, off, errPageCRC)
	}
	t.segment, t.number = s, number
	return nil
}
