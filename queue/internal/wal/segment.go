package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"sort"

	"github.com/ackwise/ackwise/internal/vfs"
)

// maxHandles bounds the segment files that are open for reading when nobody reads them.
const maxHandles = 128

var errNotKept = errors.New("no segment holds this position")

// segment is a file of the log. Its fields are guarded by Log.mu, but for ID, Base, Epoch and seed,
// which never change.
type segment struct {
	info    SegmentInfo
	seed    uint32
	file    vfs.File // open for reading; nil = not open
	readers int      // who is using file
	used    uint64   // Log.clock of the last use
	removed bool     // the last reader closes file
}

func newSegment(h segmentHeader) *segment {
	return &segment{
		info: SegmentInfo{ID: h.number, Base: h.base, End: h.base, Epoch: h.epoch,
			Bytes: blockBytes},
		seed: groupSeed(h.storeID, h.epoch),
	}
}

// offset returns where a position is in the file.
func (s *segment) offset(pos uint64) int64 { return blockBytes + int64(pos-s.info.Base) }

func (s *segment) name() string { return segmentName(s.info.ID) }

// damage reports bytes of s that are not what was written.
func (s *segment) damage(dir string, pos uint64, err error) error {
	return explain(&CorruptionError{
		Dir: dir, Segment: s.name(), Offset: s.offset(pos), Err: err})
}

// pin returns the segment that holds pos with its file open, and the position behind the last one
// that may be read. The caller unpins it.
func (l *Log) pin(pos uint64) (*segment, vfs.File, uint64, error) {
	l.mu.Lock()
	s := l.findLocked(pos)
	if s == nil {
		l.mu.Unlock()
		return nil, nil, 0, fmt.Errorf("read position %d: %w", pos, errNotKept)
	}
	l.clock++
	s.used = l.clock
	s.readers++
	f, end := s.file, s.info.End
	l.mu.Unlock()
	if f != nil {
		return s, f, end, nil
	}
	opened, err := l.opt.FS.Open(filepath.Join(l.opt.Dir, s.name()))
	if err != nil {
		l.unpin(s)
		return nil, nil, 0, fmt.Errorf("open segment: %w", err)
	}
	l.mu.Lock()
	f = s.file
	if f == nil {
		f, s.file = opened, opened
		l.handles++
	}
	unused := l.excessLocked()
	l.mu.Unlock()
	if f != opened {
		unused = append(unused, opened)
	}
	closeAll(unused)
	return s, f, end, nil
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
		if i < len(segments)-1 {
			e.end = s.info.End
		}
		m.segments = append(m.segments, e)
	}
	return m
}

// Remove deletes segments that nobody needs any more, in one step for all. The one being written
// and those that are not there are passed over. Reads under way end well.
func (l *Log) Remove(ids ...SegmentID) error {
	gone := make(map[SegmentID]bool, len(ids))
	for _, id := range ids {
		gone[id] = true
	}
	l.dirSlot <- struct{}{}
	defer func() { <-l.dirSlot }()
	l.mu.Lock()
	err := l.failed
	var kept, removed []*segment
	for i, s := range l.segments {
		if gone[s.info.ID] && i < len(l.segments)-1 {
			removed = append(removed, s)
		} else {
			kept = append(kept, s)
		}
	}
	m := l.manifestOf(kept)
	l.mu.Unlock()
	if err != nil || len(removed) == 0 {
		return err
	}
	if err := l.removeFiles(m, kept, removed); err != nil {
		return explain(fmt.Errorf("remove segments: %w", err))
	}
	return nil
}

// removeFiles takes the segments off the list first: a crash in between leaves files that the next
// Open removes, never a list that names a missing file.
func (l *Log) removeFiles(m manifest, kept, removed []*segment) error {
	err := writeManifest(l.opt.FS, l.opt.Dir, m)
	if _, ok := errors.AsType[unsettled](err); ok {
		l.poison(err)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.segments = kept
	var unused []vfs.File
	for _, s := range removed {
		s.removed = true
		if s.file != nil && s.readers == 0 {
			unused = l.forgetLocked(s, unused)
		}
	}
	l.mu.Unlock()
	closeAll(unused)
	var failed []error
	for _, s := range removed {
		failed = append(failed, l.opt.FS.Remove(filepath.Join(l.opt.Dir, s.name())))
	}
	return errors.Join(append(failed, l.opt.FS.SyncDir(l.opt.Dir))...)
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
