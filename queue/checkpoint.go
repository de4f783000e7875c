package queue

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

const (
	checkpointPrefix = "checkpoint-"
	checkpointsKept  = 2
)

// mark names a checkpoint on disk.
type mark struct {
	pos     uint64
	storeID [16]byte // known of those that were read or written
	version uint32   // of the format, of one to be written; 0 = the first
}

func checkpointName(pos uint64) string { return fmt.Sprintf("%s%016x", checkpointPrefix, pos) }

// loadCheckpoint reads the newest checkpoint, or begins with an empty state. The one before it is
// for Verify, and for a person who moves a damaged newer one away.
func (s *Store) loadCheckpoint() error {
	s.st = state.New()
	names, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("list directory: %w", err)
	}
	for _, name := range names {
		hex, ok := strings.CutPrefix(name, checkpointPrefix)
		if !ok {
			continue
		}
		if strings.HasSuffix(name, vfs.TempSuffix) { // a crash left it; it never counted
			if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil {
				return fmt.Errorf("remove unfinished checkpoint: %w", err)
			}
			continue
		}
		pos, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || checkpointName(pos) != name {
			return badCheckpoint(s.dir, name, 0, errors.New("not the name of a checkpoint"))
		}
		s.marks = append(s.marks, mark{pos: pos})
	}
	if len(s.marks) == 0 {
		return nil
	}
	slices.SortFunc(s.marks, func(a, b mark) int { return cmp.Compare(a.pos, b.pos) })
	newest := &s.marks[len(s.marks)-1]
	s.st, newest.storeID, err = s.readCheckpoint(newest.pos, s.dedup.read)
	s.grown.Store(newest.pos)
	return err
}

// readCheckpoint reads and checks a checkpoint: windows reads the dedup windows in it.
func (s *Store) readCheckpoint(pos uint64, windows func(*bufio.Reader) error) (*state.State,
	[16]byte, error) {
	r, id, err := openCheckpoint(s.fs, s.dir, pos)
	if err != nil {
		return nil, id, err
	}
	st := state.New()
	err = loadSections(st, r, r.left, windows)
	if _, damaged := errors.AsType[*CorruptionError](err); err != nil && !damaged {
		err = r.bad(err)
	}
	return st, id, errors.Join(err, r.file.Close())
}

// checkpointLoop takes a checkpoint whenever the log has grown enough.
func (s *Store) checkpointLoop() {
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.checkpoint:
		}
		if err := s.takeCheckpoint(); err != nil && s.ctx.Err() == nil {
			s.opt.Logger.Error("take checkpoint", "dir", s.dir, "err", err)
		}
	}
}

// takeCheckpoint writes the state down, and then frees the segments in which nothing lives and that
// no kept checkpoint needs, and compacts those in which little lives. The store goes on meanwhile:
// its lock is held only while the state is noted.
func (s *Store) takeCheckpoint() error {
	s.verifying.Lock()
	defer s.verifying.Unlock()
	s.mu.Lock()
	if err := s.fatal; err != nil {
		s.mu.Unlock()
		return err
	}
	// The group of this empty unit ends behind all that the state holds: once it is synced, so is
	// everything that the checkpoint says.
	group := s.append(nil, true)
	m := mark{pos: s.log.End(), storeID: s.log.StoreID()}
	snapshot := sections{windows: s.snapshotWindows(), state: s.st.Snapshot()}
	m.version = snapshot.version()
	free := s.freeSegments()
	s.grown.Store(m.pos)
	s.unlockWindows()

	if err := wait(group, true); err != nil {
		return err
	}
	if err := writeCheckpoint(s.fs, s.dir, m, snapshot); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	oldest, err := s.keepCheckpoint(m)
	if err != nil || oldest == 0 {
		return err
	}
	free = slices.DeleteFunc(free, func(i wal.SegmentInfo) bool { return i.End > oldest })
	if len(free) > 0 {
		if err := s.log.Remove(segmentIDs(free)...); err != nil {
			return err
		}
	}
	return s.compact(oldest)
}

// keepCheckpoint notes a new checkpoint and removes those that it replaces. It returns where the
// oldest kept one stands: no kept one needs the log before it. 0 = there is only one yet.
func (s *Store) keepCheckpoint(m mark) (oldest uint64, err error) {
	s.mu.Lock()
	s.marks = append(s.marks, m)
	var old []mark
	if n := len(s.marks) - checkpointsKept; n > 0 {
		old = slices.Clone(s.marks[:n])
		s.marks = slices.Clone(s.marks[n:])
	}
	if len(s.marks) == checkpointsKept {
		oldest = s.marks[0].pos
	}
	s.mu.Unlock()
	for _, m := range old {
		if err := s.fs.Remove(filepath.Join(s.dir, checkpointName(m.pos))); err != nil {
			return 0, fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	return oldest, nil
}

// freeSegments returns the sealed segments in which no message of the state lives. The caller
// holds mu.
func (s *Store) freeSegments() []wal.SegmentInfo {
	segments := s.log.Segments()
	var free []wal.SegmentInfo
	for _, seg := range segments[:max(len(segments)-1, 0)] {
		if !s.st.Pinned(seg.Base, seg.End) {
			free = append(free, seg)
		}
	}
	return free
}

func segmentIDs(segments []wal.SegmentInfo) []wal.SegmentID {
	ids := make([]wal.SegmentID, len(segments))
	for i := range segments {
		ids[i] = segments[i].ID
	}
	return ids
}
