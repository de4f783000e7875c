package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// Recovery is what Open found and did.
type Recovery struct {
	New     bool   // the log was made
	Epoch   uint64 // grows with every Open, and is durable before Open returns
	End     uint64 // where the log ends, and goes on
	Torn    int64  // bytes of a torn tail that were cut
	TornPos uint64 // where they began
	Copied  int    // groups that were copied behind the last mark
}

var errOtherStore = errors.New("it belongs to another store")

// Open opens the log in a directory, or makes it, and recovers it. It returns only once nothing
// that it found can be lost any more. Damage is a *CorruptionError and a newer format a
// *FormatError; nothing has been changed then.
func Open(o Options) (*Log, Recovery, error) {
	l, rec, err := open(o)
	if err != nil {
		return nil, Recovery{}, explain(fmt.Errorf("open log: %w", err))
	}
	return l, rec, nil
}

func open(o Options) (*Log, Recovery, error) {
	if o.FS == nil {
		o.FS = vfs.OS{}
	}
	if o.SegmentBytes == 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.Dir == "" || o.SegmentBytes < 0 {
		return nil, Recovery{}, &ackwise.InvalidError{
			Field: "options", Reason: "Dir is required and SegmentBytes is not negative"}
	}
	if err := o.FS.MkdirAll(o.Dir); err != nil {
		return nil, Recovery{}, err
	}
	op := &opening{Options: o}
	m, err := op.load()
	if err != nil {
		return nil, Recovery{}, err
	}
	if err := op.survey(m); err != nil {
		return nil, Recovery{}, err
	}
	return op.recover()
}

// opening is the state of an Open. Up to recover it only reads.
type opening struct {
	Options
	names     []string // in the directory
	rec       Recovery
	segments  []*segment
	mark      uint64 // of the last segment's header
	leftovers []string
	tail      tail
}

// load reads the list of segments. Without one there must be no log.
func (o *opening) load() (manifest, error) {
	var err error
	if o.names, err = o.FS.ReadDir(o.Dir); err != nil {
		return manifest{}, err
	}
	path := filepath.Join(o.Dir, manifestName)
	b, err := readFile(o.FS, path)
	if errors.Is(err, os.ErrNotExist) {
		return o.begin()
	}
	if err != nil {
		return manifest{}, fmt.Errorf("read the list of segments: %w", err)
	}
	m, err := decodeManifest(path, b)
	if err == nil && o.StoreID != [16]byte{} && o.StoreID != m.storeID {
		err = errOtherStore
	}
	if err != nil {
		return manifest{}, o.refuse(manifestName, 0, err)
	}
	o.StoreID = m.storeID
	return m, nil
}

// begin is load for a directory without a log. A crash in the first Open leaves at most a segment
// without a group.
func (o *opening) begin() (manifest, error) {
	first := segmentName(1)
	for _, name := range o.names {
		id, ok := parseSegmentName(name)
		if !ok {
			continue
		}
		err := errors.New("the list of segments is missing")
		if id == 1 {
			if _, empty, headErr := o.content(name); headErr == nil && empty {
				continue
			}
		}
		return manifest{}, o.refuse(name, 0, err)
	}
	if o.CheckpointPos > 0 {
		err := errors.New("the log that the checkpoint needs is missing")
		return manifest{}, o.refuse(first, 0, err)
	}
	o.rec.New = true
	if o.StoreID == [16]byte{} {
		if _, err := rand.Read(o.StoreID[:]); err != nil {
			return manifest{}, err
		}
	}
	return manifest{storeID: o.StoreID}, o.FS.SyncDir(filepath.Dir(o.Dir))
}

// refuse is damage. Newer formats and failures of the disk stay what they are.
func (o *opening) refuse(name string, off int64, err error) error {
	var (
		format *FormatError
		path   *os.PathError
	)
	if errors.As(err, &format) || errors.As(err, &path) && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return &CorruptionError{Dir: o.Dir, Segment: name, Offset: off, Err: err}
}

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

// content reads the header of a file that the list does not name, and says whether it holds no
// group of its own: none at all, or only those copied into it before it got its name.
func (o *opening) content(name string) (h segmentHeader, empty bool, err error) {
	f, err := o.FS.Open(filepath.Join(o.Dir, name))
	if err != nil {
		return h, false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h, size, err := o.readHeader(f, name)
	if err != nil {
		return h, false, err
	}
	s := newSegment(h)
	return h, h.mark >= h.base && size <= s.offset(h.mark), nil
}

// survey compares the files with the list and reads the last one to its end.
func (o *opening) survey(m manifest) error {
	listed := make(map[string]bool, len(m.segments))
	last := SegmentID(0)
	for i, e := range m.segments {
		s, err := o.check(m, i)
		if err != nil {
			return err
		}
		o.segments = append(o.segments, s)
		listed[segmentName(e.id)] = true
		last = e.id
	}
	for _, name := range o.names {
		id, ok := parseSegmentName(name)
		switch {
		case strings.HasSuffix(name, segmentSuffix+tempSuffix), name == manifestName+tempSuffix:
			o.leftovers = append(o.leftovers, name)
		case !ok || listed[name]:
		case id > last:
			h, empty, err := o.content(name)
			if err == nil && (!empty || id != last+1 || h.number != id) {
				err = errors.New("the list of segments does not name it, but it holds records")
			}
			if err != nil {
				return o.refuse(name, 0, err)
			}
			o.leftovers = append(o.leftovers, name)
		default: // freed: the list was written without it, then it was to be removed
			o.leftovers = append(o.leftovers, name)
		}
	}
	if len(o.segments) == 0 {
		return nil
	}
	return o.scanLast()
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
	case h.number != e.id || h.epoch != e.epoch || h.base != e.base:
		err = fmt.Errorf("it is segment %d of epoch %d from position %d, not %d, %d, %d",
			h.number, h.epoch, h.base, e.id, e.epoch, e.base)
	}
	if err != nil {
		return nil, o.refuse(name, 0, err)
	}
	s = newSegment(h)
	s.info.Bytes = size
	s.info.End = e.end
	o.mark = h.mark
	if i == len(m.segments)-1 {
		s.info.End = h.base + uint64(size-blockBytes)
	} else if s.offset(e.end) > size {
		return nil, o.refuse(name, size, errShort)
	}
	return s, nil
}

// recover makes the fresh segment, and with it the log.
func (o *opening) recover() (*Log, Recovery, error) {
	h := segmentHeader{storeID: o.StoreID, number: 1}
	kept := o.segments
	if n := len(kept); n > 0 {
		last := kept[n-1]
		h.number = last.info.ID + 1
		h.base, h.mark = o.tail.mark, o.tail.end
		last.info.End = o.tail.mark
		if last.info.Base == o.tail.mark {
			kept = kept[:n-1]
			o.leftovers = append(o.leftovers, last.name())
		}
	}
	for _, s := range o.segments {
		h.epoch = max(h.epoch, s.info.Epoch)
	}
	h.epoch++
	active := newSegment(h)
	f, err := createSegment(o.FS, o.Dir, h, func(f vfs.File) error {
		return o.copyTail(active, f)
	})
	if err != nil {
		return nil, Recovery{}, err
	}
	l := o.newLog(h, append(slices.Clip(kept), active))
	if err := writeManifest(o.FS, o.Dir, l.manifestOf(l.segments)); err != nil {
		return nil, Recovery{}, errors.Join(err, f.Close())
	}
	if err := o.clean(h); err != nil {
		return nil, Recovery{}, errors.Join(err, f.Close())
	}
	c := &committer{Log: l, file: f, segment: active,
		written: h.mark, durable: h.mark, content: h.mark, marked: h.mark}
	l.committer.Go(c.run) // ends with Close
	return l, o.rec, nil
}

func (o *opening) newLog(h segmentHeader, segments []*segment) *Log {
	o.rec.Epoch, o.rec.End = h.epoch, h.mark
	active := segments[len(segments)-1]
	active.info.End = h.mark
	active.info.Bytes = active.offset(h.mark)
	return &Log{
		opt: o.Options, storeID: o.StoreID, epoch: h.epoch,
		kick: make(chan struct{}, 1), closing: make(chan struct{}),
		dirSlot: make(chan struct{}, 1), segments: segments,
		end: h.mark, written: h.mark, synced: h.mark, next: h.number, nextBase: h.base,
	}
}

// clean removes what no list names any more.
func (o *opening) clean(h segmentHeader) error {
	own := segmentName(h.number)
	var errs []error
	for _, name := range o.leftovers {
		if name == own || name == own+tempSuffix || name == manifestName+tempSuffix {
			continue // replaced
		}
		if err := o.FS.Remove(filepath.Join(o.Dir, name)); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	if len(o.leftovers) > 0 {
		errs = append(errs, o.FS.SyncDir(o.Dir))
	}
	return errors.Join(errs...)
}
