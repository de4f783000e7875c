package wal

import (
	"slices"
)

// ReadBatch reads the records at positions that are sorted, neighbours in one go, and calls fn for
// each in order. A record that cannot be read is an error for itself. A payload is valid during the
// call only. It returns the buffer that it used, for the next call.
func (l *Log) ReadBatch(
	positions []uint64, buf []byte, fn func(i int, r Record, err error),
) []byte {
	b := batch{log: l, buf: buf, fn: fn}
	for i := 0; i < len(positions); {
		h, err := l.pin(positions[i])
		if err != nil {
			fn(i, Record{}, err)
			i++
			continue
		}
		i += b.run(h, i, positions[i:])
		l.unpin(h.segment)
	}
	return b.buf
}

// batch is a reading of many records, and what it needs again and again.
type batch struct {
	log     *Log
	buf     []byte
	offsets []int64 // in the file, of the records of a run
	table   tableReader
	fn      func(i int, r Record, err error)
}

// run reads as many of the positions as are worth one read, and returns how many those are. The
// first of them, the i-th of the batch, is in the segment of h.
func (b *batch) run(h handle, i int, positions []uint64) int {
	if err := b.neighbours(h, positions); err != nil {
		b.fn(i, Record{}, err)
		return 1
	}
	start := b.offsets[0]
	n := len(b.offsets)
	want := max(0, min(b.offsets[n-1]+firstRead, h.limit())-start)
	b.buf = slices.Grow(b.buf[:0], int(want))[:want]
	err := readFull(h.file, b.buf, start)
	for at, off := range b.offsets {
		var r Record
		var readErr error
		if err != nil { // a bad sector spoils the records on it, not their neighbours
			r, readErr = b.log.readRecord(h, positions[at], off, nil)
		} else {
			have := b.buf[min(off-start, want):want:want]
			r, readErr = b.log.finishRecord(h, off, Record{Pos: positions[at], Payload: have})
		}
		b.fn(i+at, r, readErr)
	}
	return n
}

// neighbours finds the offsets of those positions that are worth one read.
func (b *batch) neighbours(h handle, positions []uint64) error {
	b.offsets = b.offsets[:0]
	for _, pos := range positions {
		if pos >= h.end {
			break
		}
		off, err := b.log.locate(h, pos, &b.table)
		n := len(b.offsets)
		switch {
		case n == 0 && err != nil:
			return err
		case n > 0 && (err != nil || off < b.offsets[n-1] || off-b.offsets[n-1] > batchGap ||
			off-b.offsets[0] > batchRead-firstRead):
			return nil
		}
		b.offsets = append(b.offsets, off)
	}
	return nil
}
