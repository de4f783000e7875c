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
			return nil, s.segment.damage(s.dir, s.segment.offset(pos), err)
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
	p, err := l.pin(from)
	if err != nil {
		return 0, err
	}
	s := p.segment
	defer l.unpin(s)
	if s.info.Sparse {
		return 0, fmt.Errorf("replay from position %d: %w", from, errSparse)
	}
	scan := &scanner{dir: l.opt.Dir, segment: s, file: p.file, end: p.end}
	pos, err := scan.seek(from)
	if err != nil {
		return 0, err
	}
	for pos < min(p.end, to) {
		h, group, bad, err := scan.group(pos)
		if err != nil {
			return 0, err
		}
		if bad != nil {
			return 0, s.damage(l.opt.Dir, s.offset(pos), bad)
		}
		var fnErr error
		err = decodeRecords(h, group[headerBytes:], s.seed, func(r Record) {
			if fnErr == nil && r.Pos >= from && r.Pos < to {
				fnErr = fn(r)
			}
		})
		if err := errors.Join(err, fnErr); err != nil {
			return 0, err
		}
		pos += h.size()
	}
	return max(p.end, pos), nil
}

// ReadAt reads the record at a position that Append or Replay gave. Its payload is in buf where
// that is large enough. A rotten record is a *CorruptionError; the log goes on.
func (l *Log) ReadAt(pos uint64, buf []byte) (Record, error) {
	h, err := l.pin(pos)
	if err != nil {
		return Record{}, err
	}
	defer l.unpin(h.segment)
	off, err := l.locate(h, pos, &tableReader{})
	if err != nil {
		return Record{}, err
	}
	return l.readRecord(h, pos, off, buf)
}

// locate returns where in the file the record at a position is.
func (l *Log) locate(h handle, pos uint64, table *tableReader) (int64, error) {
	if h.segment.info.Sparse {
		return table.find(l.opt.Dir, h, pos)
	}
	return h.segment.offset(pos), nil
}

func (l *Log) readRecord(h handle, pos uint64, off int64, buf []byte) (Record, error) {
	want := max(0, min(firstRead, h.limit()-off))
	buf = slices.Grow(buf[:0], int(want))[:want]
	if err := readFull(h.file, buf, off); err != nil {
		return Record{}, l.readError(h.segment, off, err)
	}
	return l.finishRecord(h, off, Record{Pos: pos, Payload: buf})
}

// finishRecord decodes the record whose first bytes are the payload of r, and reads the rest of it
// where they do not suffice.
func (l *Log) finishRecord(h handle, off int64, r Record) (Record, error) {
	b, pos := r.Payload, r.Pos
	size := recordSize(b)
	if size > uint64(len(b)) && size <= uint64(max(0, h.limit()-off)) {
		have := len(b)
		b = slices.Grow(b, int(size)-have)[:size]
		if err := readFull(h.file, b[have:], off+int64(have)); err != nil {
			return Record{}, l.readError(h.segment, off, err)
		}
	}
	r, err := decodeRecord(b, h.segment.seed, pos)
	if err != nil {
		return Record{}, h.segment.damage(l.opt.Dir, off, err)
	}
	return r, nil
}

func (l *Log) readError(s *segment, off int64, err error) error {
	if errors.Is(err, errShort) {
		return s.damage(l.opt.Dir, off, err)
	}
	return fmt.Errorf("read segment %s: %w", s.name(), err)
}
