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
	behind, err := scan.visible(o.tail.end, o.stale)
	if err != nil {
		return err
	}
	if end := o.tail.end; max(synced, behind.mark) > end {
		return o.refuse(last.name(), last.offset(end), fmt.Errorf("%w: %w", errBeforeMark, bad))
	}
	if o.tail.end < behind.end {
		o.rec.Torn, o.rec.TornPos = int64(behind.end-o.tail.end), o.tail.end
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

// visible looks for headers of groups from pos on, on every boundary: how far what they announce
// reaches, and the highest mark among them. A header proves itself by its own checksum, whatever
// became of the group's records, and also where a lost sector has moved it to another place. What
// the file has grown by since stale, its length in an earlier life, is the segment's own as well;
// other bytes are of that earlier life, or cannot be told from it.
func (s *scanner) visible(pos uint64, stale int64) (tail, error) {
	seen := tail{end: pos}
	if s.segment.offset(s.end) > max(stale, blockBytes) {
		seen.end = max(pos, s.end)
	}
	for ; pos < s.end; pos += blockBytes {
		b, err := s.bytes(pos, headerBytes)
		if err != nil {
			return tail{}, err
		}
		h, bad := decodeGroupHeader(b, s.segment.seed, claimedPos(b))
		if bad != nil {
			continue
		}
		seen.mark = max(seen.mark, h.synced)
		if h.pos == pos {
			seen.end = max(seen.end, min(pos+h.size(), s.end))
		}
	}
	return seen, nil
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
		sealGroup(buf[start:start+len(group)], h, to.seed)
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
