package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/ackwise/ackwise/internal/vfs"
)

var (
	errNotNeighbours = errors.New("the segments are not sealed neighbours in the log")
	errPositions     = errors.New("the positions are none, not sorted, or outside of the segments")
)

// Compact puts one sparse segment in the place of sealed segments that are neighbours, in the order
// of the log. It holds the records that begin at the positions, which are sorted and at least one;
// each can be read at its position as before. All other records of those segments are gone, and
// none can be replayed: the caller makes sure that a durable checkpoint lies behind them, and of
// all that [Log.Remove] asks for. Where it fails nothing is lost. Damage in a record that is to be
// kept is a *CorruptionError.
func (l *Log) Compact(ids []SegmentID, positions []uint64) error {
	if err := l.compact(ids, positions); err != nil {
		return explain(fmt.Errorf("compact segments: %w", err))
	}
	return nil
}

func (l *Log) compact(ids []SegmentID, positions []uint64) error {
	old, h, err := l.choose(ids, positions)
	if err != nil {
		return err
	}
	path := filepath.Join(l.opt.Dir, segmentName(h.number))
	f, err := vfs.WriteNew(l.opt.FS, path, func(f vfs.File) error {
		w := newSparseWriter(f, h)
		if err := l.copyRecords(positions, w); err != nil {
			return err
		}
		err := w.finish()
		h = w.header
		return err
	})
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return errors.Join(err, l.opt.FS.Remove(path+tempSuffix))
	}
	s := newSegment(h)
	s.info.Bytes = h.table + tablePages(h.count)*pageBytes
	return l.replace(old, s)
}

// choose finds the segments, and makes the header of the one that replaces them.
func (l *Log) choose(ids []SegmentID, positions []uint64) ([]*segment, segmentHeader, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, segmentHeader{}, l.failed
	}
	sealed := l.segments[:len(l.segments)-1]
	at := slices.IndexFunc(sealed, func(s *segment) bool {
		return len(ids) > 0 && s.info.ID == ids[0]
	})
	if at < 0 || at+len(ids) > len(sealed) {
		return nil, segmentHeader{}, errNotNeighbours
	}
	old := slices.Clone(sealed[at : at+len(ids)])
	for i, s := range old {
		if s.info.ID != ids[i] {
			return nil, segmentHeader{}, errNotNeighbours
		}
	}
	h := segmentHeader{kind: kindSparse, storeID: l.storeID, epoch: l.epoch,
		base: old[0].info.Base, end: old[len(old)-1].info.End}
	for i, pos := range positions {
		if i > 0 && pos <= positions[i-1] || pos < h.base || pos >= h.end {
			return nil, segmentHeader{}, errPositions
		}
	}
	if len(positions) == 0 {
		return nil, segmentHeader{}, errPositions
	}
	h.number = l.numberLocked()
	return old, h, nil
}

// copyRecords reads the records at the positions and writes them. A segment that is removed
// meanwhile is one that is not kept.
func (l *Log) copyRecords(positions []uint64, w *sparseWriter) error {
	var failed error
	b := batch{log: l, fn: func(_ int, r Record, err error) {
		if err == nil && failed == nil {
			err = w.add(r)
		}
		if failed == nil {
			failed = err
		}
	}}
	for i := 0; i < len(positions) && failed == nil; {
		h, err := l.pin(positions[i])
		if err != nil {
			return err
		}
		i += b.run(h, i, positions[i:])
		l.unpin(h.segment)
	}
	return failed
}

// replace puts a sparse segment, whose file has its temporary name, on the list in the place of
// others. Their files go once the new one is named and listed.
func (l *Log) replace(old []*segment, s *segment) error {
	fs, path := l.opt.FS, filepath.Join(l.opt.Dir, s.name())
	l.dirSlot <- struct{}{}
	defer func() { <-l.dirSlot }()
	l.mu.Lock()
	err := l.failed
	var all []*segment
	at := slices.Index(l.segments, old[0])
	if at >= 0 && at+len(old) < len(l.segments) && slices.Equal(l.segments[at:at+len(old)], old) {
		all = slices.Concat(l.segments[:at], []*segment{s}, l.segments[at+len(old):])
	} else if err == nil {
		err = fmt.Errorf("segments were removed meanwhile: %w", errNotKept)
	}
	l.mu.Unlock()
	if err != nil {
		return errors.Join(err, fs.Remove(path+tempSuffix))
	}
	if err := vfs.GiveName(fs, path); err != nil {
		return err // the next Open removes what has no place on the list
	}
	if err := l.relist(all); err != nil {
		if _, ok := errors.AsType[unsettled](err); !ok {
			err = errors.Join(err, fs.Remove(path))
		}
		return err
	}
	return l.letGo(old)
}
