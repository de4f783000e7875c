package reserve

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise/internal/vfs"
)

const (
	testDir  = "/store"
	testSize = 8 * stepBytes
)

// disk is a file system of so many bytes beside a whole reserve, with the reserve open.
func disk(t *testing.T, beside int64, faults ...*vfs.Fault) (*vfs.Mem, *vfs.Faults, *FS) {
	t.Helper()
	m := vfs.NewMem()
	must(t, m.MkdirAll(testDir))
	m.SetCapacity(testSize + beside)
	f := vfs.NewFaults(m, faults...)
	r, err := Open(f, testDir, testSize)
	must(t, err)
	if !r.Whole() || r.Left() != testSize {
		t.Fatalf("a fresh reserve has %d bytes", r.Left())
	}
	return m, f, r
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantLeft(t *testing.T, r *FS, want int64) {
	t.Helper()
	if r.Left() != want {
		t.Errorf("%d bytes of the reserve are left, want %d", r.Left(), want)
	}
}

// A write that does not fit takes from the reserve what it needs, at least a step, and is made
// again whole. When space is back, the reserve is whole again.
func TestCutsUntilItFits(t *testing.T) {
	m, _, r := disk(t, 1000)
	f, err := r.Create(testDir + "/log")
	must(t, err)
	text := bytes.Repeat([]byte("0123456789"), 200) // half of it fits
	n, err := f.WriteAt(text, 0)
	if must(t, err); n != len(text) {
		t.Fatalf("%d bytes written", n)
	}
	wantLeft(t, r, testSize-stepBytes)
	large := make([]byte, 3*stepBytes)
	_, err = f.WriteAt(large, int64(len(text)))
	must(t, err)
	wantLeft(t, r, testSize-4*stepBytes)
	b, err := m.ReadFile(testDir + "/log")
	if must(t, err); !bytes.Equal(b, append(text, large...)) {
		t.Error("the file does not hold what was written")
	}
	select {
	case <-r.Cuts():
	default:
		t.Error("nobody was told that the reserve is used")
	}
	must(t, r.Refill())
	wantLeft(t, r, testSize-4*stepBytes) // there is no room
	m.SetCapacity(-1)
	must(t, r.Refill())
	if !r.Whole() {
		t.Errorf("with room again it has %d bytes", r.Left())
	}
	must(t, r.Close())
}

// A call fails once the reserve is used up, and not before.
func TestUsedUp(t *testing.T) {
	_, _, r := disk(t, 0)
	f, err := r.Create(testDir + "/log")
	must(t, err)
	block := make([]byte, stepBytes/4)
	written := int64(0)
	for ; ; written += int64(len(block)) {
		if _, err = f.WriteAt(block, written); err != nil {
			break
		}
	}
	if !errors.Is(err, syscall.ENOSPC) || written != testSize || r.Left() != 0 {
		t.Errorf("%d bytes written with a reserve of %d, %d left: %v", written, testSize,
			r.Left(), err)
	}
	_, err = r.Create(testDir + "/other")
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("create on a full disk: %v", err)
	}
}

// Every call that needs room falls back on the reserve, however often it finds none; any other
// error and a failed sync go through at once.
func TestWhichCalls(t *testing.T) {
	calls := map[vfs.Op]func(r *FS, f vfs.File) error{
		vfs.OpCreate: func(r *FS, _ vfs.File) error {
			f, err := r.Create(testDir + "/new")
			if err == nil {
				err = f.Close()
			}
			return err
		},
		vfs.OpRename: func(r *FS, _ vfs.File) error {
			return r.Rename(testDir+"/log", testDir+"/renamed")
		},
		vfs.OpSyncDir: func(r *FS, _ vfs.File) error { return r.SyncDir(testDir) },
		vfs.OpWrite: func(_ *FS, f vfs.File) error {
			_, err := f.WriteAt([]byte("x"), 0)
			return err
		},
		vfs.OpAllocate: func(_ *FS, f vfs.File) error { return f.Allocate(100) },
		vfs.OpSync:     func(_ *FS, f vfs.File) error { return f.Sync() },
	}
	for op, call := range calls {
		for _, errno := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO} {
			for times := 1; times <= 5; times += 2 {
				m, faults, r := disk(t, 1<<20)
				f, err := m.Create(testDir + "/log")
				must(t, err)
				must(t, f.Close())
				f, err = r.Edit(testDir + "/log")
				must(t, err)
				var set []*vfs.Fault
				for n := range times {
					set = append(set, &vfs.Fault{Op: op, N: n + 1, Err: errno})
				}
				for i := range set {
					faults.Set(set[i])
				}
				err = call(r, f)
				fired := 0
				for _, s := range set {
					fired += faults.Fired(s)
				}
				wantFired, wantErr, cuts := times, false, (times+1)/2
				if op == vfs.OpSync || errors.Is(errno, syscall.EIO) {
					wantFired, wantErr, cuts = 1, true, 0
				}
				if (err != nil) != wantErr || fired != wantFired {
					t.Errorf("call %d, %d times %v: %v after %d", op, times, errno, err, fired)
				}
				wantLeft(t, r, testSize-int64(cuts)*stepBytes)
			}
		}
	}
}

// A view that spares leaves the others what they need, of the disk's room too, and a write that may
// not take all that it needs takes nothing.
func TestSparing(t *testing.T) {
	m, _, r := disk(t, 0)
	floor := int64(6 * stepBytes)
	s := r.Sparing(func() int64 { return floor })
	f, err := s.Create(testDir + "/checkpoint")
	must(t, err)
	_, err = f.WriteAt(make([]byte, 3*stepBytes), 0)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write into what is spared: %v", err)
	}
	wantLeft(t, r, testSize-stepBytes)
	if b, err := m.ReadFile(testDir + "/checkpoint"); len(b) > 0 || err != nil {
		t.Errorf("it took %d bytes, %v", len(b), err)
	}
	_, err = f.WriteAt(make([]byte, 2*stepBytes), 0)
	must(t, err)
	if free, err := m.FreeBytes(testDir); free+r.Left() != floor || err != nil {
		t.Errorf("%d bytes are left, want %d", free+r.Left(), floor)
	}
	_, err = f.WriteAt([]byte("x"), 2*stepBytes)
	if !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a byte of what is spared: %v", err)
	}
	if _, err := s.Create(testDir + "/other"); err != nil {
		t.Error(err)
	}
	floor++
	if _, err := s.Create(testDir + "/third"); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a file: %v", err)
	}
	g, err := r.Create(testDir + "/log")
	must(t, err)
	_, err = g.WriteAt(make([]byte, 6*stepBytes), 0)
	must(t, err)
	wantLeft(t, r, 0)
}

// Room wanted ahead is taken from the reserve only where the reserve has all of it.
func TestAllocate(t *testing.T) {
	_, _, r := disk(t, 0)
	f, err := r.Create(testDir + "/log")
	must(t, err)
	before := r.Left()
	if err := f.Allocate(testSize + stepBytes); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("more than the reserve: %v", err)
	}
	wantLeft(t, r, before)
	must(t, f.Allocate(2*stepBytes))
	if size, err := f.Size(); err != nil || size != 2*stepBytes {
		t.Errorf("%d bytes allocated, %v", size, err)
	}
}

// The reserve that is found is taken up as far as there is room.
func TestOpen(t *testing.T) {
	for name, c := range map[string]struct {
		found, capacity, want int64 // found < 0: no file
	}{
		"missing, room":    {-1, -1, testSize},
		"missing, no room": {-1, testSize - 1, 0},
		"missing, no byte": {-1, 0, 0},
		"short, room":      {stepBytes, -1, testSize},
		"short, no room":   {stepBytes, testSize - 1, stepBytes},
		"short, no byte":   {stepBytes, stepBytes, stepBytes},
		"empty, no byte":   {0, 0, 0},
		"whole, no byte":   {testSize, testSize, testSize},
		"long, no byte":    {testSize + 5, testSize + 5, testSize},
	} {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			must(t, m.MkdirAll(testDir))
			if c.found >= 0 {
				f, err := m.Create(testDir + "/" + Name)
				must(t, err)
				must(t, f.Allocate(c.found))
				must(t, f.Close())
			}
			m.SetCapacity(c.capacity)
			r, err := Open(m, testDir, testSize)
			must(t, err)
			wantLeft(t, r, c.want)
			b, err := m.ReadFile(testDir + "/" + Name)
			if int64(len(b)) != c.want || (err != nil) != (c.found < 0 && c.want == 0) {
				t.Errorf("the file has %d bytes, %v", len(b), err)
			}
			m.SetCapacity(-1)
			must(t, r.Refill())
			wantLeft(t, r, testSize)
			must(t, r.Close())
		})
	}
}

// Where the file system cannot sync, that is said, and nothing is left behind.
func TestNoSync(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpSyncDir} {
		for _, errno := range []error{syscall.EINVAL, syscall.ENOSYS, syscall.ENOTSUP,
			syscall.EOPNOTSUPP} {
			m := vfs.NewMem()
			must(t, m.MkdirAll(testDir))
			fault := &vfs.Fault{Op: op, N: 1, Onward: true, Err: errno}
			f := vfs.NewFaults(m, fault)
			_, err := Open(f, testDir, testSize)
			if !errors.Is(err, ErrNoSync) || !errors.Is(err, errno) || f.Fired(fault) == 0 {
				t.Errorf("%v: %v", errno, err)
			}
			if names, err := m.ReadDir(testDir); err != nil || len(names) > 0 {
				t.Errorf("%v: %v is left behind, %v", errno, names, err)
			}
			r, err := Open(m, testDir, testSize)
			must(t, err)
			must(t, r.Close())
			_, err = Open(vfs.NewFaults(m, &vfs.Fault{Op: op, N: 1, Err: errno}), testDir, testSize)
			if !errors.Is(err, ErrNoSync) {
				t.Errorf("%v on a directory in use: %v", errno, err)
			}
		}
	}
}

// Each call of an Open fails once. The error says so, no file stays open, and the
// next Open works.
func TestEachCallFails(t *testing.T) {
	for _, found := range []int64{-1, stepBytes, testSize + 1} {
		fired := 0
		for n := 1; ; n++ {
			m := vfs.NewMem()
			must(t, m.MkdirAll(testDir))
			if found >= 0 {
				must(t, m.WriteFile(testDir+"/"+Name, make([]byte, found)))
			}
			fault := &vfs.Fault{N: n, Err: syscall.EIO}
			f := vfs.NewFaults(m, fault)
			handles := &handles{FS: f}
			_, err := Open(handles, testDir, testSize)
			if f.Fired(fault) == 0 {
				must(t, err)
				break
			}
			if fired++; !errors.Is(err, syscall.EIO) {
				t.Errorf("call %d failed, and Open says %v", n, err)
			}
			if handles.open != 0 {
				t.Errorf("call %d failed, and %d files stay open", n, handles.open)
			}
			r, err := Open(m, testDir, testSize)
			must(t, err)
			wantLeft(t, r, testSize)
		}
		if fired < 4 {
			t.Errorf("only %d faults fired", fired)
		}
	}
}

// handles counts the files that are open.
type handles struct {
	vfs.FS
	open int
}

type handle struct {
	vfs.File
	of *handles
}

func (h *handles) count(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	h.open++
	return &handle{f, h}, nil
}

func (h *handles) Create(name string) (vfs.File, error) { return h.count(h.FS.Create(name)) }
func (h *handles) Edit(name string) (vfs.File, error)   { return h.count(h.FS.Edit(name)) }

func (h *handle) Close() error {
	h.of.open--
	return h.File.Close()
}

// Many writers meet a disk that is full now and then, while others look for room. All that they
// write is there, and Left is always what the file has.
func TestConcurrent(t *testing.T) {
	m, _, r := disk(t, 0)
	const writers, writes = 8, 20 // of 1 KiB
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			f, err := r.Create(fmt.Sprintf("%s/%d", testDir, i))
			if err != nil {
				t.Error(err)
				return
			}
			for n := range writes {
				if _, err := f.WriteAt(make([]byte, 1024), int64(n)*1024); err != nil {
					t.Error(err)
				}
				m.SetCapacity([]int64{testSize, 1 << 30}[n%2])
				if err := r.Refill(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	select {
	case <-r.Cuts():
	default:
		t.Error("nothing was cut")
	}
	b, err := m.ReadFile(testDir + "/" + Name)
	must(t, err)
	wantLeft(t, r, int64(len(b)))
	size := int64(0)
	for i := range writers {
		b, err := m.ReadFile(fmt.Sprintf("%s/%d", testDir, i))
		must(t, err)
		size += int64(len(b))
	}
	if size != writers*writes*1024 {
		t.Errorf("%d bytes were written", size)
	}
}

// While something is cut off, nobody else changes the file: the length that is cut to is one that
// was looked at before.
func TestOneCutAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		block := make(chan struct{})
		m, _, r := disk(t, 0, &vfs.Fault{Op: vfs.OpTruncate, N: 1, Block: block})
		first, err := m.Create(testDir + "/first")
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("the disk is not full: %v, %v", first, err)
		}
		done := make(chan error, 3)
		for i := range 2 {
			go func() {
				_, err := r.Create(fmt.Sprintf("%s/%d", testDir, i))
				done <- err
			}()
			synctest.Wait()
		}
		go func() { done <- r.Sparing(nil).Close() }()
		synctest.Wait()
		if len(done) > 0 {
			t.Error("somebody went on while something was cut off")
		}
		close(block)
		for range 3 {
			must(t, <-done)
		}
	})
}
