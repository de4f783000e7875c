package wal

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

var (
	seedFlag  = flag.Uint64("seed", 1, "first seed of the crash tests")
	seedsFlag = flag.Int("seeds", 6, "crash states tried at each operation")
)

var errPower = errors.New("the power is off")

// client is the oracle: its own list of what it appended and what it was told.
type client struct {
	free    int // Options.FreeSegments
	sent    []sent
	units   []int        // where in sent an atomic unit begins
	written int          // of sent, released as written
	synced  int          // of sent, released as synced
	freed   int          // of sent, the caller allowed the log to give up, all but the kept ones
	kept    map[int]bool // of sent before freed: what a compaction has to keep
	reused  int          // segments that were written to a recycled file
	sparse  int          // compactions that succeeded
}

type sent struct {
	payload string
	pos     uint64
}

func (c *client) options(fs vfs.FS) Options {
	o := testOptions(fs)
	o.FreeSegments = c.free
	return o
}

func (c *client) clone() *client {
	to := *c
	to.sent, to.units, to.kept = slices.Clone(c.sent), slices.Clone(c.units), maps.Clone(c.kept)
	return &to
}

// index returns which of sent a payload is; -1 = none.
func (c *client) index(payload string) int {
	return slices.IndexFunc(c.sent, func(s sent) bool { return s.payload == payload })
}

// session opens the log and uses it until something fails; it returns that.
func (c *client) session(fs vfs.FS, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	l, rec, err := Open(c.options(fs))
	if err != nil {
		return err
	}
	if err := c.forget(l, rec); err != nil {
		return errors.Join(err, l.Close())
	}
	for i := 0; i < 14 && err == nil; i++ {
		err = c.append(l, rng)
		switch {
		case err != nil:
		case i == 4 || i == 7 || i == 12:
			err = c.compact(l, i)
		case i == 6 || i == 10:
			err = c.remove(l)
		}
	}
	l.mu.Lock()
	for _, s := range l.segments {
		if s.found > 0 && s.info.Epoch == l.epoch {
			c.reused++
		}
	}
	l.mu.Unlock()
	return errors.Join(err, l.Close())
}

// forget forgets what was never released and is not there after a crash: it will not come back.
func (c *client) forget(l *Log, rec Recovery) error {
	got, err := contents(l)
	if err != nil || rec.New {
		return err
	}
	n := c.freed
	if len(got) > 0 {
		n = c.index(got[len(got)-1]) + 1
	}
	if n >= c.synced {
		c.sent = c.sent[:n]
		c.written, c.synced = n, n
		c.units = slices.DeleteFunc(c.units, func(u int) bool { return u >= n })
	}
	return nil
}

func (c *client) append(l *Log, rng *rand.Rand) error {
	var groups []*Group
	var ends []int
	for range 1 + rng.IntN(3) { // some share a group
		unit := make([]Record, 1+rng.IntN(3))
		c.units = append(c.units, len(c.sent))
		first := len(c.sent)
		for i := range unit {
			p := fmt.Sprintf("%d-%d %s", len(c.sent), rng.Uint32(),
				strings.Repeat("p", rng.IntN(500)))
			unit[i] = Record{Type: byte(len(p)), Payload: []byte(p)}
			c.sent = append(c.sent, sent{payload: p})
		}
		groups = append(groups, l.Append(unit, rng.IntN(2) == 0))
		for i := range unit {
			c.sent[first+i].pos = unit[i].Pos
		}
		ends = append(ends, len(c.sent))
	}
	for i, g := range groups {
		<-g.Written()
		if g.Err() != nil {
			return g.Err()
		}
		c.written = ends[i]
		if g.durable {
			<-g.Synced()
			if g.Err() != nil {
				return g.Err()
			}
			c.synced = ends[i]
		}
	}
	return nil
}

// letGo allows the log to give up what stands before a position, and keeps nothing of it but kept.
func (c *client) letGo(end uint64, kept map[int]bool) {
	for i, r := range c.sent {
		if r.pos < end {
			c.freed = max(c.freed, i+1)
		} else if c.kept[i] {
			kept[i] = true
		}
	}
	c.kept = kept
}

// remove frees the oldest segment.
func (c *client) remove(l *Log) error {
	first := l.Segments()[0]
	c.letGo(first.End, map[int]bool{})
	return l.Remove(first.ID)
}

// compact puts the three oldest sealed segments together, and keeps two of three records.
func (c *client) compact(l *Log, round int) error {
	infos := l.Segments()
	infos = infos[:min(3, len(infos)-1)]
	if len(infos) == 0 {
		return nil
	}
	var ids []SegmentID
	for _, s := range infos {
		ids = append(ids, s.ID)
	}
	end := infos[len(infos)-1].End
	kept := map[int]bool{}
	var positions []uint64
	for i, r := range c.sent {
		if r.pos < end && (i >= c.freed || c.kept[i]) && (i+round)%3 > 0 {
			kept[i] = true
			positions = append(positions, r.pos)
		}
	}
	c.letGo(end, kept)
	if len(positions) == 0 {
		return l.Remove(ids...)
	}
	err := l.Compact(ids, positions)
	if err == nil {
		c.sparse++
	}
	return err
}

// check opens what a crash left: everything released is there, in order, units whole, nothing else;
// of what was given up, the kept records are there, and the others are there or not kept.
func (c *client) check(t *testing.T, disk *vfs.Mem, released int, what string) {
	t.Helper()
	l, _, err := Open(c.options(disk))
	if err != nil {
		t.Fatalf("%s: Open: %v", what, err)
	}
	defer mustClose(t, l)
	got, err := contents(l)
	if err != nil {
		t.Fatalf("%s: Replay: %v", what, err)
	}
	start := c.freed // what the caller freed may be there or not
	if len(got) > 0 {
		start = min(start, max(0, c.index(got[0])))
	}
	end := start + len(got)
	if end < released && released > c.freed {
		t.Fatalf("%s: %d records to %d, but %d were released", what, len(got), end, released)
	}
	for i, p := range got {
		if start+i >= len(c.sent) || p != c.sent[start+i].payload {
			t.Fatalf("%s: record %d is %.30q, not what was sent", what, start+i, p)
		}
	}
	c.checkKept(t, l, what)
	c.checkFiles(t, l, disk, what)
	if end < len(c.sent) {
		for i, v := range slices.Backward(c.units) {
			if v < end {
				next := len(c.sent)
				if i+1 < len(c.units) {
					next = c.units[i+1]
				}
				if end != next {
					t.Fatalf("%s: the log ends at %d, inside the unit %d to %d", what, end,
						v, next)
				}
				break
			}
		}
	}
}

// checkFiles looks for files that nobody needs.
func (c *client) checkFiles(t *testing.T, l *Log, disk *vfs.Mem, what string) {
	t.Helper()
	logs, free := files(t, disk, segmentSuffix), files(t, disk, freeSuffix)
	// On a slow machine the log may be idle for a second, and write its list now.
	temp := slices.DeleteFunc(files(t, disk, tempSuffix),
		func(name string) bool { return name == manifestName+tempSuffix })
	if len(logs) != len(l.Segments()) || len(free) != len(l.free) ||
		len(free) > max(0, c.free) || len(temp) > 0 {
		t.Fatalf("%s: files %q, %q and %q, %d segments, %d free", what, logs, free, temp,
			len(l.Segments()), len(l.free))
	}
}

func (c *client) checkKept(t *testing.T, l *Log, what string) {
	t.Helper()
	var positions []uint64
	for _, r := range c.sent[:c.freed] {
		positions = append(positions, r.pos)
	}
	l.ReadBatch(positions, nil, func(i int, r Record, err error) {
		switch {
		case NotKept(err) && !c.kept[i]:
		case err != nil:
			t.Errorf("%s: record %d of the given up ones: %v", what, i, err)
		case string(r.Payload) != c.sent[i].payload || r.Pos != c.sent[i].pos:
			t.Errorf("%s: record %d is %.30q, not what was sent", what, i, r.Payload)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
}

// failing is one run that fails at the n-th operation that changes the disk.
type failing struct {
	disk  *vfs.Mem
	c     *client
	fired bool
	err   error
}

func failAt(disk *vfs.Mem, c *client, f *vfs.Fault, seed uint64) failing {
	faults := vfs.NewFaults(disk, f)
	err := c.session(faults, seed)
	if err == nil {
		err = c.session(faults, seed+1)
	}
	return failing{disk, c, faults.Fired(f) > 0, err}
}

// modes are the ways in which a history runs: with and without recycled files.
var modes = []struct {
	name string
	free int
}{{"recycling", 2}, {"growing", NoFreeSegments}}

func TestCrashAtEveryOperation(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { crashAtEveryOperation(t, mode.free) })
		})
	}
}

func crashAtEveryOperation(t *testing.T, free int) {
	states := 0
	var last *client
	for n := 1; ; n++ {
		seed := *seedFlag + uint64(n)
		run := failAt(vfs.NewMem(), &client{free: free}, &vfs.Fault{Op: vfs.OpAny, Changes: true,
			N: n, Onward: true, Err: errPower, Short: int(seed * 331 % 1500)}, *seedFlag)
		last = run.c
		if !run.fired {
			break
		}
		if !errors.Is(run.err, errPower) {
			t.Fatalf("operation %d failed, and the client was told %v", n, run.err)
		}
		what := fmt.Sprintf("go test -run %s -seed %d: operation %d", t.Name(), *seedFlag, n)
		run.c.check(t, run.disk.Clone(), run.c.written, what+", killed")
		for s := range *seedsFlag {
			rng := rand.New(rand.NewPCG(seed, uint64(s)))
			run.c.check(t, run.disk.CrashClone(rng), run.c.synced,
				fmt.Sprint(what, ", power cut ", s))
			states++
		}
		states += crashInRecovery(t, run, seed, what)
	}
	if states < 500 || last.sparse < 6 || (last.reused > 0) != (free > 0) {
		t.Errorf("%d crash states; the whole history had %d compactions and %d recycled files",
			states, last.sparse, last.reused)
	}
	t.Logf("%d crash states, %d compactions and %d recycled files in the whole history", states,
		last.sparse, last.reused)
}

// crashInRecovery cuts the power in each operation of the Open after a crash, and once more in the
// Open after that, and then goes on writing.
func crashInRecovery(t *testing.T, run failing, seed uint64, what string) int {
	t.Helper()
	for k := 1; ; k++ {
		rng := rand.New(rand.NewPCG(seed, 1000+uint64(k)))
		first := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: k, Onward: true, Err: errPower,
			Short: int(rng.Uint32() % 600)}
		disk := run.disk.CrashClone(rng)
		faults := vfs.NewFaults(disk, first)
		l, _, err := Open(run.c.options(faults))
		if err == nil {
			_ = l.Close() // with the power off where the fault has struck since
		}
		if faults.Fired(first) == 0 {
			return k
		}
		disk = disk.CrashClone(rng)
		second := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: 1 + rng.IntN(8), Onward: true,
			Err: errPower}
		if l, _, err := Open(run.c.options(vfs.NewFaults(disk, second))); err == nil {
			_ = l.Close()
		}
		disk = disk.CrashClone(rng)
		again := fmt.Sprint(what, ", then in recovery at ", k, " and again")
		run.c.check(t, disk.Clone(), run.c.synced, again)
		c := run.c.clone()
		if err := c.session(disk, seed); err != nil {
			t.Fatalf("%s: the session after it: %v", again, err)
		}
		c.check(t, disk.CrashClone(rng), c.synced, again+", and a session")
	}
}

func TestEveryFailureOnceIsToldAndLosesNothing(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) { everyFailureOnce(t, mode.free) })
		})
	}
}

func everyFailureOnce(t *testing.T, free int) {
	ops := []vfs.Op{vfs.OpCreate, vfs.OpOpen, vfs.OpRename, vfs.OpRemove, vfs.OpMkdir,
		vfs.OpReadDir, vfs.OpSyncDir, vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpSize,
		vfs.OpClose}
	for _, op := range ops {
		fired, told := 0, 0
		for n := 1; ; n++ {
			errno := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE,
				syscall.EROFS}[n%4]
			run := failAt(vfs.NewMem(), &client{free: free}, &vfs.Fault{Op: op, N: n, Err: errno,
				Short: n * 100 % 700}, *seedFlag)
			if !run.fired {
				break
			}
			fired++
			what := fmt.Sprintf("call %d of kind %d failed once with %v", n, op, errno)
			if run.err != nil {
				told++
			} else if op != vfs.OpClose && op != vfs.OpRead { // a batch is read again singly
				t.Fatalf("%s, and nobody was told", what)
			}
			run.c.check(t, run.disk.Clone(), run.c.written, what)
			rng := rand.New(rand.NewPCG(*seedFlag, uint64(n)))
			run.c.check(t, run.disk.CrashClone(rng), run.c.synced, what+", then a power cut")
		}
		if told == 0 {
			t.Errorf("%d calls of kind %d failed, and %d were told", fired, op, told)
		}
	}
}
