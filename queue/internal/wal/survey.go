package wal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
)

// readHeader reads the header and the length of a segment file.
func (o *opening) readHeader(f vfs.File, name string) (segmentHeader, int64, error) {
	b := make([]byte, blockBytes)
	if err := readFull(f, b, 0); err != nil {
		return segmentHeader{}, 0, err
	}
	size, err := f.Size()
	if err != nil {
		return segmentHeader{}, 0, err
	}
	h, err := decodeSegmentHeader(filepath.Join(o.Dir, name), b)
	return h, size, err
}

// content reads the header of a file that the list does not name, and says whether it holds what
// may be nowhere else: groups beyond those that were copied into it before it got its name. What is
// of an earlier life of the file is none, and a sparse segment's records are where they were.
func (o *opening) content(name string) (h segmentHeader, holds bool, err error) {
	f, err := o.FS.Open(filepath.Join(o.Dir, name))
	if err != nil {
		return h, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, size, err := o.readHeader(f, name)
	if err != nil || h.kind == kindSparse {
		return h, false, err
	}
	s := newSegment(h)
	scan := &scanner{dir: o.Dir, segment: s, file: f, end: h.base + uint64(size-blockBytes)}
	own, err := scan.visible(max(h.base, h.mark), h.stale)
	return h, own.end > max(h.base, h.mark), err
}

// survey compares the files with the list and reads the last one to its end.
func (o *opening) survey(m manifest) error {
	listed := make(map[string]bool, len(m.segments))
	for i, e := range m.segments {
		s, err := o.check(m, i)
		if err != nil {
			return err
		}
		o.segments = append(o.segments, s)
		listed[segmentName(e.id)] = true
		o.last = max(o.last, e.id)
	}
	o.number = o.last
	for _, name := range o.names {
		if listed[name] {
			continue
		}
		if err := o.unlisted(name); err != nil {
			return err
		}
	}
	if len(o.segments) == 0 {
		return nil
	}
	return o.scanLast()
}

// unlisted decides what becomes of a file that the list does not name.
func (o *opening) unlisted(name string) error {
	if id, ok := parseName(name, freeSuffix); ok {
		return o.keepFree(id)
	}
	id, ok := parseName(name, segmentSuffix)
	switch {
	case strings.HasSuffix(name, segmentSuffix+tempSuffix), name == manifestName+tempSuffix:
	case !ok:
		return nil // not the log's
	case id > o.last:
		h, holds, err := o.content(name)
		if err == nil && (holds || h.number != id || h.storeID != o.StoreID && !o.rec.New) {
			err = errors.New("the list of segments does not name it, but it holds records")
		}
		if err != nil {
			return o.refuse(name, 0, err)
		}
	default: // freed: the list was written without it, then it was to be removed
	}
	o.leftovers = append(o.leftovers, name)
	return nil
}

// keepFree keeps a free file where it is worth it.
func (o *opening) keepFree(id SegmentID) (err error) {
	o.number = max(o.number, id)
	f, err := o.FS.Open(filepath.Join(o.Dir, freeName(id)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return err
	}
	if len(o.free) < o.FreeSegments && o.worthKeeping(size) {
		o.free = append(o.free, id)
	} else {
		o.leftovers = append(o.leftovers, freeName(id))
	}
	return nil
}

// check compares the header and the length of a listed file with its entry.
func (o *opening) check(m manifest, i int) (s *segment, err error) {
	e, name := m.segments[i], segmentName(m.segments[i].id)
	f, err := o.FS.Open(filepath.Join(o.Dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, o.refuse(name, 0, errors.New("the segment is missing"))
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, size, err := o.readHeader(f, name)
	switch {
	case err != nil:
	case h.storeID != m.storeID:
		err = errOtherStore
	case h.kind != e.kind || h.kind == kindSparse && h.end != e.end:
		err = errors.New("it is a segment of another kind, or has another end, than listed")
	case h.number != e.id || h.epoch != e.epoch || h.base != e.base:
		err = fmt.Errorf("it is segment %d of epoch %d from position %d, not %d, %d, %d",
			h.number, h.epoch, h.base, e.id, e.epoch, e.base)
	}
	if err != nil {
		return nil, o.refuse(name, 0, err)
	}
	s = newSegment(h)
	s.found = size
	if i == len(m.segments)-1 { // it ends where the scan says, at most here
		s.info.End, s.info.Bytes = h.base+uint64(size-blockBytes), size
		o.mark, o.stale = max(h.mark, e.end), h.stale
		return s, nil
	}
	s.info.End = e.end
	s.info.Bytes = s.offset(e.end)
	if s.info.Sparse {
		s.info.Bytes = h.table + tablePages(h.count)*pageBytes
	}
	if s.info.Bytes > size {
		return nil, o.refuse(name, size, errShort)
	}
	return s, nil
}
