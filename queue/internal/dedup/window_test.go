package dedup

import (
	"bufio"
	"bytes"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

const testDir = "/db"

var (
	seedFlag  = flag.Uint64("seed", 1, "first seed of the random tests")
	seedsFlag = flag.Int("seeds", 3, "how many seeds")
)

func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, StoreID: [16]byte{1, 2, 3}, Topic: 7, WindowMillis: 800,
		MaxIDs: 1 << 20, BucketIDs: 64}
}

func newDisk(t testing.TB) *vfs.Mem {
	t.Helper()
	m := vfs.NewMem()
	if err := m.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	return m
}

var errUnsynced = errors.New("the log could not be synced")

func isSynced() error  { return nil }
func notSynced() error { return errUnsynced }

// rig is a window and what it must know: every ID that was added, with what was said of it.
type rig struct {
	t     *testing.T
	w     *Window
	lock  sync.Mutex
	known map[string]Seen
	now   int64
	pos   uint64
}

func newRig(t *testing.T, o Options) *rig {
	t.Helper()
	return &rig{t: t, w: New(o), known: make(map[string]Seen), now: 1_000_000}
}

// look asks the window as a publisher does.
func (r *rig) look(id string) (Seen, bool, error) {
	p := r.w.Probe(id, r.now)
	return r.w.Confirm(&p, r.now)
}

// add accepts an ID, and says what it says again where it is known.
func (r *rig) add(id string) {
	r.t.Helper()
	s, ok, err := r.look(id)
	if err != nil {
		r.t.Fatalf("look for %q: %v", id, err)
	}
	want, was := r.known[id]
	was = was && want.At > r.now-r.w.opt.WindowMillis
	if ok != was || ok && s != want {
		r.t.Fatalf("%q at %d: found %t %+v, want %t %+v", id, r.now, ok, s, was, want)
	}
	if ok {
		return
	}
	r.pos++
	s = Seen{Pos: r.pos, Sum: r.pos * 77, At: r.now}
	r.w.Add(id, s)
	r.known[id] = s
}

func (r *rig) maintain() {
	r.t.Helper()
	if err := r.w.Maintain(&r.lock, isSynced); err != nil {
		r.t.Fatalf("Maintain: %v", err)
	}
}

// reopen takes the window through a checkpoint.
func (r *rig) reopen() {
	r.t.Helper()
	s := saved(r.t, r.w)
	if err := RemoveUnlisted(r.w.opt.FS, testDir, []*Snapshot{s}); err != nil {
		r.t.Fatal(err)
	}
	w, err := Open(testOptions(r.w.opt.FS), s)
	if err != nil {
		r.t.Fatalf("Open: %v", err)
	}
	if err := w.Check(r.now); err != nil {
		r.t.Fatalf("Check: %v", err)
	}
	r.w = w
}

// saved is a window's snapshot, written and read.
func saved(t testing.TB, w *Window) *Snapshot {
	t.Helper()
	var b bytes.Buffer
	n, err := w.Snapshot().WriteTo(&b)
	if err != nil || n != int64(b.Len()) || n != w.Snapshot().Size() {
		t.Fatalf("WriteTo: %d of %d bytes, %v", n, b.Len(), err)
	}
	b.WriteString("behind")
	in := bufio.NewReader(&b)
	s, err := ReadSnapshot(in)
	if err != nil {
		t.Fatalf("ReadSnapshot: %v", err)
	}
	if rest, err := in.ReadString(0); rest != "behind" {
		t.Fatalf("behind the snapshot: %q, %v", rest, err)
	}
	return s
}

func files(t testing.TB, fs vfs.FS) []string {
	t.Helper()
	names, err := fs.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// Whatever is closed, written, expired or reopened in between: an ID is known exactly as long as
// the window is, with what was said of it.
func TestKnownForTheWholeWindow(t *testing.T) {
	for seed := *seedFlag; seed < *seedFlag+uint64(*seedsFlag); seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			r := newRig(t, testOptions(newDisk(t)))
			for range 20_000 {
				switch n := rng.IntN(1000); {
				case n < 1:
					r.now += 300 + rng.Int64N(900)
				case n < 4:
					r.maintain()
				case n < 6:
					r.reopen()
				case n < 300:
					r.now += rng.Int64N(5)
				}
				id := fmt.Sprint("id-", rng.IntN(3000))
				r.add(strings.Repeat("long", rng.IntN(2)*rng.IntN(50)) + id)
				if got, want := r.w.Count(r.now), r.live(); got < want {
					t.Fatalf("%d IDs are counted, %d are in the window", got, want)
				}
			}
			t.Logf("%d buckets made, %d files at the end", r.w.view.Load().open.number,
				len(files(t, r.w.opt.FS)))
		})
	}
}

func (r *rig) live() (n int) {
	if r.pos%64 != 0 { // now and then
		return 0
	}
	for _, s := range r.known {
		if s.At > r.now-r.w.opt.WindowMillis {
			n++
		}
	}
	return n
}

func TestTheEdgeOfTheWindow(t *testing.T) {
	r := newRig(t, testOptions(newDisk(t)))
	r.add("a")
	for i := range 640 { // the bucket of a is closed, and written
		r.add(fmt.Sprint("other ", i))
		r.maintain()
	}
	start := r.now
	r.now = start + r.w.opt.WindowMillis - 1
	if _, ok, err := r.look("a"); !ok || err != nil {
		t.Fatalf("at the last moment of the window: found %t, %v", ok, err)
	}
	p := r.w.Probe("a", r.now)
	r.now++
	if _, ok, err := r.look("a"); ok || err != nil {
		t.Fatalf("when the window is over: found %t, %v", ok, err)
	}
	if _, ok, err := r.w.Confirm(&p, r.now); ok || err != nil {
		t.Fatalf("when the window was over after the probe: found %t, %v", ok, err)
	}
	r.w.Expire(r.now)
	r.maintain()
	if n, names := r.w.Count(r.now), files(t, r.w.opt.FS); n != 0 || len(names) != 0 {
		t.Fatalf("when the window is over: %d IDs, files %v", n, names)
	}
}

// Engine time does not run back; if it did, no ID would be let go early by it.
func TestATimeThatRunsBack(t *testing.T) {
	r := newRig(t, testOptions(newDisk(t)))
	r.w.Add("a", Seen{At: r.now})
	r.w.Add("b", Seen{At: r.now - 100})
	r.now += r.w.opt.WindowMillis - 1
	if s, ok, err := r.look("b"); !ok || err != nil || s.At != 1_000_000 {
		t.Fatalf("found %t, %+v, %v", ok, s, err)
	}
}

// A probe does not hold the lock: what is added, closed, written and let go before Confirm counts.
func TestConfirmSeesWhatCameAfterTheProbe(t *testing.T) {
	for _, others := range []int{0, 1, 63, 64, 200, 1000} {
		r := newRig(t, testOptions(newDisk(t)))
		for i := range 100 {
			r.add(fmt.Sprint("before ", i))
		}
		p := r.w.Probe("a", r.now)
		for i := range others {
			r.add(fmt.Sprint("between ", i))
		}
		r.add("a")
		for i := range others {
			r.add(fmt.Sprint("after ", i))
			r.maintain()
		}
		if s, ok, err := r.w.Confirm(&p, r.now); !ok || err != nil || s != r.known["a"] {
			t.Errorf("behind %d others: found %t, %+v, %v", others, ok, s, err)
		}
		r.now += r.w.opt.WindowMillis
		if _, ok, _ := r.w.Confirm(&p, r.now); ok {
			t.Error("found when the window was over")
		}
	}
}

// A probe under way reads files that are removed meanwhile: their IDs are out of the window.
func TestAProbeBearsThatFilesGo(t *testing.T) {
	disk := newDisk(t)
	block := make(chan struct{})
	slow := &vfs.Fault{Op: vfs.OpOpen, N: 1, Block: block}
	fs := vfs.NewFaults(disk, slow)
	r := newRig(t, testOptions(fs))
	for i := range 65 {
		r.add(fmt.Sprint("id ", i))
	}
	r.maintain()
	answer := make(chan Probe)
	go func() { answer <- r.w.Probe("id 0", 1_000_000) }()
	for fs.Calls(vfs.OpOpen) == 0 {
		select {
		case p := <-answer:
			t.Fatalf("%+v without a look at the disk", p)
		default:
			runtime.Gosched()
		}
	}
	r.now += r.w.opt.WindowMillis
	r.lock.Lock()
	r.w.Expire(r.now)
	r.lock.Unlock()
	r.maintain()
	if names := files(t, disk); len(names) != 0 {
		t.Fatalf("files %v", names)
	}
	close(block)
	p := <-answer
	if _, ok, err := r.w.Confirm(&p, r.now); ok || err != nil {
		t.Fatalf("found %t, %v", ok, err)
	}
	if fs.Fired(slow) != 1 {
		t.Fatal("nothing was slow")
	}
}

func TestAFullWindowRefuses(t *testing.T) {
	o := testOptions(newDisk(t))
	o.MaxIDs = 200
	r := newRig(t, o)
	for i := range 200 {
		if err := r.w.Full(r.now, 0); err != nil {
			t.Fatalf("full with %d: %v", i, err)
		}
		r.add(fmt.Sprint(i))
		r.maintain()
	}
	if err := r.w.Full(r.now, 0); err == nil || !strings.Contains(err.Error(), "MaxDedupIDs") {
		t.Fatalf("at the bound: %v", err)
	}
	r.now += o.WindowMillis
	if err := r.w.Full(r.now, 199); err != nil { // by the clock, before any record says so
		t.Fatalf("when the window is over: %v", err)
	}
	if err := r.w.Full(r.now, 200); err == nil {
		t.Fatal("what is planned is not counted")
	}
}

// Buckets that the disk does not take stay in memory, a few of them; then the window is full, says
// why, knows every ID, and goes on when the disk does.
func TestBucketsThatWaitForTheDisk(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpCreate, vfs.OpWrite, vfs.OpSync, vfs.OpRename, vfs.OpSyncDir} {
		disk := newDisk(t)
		fault := &vfs.Fault{Op: op, N: 2, Onward: true, Err: syscall.ENOSPC, Short: 100}
		fs := vfs.NewFaults(disk, fault)
		r := newRig(t, testOptions(fs))
		n := 0
		for ; r.w.Full(r.now, 0) == nil; n++ {
			r.add(fmt.Sprint(n))
			if err := r.w.Maintain(&r.lock, isSynced); err != nil &&
				!errors.Is(err, syscall.ENOSPC) {
				t.Fatal(err)
			}
			if n > 1000 {
				t.Fatal("memory grows without a bound")
			}
		}
		if err := r.w.Full(r.now, 0); !errors.Is(err, syscall.ENOSPC) || fs.Fired(fault) == 0 {
			t.Fatalf("call %d fails: full because of %v, fired %d", op, err, fs.Fired(fault))
		}
		for i := range n {
			r.add(fmt.Sprint(i)) // known
		}
		r.w.opt.FS = disk
		r.maintain()
		if err := r.w.Full(r.now, 0); err != nil {
			t.Fatalf("when the disk is back: %v", err)
		}
		for i := range n {
			r.add(fmt.Sprint(i))
		}
		r.reopen()
		for i := range n {
			r.add(fmt.Sprint(i))
		}
		if int(r.pos) != n {
			t.Fatalf("%d IDs were accepted, %d are different", r.pos, n)
		}
	}
}

// Quiet topics need no files, however long they go on.
func TestFewIDsStayInMemory(t *testing.T) {
	o := testOptions(newDisk(t))
	o.BucketIDs = 1 << 16 // a closed bucket of less than 1024 is small
	r := newRig(t, o)
	for i := range 10_000 {
		r.now += 2
		r.add(fmt.Sprint(i))
		r.maintain()
		if n := len(r.w.view.Load().closed); n > spanParts+1 {
			t.Fatalf("%d closed buckets", n)
		}
	}
	if names := files(t, o.FS); len(names) > 0 {
		t.Fatalf("files %v", names)
	}
}

func TestDropRemovesTheFiles(t *testing.T) {
	r := newRig(t, testOptions(newDisk(t)))
	for i := range 200 {
		r.add(fmt.Sprint(i))
		if i == 150 {
			r.maintain()
		}
	}
	r.w.Drop()
	if err := r.w.Maintain(&r.lock, notSynced); !errors.Is(err, errUnsynced) {
		t.Fatal(err)
	}
	if names := files(t, r.w.opt.FS); len(names) != 2 {
		t.Fatalf("before the deletion is synced: files %v", names)
	}
	r.maintain()
	if names := files(t, r.w.opt.FS); len(names) != 0 || r.w.Busy() {
		t.Fatalf("after it: files %v, busy %t", names, r.w.Busy())
	}
}

// Publishers, the writer of files and readers without the lock, all at once.
func TestConcurrentUse(t *testing.T) {
	o := testOptions(newDisk(t))
	o.WindowMillis = 1 << 40
	w := New(o)
	var lock sync.Mutex
	var wg sync.WaitGroup
	const each, publishers = 3000, 4
	closing := make(chan struct{})
	accepted := make([]int, publishers)
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				id := fmt.Sprint(i) // all publish the same
				probe := w.Probe(id, 5)
				lock.Lock()
				if _, ok, err := w.Confirm(&probe, 5); err != nil {
					t.Error(err)
				} else if !ok {
					w.Add(id, Seen{Pos: uint64(i), At: 5})
					accepted[p]++
				}
				lock.Unlock()
			}
		})
	}
	var writer sync.WaitGroup
	writer.Go(func() {
		for done := false; !done; {
			select {
			case <-closing:
				done = true
			default:
			}
			if err := w.Maintain(&lock, isSynced); err != nil {
				t.Error(err)
			}
		}
	})
	wg.Wait()
	close(closing)
	writer.Wait()
	sum := 0
	for _, n := range accepted {
		sum += n
	}
	if sum != each || w.Count(5) != each {
		t.Fatalf("%d accepted, %d counted, want %d", sum, w.Count(5), each)
	}
}

// IDs that share a hash are told apart, in memory and over several blocks of a file.
func TestIDsOfOneHash(t *testing.T) {
	disk := newDisk(t)
	m := newMemory(1, seed{}, 64) // it hashes everything alike
	id := func(i int) string { return fmt.Sprintf("%0500d", i) }
	for i := range 40 {
		m.put(0, id(i), Seen{Pos: uint64(i)})
	}
	f, err := writeFile(disk, testDir, m, header{topic: 7})
	if err != nil {
		t.Fatal(err)
	}
	if f.head.blocks < 4 {
		t.Fatalf("%d blocks", f.head.blocks)
	}
	for i := range 50 {
		s, ok, err := f.find(disk, 0, id(i))
		if ok != (i < 40) || ok && s.Pos != uint64(i) || err != nil {
			t.Errorf("%d in the file: found %t, %+v, %v", i, ok, s, err)
		}
		if s, ok := m.find(0, id(i)); ok != (i < 40) || ok && s.Pos != uint64(i) {
			t.Errorf("%d in memory: found %t, %+v", i, ok, s)
		}
	}
}

func TestHashSpreads(t *testing.T) {
	s := seedOf([16]byte{4})
	seen := make(map[uint64]string)
	low := make([]int, 256)
	high := make([]int, 256)
	n := 0
	for _, form := range []string{"%d", "order-%08d", "%d\x00", "00000000-0000-4000-8000-%012d"} {
		for i := range 50_000 {
			id := fmt.Sprintf(form, i)
			h := s.hash(id)
			if was, twice := seen[h]; twice {
				t.Fatalf("%q and %q have one hash", was, id)
			}
			seen[h] = id
			low[h&255]++
			high[h>>56]++
			n++
		}
	}
	for i := range 256 {
		for _, got := range []int{low[i], high[i]} {
			if want := n / 256; got < want*8/10 || got > want*12/10 {
				t.Errorf("%d of %d hashes share a byte, want about %d", got, n, want)
			}
		}
	}
	if s.hash("a") == seedOf([16]byte{5}).hash("a") {
		t.Error("two stores hash alike")
	}
	// Files hold it: it may not change.
	const id, want = "00000000-0000-4000-8000-000000000001", 0xc7ebe53e11b3911f
	if got := s.hash(id); got != want {
		t.Errorf("the hash of %s is %#x, in files it is %#x", id, got, uint64(want))
	}
}
