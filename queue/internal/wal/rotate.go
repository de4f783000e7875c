package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/ackwise/ackwise/internal/vfs"
)

// rotate goes on in a new segment: the old one is synced whole before the new one has a name, and
// the new one is durable before it gets a group. It takes a free file; with none it makes one.
func (c *committer) rotate(base uint64) error {
	if c.durable < c.written {
		if err := c.sync(); err != nil {
			return err
		}
	}
	if err := c.endFile(); err != nil {
		return fmt.Errorf("close segment: %w", err)
	}
	c.mu.Lock()
	header := segmentHeader{storeID: c.storeID, epoch: c.epoch, number: c.numberLocked(),
		base: base, mark: base}
	c.mu.Unlock()
	f, header, err := c.nextFile(header)
	if err != nil {
		return err
	}
	c.file = f
	s := newSegment(header)
	c.room, c.ahead = s.found, false
	c.dirSlot <- struct{}{}
	defer func() { <-c.dirSlot }()
	c.mu.Lock()
	all := append(slices.Clip(c.segments), s)
	c.mu.Unlock()
	if err := c.relist(all); err != nil {
		return err
	}
	c.segment = s
	c.marked = max(c.marked, base)
	return nil
}

const (
	firstAhead = 256 << 10
	maxAhead   = 16 << 20
)

// roomAhead asks for room behind the end of a file that grows, as much as it has by now: a sync is
// cheaper where only the length has to be noted, and not new blocks. It is a wish. What is left at
// the end is given back; on a disk that is nearly full, nothing is asked for.
func (c *committer) roomAhead(end int64) {
	if end <= c.room {
		return
	}
	step := min(max(end, firstAhead), maxAhead)
	c.room = min(end+step, max(end, c.opt.SegmentBytes))
	free, err := c.opt.FS.FreeBytes(c.opt.Dir)
	if err != nil || free < 4*maxAhead {
		return
	}
	c.ahead = c.file.Ahead(c.room) == nil
}

// endFile closes the file that is written to, without the room that was not used.
func (c *committer) endFile() error {
	if c.ahead && c.room > c.segment.offset(c.written) {
		// Where it fails, the disk has a little less room until the segment goes.
		_ = c.file.Truncate(max(c.segment.found, c.segment.offset(c.written)))
	}
	return c.file.Close()
}

// nextFile gives a segment its file, and returns its header as it was written.
func (c *committer) nextFile(h segmentHeader) (vfs.File, segmentHeader, error) {
	if id, ok := c.takeFree(); ok {
		f, reused, err := reuseFile(c.opt.FS, c.opt.Dir, id, h)
		if !errors.Is(err, os.ErrNotExist) { // somebody has taken the file away
			return f, reused, err
		}
	}
	f, err := createSegment(c.opt.FS, c.opt.Dir, h, nil)
	return f, h, err
}

// createSegment makes a segment file under a temporary name, lets fill write its content, which may
// be nil, syncs it, and gives it its name.
func createSegment(
	fs vfs.FS, dir string, h segmentHeader, fill func(vfs.File) error,
) (vfs.File, error) {
	path := filepath.Join(dir, segmentName(h.number))
	f, err := vfs.WriteNew(fs, path, func(f vfs.File) error {
		_, err := f.WriteAt(h.encode(), 0)
		if err == nil && fill != nil {
			err = fill(f)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("write segment %s: %w", path, err)
	}
	if err := vfs.GiveName(fs, path); err != nil {
		_ = f.Close() // the file is not used
		return nil, fmt.Errorf("name segment %s: %w", path, err)
	}
	return f, nil
}
