package queue

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/dedup"
	"github.com/ackwise/ackwise/queue/internal/state"
)

// maintainPause is how long a store waits before it tries again to write what the disk refused.
const maintainPause = time.Second

// windows hold the IDs that producers gave, for each topic that remembers them, and the keys that
// are done, for each dedup set. They follow the state's records, live and at replay, and are no
// part of what is compared.
type windows struct {
	fs      vfs.FS
	dir     string
	storeID [16]byte
	bucket  int                        // Options.bucketIDs
	saved   map[uint32]*dedup.Snapshot // of the checkpoint, by number, until they are opened

	made   atomic.Uint64 // grows with each topic that is made or deleted, and each set that is made
	byName sync.Map      // topic's name → *dedup.Window, for probes without the lock
	bySet  sync.Map      // dedup set's name → *dedup.Window, likewise
	kick   chan struct{} // capacity 1: some window is busy

	// Guarded by Store.mu.
	byID map[uint32]*dedup.Window   // topics and sets do not share numbers
	busy map[*dedup.Window]struct{} // those with something to write or to remove
}

// TopicMade is called by the state, see its Tell.
func (d *windows) TopicMade(t *state.Topic) {
	if t.Config.DedupMillis > 0 {
		d.put(&d.byName, t.Name, dedup.New(d.topicOptions(t)))
	}
}

// TopicDeleted is called by the state, see its Tell.
func (d *windows) TopicDeleted(t *state.Topic) {
	w := d.byID[t.ID]
	if w == nil {
		return
	}
	w.Drop()
	d.note(w)
	delete(d.byID, t.ID)
	d.byName.Delete(t.Name)
	d.made.Add(1)
}

// Accepted is called by the state, see its Tell.
func (d *windows) Accepted(t *state.Topic, r *state.Publish, pos uint64) {
	w := d.byID[t.ID]
	w.Add(r.Message.ID, dedup.Seen{Pos: pos, Sum: sumOf(&r.Message), At: r.Now})
	d.note(w)
}

// SetMade is called by the state, see its Tell.
func (d *windows) SetMade(x *state.Set) {
	if w := d.byID[x.ID]; w != nil {
		w.Bound(x.MaxKeys())
		return
	}
	d.put(&d.bySet, x.Name, dedup.New(d.setOptions(x)))
}

// KeyDone is called by the state, see its Tell.
func (d *windows) KeyDone(x *state.Set, key string, sum, pos uint64) {
	w := d.byID[x.ID]
	w.Add(key, dedup.Seen{Pos: pos, Sum: sum, At: x.Last()})
	d.note(w)
}

// expireSets lets go of what is out of the windows of sets at the time of the last record. Where
// keys come, they let go of the old ones; this is for sets that nobody uses.
func (d *windows) expireSets(st *state.State) {
	for _, x := range st.Sets() {
		w := d.byID[x.ID]
		w.Expire(st.Now)
		d.note(w)
	}
}

func (d *windows) topicOptions(t *state.Topic) dedup.Options {
	return dedup.Options{FS: d.fs, Dir: d.dir, StoreID: d.storeID, Topic: t.ID,
		WindowMillis: t.Config.DedupMillis, MaxIDs: t.Config.MaxDedupIDs, BucketIDs: d.bucket}
}

func (d *windows) setOptions(x *state.Set) dedup.Options {
	return dedup.Options{FS: d.fs, Dir: d.dir, StoreID: d.storeID, Topic: x.ID,
		WindowMillis: x.WindowMillis(), MaxIDs: x.MaxKeys(), BucketIDs: d.bucket}
}

func (d *windows) put(names *sync.Map, name string, w *dedup.Window) {
	d.byID[w.Owner()] = w
	names.Store(name, w)
	d.made.Add(1)
}

// note remembers a window that has something to write or to remove.
func (d *windows) note(w *dedup.Window) {
	if w.Busy() {
		d.busy[w] = struct{}{}
	}
}

// probe asks the closed buckets of a message's topic for its ID, without the lock. The answer is
// worth something as long as made does not move.
func (d *windows) probe(m *ackwise.Message, now int64) dedup.Probe {
	if m.ID == "" {
		return dedup.Probe{}
	}
	w, ok := d.byName.Load(m.Topic)
	if !ok {
		return dedup.Probe{}
	}
	return w.(*dedup.Window).Probe(m.ID, now)
}

// known completes a probe: whether the ID is known, or why the topic takes no new one; adding are
// planned beside it. The caller holds Store.mu.
func (d *windows) known(t *state.Topic, p *dedup.Probe, now int64, adding int) (dedup.Seen, bool,
	error) {
	w := d.byID[t.ID]
	if w == nil {
		return dedup.Seen{}, false, nil
	}
	seen, known, err := w.Confirm(p, now)
	if err != nil {
		return seen, false, fmt.Errorf("look for the message ID: %w", d.explain(err))
	}
	if !known {
		if err = w.Full(now, adding); err != nil {
			d.note(w)
			err = fmt.Errorf("topic %s: %w: %w", t.Name, err, ackwise.ErrFull)
		}
	}
	return seen, known, err
}

// explain tells in this package's words what is wrong with a bucket's file.
func (d *windows) explain(err error) error {
	if e, ok := errors.AsType[*dedup.DamageError](err); ok {
		return &CorruptionError{Dir: d.dir, Segment: filepath.Base(e.File), Offset: e.Offset,
			Err: e.Err}
	}
	if e, ok := errors.AsType[*dedup.VersionError](err); ok {
		return &FormatError{File: e.File, Found: e.Found, Supported: e.Supported}
	}
	return err
}

// probeAll asks for the IDs of the messages that are not refused yet. The answers hold under the
// lock if made is then what is returned.
func (s *Store) probeAll(ps []publishing, results []ackwise.Result) (made uint64) {
	made = s.dedup.made.Load()
	now := int64(-1)
	for i := range ps {
		if ps[i].m.ID == "" || results[i].Err != nil {
			continue
		}
		if now < 0 {
			now = s.clock.now()
		}
		ps[i].probe = s.dedup.probe(ps[i].m, now)
	}
	return made
}

// commitProbes are what was known of a transaction's IDs and keys before the mutex was taken.
type commitProbes struct {
	publish []dedup.Probe
	once    map[string][]dedup.Probe // by dedup set
	made    uint64
}

// probeCommit is probeAll for a transaction.
func (s *Store) probeCommit(c *Commit) commitProbes {
	p := commitProbes{made: s.dedup.made.Load(), publish: make([]dedup.Probe, len(c.Publish)),
		once: s.probeOnce(c)}
	now := s.clock.now()
	for i := range c.Publish {
		p.publish[i] = s.dedup.probe(&c.Publish[i], now)
	}
	return p
}

// dedupIDs counts the IDs that a topic remembers. The caller holds mu.
func (s *Store) dedupIDs(t *state.Topic) int64 {
	if w := s.dedup.byID[t.ID]; w != nil {
		return int64(w.Count(s.clock.now()))
	}
	return 0
}

// openWindows opens the windows of the checkpoint's topics and sets, removes the files that no
// window lists, and has the state tell the windows what follows.
func (s *Store) openWindows() error {
	d := &s.dedup
	d.fs, d.dir, d.storeID, d.bucket = s.fs, s.dir, s.log.StoreID(), s.opt.bucketIDs
	d.byID, d.busy = make(map[uint32]*dedup.Window), make(map[*dedup.Window]struct{})
	open := func(names *sync.Map, name string, o dedup.Options) error {
		saved := d.saved[o.Topic]
		if saved == nil {
			return badCheckpoint(s.dir, checkpointName(s.grown.Load()), 0,
				fmt.Errorf("it holds no dedup window of %s", name))
		}
		w, err := dedup.Open(o, saved)
		if err != nil {
			return d.explain(err)
		}
		d.put(names, name, w)
		d.note(w)
		return nil
	}
	for _, t := range s.st.Topics() {
		if t.Config.DedupMillis == 0 {
			continue
		}
		if err := open(&d.byName, t.Name, d.topicOptions(t)); err != nil {
			return err
		}
	}
	for _, x := range s.st.Sets() {
		if err := open(&d.bySet, x.Name, d.setOptions(x)); err != nil {
			return err
		}
	}
	listed := slices.Collect(maps.Values(d.saved))
	d.saved = nil
	s.st.Tell(d)
	return dedup.RemoveUnlisted(s.fs, s.dir, listed)
}

// checkWindows reports a bucket's file that is missing and that the log does not allow to be.
func (s *Store) checkWindows() error {
	for _, w := range s.dedup.byID {
		if err := w.Check(s.st.Now); err != nil {
			return fmt.Errorf("open dedup windows: %w", s.dedup.explain(err))
		}
	}
	return nil
}

// dedupLoop does the disk's part of the windows.
func (s *Store) dedupLoop() {
	pause := time.NewTimer(maintainPause)
	defer pause.Stop()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.dedup.kick:
		}
		err := s.maintainWindows(s.syncAll)
		if err == nil || s.ctx.Err() != nil {
			continue
		}
		s.opt.Logger.Error("maintain dedup windows", "dir", s.dir, "err", err)
		pause.Reset(maintainPause)
		select {
		case <-s.ctx.Done():
			return
		case <-pause.C:
		}
	}
}

// maintainWindows writes and removes the files of the busy windows. synced returns when all that
// was applied is synced.
func (s *Store) maintainWindows(synced func() error) error {
	s.mu.Lock()
	busy := slices.Collect(maps.Keys(s.dedup.busy))
	clear(s.dedup.busy)
	s.mu.Unlock()
	var failed []error
	for _, w := range busy {
		err := w.Maintain(&s.mu, synced)
		failed = append(failed, err)
		if err != nil {
			s.mu.Lock()
			s.dedup.note(w)
			s.mu.Unlock()
		}
	}
	return errors.Join(failed...)
}

// alreadySynced is for the time of replay.
func alreadySynced() error { return nil }

// syncAll returns when everything is synced that was applied so far.
func (s *Store) syncAll() error {
	s.mu.Lock()
	err := s.fatal
	if err != nil {
		s.mu.Unlock()
		return err
	}
	group := s.append(nil, true)
	s.mu.Unlock()
	return wait(group, true)
}

// snapshotWindows notes the windows for a checkpoint. The caller holds mu.
func (s *Store) snapshotWindows() []*dedup.Snapshot {
	all := make([]*dedup.Snapshot, 0, len(s.dedup.byID))
	for _, id := range slices.Sorted(maps.Keys(s.dedup.byID)) {
		w := s.dedup.byID[id]
		w.Expire(s.st.Now)
		s.dedup.note(w)
		all = append(all, w.Snapshot())
	}
	return all
}

// sections are what a checkpoint holds: the length of the windows, the windows, the state. The
// windows stand first because their length is known before they are written.
type sections struct {
	windows []*dedup.Snapshot
	state   *state.Snapshot
}

// version is the lowest format that holds it all.
func (c sections) version() uint32 {
	if c.state.Sets {
		return checkpointVersion
	}
	return 1
}

// WriteTo implements io.WriterTo.
func (c sections) WriteTo(w io.Writer) (n int64, err error) {
	length := int64(0)
	for _, snapshot := range c.windows {
		length += snapshot.Size()
	}
	k, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(length)))
	n = int64(k)
	for _, snapshot := range c.windows {
		if err != nil {
			return n, err
		}
		length, err = snapshot.WriteTo(w)
		n += length
	}
	if err != nil {
		return n, err
	}
	length, err = c.state.WriteTo(w)
	return n + length, err
}

// loadSections reads n bytes that sections wrote: the windows by a function, and the state into an
// empty one.
func loadSections(st *state.State, r io.Reader, n int64,
	windows func(*bufio.Reader) error) error {
	left, err := readWindows(r, n, windows)
	if err != nil {
		return err
	}
	return st.Load(r, left)
}

// readWindows reads the windows' section of n bytes that sections wrote, and returns how many bytes
// of the state follow.
func readWindows(r io.Reader, n int64, windows func(*bufio.Reader) error) (left int64, err error) {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, err
	}
	length := binary.LittleEndian.Uint64(b[:])
	if n -= int64(len(b)); length > uint64(n) {
		return 0, errors.New("the dedup windows are longer than the file")
	}
	in := bufio.NewReaderSize(io.LimitReader(r, int64(length)), 64<<10)
	return n - int64(length), windows(in)
}

// passOver reads windows that nobody asks for.
func passOver(in *bufio.Reader) error {
	_, err := io.Copy(io.Discard, in)
	return err
}

// read reads the windows of a checkpoint.
func (d *windows) read(in *bufio.Reader) error {
	d.saved = make(map[uint32]*dedup.Snapshot)
	for {
		if _, err := in.Peek(1); errors.Is(err, io.EOF) {
			return nil
		}
		snapshot, err := dedup.ReadSnapshot(in)
		if err != nil {
			return err
		}
		d.saved[snapshot.Topic()] = snapshot
	}
}

// sumOf tells a message's content from another's under the same ID: its body and its key.
func sumOf(m *ackwise.Message) uint64 {
	var tag [9]byte
	binary.LittleEndian.PutUint64(tag[:], uint64(len(m.Body)))
	if m.Body == nil {
		tag[8] = 1
	}
	a := crc32.Update(crc32.Checksum(m.Body, crcTable), crcTable, tag[:])
	b := crc32.Update(crc32.ChecksumIEEE(m.Body), crc32.IEEETable, []byte(m.Key))
	return uint64(a)<<32 | uint64(b)
}
