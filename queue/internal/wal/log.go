package wal

import (
	"sync"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	defaultSegmentBytes = 64 << 20
	maxGroupBytes       = 1 << 30 // lengths are 32 bits wide; this leaves room for all sums
	keptBufferBytes     = 4 << 20 // a group's buffer that grew beyond this is not kept
)

// SegmentID is the number of a segment file. Numbers only grow.
type SegmentID uint64

// Record is one entry of the log.
type Record struct {
	Type    byte
	Payload []byte
	Pos     uint64    // where it begins; set by Append
	Segment SegmentID // which file holds it; set by Append
}

// SegmentInfo describes a segment: it holds the positions Base ≤ pos < End.
type SegmentInfo struct {
	ID        SegmentID
	Base, End uint64
	Epoch     uint64
	Bytes     int64 // of the file
}

// Options configure a log.
type Options struct {
	// FS is the file system. Default: the operating system's.
	FS vfs.FS
	// Dir is the log's directory, made with mode 0700 where it is missing. Required.
	Dir string
	// StoreID must be the one that the log was made with. Default: that of the directory, or a
	// random one for a new log.
	StoreID [16]byte
	// SegmentBytes is the size at which the log goes on in a new file; a group is never split, so
	// a file may be longer by one group. Default: 64 MiB.
	SegmentBytes int64
	// NoSync releases a group as synced once it is written. Then only the change to a new segment
	// and Close sync, and a power cut loses what the system had not written by itself.
	NoSync bool
	// CheckpointPos is a position below which the caller knows, from a durable checkpoint, that
	// everything was synced. A log that ends before it is damaged. Default: 0, nothing is known.
	CheckpointPos uint64
	// Released is told the watermarks after each write and each sync, from one goroutine and
	// outside any mutex of the log. A fatal error is told exactly once, as the last call. It must
	// not call Close or Remove. Default: nobody is told.
	Released func(written, synced uint64, err error)
}

// Log is an open log. It is safe for concurrent use.
type Log struct {
	opt     Options
	storeID [16]byte
	epoch   uint64

	kick    chan struct{} // capacity 1: there is a pending group, or a failure to tell
	closing chan struct{} // closed by Close
	dirSlot chan struct{} // capacity 1: who holds it may write the manifest and the directory

	committer sync.WaitGroup // the one goroutine that writes; Close waits for it

	mu       sync.Mutex // guards all below; never held across I/O or a callback
	pending  *Group     // the group that fills; nil = none
	inFlight int        // bytes of the group being written
	spares   [][]byte   // buffers of written groups, for the next ones
	end      uint64     // where the next record or group goes
	next     SegmentID  // the segment that the next group belongs to
	nextBase uint64     // its base
	segments []*segment // sorted by base; the last one is being written
	handles  int        // segments whose file is open for reading
	clock    uint64     // counts uses of handles, to find the one not used for longest
	written  uint64     // watermark
	synced   uint64     // watermark
	failed   error      // the latch: what stopped the log
	closed   bool
}

// Group is what one write and one sync carry. All callers whose records share a group wait on the
// same two channels.
type Group struct {
	pos     uint64
	segment SegmentID
	base    uint64 // of its segment
	buf     []byte // header and records; nil once written
	size    uint64 // of the whole group with its padding, once written
	count   uint32
	durable bool
	written chan struct{}
	synced  chan struct{}
	err     error // set before synced is closed
}

func newGroup() *Group {
	return &Group{written: make(chan struct{}), synced: make(chan struct{})}
}

// Written returns a channel that is closed when the group is written, or has failed.
func (g *Group) Written() <-chan struct{} { return g.written }

// Synced returns a channel that is closed when the group is synced, or has failed.
func (g *Group) Synced() <-chan struct{} { return g.synced }

// Err returns why the group failed; nil while it has not.
func (g *Group) Err() error {
	select {
	case <-g.synced:
		return g.err
	default:
		return nil
	}
}

// End returns the position behind the group: the watermarks stand there, or further, once it is
// released. It is known once Written is closed without an error.
func (g *Group) End() uint64 { return g.pos + g.size }

// Append puts records into the pending group, as one atomic unit, and sets their positions. It
// never waits for the disk. A unit that is not durable may wait for its sync until a durable one
// comes, or the mark. When the log has failed or was closed, the group has failed already.
func (l *Log) Append(recs []Record, durable bool) *Group {
	size := 0
	for i := range recs {
		size += frameBytes + len(recs[i].Payload)
	}
	l.mu.Lock()
	g, err := l.fillLocked(size)
	if err != nil {
		l.mu.Unlock()
		return failedGroup(err)
	}
	seed := groupSeed(l.storeID, l.epoch)
	for i := range recs {
		r := &recs[i]
		r.Pos, r.Segment = g.pos+uint64(len(g.buf)), g.segment
		g.buf = appendRecord(g.buf, seed, r)
	}
	g.count += uint32(len(recs))
	g.durable = g.durable || durable
	l.end = g.pos + uint64(len(g.buf))
	l.mu.Unlock()
	l.wake()
	return g
}

// fillLocked returns the pending group with room for size more bytes.
func (l *Log) fillLocked(size int) (*Group, error) {
	switch {
	case l.failed != nil:
		return nil, l.failed
	case l.closed:
		return nil, ackwise.ErrClosed
	}
	if l.pending == nil {
		if headerBytes+size > maxGroupBytes {
			return nil, errTooLarge
		}
		l.beginLocked()
	}
	if len(l.pending.buf)+size > maxGroupBytes {
		return nil, errTooLarge
	}
	return l.pending, nil
}

// beginLocked begins the next group. Positions are promised from here on, so this is where it is
// decided whether the group goes to a new segment.
func (l *Log) beginLocked() {
	l.end = alignUp(l.end)
	if l.end-l.nextBase >= uint64(l.opt.SegmentBytes) {
		l.next++
		l.nextBase = l.end
	}
	g := newGroup()
	g.pos, g.segment, g.base = l.end, l.next, l.nextBase
	if n := len(l.spares); n > 0 {
		g.buf = l.spares[n-1]
		l.spares = l.spares[:n-1]
	}
	g.buf = append(g.buf[:0], make([]byte, headerBytes)...)
	l.pending = g
	l.end += headerBytes
}

func failedGroup(err error) *Group {
	g := newGroup()
	g.err = err
	close(g.synced)
	close(g.written)
	return g
}

func (l *Log) wake() {
	select {
	case l.kick <- struct{}{}:
	default:
	}
}

// Written returns the position below which every record is written.
func (l *Log) Written() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.written
}

// Synced returns the position below which every record is synced.
func (l *Log) Synced() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.synced
}

// End returns a position above every record appended so far and not above any later one.
func (l *Log) End() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// PendingBytes returns how much is appended and not yet written, so that the caller can push back
// when the disk is slow.
func (l *Log) PendingBytes() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.pending == nil {
		return l.inFlight
	}
	return l.inFlight + len(l.pending.buf)
}

// StoreID returns the identity that the log was made with.
func (l *Log) StoreID() [16]byte { return l.storeID }

// FreeBytes returns the space left on the disk of the log.
func (l *Log) FreeBytes() (int64, error) { return l.opt.FS.FreeBytes(l.opt.Dir) }

// Segments describes the segments, oldest first. The last one is being written. One that the
// pending group will begin is not among them yet.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	infos := make([]SegmentInfo, len(l.segments))
	for i, s := range l.segments {
		infos[i] = s.info
	}
	return infos
}

// Close writes and syncs what is pending, and the mark, and ends. After a failure it returns that.
func (l *Log) Close() error {
	l.mu.Lock()
	first := !l.closed
	l.closed = true
	l.mu.Unlock()
	if first {
		close(l.closing)
	}
	l.committer.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
