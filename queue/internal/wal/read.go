package wal

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	firstRead  = 4 << 10   // of a record whose length is not known
	batchRead  = 1 << 20   // the most that neighbours of a batch are read in one go
	batchGap   = 64 << 10  // a wider gap between neighbours is cheaper to leave out
	scanWindow = 256 << 10 // of a scan
)

var errShort = errors.New("the file ends before what was written there")

// scanner reads a segment's groups in order, through a window that slides forward.
type scanner struct {
	dir     string
	segment *segment
	file    vfs.File
	end     uint64 // position behind the last byte that may be read
	buf     []byte
	bufPos  uint64
}

// bytes returns n bytes from pos, or fewer where the segment ends. They are valid until the next
// call.
func (s *scanner) bytes(pos, n uint64) ([]byte, error) {
	if pos >= s.end {
		return nil, nil
	}
	n = min(n, s.end-pos)
	if pos >= s.bufPos && pos+n <= s.bufPos+uint64(len(s.buf)) {
		from := pos - s.bufPos
		return s.buf[from : from+n], nil
	}
	window := min(max(n, scanWindow), s.end-pos)
	s.buf = slices.Grow(s.buf[:0], int(window))[:window]
	s.bufPos = pos
	if err := readFull(s.file, s.buf, s.segment.offset(pos)); err != nil {
		s.buf = s.buf[:0]
		if errors.Is(err, errShort) {
			return nil, s.segment.damage(s.dir, pos, err)
		}
		return nil, fmt.Errorf("read segment %s: %w", s.segment.name(), err)
	}
	return s.buf[:n], nil
}

// readFull fills b, and says errShort where the file is too short for it.
func readFull(f vfs.File, b []byte, off int64) error {
	n, err := f.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return errShort
	}
	return err
}

// group reads the group at pos, whole. bad says why there is none; err is that of the disk.
func (s *scanner) group(pos uint64) (h groupHeader, group []byte, bad, err error) {
	b, err := s.bytes(pos, headerBytes)
	if err != nil {
		return h, nil, nil, err
	}
	h, bad = decodeGroupHeader(b, s.segment.seed, pos)
	if bad != nil {
		return h, nil, bad, nil
	}
	if h.size() > s.end-pos {
		return h, nil, errShort, nil
	}
	group, err = s.bytes(pos, headerBytes+uint64(h.length))
	if err != nil {
		return h, nil, nil, err
	}
	bad = decodeRecords(h, group[headerBytes:], s.segment.seed, nil)
	return h, group, bad, nil
}

// seek returns the start of a group from which a walk forward passes pos. It steps back through the
// aligned positions; only a group's true header has a checksum that fits the place.
func (s *scanner) seek(pos uint64) (uint64, error) {
	var b [headerBytes]byte
	if pos <= s.segment.info.Base {
		return s.segment.info.Base, nil
	}
	for p := pos &^ (blockBytes - 1); p > s.segment.info.Base; p -= blockBytes {
		if p >= s.end {
			continue
		}
		if err := readFull(s.file, b[:], s.segment.offset(p)); err != nil {
			return 0, fmt.Errorf("read segment %s: %w", s.segment.name(), err)
		}
		if _, bad := decodeGroupHeader(b[:], s.segment.seed, p); bad == nil {
			return p, nil
		}
	}
	return s.segment.info.Base, nil
}

// Replay calls fn for the kept records with from ≤ Pos < to, in order; a to of 0 means up to
// what is written. A record's payload is valid during the call only. An error of fn ends it. It may
// run while the log is written to and segments are removed; those it has not reached are left out.
func (l *Log) Replay(from, to uint64, fn func(Record) error) error {
	if written := l.Written(); to == 0 || to > written {
		to = written
	}
	for from < to {
		base, ok := l.nextKept(from)
		if !ok || base >= to {
			return nil
		}
		end, err := l.replaySegment(base, to, fn)
		if errors.Is(err, errNotKept) { // removed a moment ago
			from = base + 1
			continue
		}
		if err != nil {
			return err
		}
		from = end
	}
	return nil
}

// nextKept returns the lowest position ≥ from that a segment holds.
func (l *Log) nextKept(from uint64) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.segments {
		if s.info.End > from {
			return max(from, s.info.Base), true
		}
	}
	return 0, false
}

// replaySegment replays the part of [from, to) that is in the segment of from, and returns its end.
func (l *Log) replaySegment(from, to uint64, fn func(Record) error) (uint64, error) {
	s, f, end, err := l.pin(from)
	if err != nil {
		return 0, err
	}
	defer l.unpin(s)
	scan := &scanner{dir: l.opt.Dir, segment: s, file: f, end: end}
	pos, err := scan.seek(from)
	if err != nil {
		return 0, err
	}
	for pos < min(end, to) {
		h, group, bad, err := scan.group(pos)
		if err != nil {
			return 0, err
		}
		if bad != nil {
			return 0, s.damage(l.opt.Dir, pos, bad)
		}
		var fnErr error
		err = decodeRecords(h, group[headerBytes:], s.seed, func(_ []byte, r Record) {
			if fnErr == nil && r.Pos >= from && r.Pos < to {
				r.Segment = s.info.ID
				fnErr = fn(r)
			}
		})
		if err := errors.Join(err, fnErr); err != nil {
			return 0, err
		}
		pos += h.size()
	}
	return max(end, pos), nil
}

// ReadAt reads the record at a position that Append or Replay gave. Its payload is in buf where
// that is large enough. A rotten record is a *CorruptionError; the log goes on.
func (l *Log) ReadAt(pos uint64, buf []byte) (Record, error) {
	s, f, end, err := l.pin(pos)
	if err != nil {
		return Record{}, err
	}
	defer l.unpin(s)
	want := min(firstRead, end-pos)
	buf = slices.Grow(buf[:0], int(want))[:want]
	if err := readFull(f, buf, s.offset(pos)); err != nil {
		return Record{}, l.readError(s, pos, err)
	}
	return l.finishRecord(s, f, end, Record{Pos: pos, Payload: buf})
}

// finishRecord decodes the record whose first bytes are the payload of r, and reads the rest of it
// where they do not suffice.
func (l *Log) finishRecord(s *segment, f vfs.File, end uint64, r Record) (Record, error) {
	b, pos := r.Payload, r.Pos
	size := recordSize(b)
	if size > uint64(len(b)) && size <= end-pos {
		have := len(b)
		b = slices.Grow(b, int(size)-have)[:size]
		if err := readFull(f, b[have:], s.offset(pos)+int64(have)); err != nil {
			return Record{}, l.readError(s, pos, err)
		}
	}
	r, err := decodeRecord(b, s.seed, pos)
	if err != nil {
		return Record{}, s.damage(l.opt.Dir, pos, err)
	}
	r.Segment = s.info.ID
	return r, nil
}

func (l *Log) readError(s *segment, pos uint64, err error) error {
	if errors.Is(err, errShort) {
		return s.damage(l.opt.Dir, pos, err)
	}
	return fmt.Errorf("read segment %s: %w", s.name(), err)
}

// ReadBatch reads the records at positions that are sorted, neighbours in one go, and calls fn for
// each in order. A record that cannot be read is an error for itself. A payload is valid during the
// call only. It returns the buffer that it used, for the next call.
func (l *Log) ReadBatch(
	positions []uint64, buf []byte, fn func(i int, r Record, err error),
) []byte {
	for i := 0; i < len(positions); {
		s, f, end, err := l.pin(positions[i])
		if err != nil {
			fn(i, Record{}, err)
			i++
			continue
		}
		n := neighbours(positions[i:], end)
		buf = l.readRun(run{s, f, end, i, positions[i : i+n]}, buf, fn)
		l.unpin(s)
		i += n
	}
	return buf
}

// neighbours counts how many of the positions are worth one read.
func neighbours(positions []uint64, end uint64) int {
	n := 1
	for n < len(positions) {
		p := positions[n]
		if p >= end || p-positions[0] > batchRead-firstRead || p-positions[n-1] > batchGap {
			break
		}
		n++
	}
	return n
}

// run is a part of a batch that is read in one go.
type run struct {
	segment   *segment
	file      vfs.File
	end       uint64
	first     int // index of positions[0] in the batch
	positions []uint64
}

func (l *Log) readRun(r run, buf []byte, fn func(i int, r Record, err error)) []byte {
	start := r.positions[0]
	want := min(r.positions[len(r.positions)-1]+firstRead, r.end) - start
	buf = slices.Grow(buf[:0], int(want))[:want]
	err := readFull(r.file, buf, r.segment.offset(start))
	for i, pos := range r.positions {
		if err != nil { // a bad sector spoils the records on it, not their neighbours
			rec, recErr := l.ReadAt(pos, nil)
			fn(r.first+i, rec, recErr)
			continue
		}
		have := buf[pos-start : len(buf) : len(buf)]
		rec, recErr := l.finishRecord(r.segment, r.file, r.end, Record{Pos: pos, Payload: have})
		fn(r.first+i, rec, recErr)
	}
	return buf
}
