package wal

import (
	"sync"
	"sync/atomic"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	defaultSegmentBytes = 64 << 20
	defaultFreeSegments = 4
	maxGroupBytes       = 1 << 30 // lengths are 32 bits wide; this leaves room for all sums
	keptBufferBytes     = 4 << 20 // a group's buffer that grew beyond this is not kept
)

// NoFreeSegments says, as Options.FreeSegments, that no file is used again.
const NoFreeSegments = -1

// SegmentID is the number of a segment. Numbers only grow, and none is given twice.
type SegmentID uint64

// Record is one entry of the log.
type Record struct {
	Type    byte
	Payload []byte
	Rest    []byte // follows Payload in the log; for Append only
	Pos     uint64 // where it begins; set by Append
}

// SegmentInfo describes a segment: it holds the positions Base ≤ pos < End.
type SegmentInfo struct {
	ID        SegmentID
	Base, End uint64
	Epoch     uint64
	Bytes     int64 // that it takes of its file, which may be longer where it is a recycled one
	Sparse    bool  // Compact made it: it holds chosen records only, and cannot be replayed
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
	// FreeSegments bounds the files of removed segments that are kept to be written again, which is
	// much faster than to let a new file grow. Default: 4. NoFreeSegments keeps none.
	FreeSegments int
	// NoSync releases a group as synced once it is written. Then only the change to a new segment
	// and Close sync, and a power cut loses what the system had not written by itself.
	NoSync bool
	// CheckpointPos is a position below which the caller knows, from a durable checkpoint, that
	// everything was synced. A log that ends before it is damaged. Default: 0, nothing is known.
	CheckpointPos uint64
	// Released is told the watermarks after each write and each sync, from one goroutine and
	// outside any mutex of the log. A fatal error is told exactly once, as the last call. It must
	// not call Close, Remove or Compact. Default: nobody is told.
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

	// Written under mu, read without it.
	end     atomic.Uint64 // where the next record or group goes
	backlog atomic.Int64  // bytes appended and not yet written
	written atomic.Uint64 // watermark
	synced  atomic.Uint64 // watermark

	mu       sync.Mutex  // guards all below; never held across I/O or a callback
	pending  *Group      // the group that fills; nil = none
	spares   [][]byte    // buffers of written groups, for the next ones
	number   SegmentID   // the highest that was given to a segment
	segments []*segment  // sorted by base; the last one is being written
	free     []SegmentID // files of removed segments, to be written again
	handles  int         // segments whose file is open for reading
	clock    uint64      // counts uses of handles, to find the one not used for longest
	listed   uint64      // how far the list says that the last segment reaches at least
	failed   error       // the latch: what stopped the log
	closed   bool
}

// Group is what one write and one sync carry. All callers whose records share a group wait on the
// same two channels.
type Group struct {
	pos     uint64
	buf     []byte // room for the header, and the records without checksums; nil once written
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
		size += frameBytes + len(recs[i].Payload) + len(recs[i].Rest)
	}
	l.mu.Lock()
	g, begun, err := l.fillLocked(size)
	if err != nil {
		l.mu.Unlock()
		return failedGroup(err)
	}
	for i := range recs {
		recs[i].Pos = g.pos + uint64(len(g.buf))
		g.buf = appendRecord(g.buf, &recs[i])
	}
	g.count += uint32(len(recs))
	g.durable = g.durable || durable
	l.end.Store(g.pos + uint64(len(g.buf)))
	l.backlog.Add(int64(size))
	l.mu.Unlock()
	if begun { // for the others it was woken already, and it takes them with the group
		l.wake()
	}
	return g
}

// fillLocked returns the pending group with room for size more bytes.
func (l *Log) fillLocked(size int) (g *Group, begun bool, err error) {
	switch {
	case l.failed != nil:
		return nil, false, l.failed
	case l.closed:
		return nil, false, ackwise.ErrClosed
	}
	have := headerBytes
	if l.pending != nil {
		have = len(l.pending.buf)
	}
	if have+size > maxGroupBytes {
		return nil, false, errTooLarge
	}
	if l.pending == nil {
		l.beginLocked()
		begun = true
	}
	return l.pending, begun, nil
}

// beginLocked begins the next group. Which segment it goes to is decided when it is committed: its
// positions are the same in any.
func (l *Log) beginLocked() {
	g := newGroup()
	g.pos = alignUp(l.end.Load())
	if n := len(l.spares); n > 0 {
		g.buf = l.spares[n-1]
		l.spares = l.spares[:n-1]
	}
	g.buf = append(g.buf[:0], make([]byte, headerBytes)...)
	l.pending = g
	l.end.Store(g.pos + headerBytes)
	l.backlog.Add(headerBytes)
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
func (l *Log) Written() uint64 { return l.written.Load() }

// Synced returns the position below which every record is synced.
func (l *Log) Synced() uint64 { return l.synced.Load() }

// End returns a position above every record appended so far and not above any later one.
func (l *Log) End() uint64 { return l.end.Load() }

// PendingBytes returns how much is appended and not yet written, so that the caller can push back
// when the disk is slow.
func (l *Log) PendingBytes() int { return int(l.backlog.Load()) }

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
