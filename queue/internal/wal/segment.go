package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"github.com/ackwise/ackwise/internal/vfs"
)

// maxHandles bounds the segment files that are open for reading when nobody reads them.
const maxHandles = 128

var errNotKept = errors.New("no segment holds this position")

// segment is a file of the log. Its fields are guarded by Log.mu, but for ID, Base, Epoch, Sparse
// and those down to count, which never change.
type segment struct {
	info    SegmentInfo
	seed    uint32
	found   int64    // how long the file was when this segment began in it
	table   int64    // of a sparse segment: where its table begins
	count   uint64   // of a sparse segment: its records
	file    vfs.File // open for reading; nil = not open
	readers int      // who is using file
	used    uint64   // Log.clock of the last use
	removed bool     // the last reader closes file
}

func newSegment(h segmentHeader) *segment {
	return &segment{
		info: SegmentInfo{ID: h.number, Base: h.base, End: max(h.base, h.end), Epoch: h.epoch,
			Bytes: blockBytes, Sparse: h.kind == kindSparse},
		seed:  segmentSeed(h.storeID, h.epoch, h.number),
		found: h.stale, table: h.table, count: h.count,
	}
}

// length returns how long the file is.
func (s *segment) length() int64 { return max(s.found, s.info.Bytes) }

// offset returns where a position is in the file of a segment that is not sparse.
func (s *segment) offset(pos uint64) int64 { return blockBytes + int64(pos-s.info.Base) }

func (s *segment) name() string { return segmentName(s.info.ID) }

// damage reports bytes of s, at an offset in its file, that are not what was written.
func (s *segment) damage(dir string, off int64, err error) error {
	return explain(&CorruptionError{Dir: dir, Segment: s.name(), Offset: off, Err: err})
}

// handle is a segment that somebody reads, with its file open.
type handle struct {
	segment *segment
	file    vfs.File
	end     uint64 // position behind the last one that may be read
}

// limit returns the offset behind the last byte of the file that may belong to a record.
func (h handle) limit() int64 {
	if h.segment.info.Sparse {
		return h.segment.table
	}
	return h.segment.offset(h.end)
}

// pin returns the segment that holds pos with its file open. The caller unpins it.
func (l *Log) pin(pos uint64) (handle, error) {
	l.mu.Lock()
	s := l.findLocked(pos)
	if s == nil {
		l.mu.Unlock()
		return handle{}, fmt.Errorf("read position %d: %w", pos, errNotKept)
	}
	h := l.pinLocked(s)
	l.mu.Unlock()
	return l.openPinned(h)
}

// pinLocked makes sure that the segment's file is not written again as another's.
func (l *Log) pinLocked(s *segment) handle {
	l.clock++
	s.used = l.clock
	s.readers++
	return handle{s, s.file, s.info.End}
}

// openPinned opens the file where it is not open. Where that fails, it is no longer pinned.
func (l *Log) openPinned(h handle) (handle, error) {
	if h.file != nil {
		return h, nil
	}
	s := h.segment
	opened, err := l.opt.FS.Open(filepath.Join(l.opt.Dir, s.name()))
	if err != nil {
		l.mu.Lock()
		removed := s.removed
		l.mu.Unlock()
		l.unpin(s)
		if removed && errors.Is(err, os.ErrNotExist) { // between the two
			return handle{}, fmt.Errorf("open segment: %w", errNotKept)
		}
		return handle{}, fmt.Errorf("open segment: %w", err)
	}
	l.mu.Lock()
	if s.file == nil {
		s.file = opened
		l.handles++
	}
	h.file = s.file
	unused := l.excessLocked()
	l.mu.Unlock()
	if h.file != opened {
		unused = append(unused, opened)
	}
	closeAll(unused)
	return h, nil
}

// unpin ends a use of a segment's file.
func (l *Log) unpin(s *segment) {
	l.mu.Lock()
	s.readers--
	var unused []vfs.File
	if s.removed && s.readers == 0 && s.file != nil {
		unused = l.forgetLocked(s, nil)
	}
	l.mu.Unlock()
	closeAll(unused)
}

// findLocked returns the segment that holds a written position; nil = none does.
func (l *Log) findLocked(pos uint64) *segment {
	i := sort.Search(len(l.segments), func(i int) bool { return l.segments[i].info.End > pos })
	if i == len(l.segments) || l.segments[i].info.Base > pos {
		return nil
	}
	return l.segments[i]
}

// excessLocked takes the files that were not used for longest, beyond maxHandles.
func (l *Log) excessLocked() (unused []vfs.File) {
	for l.handles > maxHandles {
		var oldest *segment
		for _, s := range l.segments {
			if s.file != nil && s.readers == 0 && (oldest == nil || s.used < oldest.used) {
				oldest = s
			}
		}
		if oldest == nil {
			break
		}
		unused = l.forgetLocked(oldest, unused)
	}
	return unused
}

func (l *Log) forgetLocked(s *segment, unused []vfs.File) []vfs.File {
	unused = append(unused, s.file)
	s.file = nil
	l.handles--
	return unused
}

// closeAll closes files that were read only: there is nothing that could be lost.
func closeAll(files []vfs.File) {
	for _, f := range files {
		_ = f.Close()
	}
}

// closeHandles closes every file that nobody reads; the last reader of another closes that.
func (l *Log) closeHandles() {
	l.mu.Lock()
	var unused []vfs.File
	for _, s := range l.segments {
		s.removed = true
		if s.file != nil && s.readers == 0 {
			unused = l.forgetLocked(s, unused)
		}
	}
	l.mu.Unlock()
	closeAll(unused)
}

func (l *Log) manifestOf(segments []*segment) manifest {
	m := manifest{storeID: l.storeID}
	for i, s := range segments {
		e := manifestSegment{id: s.info.ID, epoch: s.info.Epoch, base: s.info.Base}
		if s.info.Sparse {
			e.kind = kindSparse
		}
		e.end = s.info.End
		if i == len(segments)-1 {
			e.end = max(e.base, l.listed)
		}
		m.segments = append(m.segments, e)
	}
	return m
}

// numberLocked gives the next segment its number.
func (l *Log) numberLocked() SegmentID {
	l.number++
	return l.number
}

// poison latches a failure that was met outside the committer, which tells everybody.
func (l *Log) poison(err error) {
	l.mu.Lock()
	if l.failed == nil {
		l.failed = explain(err)
	}
	l.mu.Unlock()
	l.wake()
}
