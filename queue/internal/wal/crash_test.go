package wal

import (
	"errors"
	"flag"
	"fmt"
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
	sent    []string
	units   []int // where in sent an atomic unit begins
	written int   // of sent, released as written
	synced  int   // of sent, released as synced
	freed   int   // of sent, the caller allowed the log to delete
}

// session opens the log and uses it until something fails; it returns that.
func (c *client) session(fs vfs.FS, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 7))
	l, rec, err := Open(testOptions(fs))
	if err != nil {
		return err
	}
	if err := c.forget(l, rec); err != nil {
		return errors.Join(err, l.Close())
	}
	for i := 0; i < 14 && err == nil; i++ {
		err = c.append(l, rng)
		if i == 9 && err == nil {
			err = c.remove(l)
		}
	}
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
		n = slices.Index(c.sent, got[len(got)-1]) + 1
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
		for i := range unit {
			p := fmt.Sprintf("%d-%d %s", len(c.sent), rng.Uint32(),
				strings.Repeat("p", rng.IntN(500)))
			unit[i] = Record{Type: byte(len(p)), Payload: []byte(p)}
			c.sent = append(c.sent, p)
		}
		groups = append(groups, l.Append(unit, rng.IntN(2) == 0))
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

// remove frees the oldest segment.
func (c *client) remove(l *Log) error {
	first := l.Segments()[0]
	last := ""
	err := l.Replay(first.Base, first.End, func(r Record) error {
		last = string(r.Payload)
		return nil
	})
	if err != nil {
		return err
	}
	for i, p := range c.sent {
		if p == last {
			c.freed = i + 1
		}
	}
	return l.Remove(first.ID)
}

// check opens what a crash left: everything released is there, in order, units whole, nothing else.
func (c *client) check(t *testing.T, disk *vfs.Mem, released int, what string) {
	t.Helper()
	l, _, err := Open(testOptions(disk))
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
		start = min(start, max(0, slices.Index(c.sent, got[0])))
	}
	end := start + len(got)
	if end < released && released > c.freed {
		t.Fatalf("%s: %d records to %d, but %d were released", what, len(got), end, released)
	}
	for i, p := range got {
		if start+i >= len(c.sent) || p != c.sent[start+i] {
			t.Fatalf("%s: record %d is %.30q, not what was sent", what, start+i, p)
		}
	}
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

func TestCrashAtEveryOperation(t *testing.T) {
	bubble(t, func(t *testing.T) {
		states := 0
		for n := 1; ; n++ {
			seed := *seedFlag + uint64(n)
			run := failAt(vfs.NewMem(), &client{}, &vfs.Fault{Op: vfs.OpAny, Changes: true, N: n,
				Onward: true, Err: errPower, Short: int(seed * 331 % 1500)}, *seedFlag)
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
		if states < 500 {
			t.Errorf("only %d crash states were reached", states)
		}
		t.Logf("%d crash states", states)
	})
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
		l, _, err := Open(testOptions(faults))
		if err == nil {
			_ = l.Close() // with the power off where the fault has struck since
		}
		if faults.Fired(first) == 0 {
			return k
		}
		disk = disk.CrashClone(rng)
		second := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: 1 + rng.IntN(8), Onward: true,
			Err: errPower}
		if l, _, err := Open(testOptions(vfs.NewFaults(disk, second))); err == nil {
			_ = l.Close()
		}
		disk = disk.CrashClone(rng)
		again := fmt.Sprint(what, ", then in recovery at ", k, " and again")
		run.c.check(t, disk.Clone(), run.c.synced, again)
		c := *run.c
		c.sent, c.units = slices.Clone(c.sent), slices.Clone(c.units)
		if err := c.session(disk, seed); err != nil {
			t.Fatalf("%s: the session after it: %v", again, err)
		}
		c.check(t, disk.CrashClone(rng), c.synced, again+", and a session")
	}
}

func TestEveryFailureOnceIsToldAndLosesNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ops := []vfs.Op{vfs.OpCreate, vfs.OpOpen, vfs.OpRename, vfs.OpRemove, vfs.OpMkdir,
			vfs.OpReadDir, vfs.OpSyncDir, vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpSize,
			vfs.OpClose}
		for _, op := range ops {
			fired := 0
			for n := 1; ; n++ {
				errno := []syscall.Errno{syscall.EIO, syscall.ENOSPC, syscall.EMFILE,
					syscall.EROFS}[n%4]
				run := failAt(vfs.NewMem(), &client{}, &vfs.Fault{Op: op, N: n, Err: errno,
					Short: n * 100 % 700}, *seedFlag)
				if !run.fired {
					break
				}
				fired++
				what := fmt.Sprintf("call %d of kind %d failed once with %v", n, op, errno)
				if run.err == nil && op != vfs.OpClose {
					t.Fatalf("%s, and nobody was told", what)
				}
				run.c.check(t, run.disk.Clone(), run.c.written, what)
				rng := rand.New(rand.NewPCG(*seedFlag, uint64(n)))
				run.c.check(t, run.disk.CrashClone(rng), run.c.synced, what+", then a power cut")
			}
			if fired == 0 {
				t.Errorf("no call of kind %d was reached", op)
			}
		}
	})
}
