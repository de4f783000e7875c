package wal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

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
	if o.FreeSegments == 0 {
		o.FreeSegments = defaultFreeSegments
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
	number    SegmentID   // the highest number that is on the list or of a free file
	last      SegmentID   // the highest number that is on the list
	mark      uint64      // of the last segment's header
	stale     int64       // of the last segment's header
	free      []SegmentID // files that can be written again
	leftovers []string    // files that nothing needs
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
		id, ok := parseName(name, segmentSuffix)
		if !ok {
			continue
		}
		err := errors.New("the list of segments is missing")
		if id == 1 {
			if _, holds, headErr := o.content(name); headErr == nil && !holds {
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

// recover makes the fresh segment, and with it the log.
func (o *opening) recover() (*Log, Recovery, error) {
	// What a killed process has renamed must not be undone by a power cut after this.
	if err := o.FS.SyncDir(o.Dir); err != nil {
		return nil, Recovery{}, err
	}
	h := segmentHeader{storeID: o.StoreID, number: o.number + 1}
	kept := o.segments
	var dropped *segment
	if n := len(kept); n > 0 {
		last := kept[n-1]
		h.base, h.mark = o.tail.mark, o.tail.end
		last.info.End = o.tail.mark
		last.info.Bytes = last.offset(o.tail.mark)
		if last.info.Base == o.tail.mark {
			kept = kept[:n-1]
			dropped = last
		}
	}
	for _, s := range o.segments {
		h.epoch = max(h.epoch, s.info.Epoch)
	}
	h.epoch++
	f, h, err := o.freshFile(h)
	if err != nil {
		return nil, Recovery{}, err
	}
	active := newSegment(h)
	l := o.newLog(h, append(slices.Clip(kept), active))
	if err := writeManifest(o.FS, o.Dir, l.manifestOf(l.segments)); err != nil {
		return nil, Recovery{}, errors.Join(err, f.Close())
	}
	if err := o.clean(h); err != nil {
		return nil, Recovery{}, errors.Join(err, f.Close())
	}
	if dropped != nil {
		if err := l.letGo([]*segment{dropped}); err != nil {
			return nil, Recovery{}, errors.Join(err, f.Close())
		}
	}
	c := &committer{Log: l, file: f, segment: active,
		written: h.mark, durable: h.mark, content: h.mark, marked: h.mark, room: active.found}
	l.committer.Go(c.run) // ends with Close
	return l, o.rec, nil
}

// freshFile gives the fresh segment its file, with the groups behind the mark in it. With none to
// copy it takes a free one. Otherwise it must not: a crash before the segment is listed would leave
// groups in the file whose seed, that of an epoch which never was, is given once more.
func (o *opening) freshFile(h segmentHeader) (vfs.File, segmentHeader, error) {
	if o.tail.mark == o.tail.end && len(o.free) > 0 {
		id := o.free[0]
		o.free = o.free[1:]
		return reuseFile(o.FS, o.Dir, id, h)
	}
	f, err := createSegment(o.FS, o.Dir, h, func(f vfs.File) error {
		return o.copyTail(newSegment(h), f)
	})
	return f, h, err
}

func (o *opening) newLog(h segmentHeader, segments []*segment) *Log {
	o.rec.Epoch, o.rec.End = h.epoch, h.mark
	active := segments[len(segments)-1]
	active.info.End = h.mark
	active.info.Bytes = active.offset(h.mark)
	l := &Log{
		opt: o.Options, storeID: o.StoreID, epoch: h.epoch,
		kick: make(chan struct{}, 1), closing: make(chan struct{}),
		dirSlot: make(chan struct{}, 1), segments: segments, number: h.number, free: o.free,
		listed: h.mark,
	}
	l.end.Store(h.mark)
	l.written.Store(h.mark)
	l.synced.Store(h.mark)
	return l
}

// clean removes what no list names any more. What had the name of a file that was made since, or
// its temporary name, is replaced by it.
func (o *opening) clean(h segmentHeader) error {
	own := segmentName(h.number)
	var errs []error
	for _, name := range o.leftovers {
		if name == own {
			continue
		}
		err := o.FS.Remove(filepath.Join(o.Dir, name))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s: %w", name, err))
		}
	}
	if len(o.leftovers) > 0 {
		errs = append(errs, o.FS.SyncDir(o.Dir))
	}
	return errors.Join(errs...)
}
