package queue

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/lockfile"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/reserve"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// Store is an open directory of topics, subscriptions and tables. It is safe for concurrent use.
type Store struct {
	dir    string
	opt    Options
	disk   *reserve.FS    // with all of the reserve, for the log
	fs     vfs.FS         // the same; spares what settling all in flight needs of the reserve
	lock   *lockfile.Lock // nil = the file system is not shared
	log    *wal.Log
	clock  clock
	number uint64 // of the store, in tokens

	wg         sync.WaitGroup
	ctx        context.Context // ends with the store
	cancel     context.CancelFunc
	kick       chan struct{} // capacity 1: the tick loop has something to do
	checkpoint chan struct{} // capacity 1: the log has grown, take a checkpoint
	verifying  sync.Mutex    // held while Verify reads what a checkpoint would free; before mu

	readings  readings   // memory of Receive's reads, for the next ones
	observing sync.Mutex // one call of Options.Observe at a time; taken without any other

	waiting atomic.Int64  // Receives in waiters; read by released
	grown   atomic.Uint64 // the log's end at the last checkpoint
	told    uint64        // how far released has told of syncs; the log's goroutine alone uses it

	dedup windows // the IDs that are remembered

	mu        sync.Mutex // guards all below; never held across I/O or a wait
	st        *state.State
	waiters   map[*state.Sub][]*waiter
	accepting state.Publish // scratch of publishOne
	records   []wal.Record  // scratch of append
	buf       []byte        // scratch of append
	tickAt    int64         // what the tick loop waits for; 0 = nothing
	marks     []mark        // the checkpoints on disk, oldest first
	free      int64         // bytes free on the disk, as of askedAt
	askedAt   int64         // engine time
	fatal     error
	held      bool // hand-outs wait for room on the disk
	isClosed  bool
}

// waiter is a Receive that waits for something to hand out.
type waiter struct {
	session *state.Session
	max     int // its session's bound
	ready   chan struct{}
}

// Open opens the store in dir, which it makes where it is missing. One process owns a directory at
// a time: a second Open gives a *LockedError. A damaged directory gives a *CorruptionError and one
// of a newer version a *FormatError; neither is changed.
func Open(dir string, o Options) (*Store, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, explainDisk(fmt.Errorf("make directory: %w", err))
	}
	lock, err := lockfile.Acquire(dir)
	if err != nil {
		return nil, explainDisk(lockedError(dir, err))
	}
	s, err := openOn(vfs.OS{}, dir, o)
	if err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	s.lock = lock
	return s, nil
}

// openOn opens the store in a directory of a file system; the directory is there and is ours.
func openOn(fs vfs.FS, dir string, o Options) (*Store, error) {
	s := &Store{dir: dir, opt: o, kick: make(chan struct{}, 1),
		checkpoint: make(chan struct{}, 1), waiters: make(map[*state.Sub][]*waiter)}
	s.dedup.kick = make(chan struct{}, 1)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.openDisk(fs); err != nil {
		s.cancel()
		return nil, err
	}
	if err := s.recover(); err != nil {
		s.cancel()
		if s.log != nil {
			err = errors.Join(err, s.log.Close())
		}
		return nil, errors.Join(err, s.disk.Close())
	}
	s.wg.Go(s.tickLoop)       // ends with ctx
	s.wg.Go(s.checkpointLoop) // ends with ctx
	s.wg.Go(s.dedupLoop)      // ends with ctx
	return s, nil
}

// recover makes the state from the last checkpoint and the log behind it, and begins a new term.
func (s *Store) recover() error {
	if err := s.loadCheckpoint(); err != nil {
		return err
	}
	from, storeID := uint64(0), [16]byte{}
	if n := len(s.marks); n > 0 {
		from, storeID = s.marks[n-1].pos, s.marks[n-1].storeID
	}
	log, recovery, err := wal.Open(wal.Options{FS: s.disk, Dir: s.dir, StoreID: storeID,
		SegmentBytes: s.opt.SegmentBytes, FreeSegments: s.opt.FreeSegments,
		NoSync: s.opt.Sync == SyncNever, CheckpointPos: from, Released: s.released})
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	s.log = log
	if err := s.openWindows(); err != nil {
		return fmt.Errorf("open dedup windows: %w", err)
	}
	replayed := 0
	err = log.Replay(from, log.End(), func(r wal.Record) error {
		replayed++
		if err := s.st.Apply(r.Pos, r.Type, r.Payload); err != nil {
			return err
		}
		return s.maintainWindows(alreadySynced)
	})
	if err != nil {
		return fmt.Errorf("replay log: %w", err)
	}
	if err := s.checkWindows(); err != nil {
		return err
	}
	s.opt.Logger.Info("opened", "dir", s.dir, "from", from, "records", replayed,
		"torn_bytes", recovery.Torn)
	s.clock = newClock(s.st.Now)
	return s.beginTerm()
}

// beginTerm writes the term's number, and ends the sessions of consumers that are known to be gone.
// It returns when that is synced: only then can tokens of the term be handed out.
func (s *Store) beginTerm() error {
	now, before := s.clock.now(), s.st.Owner
	open := &state.Open{Now: now, Number: s.st.OpenNo + 1, Process: s.opt.Process}
	copied, err := s.identify(open)
	if err != nil {
		return err
	}
	if err := s.st.Do(open); err != nil {
		return err
	}
	records := []state.Record{open}
	for _, ss := range s.st.Sessions() {
		how := state.EndNone
		switch {
		case copied: // its consumer is with the original
			how = state.EndRestarted
		case !ss.Foreign || ss.Process != "" && ss.Process == before && before != s.opt.Process:
			how = state.EndRestarted
		case ss.Process != "" && !lockfile.Alive(ss.Process):
			how = state.EndLost
		}
		if how == state.EndNone {
			continue
		}
		end := &state.EndSession{Now: now, ID: ss.ID, How: how}
		if err := s.st.Do(end); err != nil {
			return err
		}
		records = append(records, end)
	}
	s.mu.Lock()
	group := s.append(records, true)
	s.mu.Unlock()
	<-group.Synced()
	return group.Err()
}

// Close takes a checkpoint and gives the directory up. What receivers still hold is handed out
// again by the next owner, with cause restarted for the store's own process.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.isClosed {
		s.mu.Unlock()
		return nil
	}
	s.isClosed = true
	fatal := s.fatal
	s.wakeAll()
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
	var err error
	if fatal == nil {
		err = s.takeCheckpoint()
	}
	err = errors.Join(err, s.log.Close(), s.disk.Close())
	if s.lock != nil {
		err = errors.Join(err, s.lock.Release())
	}
	return err
}

// Dir returns the directory.
func (s *Store) Dir() string { return s.dir }

// Done returns a channel that is closed when the store has stopped, by Close or by a fatal error.
func (s *Store) Done() <-chan struct{} { return s.ctx.Done() }

// Err returns the fatal error that stopped the store, wrapped in ErrFatal; nil = it runs, or was
// closed.
func (s *Store) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

// usable reports why nothing can be done any more. The caller holds mu.
func (s *Store) usable() error {
	switch {
	case s.fatal != nil:
		return s.fatal
	case s.isClosed:
		return fmt.Errorf("store %s: %w", s.dir, ackwise.ErrClosed)
	}
	return nil
}

// append puts applied records into the log, as one atomic unit. The caller holds mu, applied them
// in this order, and tells nobody of them before the group is released.
func (s *Store) append(records []state.Record, durable bool) *wal.Group {
	s.records, s.buf = s.records[:0], s.buf[:0]
	ends := make([]int, 0, 8)
	for _, r := range records {
		s.buf = r.Append(s.buf)
		ends = append(ends, len(s.buf))
	}
	begin := 0
	for i, r := range records {
		s.records = append(s.records, wal.Record{Type: r.Type(), Payload: s.buf[begin:ends[i]]})
		begin = ends[i]
	}
	return s.log.Append(s.records, durable)
}

// unlock wakes who has something to do after the state moved, and unlocks mu.
func (s *Store) unlock() {
	held := s.held
	s.wakeWaiters()
	next := s.st.NextWake()
	sooner := next != 0 && (s.tickAt == 0 || next < s.tickAt) || s.held && !held
	s.unlockWindows()
	if sooner {
		kick(s.kick)
	}
}

// unlockWindows unlocks mu after the windows moved, and has the disk's part of them done.
func (s *Store) unlockWindows() {
	busy := len(s.dedup.busy) > 0
	s.mu.Unlock()
	if busy {
		kick(s.dedup.kick)
	}
}

// wakeWaiters wakes one Receive for each subscription that has something to hand out. It wakes the
// next one when it has taken its part.
func (s *Store) wakeWaiters() {
	if len(s.waiters) > 0 && s.handOutRoom() == 0 {
		s.held = true // they stay touched; the tick loop looks again
		return
	}
	synced := s.log.Synced()
	s.st.Touched(func(q *state.Sub) (forget bool) {
		for i, w := range s.waiters[q] {
			if w.session.InFlight < w.max && s.st.CanHandOut(w.session, synced) {
				s.removeWaiter(q, i)
				close(w.ready)
				return true
			}
		}
		return len(s.waiters[q]) == 0 || !q.LineUnsynced(synced)
	})
}

// addWaiter counts it before it looks at the watermark, and released does it the other way round:
// one of the two sees the other.
func (s *Store) addWaiter(q *state.Sub, w *waiter) {
	s.waiters[q] = append(s.waiters[q], w)
	s.waiting.Add(1)
}

func (s *Store) removeWaiter(q *state.Sub, i int) {
	s.waiting.Add(-1)
	left := append(s.waiters[q][:i], s.waiters[q][i+1:]...)
	if len(left) == 0 {
		delete(s.waiters, q)
		return
	}
	s.waiters[q] = left
}

func (s *Store) wakeAll() {
	for q, ws := range s.waiters {
		for _, w := range ws {
			close(w.ready)
		}
		delete(s.waiters, q)
	}
	s.waiting.Store(0)
}

// released is called by the log, from its one place that releases, after each write and each sync.
// It takes mu only for a failure, which is final: the store stops, and is opened again from the
// disk. Publishers contend for mu, and a log that waited for it would keep them all waiting.
func (s *Store) released(_, synced uint64, err error) {
	if err != nil {
		s.mu.Lock()
		s.fatal = fmt.Errorf("%w: %w", ErrFatal, err)
		s.wakeAll()
		s.mu.Unlock()
		s.opt.Logger.Error("stopped", "dir", s.dir, "err", err)
		s.cancel()
		s.observe(ackwise.Event{Kind: "fatal", Err: err})
		return
	}
	if synced == s.told {
		return
	}
	s.told = synced
	if grown := s.grown.Load(); synced > grown && synced-grown >= uint64(s.opt.CheckpointBytes) {
		kick(s.checkpoint)
	}
	if s.waiting.Load() > 0 {
		kick(s.kick) // the tick loop wakes them
	}
}

// kick tells the reader of a channel of capacity 1 that there is something to do.
func kick(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// tickLoop makes happen what time alone brings about, and wakes the Receives for which a sync has
// made something ready. It sleeps until the next such time, and while there is none. On a full disk
// it looks for room once a second.
func (s *Store) tickLoop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	var look looking
	for s.ctx.Err() == nil {
		s.refill(&look)
		s.mu.Lock()
		if s.usable() != nil { // what moved now would be in no record
			s.mu.Unlock()
			return
		}
		now := s.clock.now()
		if records := s.st.Tick(now); len(records) > 0 {
			s.append(records, false)
			s.dedup.expireSets(s.st)
		}
		s.held = false
		s.wakeWaiters()
		next := look.before(s.st.NextWake(), s.held || !s.disk.Whole())
		s.tickAt = next
		s.unlockWindows()
		timer.Stop()
		if next != 0 {
			timer.Reset(time.Duration(max(next-now, 0)) * time.Millisecond)
		}
		select {
		case <-s.ctx.Done():
		case <-timer.C:
		case <-s.kick:
		case <-s.disk.Cuts():
		}
	}
}

func (s *Store) observe(e ackwise.Event) {
	if s.opt.Observe == nil {
		return
	}
	s.observing.Lock()
	defer s.observing.Unlock()
	e.Time = time.Now()
	s.opt.Observe(e)
}

// wait waits until a group is released: written, or synced where durable.
func wait(g *wal.Group, durable bool) error {
	if !durable {
		<-g.Written()
	} else {
		<-g.Synced()
	}
	return g.Err()
}

// clock is the store's time in milliseconds. It begins at the wall clock, or at the last time in
// the log where that is later, and runs on the monotonic clock.
type clock struct {
	base  int64
	start time.Time
}

func newClock(last int64) clock {
	start := time.Now()
	return clock{base: max(start.UnixMilli(), last), start: start}
}

func (c clock) now() int64 { return c.base + time.Since(c.start).Milliseconds() }

// wall is the wall clock's time at an engine time, for what people and consumers read.
func (c clock) wall(ms int64) time.Time {
	now := time.Now()
	return now.Add(time.Duration(ms-c.base)*time.Millisecond - now.Sub(c.start))
}

// lockedError tells in this package's words who owns the directory.
func lockedError(dir string, err error) error {
	if held, ok := errors.AsType[*lockfile.HeldError](err); ok {
		return &LockedError{Dir: dir, Owner: held.Info.String(), Socket: held.Info.Socket}
	}
	return fmt.Errorf("take ownership of the directory: %w", err)
}

// ProcessID names a running process (0 = this one) so that it cannot be taken for a later one of
// the same number: its pid and start time.
func ProcessID(pid int) string { return lockfile.ProcessID(pid) }

var discard = slog.New(slog.DiscardHandler)
