package wal

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ackwise/ackwise/internal/vfs"
)

// maxFreeFactor: a file that a huge group made longer than so many segments is not kept.
const maxFreeFactor = 4

// Remove gives segments up that nobody needs any more, in one step for all. The one being written
// and those that are not there are passed over. Up to Options.FreeSegments of the files are kept
// and written again; the others are deleted.
//
// The caller makes sure that every record which says that a segment is not needed is synced, and
// that a durable checkpoint lies behind the segment: what the file held is overwritten, and cannot
// be had back. The log itself makes sure of the readers: a file that somebody reads is deleted and
// not written again, so that reads under way end well.
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
	l.mu.Unlock()
	if err != nil || len(removed) == 0 {
		return err
	}
	if err := l.relist(kept); err != nil {
		return explain(fmt.Errorf("remove segments: %w", err))
	}
	if err := l.letGo(removed); err != nil {
		return explain(fmt.Errorf("remove segments: %w", err))
	}
	return nil
}

// relist makes segments the list, on the disk and then in memory. The caller holds the slot. It
// comes before the files go: a crash in between leaves files that the next Open removes, never a
// list that names a missing file.
func (l *Log) relist(segments []*segment) error {
	l.mu.Lock()
	m := l.manifestOf(segments)
	l.mu.Unlock()
	err := writeManifest(l.opt.FS, l.opt.Dir, m)
	if _, ok := errors.AsType[unsettled](err); ok {
		l.poison(err)
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.segments = segments
	l.mu.Unlock()
	return nil
}

// letGo frees or deletes the files of segments that are off the list. The caller holds the slot.
func (l *Log) letGo(gone []*segment) error {
	var unused []vfs.File
	var free []SegmentID
	reused := make(map[*segment]bool, len(gone))
	l.mu.Lock()
	for _, s := range gone {
		s.removed = true
		if s.readers > 0 { // the last one closes the file
			continue
		}
		if s.file != nil {
			unused = l.forgetLocked(s, unused)
		}
		if len(l.free)+len(free) < l.opt.FreeSegments && l.opt.worthKeeping(s.length()) {
			free = append(free, s.info.ID)
			reused[s] = true
		}
	}
	l.mu.Unlock()
	closeAll(unused)
	var failed []error
	for _, s := range gone {
		path := filepath.Join(l.opt.Dir, s.name())
		var err error
		if reused[s] {
			err = l.opt.FS.Rename(path, filepath.Join(l.opt.Dir, freeName(s.info.ID)))
		} else {
			err = l.opt.FS.Remove(path)
		}
		failed = append(failed, err)
	}
	err := errors.Join(append(failed, l.opt.FS.SyncDir(l.opt.Dir))...)
	if err != nil { // what became of the files is not sure; the next Open sees
		return err
	}
	l.mu.Lock()
	l.free = append(l.free, free...)
	l.mu.Unlock()
	return nil
}

// worthKeeping reports whether a file of this length is worth being written again.
func (o *Options) worthKeeping(length int64) bool {
	return length >= o.SegmentBytes && length/maxFreeFactor <= o.SegmentBytes
}

// takeFree takes a free file, the one that was freed first.
func (l *Log) takeFree() (SegmentID, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) == 0 {
		return 0, false
	}
	id := l.free[0]
	l.free = l.free[1:]
	return id, true
}

// reuseFile makes a free file a segment's, and returns the segment's header as it was written.
func reuseFile(
	fs vfs.FS, dir string, free SegmentID, h segmentHeader,
) (vfs.File, segmentHeader, error) {
	path := filepath.Join(dir, freeName(free))
	f, err := fs.Edit(path)
	if err != nil {
		return nil, h, fmt.Errorf("open free file: %w", err)
	}
	h.stale, err = f.Size()
	if err == nil {
		err = beginAgain(fs, f, path, h)
	}
	if err != nil {
		return nil, h, fmt.Errorf("reuse %s: %w", path, errors.Join(err, f.Close()))
	}
	return f, h, nil
}

// beginAgain has the header on the disk before the file has the segment's name. All that stands
// behind it is of an earlier life, which the seed tells.
func beginAgain(fs vfs.FS, f vfs.File, path string, h segmentHeader) error {
	if _, err := f.WriteAt(h.encode(), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := fs.Rename(path, filepath.Join(dir, segmentName(h.number))); err != nil {
		return err
	}
	return fs.SyncDir(dir)
}
