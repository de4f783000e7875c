package queue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// A checkpoint is the whole state at a log position, so that opening reads only the log behind it.
// The last two are kept: Verify recomputes the newer one from the older one and the log between.
//
//	magic 8 bytes · version 4 · reserved 4 · store id 16 · position 8 · length 8 · state · CRC-32C 4
const (
	checkpointMagic   = "ackwckpt"
	checkpointVersion = 1
	checkpointHead    = 48
	checkpointPrefix  = "checkpoint-"
	checkpointsKept   = 2
)

// mark names a checkpoint on disk.
type mark struct {
	pos     uint64
	storeID [16]byte
}

func checkpointName(pos uint64) string { return fmt.Sprintf("%s%016x", checkpointPrefix, pos) }

var crcTable = crc32.MakeTable(crc32.Castagnoli)

// loadCheckpoint reads the newest checkpoint, or begins with an empty state.
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
		if strings.HasSuffix(name, ".tmp") { // a crash left it; it never counted
			if err := s.fs.Remove(filepath.Join(s.dir, name)); err != nil {
				return fmt.Errorf("remove unfinished checkpoint: %w", err)
			}
			continue
		}
		pos, err := strconv.ParseUint(hex, 16, 64)
		if err != nil || checkpointName(pos) != name {
			return s.badCheckpoint(name, errors.New("not the name of a checkpoint"))
		}
		s.marks = append(s.marks, mark{pos: pos})
	}
	if len(s.marks) == 0 {
		return nil
	}
	slices.SortFunc(s.marks, func(a, b mark) int {
		if a.pos < b.pos {
			return -1
		}
		return 1
	})
	for i := range s.marks {
		st, id, err := s.readCheckpoint(s.marks[i].pos, i == len(s.marks)-1)
		if err != nil {
			return err
		}
		s.marks[i].storeID = id
		if st != nil {
			s.st = st
		}
	}
	s.grown.Store(s.marks[len(s.marks)-1].pos)
	return nil
}

// readCheckpoint reads and checks a checkpoint; the state is nil where it is not wanted.
func (s *Store) readCheckpoint(pos uint64, want bool) (*state.State, [16]byte, error) {
	name := checkpointName(pos)
	var id [16]byte
	b, err := readFile(s.fs, filepath.Join(s.dir, name))
	if err != nil {
		return nil, id, fmt.Errorf("read checkpoint: %w", err)
	}
	if len(b) < checkpointHead+4 || string(b[:8]) != checkpointMagic {
		return nil, id, s.badCheckpoint(name, errors.New("not a checkpoint"))
	}
	if v := binary.LittleEndian.Uint32(b[8:]); v > checkpointVersion {
		return nil, id, &FormatError{File: filepath.Join(s.dir, name), Found: v,
			Supported: checkpointVersion}
	}
	copy(id[:], b[16:32])
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	switch {
	case crc32.Checksum(body, crcTable) != sum:
		return nil, id, s.badCheckpoint(name, errors.New("its checksum does not match"))
	case binary.LittleEndian.Uint64(b[32:]) != pos,
		binary.LittleEndian.Uint64(b[40:]) != uint64(len(body)-checkpointHead):
		return nil, id, s.badCheckpoint(name, errors.New("its header does not fit the file"))
	case !want:
		return nil, id, nil
	}
	st, err := state.Decode(body[checkpointHead:])
	if err != nil {
		return nil, id, s.badCheckpoint(name, err)
	}
	return st, id, nil
}

func (s *Store) badCheckpoint(name string, err error) error {
	return &CorruptionError{Dir: s.dir, Segment: name, Err: fmt.Errorf("%w; nothing was changed. "+
		"The log since the checkpoint before it is kept: move this file away, and the store opens "+
		"from there", err)}
}

func readFile(fs vfs.FS, name string) ([]byte, error) {
	f, err := fs.Open(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	b := make([]byte, size)
	_, err = f.ReadAt(b, 0)
	if err != nil && size > 0 {
		return nil, errors.Join(err, f.Close())
	}
	return b, f.Close()
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
// no kept checkpoint needs.
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
	id := s.log.StoreID()
	pos := s.log.End()
	b := make([]byte, checkpointHead, 1<<16)
	b = s.st.Encode(b)
	freed := s.freeSegments()
	s.grown.Store(pos)
	s.mu.Unlock()

	copy(b, checkpointMagic)
	binary.LittleEndian.PutUint32(b[8:], checkpointVersion)
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], pos)
	binary.LittleEndian.PutUint64(b[40:], uint64(len(b)-checkpointHead))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	if err := wait(group, true); err != nil {
		return err
	}
	if err := s.writeCheckpoint(checkpointName(pos), b); err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	s.mu.Lock()
	s.marks = append(s.marks, mark{pos: pos, storeID: id})
	var old []mark
	if n := len(s.marks) - checkpointsKept; n > 0 {
		old = slices.Clone(s.marks[:n])
		s.marks = slices.Clone(s.marks[n:])
	}
	oldest := s.marks[0].pos
	s.mu.Unlock()
	for _, m := range old {
		if err := s.fs.Remove(filepath.Join(s.dir, checkpointName(m.pos))); err != nil {
			return fmt.Errorf("remove old checkpoint: %w", err)
		}
	}
	freed = slices.DeleteFunc(freed, func(i wal.SegmentInfo) bool { return i.End > oldest })
	ids := make([]wal.SegmentID, len(freed))
	for i := range freed {
		ids[i] = freed[i].ID
	}
	if len(ids) == 0 || len(s.marks) < checkpointsKept {
		return nil
	}
	return s.log.Remove(ids...)
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

func (s *Store) writeCheckpoint(name string, b []byte) error {
	final := filepath.Join(s.dir, name)
	f, err := s.fs.Create(final + ".tmp")
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(b, 0); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := s.fs.Rename(final+".tmp", final); err != nil {
		return err
	}
	return s.fs.SyncDir(s.dir)
}
