package queue

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/reserve"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// What a full disk allows. While the reserve is not whole, publish is refused (admit), hand-outs
// stop before what is in flight could no longer be settled (claim), what can wait of a dedup set's
// claims is put off before that (putOff), a checkpoint leaves that much too, and everything else
// goes on. The tick loop makes the reserve whole again when there is room.

const (
	// settleBytes is what one settlement can cost: a group of its own, of a header, a record and
	// the longest reason, is 3 blocks of 512 bytes, and the mark that follows it is one more.
	settleBytes = 2 << 10
	// movesBytes is what is kept beside for what moves by time alone, the marks of it, a new
	// segment with its list, and opening the store again: blocks of the disk for some small files.
	// Of a small reserve it is a quarter.
	movesBytes = 1 << 20
	// refillMillis is how often a full disk is looked at.
	refillMillis = 1000
	// logList is the file that is there once the store was started, see docs/FORMAT.md.
	logList = "segments"
)

// openDisk takes up the reserve, or makes it with the first start, and refuses a disk on which
// nothing could be kept. Then nothing is left that a later start finds.
func (s *Store) openDisk(fs vfs.FS) error {
	disk, err := reserve.Open(fs, s.dir, s.opt.ReserveBytes)
	if err != nil {
		return explainDisk(err)
	}
	s.disk, s.fs = disk, disk.Sparing(s.settleRoom)
	if disk.Whole() {
		return nil
	}
	names, err := fs.ReadDir(s.dir)
	if err == nil && !slices.Contains(names, logList) {
		err = explainDisk(fmt.Errorf("make the reserve of %d bytes (ReserveBytes) in %s: %w",
			s.opt.ReserveBytes, s.dir, syscall.ENOSPC))
	}
	if err != nil {
		return errors.Join(err, disk.Close())
	}
	return nil
}

// explainDisk adds to an error at the start what an operator should do next.
func explainDisk(err error) error {
	switch {
	case errors.Is(err, reserve.ErrNoSync):
		return &ackwise.HintError{Err: err, Hint: "nothing written there is ever known to be " +
			"durable; put the store's directory on a local disk with a file system that has fsync"}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &ackwise.HintError{Err: fmt.Errorf("%w: %w", wal.ErrNoSpace, err),
			Hint: "free some space, or give the store a directory on another disk"}
	}
	return err
}

// handOutRoom returns how many more messages may be handed out so that all that is in flight can
// still be settled on a disk that gets no emptier. The caller holds mu.
func (s *Store) handOutRoom() int {
	free := s.freeBytes(s.clock.now())
	if s.disk.Whole() && free >= s.opt.MinFreeBytes {
		return s.opt.MaxBatch
	}
	free = min(free, s.opt.MinFreeBytes) + s.disk.Left() - int64(s.log.PendingBytes())
	return int(max(0, (free-s.needed())/settleBytes))
}

// settleRoom is needed for who does not hold mu.
func (s *Store) settleRoom() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.needed()
}

// needed returns what settling everything in flight can cost. Claims that ran out count for as long
// as they are remembered, and most are settled many at a time: they take half of the reserve at
// most. The caller holds mu.
func (s *Store) needed() int64 {
	return s.st.InFlight()*settleBytes + min(s.st.Claims()*settleBytes, s.opt.ReserveBytes/2) +
		min(movesBytes, s.opt.ReserveBytes/4)
}

// putOff reports why a settlement of a claim that can wait has to: its size bytes would be taken
// from what is left for those that cannot. Where the disk is nearly full its free bytes do not
// count: they are known only as of a moment ago. The caller holds mu.
func (s *Store) putOff(now int64, size int) error {
	pending := int64(s.log.PendingBytes() + size) // asked before what is left
	if s.disk.Whole() && s.freeBytes(now)-pending >= s.opt.MinFreeBytes ||
		s.disk.Left()-pending >= s.needed() {
		return nil
	}
	return fmt.Errorf("the disk is full, %d of %d bytes of the reserve are left (ReserveBytes); "+
		"completions without a result, and releases, go on: %w", s.disk.Left(),
		s.opt.ReserveBytes, ackwise.ErrFull)
}

// looking is what the tick loop knows of the search for room.
type looking struct {
	at   int64 // engine time of the next look
	full bool  // that the disk is full was said
}

// refill makes the reserve whole again if there is room by now, at most once a second. Only the
// tick loop calls it.
func (s *Store) refill(look *looking) {
	now := s.clock.now()
	if now < look.at {
		return
	}
	look.at = now + refillMillis
	if err := s.disk.Refill(); err != nil {
		s.opt.Logger.Error("look for room", "dir", s.dir, "err", err)
	}
	whole := s.disk.Whole()
	switch {
	case whole && look.full:
		s.opt.Logger.Info("the disk has room again", "dir", s.dir)
	case !whole && !look.full:
		s.opt.Logger.Warn("the disk is full", "dir", s.dir, "reserve_left", s.disk.Left())
	}
	look.full = !whole
}

// before returns what the tick loop waits for: the next wake, or the next look where one is needed.
func (l *looking) before(wake int64, needed bool) int64 {
	if !needed || wake != 0 && wake < l.at {
		return wake
	}
	return l.at
}
