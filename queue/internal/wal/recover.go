package wal

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/ackwise/ackwise/internal/vfs"
)

// tail is what a scan found out about the last segment.
type tail struct {
	mark uint64 // a group's boundary: everything below it was synced
	end  uint64 // behind the last whole group
}

var errBeforeMark = errors.New("it lies before what is known to be synced")

// scanLast walks the last segment to its end and decides whether what follows the last whole group
// is a torn tail or damage.
func (o *opening) scanLast() (err error) {
	last := o.segments[len(o.segments)-1]
	f, err := o.FS.Open(filepath.Join(o.Dir, last.name()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	scan := &scanner{dir: o.Dir, segment: last, file: f, end: last.info.End}
	synced := max(o.mark, o.CheckpointPos, last.info.Base)
	bad, err := o.walk(scan, synced)
	if err != nil {
		return err
	}
	if bad == nil {
		bad = errShort
	}
	highest, err := o.highestMark(scan)
	if err != nil {
		return err
	}
	if end := o.tail.end; max(synced, highest) > end {
		return o.refuse(last.name(), last.offset(end), fmt.Errorf("%w: %w", errBeforeMark, bad))
	}
	if o.tail.end < scan.end {
		o.rec.Torn, o.rec.TornPos = int64(scan.end-o.tail.end), o.tail.end
	}
	return nil
}

// walk passes whole groups from the segment's base on, and says what is wrong behind the last.
func (o *opening) walk(scan *scanner, synced uint64) (bad, err error) {
	base := scan.segment.info.Base
	o.tail = tail{mark: base, end: base}
	var starts []uint64 // of the groups behind the mark
	for o.tail.end < scan.end {
		h, _, bad, err := scan.group(o.tail.end)
		if bad != nil || err != nil {
			return bad, err
		}
		synced = max(synced, h.synced)
		starts = append(starts, h.pos)
		o.tail.end += h.size()
		n := 0
		for n < len(starts) && starts[n] < synced {
			n++
		}
		starts = starts[n:]
		o.tail.mark = o.tail.end
		if len(starts) > 0 {
			o.tail.mark = starts[0]
		}
	}
	return nil, nil
}

// highestMark looks for headers of groups behind the last whole one, on every boundary, and returns
// the highest mark among them. A header proves its mark by its own checksum, whatever became of the
// group's records.
func (o *opening) highestMark(scan *scanner) (uint64, error) {
	highest := uint64(0)
	for pos := o.tail.end; pos < scan.end; pos += blockBytes {
		b, err := scan.bytes(pos, headerBytes)
		if err != nil {
			return 0, err
		}
		if h, bad := decodeGroupHeader(b, scan.segment.seed, pos); bad == nil {
			highest = max(highest, h.synced)
		}
	}
	return highest, nil
}

// copyTail writes the whole groups behind the mark to the fresh segment, at the same positions and
// with the checksums of its epoch.
func (o *opening) copyTail(to *segment, out vfs.File) (err error) {
	if o.tail.mark == o.tail.end {
		return nil
	}
	last := o.segments[len(o.segments)-1]
	f, err := o.FS.Open(filepath.Join(o.Dir, last.name()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	scan := &scanner{dir: o.Dir, segment: last, file: f, end: o.tail.end}
	var buf []byte
	bufPos := o.tail.mark
	flush := func() error {
		_, err := out.WriteAt(buf, to.offset(bufPos))
		bufPos += uint64(len(buf))
		buf = buf[:0]
		return err
	}
	for pos := o.tail.mark; pos < o.tail.end; {
		h, group, bad, err := scan.group(pos)
		if err := errors.Join(bad, err); err != nil {
			return fmt.Errorf("read %s again: %w", last.name(), err)
		}
		start := len(buf)
		buf = append(buf, group...)
		buf = append(buf, make([]byte, h.size()-uint64(len(group)))...)
		if err := reseed(buf[start:start+len(group)], h, last.seed, to.seed); err != nil {
			return err
		}
		o.rec.Copied++
		pos += h.size()
		if len(buf) >= batchRead {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	return flush()
}
