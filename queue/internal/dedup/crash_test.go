package dedup

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

var errPower = errors.New("the power is off")

// owner plays the store around a window: a log of what was accepted, of which the first part is
// synced, and the newest checkpoint. It is the oracle as well.
type owner struct {
	log    []accepted
	synced int // of log
	now    int64

	checkpoint []byte // durable; nil = none
	at         int    // how much of the log it holds

	w    *Window
	lock sync.Mutex
}

type accepted struct {
	id   string
	seen Seen
}

// clone is the owner after a power cut: its log keeps what was synced, and perhaps more.
func (o *owner) clone(rng *rand.Rand) *owner {
	keep := o.synced + rng.IntN(len(o.log)-o.synced+1)
	return &owner{log: slices.Clone(o.log[:keep]), synced: keep, checkpoint: o.checkpoint, at: o.at}
}

func (o *owner) sync() error { o.synced = len(o.log); return nil }

// open opens the window from the checkpoint and the log behind it.
func (o *owner) open(fs vfs.FS) error {
	var snapshots []*Snapshot
	if o.checkpoint != nil {
		s, err := ReadSnapshot(bufio.NewReader(bytes.NewReader(o.checkpoint)))
		if err != nil {
			return err
		}
		snapshots = append(snapshots, s)
	}
	if err := RemoveUnlisted(fs, testDir, snapshots); err != nil {
		return err
	}
	o.w = New(testOptions(fs))
	if len(snapshots) > 0 {
		var err error
		if o.w, err = Open(testOptions(fs), snapshots[0]); err != nil {
			return err
		}
	}
	for _, a := range o.log[o.at:] {
		o.w.Add(a.id, a.seen)
		if o.w.waiting > 0 {
			if err := o.w.Maintain(&o.lock, o.sync); err != nil {
				return err
			}
		}
	}
	o.now = 0
	if n := len(o.log); n > 0 {
		o.now = o.log[n-1].seen.At
	}
	return o.w.Check(o.now)
}

// judge looks for every ID that was ever accepted.
func (o *owner) judge() error {
	last := make(map[string]Seen, len(o.log))
	for _, a := range o.log {
		last[a.id] = a.seen
	}
	for id, want := range last {
		p := o.w.Probe(id, o.now)
		s, ok, err := o.w.Confirm(&p, o.now)
		live := want.At > o.now-o.w.opt.WindowMillis
		if err != nil || ok != live || ok && s != want {
			return fmt.Errorf("%q at %d: found %t %+v, %w; want %t %+v", id, o.now, ok, s, err, live,
				want)
		}
	}
	return nil
}

// use adds IDs, some of them again, lets time pass, maintains, and takes checkpoints, each of which
// is durable some time after its moment.
func (o *owner) use(rng *rand.Rand) error {
	var snapshot *Snapshot
	at := 0
	for range 700 {
		switch rng.IntN(100) {
		case 0:
			o.now += rng.Int64N(1000)
		case 1, 2, 3:
			if err := o.w.Maintain(&o.lock, o.sync); err != nil {
				return err
			}
		case 4, 5:
			if snapshot == nil {
				snapshot, at = o.w.Snapshot(), len(o.log)
				break
			}
			var b bytes.Buffer
			if _, err := snapshot.WriteTo(&b); err != nil {
				return err
			}
			_ = o.sync()
			o.checkpoint, o.at, snapshot = b.Bytes(), at, nil
		case 6:
			_ = o.sync()
		}
		o.now += rng.Int64N(3)
		id := fmt.Sprint("id-", rng.IntN(400))
		p := o.w.Probe(id, o.now)
		if _, ok, err := o.w.Confirm(&p, o.now); ok || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		s := Seen{Pos: uint64(len(o.log)), Sum: rng.Uint64(), At: o.now}
		o.w.Add(id, s)
		o.log = append(o.log, accepted{id, s})
	}
	return nil
}

// The power goes at each call that changes the disk, also while the window is opened again after a
// power cut: what is in the log is known, no file that is listed is missing, and nothing else is
// known.
func TestCrashAtEachCall(t *testing.T) {
	states, removed := 0, 0
	for seed := *seedFlag; seed < *seedFlag+uint64(*seedsFlag); seed++ {
		for call, done := 1, false; !done; call++ {
			name := fmt.Sprintf("call %d, -seed %d -seeds 1", call, seed)
			rng := rand.New(rand.NewPCG(seed, uint64(call)))
			disk, o := newDisk(t), &owner{}
			for cut := range 3 {
				at := call
				if cut > 0 {
					at = 1 + rng.IntN(40) // within the recovery, or soon after
				}
				fault := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: at, Onward: true, Err: errPower}
				fs := vfs.NewFaults(disk, fault)
				err := o.open(fs)
				if err == nil {
					err = o.use(rand.New(rand.NewPCG(seed, 99)))
				}
				if err != nil && !errors.Is(err, errPower) {
					t.Fatalf("%s, cut %d: %v", name, cut, err)
				}
				if cut == 0 && fs.Fired(fault) == 0 {
					done = true
				}
				removed += fs.Calls(vfs.OpRemove)
				disk, o = disk.CrashClone(rng), o.clone(rng)
				states++
				check, again := o.clone(rng), disk.Clone()
				if err := check.open(again); err != nil {
					t.Fatalf("%s, cut %d: open: %v", name, cut, err)
				}
				if err := check.judge(); err != nil {
					t.Fatalf("%s, cut %d: %v", name, cut, err)
				}
			}
		}
	}
	if removed == 0 {
		t.Fatal("no file was ever removed")
	}
	t.Logf("%d crash states", states)
}

// A listed file that is missing is damage, unless its IDs were out of the window at the last time
// in the log.
func TestAMissingFile(t *testing.T) {
	r := newRig(t, testOptions(newDisk(t)))
	for i := range 200 {
		r.add(fmt.Sprint(i))
	}
	r.maintain()
	s := saved(t, r.w)
	names := files(t, r.w.opt.FS)
	if err := r.w.opt.FS.Remove(testDir + "/" + names[1]); err != nil {
		t.Fatal(err)
	}
	w, err := Open(testOptions(r.w.opt.FS), s)
	if err != nil {
		t.Fatal(err)
	}
	wantDamage(t, w.Check(r.now), names[1], 0)
	if err := w.Check(r.now + r.w.opt.WindowMillis); err != nil {
		t.Errorf("its IDs are out of the window: %v", err)
	}
	found, refused := 0, 0
	for i := range 200 {
		p := w.Probe(fmt.Sprint(i), r.now)
		switch _, ok, err := w.Confirm(&p, r.now); {
		case err != nil:
			wantDamage(t, err, names[1], 0)
			refused++
		case ok:
			found++
		default:
			t.Errorf("%d is not known", i)
		}
	}
	if found != 136 || refused != 64 {
		t.Errorf("%d found, %d refused", found, refused)
	}
	w.Expire(r.now + r.w.opt.WindowMillis)
	if err := w.Maintain(&r.lock, isSynced); err != nil || w.Count(r.now) != 0 {
		t.Errorf("expired: %v, %d IDs left", err, w.Count(r.now))
	}
}

func wantDamage(t *testing.T, err error, file string, offset int64) {
	t.Helper()
	damage, ok := errors.AsType[*DamageError](err)
	if !ok || damage.File != testDir+"/"+file || damage.Offset != offset {
		t.Fatalf("%v, want damage of %s at %d", err, file, offset)
	}
}

// Every fifth byte of a file, one bit of it changed: the file is refused, or the lookups of the
// block are and all others go on. No ID is ever unknown by it, or known as something else.
func TestEachPlaceChanged(t *testing.T) {
	disk := newDisk(t)
	r := newRig(t, testOptions(disk))
	for i := range 65 {
		r.add(fmt.Sprintf("%0150d", i))
	}
	r.maintain()
	s := saved(t, r.w)
	name := files(t, disk)[0]
	path := testDir + "/" + name
	good, err := disk.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	refused, partly := 0, 0
	for at := 0; at < len(good); at += 5 {
		bad := slices.Clone(good)
		bad[at] ^= 1 << (at % 8)
		if err := disk.WriteFile(path, bad); err != nil {
			t.Fatal(err)
		}
		w, err := Open(testOptions(disk), s)
		if err != nil {
			if _, newer := errors.AsType[*VersionError](err); !newer {
				damage, ok := errors.AsType[*DamageError](err)
				if !ok || damage.File != path {
					t.Fatalf("byte %d: %v", at, err)
				}
			}
			refused++
			continue
		}
		lost := 0
		for id, want := range r.known {
			p := w.Probe(id, r.now)
			got, ok, err := w.Confirm(&p, r.now)
			if err != nil {
				wantDamage(t, err, name, int64(at/blockBytes*blockBytes))
				lost++
			} else if !ok || got != want {
				t.Fatalf("byte %d: %.8s is found %t, %+v", at, id, ok, got)
			}
		}
		if lost == 0 || lost > 30 {
			t.Fatalf("byte %d: %d lookups are refused", at, lost)
		}
		partly++
	}
	if refused == 0 || partly == 0 {
		t.Fatalf("%d times refused, %d times in part", refused, partly)
	}
	for _, size := range []int{0, 100, blockBytes, len(good) - 1} {
		if err := disk.WriteFile(path, good[:size]); err != nil {
			t.Fatal(err)
		}
		_, err := Open(testOptions(disk), s)
		wantDamage(t, err, name, int64(size))
	}
}

// A disk that does not answer is no damage, and no answer either.
func TestAReadThatFails(t *testing.T) {
	errDisk := errors.New("input/output error")
	for _, op := range []vfs.Op{vfs.OpOpen, vfs.OpRead} {
		fs := vfs.NewFaults(newDisk(t))
		r := newRig(t, testOptions(fs))
		for i := range 65 {
			r.add(fmt.Sprint(i))
		}
		r.maintain()
		fault := &vfs.Fault{Op: op, N: 1, Err: errDisk}
		fs.Set(fault)
		if _, _, err := r.look("1"); !errors.Is(err, errDisk) || fs.Fired(fault) != 1 {
			t.Errorf("call %d: %v", op, err)
		}
		if _, ok, err := r.look("1"); !ok || err != nil {
			t.Errorf("the next time: found %t, %v", ok, err)
		}
	}
}

func TestAnotherBucketUnderTheName(t *testing.T) {
	disk := newDisk(t)
	r := newRig(t, testOptions(disk))
	for i := range 200 {
		r.add(fmt.Sprint(i))
	}
	r.maintain()
	names := files(t, disk)
	other, err := disk.ReadFile(testDir + "/" + names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(testDir+"/"+names[1], other); err != nil {
		t.Fatal(err)
	}
	_, err = Open(testOptions(disk), saved(t, r.w))
	wantDamage(t, err, names[1], 0)
	h, err := decodeHeader(names[0], other[:blockBytes])
	if err != nil {
		t.Fatal(err)
	}
	h.storeID[5]++ // of another store
	copy(other, h.encode())
	if err := disk.WriteFile(testDir+"/"+names[0], other); err != nil {
		t.Fatal(err)
	}
	_, err = Open(testOptions(disk), saved(t, r.w))
	if _, ok := errors.AsType[*DamageError](err); !ok {
		t.Fatalf("another store's bucket: %v", err)
	}
}

func TestRemoveUnlistedKeepsWhatItDoesNotKnow(t *testing.T) {
	disk := newDisk(t)
	foreign := []string{"dedup-1-2", "dedup-00000001-000000000002.old", "notes.tmp"}
	for _, name := range append([]string{fileName(1, 2), fileName(1, 3) + tempSuffix}, foreign...) {
		if err := disk.WriteFile(testDir+"/"+name, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := RemoveUnlisted(disk, testDir, nil); err != nil {
		t.Fatal(err)
	}
	slices.Sort(foreign)
	if got := files(t, disk); !slices.Equal(got, foreign) {
		t.Fatalf("files %v, want %v", got, foreign)
	}
}

func TestAShortSnapshot(t *testing.T) {
	r := newRig(t, testOptions(newDisk(t)))
	for i := range 100 {
		r.add(fmt.Sprint(i))
	}
	var b bytes.Buffer
	if _, err := r.w.Snapshot().WriteTo(&b); err != nil {
		t.Fatal(err)
	}
	for n := range b.Len() {
		_, err := ReadSnapshot(bufio.NewReader(bytes.NewReader(b.Bytes()[:n])))
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", n, b.Len(), err)
		}
	}
}
