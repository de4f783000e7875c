package queue

import (
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// sparseShare is the share of a segment that must live for it to stay as it is: of one in which
// less than a quarter lives, what lives is copied to a sparse segment, at the same positions.
const sparseShare = 4

// sparseHead is more than what a segment holds besides records: its header, an index, padding.
const sparseHead = 16 << 10

// recordBytes is what a record takes in a sparse segment beyond its payload.
const recordBytes = 25

// room is a segment as compaction sees it.
type room struct {
	segment wal.SegmentInfo
	live    int64 // bytes of what lives in it, about
}

// poor reports whether so little lives in it that the rest is worth the copy. What a file holds
// besides its records is not.
func (r room) poor() bool { return r.live*sparseShare < r.segment.Bytes-sparseHead }

// rewrite is a run of neighbouring segments that become one sparse segment.
type rewrite struct {
	segments []wal.SegmentInfo
	live     int64
	worth    bool // else it stays as it is
}

// planCompaction chooses what to rewrite among neighbouring segments. Poor ones are rewritten, as
// many together as fit one segment. A sparse one before them joins when it is no larger than what
// comes to it: so each byte that is copied again is copied into at least twice as much, and the
// sparse segments below half the size of a segment are as few as the digits of their sum.
func planCompaction(rooms []room, segmentBytes int64) []rewrite {
	var plan, open []rewrite // open: neighbours that may still grow together
	for _, r := range rooms {
		if !r.poor() && !r.segment.Sparse {
			plan, open = append(plan, open...), nil
			continue
		}
		open = append(open, rewrite{[]wal.SegmentInfo{r.segment}, r.live, r.poor()})
		for n := len(open); n > 1; n-- {
			a, b := open[n-2], open[n-1]
			if a.live+b.live > segmentBytes || a.live > b.live && (!a.worth || !b.worth) {
				break
			}
			open = append(open[:n-2], rewrite{append(a.segments, b.segments...), a.live + b.live, true})
		}
	}
	worth := plan[:0]
	for _, r := range append(plan, open...) {
		if r.worth {
			worth = append(worth, r)
		}
	}
	return worth
}

// compact rewrites the segments behind the older checkpoint in which little lives. What is chosen
// as dead must stay dead: the log is synced before anything is taken away, so that no settlement
// can be lost that made a message dead. What dies meanwhile is copied in vain.
func (s *Store) compact(oldest uint64) error {
	segments := s.log.Segments()
	var rooms []room
	s.mu.Lock()
	for _, seg := range segments[:max(len(segments)-1, 0)] {
		if seg.End <= oldest {
			messages, bytes := s.st.Live(seg.Base, seg.End)
			rooms = append(rooms, room{seg, bytes + messages*recordBytes})
		}
	}
	s.mu.Unlock()
	for _, r := range planCompaction(rooms, s.opt.SegmentBytes) {
		first, last := r.segments[0], r.segments[len(r.segments)-1]
		s.mu.Lock()
		positions := s.st.LivePositions(first.Base, last.End)
		group := s.append(nil, true)
		s.mu.Unlock()
		if err := wait(group, true); err != nil {
			return err
		}
		ids := segmentIDs(r.segments)
		var err error
		if len(positions) == 0 { // the last of it died meanwhile
			err = s.log.Remove(ids...)
		} else {
			err = s.log.Compact(ids, positions)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
