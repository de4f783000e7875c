package dedup

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync/atomic"

	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	// bucketIDs closes a bucket: few enough that one in memory is some 15 MB, many enough that
	// ten million IDs are some forty filters to look at.
	bucketIDs = 1 << 18
	// bucketBytes closes one of long IDs.
	bucketBytes = 32 << 20
	// spanParts: a bucket covers an eighth of the window at most, because it goes whole: an ID is
	// held, and counted, up to an eighth longer than it is known.
	spanParts = 8
	// smallParts: a closed bucket of less than a 64th of bucketIDs stays in memory. There are at
	// most nine of them, and thousands of quiet topics need no files.
	smallParts = 64
	// maxWaiting bounds the closed buckets that wait for the disk.
	maxWaiting = 4
)

// Options say what a window is for.
type Options struct {
	FS           vfs.FS   // the file system of Dir
	Dir          string   // the store's directory
	StoreID      [16]byte // makes the hashes of a new window its own
	Topic        uint32   // the number of the topic or dedup set
	WindowMillis int64    // how long an ID is known, at least 1
	MaxIDs       int      // that are held; with more, Full says so
	BucketIDs    int      // that close a bucket, for tests. Default: 262,144
}

// Window remembers the IDs of one topic. All methods but Probe are called under the owner's lock,
// and none but Maintain does I/O there or elsewhere.
type Window struct {
	opt   Options
	seed  seed
	view  atomic.Pointer[view] // replaced under the owner's lock
	last  int64                // time of the last entry
	total int                  // IDs in all buckets

	waiting int       // closed buckets that wait for the disk
	trouble error     // why the last of them could not be written; nil = it could
	gone    []*bucket // whose files can be removed once what let them go is synced
}

// view is what Probe sees without the lock. Neither it nor a closed bucket changes.
type view struct {
	closed []*bucket // oldest first
	open   *memory   // looked at under the lock only
}

// bucket is a closed bucket, in memory or in its file.
type bucket struct {
	number      uint64
	count       int
	first, last int64
	memory      *memory // nil = it is in its file
	file        *file   // nil = it is in memory, or its file is missing
	missing     string  // path of the missing file
	gone        atomic.Bool
}

// New returns an empty window.
func New(o Options) *Window {
	if o.BucketIDs == 0 {
		o.BucketIDs = bucketIDs
	}
	w := &Window{opt: o, seed: seedOf(o.StoreID), last: math.MinInt64}
	w.view.Store(&view{open: newMemory(1, w.seed, o.BucketIDs)})
	return w
}

func closedBucket(m *memory) *bucket {
	return &bucket{number: m.number, count: m.count, first: m.first, last: m.last, memory: m}
}

// waits reports whether a closed bucket is to be written to a file.
func (w *Window) waits(b *bucket) bool {
	return b.memory != nil && b.count*smallParts >= w.opt.BucketIDs
}

// Probe is what the closed buckets know of an ID.
type Probe struct {
	id    string
	hash  uint64
	open  *memory // the open bucket when the closed ones were looked at
	seen  Seen
	found bool
	err   error
}

// Probe looks for an ID in the closed buckets. It may read the disk, and is called without the
// owner's lock; Confirm says under it what holds then. now is an engine time that has passed.
func (w *Window) Probe(id string, now int64) Probe {
	v := w.view.Load()
	p := Probe{id: id, hash: w.seed.hash(id), open: v.open}
	for i := len(v.closed) - 1; i >= 0 && !p.found; i-- {
		b := v.closed[i]
		if b.last <= now-w.opt.WindowMillis { // and so are all before it
			break
		}
		var err error
		p.seen, p.found, err = b.find(w.opt.FS, p.hash, id)
		if p.found && p.seen.At <= now-w.opt.WindowMillis {
			p.found = false
		}
		if err != nil && !b.gone.Load() && p.err == nil {
			p.err = err
		}
	}
	return p
}

func (b *bucket) find(fs vfs.FS, hash uint64, id string) (Seen, bool, error) {
	switch {
	case b.memory != nil:
		s, ok := b.memory.find(hash, id)
		return s, ok, nil
	case b.file != nil:
		return b.file.find(fs, hash, id)
	}
	return Seen{}, false, &DamageError{File: b.missing, Err: errMissing}
}

// Confirm completes a probe with what was added since: whether the ID is known at the time now, and
// what of it. An error says that this cannot be told, because a file could not be read; it is never
// guessed.
func (w *Window) Confirm(p *Probe, now int64) (Seen, bool, error) {
	cut := now - w.opt.WindowMillis
	for m := p.open; m != nil; m = m.next {
		if s, ok := m.find(p.hash, p.id); ok && s.At > cut {
			return s, true, nil
		}
	}
	if p.found && p.seen.At > cut {
		return p.seen, true, nil
	}
	return Seen{}, false, p.err
}

// Full says why the window takes no more IDs than it has and adding ones; nil = it does.
func (w *Window) Full(now int64, adding int) error {
	if w.waiting >= maxWaiting {
		if w.trouble != nil {
			return fmt.Errorf("%d buckets of dedup IDs could not be written: %w", w.waiting,
				w.trouble)
		}
		return fmt.Errorf("%d buckets of dedup IDs wait for the disk", w.waiting)
	}
	if w.total+adding < w.opt.MaxIDs {
		return nil
	}
	if w.Count(now)+adding >= w.opt.MaxIDs {
		return fmt.Errorf("%d dedup IDs are remembered, the bound (MaxDedupIDs)", w.opt.MaxIDs)
	}
	return nil
}

// Count returns how many IDs are held at the time now. A bucket counts until its last one is out of
// the window.
func (w *Window) Count(now int64) int {
	v, cut := w.view.Load(), now-w.opt.WindowMillis
	n := 0
	for _, b := range v.closed {
		if b.last > cut {
			n += b.count
		}
	}
	if v.open.last > cut {
		n += v.open.count
	}
	return n
}

// Add remembers an ID that the log has accepted, and that was not known then. Live and at replay,
// the same IDs at the same times give the same buckets.
func (w *Window) Add(id string, s Seen) {
	s.At = max(s.At, w.last) // a time that ran back would let go early
	w.last = s.At
	w.Expire(s.At)
	m := w.view.Load().open
	if m.count >= w.opt.BucketIDs || m.bytes >= bucketBytes ||
		m.count > 0 && s.At-m.first >= w.span() {
		m = w.close()
	}
	m.put(w.seed.hash(id), id, s)
	w.total++
}

// span is how much time a bucket covers; an entry's time is held in 32 bits.
func (w *Window) span() int64 {
	return min(max(w.opt.WindowMillis/spanParts, 1), math.MaxUint32)
}

// close closes the open bucket and returns the next one.
func (w *Window) close() *memory {
	v := w.view.Load()
	next := newMemory(v.open.number+1, w.seed, w.opt.BucketIDs)
	v.open.next = next
	b := closedBucket(v.open)
	if w.waits(b) {
		w.waiting++
	}
	w.view.Store(&view{closed: append(slices.Clip(v.closed), b), open: next})
	return next
}

// Expire lets go of the buckets that are out of the window at the time of a record in the log. It
// is not called with a time that only the clock says: at the next open, the log must show that the
// files may be gone.
func (w *Window) Expire(now int64) {
	v, cut := w.view.Load(), now-w.opt.WindowMillis
	n := 0
	for n < len(v.closed) && v.closed[n].last <= cut {
		n++
	}
	open := v.open
	stale := open.count > 0 && open.last <= cut
	if n == 0 && !stale {
		return
	}
	for _, b := range v.closed[:n] {
		w.letGo(b)
	}
	if stale {
		w.total -= open.count
		open.next = newMemory(open.number+1, w.seed, w.opt.BucketIDs)
		open = open.next
	}
	w.view.Store(&view{closed: slices.Clone(v.closed[n:]), open: open})
}

func (w *Window) letGo(b *bucket) {
	b.gone.Store(true)
	w.total -= b.count
	if w.waits(b) {
		w.waiting--
	}
	if b.file != nil {
		w.gone = append(w.gone, b)
	}
}

// Drop lets go of everything: the topic is deleted. Its files are removed by Maintain.
func (w *Window) Drop() {
	v := w.view.Load()
	for _, b := range v.closed {
		w.letGo(b)
	}
	w.total = 0
	w.view.Store(&view{open: newMemory(v.open.number+1, w.seed, w.opt.BucketIDs)})
}

// Bound changes how many IDs are held.
func (w *Window) Bound(maxIDs int) { w.opt.MaxIDs = maxIDs }

// Owner returns the number of the topic or dedup set whose window it is.
func (w *Window) Owner() uint32 { return w.opt.Topic }

// Busy reports whether Maintain has something to do.
func (w *Window) Busy() bool { return w.waiting > 0 || len(w.gone) > 0 }

func (w *Window) path(number uint64) string {
	return filepath.Join(w.opt.Dir, fileName(w.opt.Topic, number))
}
