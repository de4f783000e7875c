package queue

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/reserve"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// On a full disk publish is refused, nothing that was acknowledged is lost, consumers go on, and
// all goes on by itself when space returns.
func TestAFullDiskPushesBackAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.SetCapacity(2 << 20)
		s := openMem(t, mem, Options{MinFreeBytes: 1 << 20, SegmentBytes: 1 << 16,
			CheckpointBytes: 1 << 30})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		body := make([]byte, 10_000)
		accepted := 0
		next := func() ackwise.Result {
			time.Sleep(askFreeMillis * time.Millisecond) // virtual
			return s.Publish(t.Context(), []ackwise.Message{{Topic: "orders",
				ID: fmt.Sprint("m", accepted), Body: body}})[0]
		}
		for {
			res := next()
			if res.Class != ackwise.ResultAccepted {
				if res.Class != ackwise.ResultRetryable || !errors.Is(res.Err, ackwise.ErrFull) {
					t.Fatalf("on a full disk: %v %v", res.Class, res.Err)
				}
				break
			}
			if accepted++; accepted > 1000 {
				t.Fatal("the disk never filled")
			}
		}
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		for acked := 0; acked < accepted; {
			for _, d := range receive(t, r, 10) {
				settle(t, r, d, ackwise.OutcomeAck)
				acked++
			}
		}
		verify(t, s)
		mem.SetCapacity(10 << 20)
		if next().Class != ackwise.ResultAccepted {
			t.Error("publish is still refused though space is back")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// filling is a disk that is full from its n-th call on that needs room.
type filling struct {
	vfs.FS
	mem *vfs.Mem

	mu      sync.Mutex // guards all below
	n       int
	calls   int
	refused int // calls that found no room
}

// fillingRoom is the capacity before; so that what is used can be told.
const fillingRoom = 1 << 30

func newFilling(n int) *filling {
	mem := vfs.NewMem()
	mem.SetCapacity(fillingRoom)
	return &filling{FS: mem, mem: mem, n: n}
}

func (f *filling) before() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls++; f.calls == f.n {
		f.fill()
	}
}

// seen returns how many calls needed room, and how many found none.
func (f *filling) seen() (calls, refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls, f.refused
}

// fill takes every byte that is left.
func (f *filling) fill() {
	free, err := f.mem.FreeBytes("/store")
	if err != nil {
		panic(err) // Mem has no such fault
	}
	f.mem.SetCapacity(fillingRoom - free)
}

func (f *filling) after(err error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, syscall.ENOSPC) {
		f.refused++
	}
	return err
}

func (f *filling) Create(name string) (vfs.File, error) {
	f.before()
	file, err := f.FS.Create(name)
	if f.after(err) != nil {
		return nil, err
	}
	return &fillingFile{file, f}, nil
}

func (f *filling) Edit(name string) (vfs.File, error) {
	file, err := f.FS.Edit(name)
	if err != nil {
		return nil, err
	}
	return &fillingFile{file, f}, nil
}

func (f *filling) Rename(from, to string) error {
	f.before()
	return f.after(f.FS.Rename(from, to))
}

type fillingFile struct {
	vfs.File
	disk *filling
}

func (f *fillingFile) WriteAt(b []byte, off int64) (int, error) {
	f.disk.before()
	n, err := f.File.WriteAt(b, off)
	return n, f.disk.after(err)
}

func (f *fillingFile) Allocate(size int64) error {
	f.disk.before()
	return f.disk.after(f.File.Allocate(size))
}

// drinker lives through a history on a disk that fills at some point, and knows what was promised.
type drinker struct {
	t        *testing.T
	disk     *filling
	s        *Store
	next     int
	accepted map[string]bool
	done     map[string]bool
}

// fullOptions leave it to the reserve alone whether publish is refused.
var fullOptions = Options{MinFreeBytes: 1, SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16,
	ReserveBytes: 768 << 10}

// open opens the store. The disk may be too full to begin one: that is said, and with room it
// begins.
func (d *drinker) open() {
	o := fullOptions
	if err := o.fill(); err != nil {
		d.t.Fatal(err)
	}
	s, err := openOn(d.disk, "/store", o)
	if err != nil {
		hint, ok := errors.AsType[*ackwise.HintError](err)
		if !errors.Is(err, wal.ErrNoSpace) || !ok || hint.Hint == "" || len(d.accepted) > 0 {
			d.t.Fatalf("open on a full disk: %v", err)
		}
		d.disk.mem.SetCapacity(-1)
		if s, err = openOn(d.disk, "/store", o); err != nil {
			d.t.Fatalf("open with room again: %v", err)
		}
	}
	d.s = s
}

func (d *drinker) publish(n int) (refused int) {
	for range n {
		id := fmt.Sprint("m", d.next)
		d.next++
		res := d.s.Publish(d.t.Context(), []ackwise.Message{{Topic: "orders", ID: id,
			Body: make([]byte, 6000)}})[0]
		switch {
		case res.Class == ackwise.ResultAccepted:
			d.accepted[id] = true
		case res.Class == ackwise.ResultRetryable && errors.Is(res.Err, ackwise.ErrFull):
			refused++
		default:
			d.t.Fatalf("publish %s: %v %v", id, res.Class, res.Err)
		}
		time.Sleep(askFreeMillis * time.Millisecond) // virtual
	}
	return refused
}

// consume receives up to max messages that are there, and settles all but every fifth.
func (d *drinker) consume(max int, all bool) {
	r := receiver(d.t, d.s, "orders", "billing", ReceiverOptions{SyncAcks: true})
	max = min(max, len(d.accepted)-len(d.done))
	for n := 0; n < max; {
		for _, m := range receive(d.t, r, 4) {
			n++
			if !d.accepted[m.ID] || d.done[m.ID] {
				d.t.Errorf("%s came: accepted %v, settled before %v", m.ID, d.accepted[m.ID],
					d.done[m.ID])
			}
			if n%5 == 0 && !all {
				continue
			}
			settle(d.t, r, m, ackwise.OutcomeAck)
			d.done[m.ID] = true
		}
	}
	if err := r.Close(); err != nil {
		d.t.Error(err)
	}
}

func (d *drinker) live() {
	d.open()
	create(d.t, d.s, "orders", "billing", SubscriptionOptions{})
	d.publish(14)
	d.consume(8, false)
	if err := d.s.takeCheckpoint(); err != nil {
		d.t.Errorf("checkpoint: %v", err)
	}
	d.publish(3)
	if err := d.s.Close(); err != nil {
		d.t.Errorf("close: %v", err)
	}
	d.open()
	d.consume(4, false)
	d.publish(4)
	d.consume(1000, true)
	d.publish(2)
}

// A disk that is full from any call on: nothing that was accepted is lost, settlements, checkpoints
// and opening go on, publish says that it is full, and with room again all goes on by itself.
func TestFullAtEveryCall(t *testing.T) {
	cases, refusals := 0, 0
	for n := 1; ; n++ {
		struck := false
		synctest.Test(t, func(t *testing.T) {
			d := &drinker{t: t, disk: newFilling(n), accepted: map[string]bool{},
				done: map[string]bool{}}
			if err := d.disk.MkdirAll("/store"); err != nil {
				t.Fatal(err)
			}
			d.live()
			calls, refused := d.disk.seen()
			if struck = calls >= n; !struck {
				_ = d.s.Close()
				return
			}
			if refused == 0 {
				t.Errorf("the disk was full, and no call met it")
			}
			if !d.s.disk.Whole() {
				if d.publish(1) != 1 {
					t.Error("publish was accepted on a full disk")
				}
				refusals++
			}
			d.disk.mem.SetCapacity(-1)
			time.Sleep(2 * refillMillis * time.Millisecond) // virtual
			if refused := d.publish(3); refused != 0 || !d.s.disk.Whole() {
				t.Errorf("with room again %d of 3 were refused", refused)
			}
			d.consume(1000, true)
			verify(t, d.s)
			if err := d.s.Close(); err != nil {
				t.Error(err)
			}
			d.open()
			verify(t, d.s)
			books, err := d.s.Books(t.Context())
			if err != nil || books[0].Acked != int64(len(d.accepted)) {
				t.Errorf("%d accepted, books %+v, %v", len(d.accepted), books, err)
			}
			if err := d.s.Close(); err != nil {
				t.Error(err)
			}
		})
		if t.Failed() {
			t.Fatalf("full from call %d on", n)
		}
		if !struck {
			break
		}
		cases++
	}
	t.Logf("full from each of %d calls on, publish refused in %d", cases, refusals)
	if cases < 60 || refusals < cases-5 { // with the first calls the store cannot begin
		t.Errorf("full from each of only %d calls on, publish refused in %d", cases, refusals)
	}
}

// fullStore is a store with n messages whose disk then has not one byte left.
func fullStore(t *testing.T, n int, o Options) (*Store, *vfs.Mem) {
	t.Helper()
	disk := newFilling(0)
	o.MinFreeBytes, o.SegmentBytes = 1<<20, 1<<20
	s := openMem(t, disk, o)
	create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Hour})
	for range n {
		publish(t, s, ackwise.Message{Topic: "orders", Body: []byte("body")})
	}
	time.Sleep(2 * time.Second) // virtual: the mark is written
	disk.fill()
	return s, disk.mem
}

// Hand-outs stop while the reserve still suffices to settle all that is in flight, in the dearest
// way; a Receive that waits for room goes on when there is some.
func TestHandOutsLeaveRoomToSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mem := fullStore(t, 200, Options{ReserveBytes: 128 << 10})
		defer s.Close()
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		held := receive(t, r, 1000)
		if most := (128 - 32) / 2; len(held) == 0 || len(held) > most {
			t.Fatalf("%d handed out with a reserve for %d", len(held), most)
		}
		more := make(chan []*ackwise.Delivery)
		go func() {
			ds, err := r.Receive(t.Context(), 1000)
			if err != nil {
				t.Error(err)
			}
			more <- ds
		}()
		time.Sleep(time.Minute) // virtual
		select {
		case ds := <-more:
			t.Fatalf("%d more were handed out", len(ds))
		default:
		}
		// Each alone, with the longest reason, synced, and with a mark of its own.
		for _, d := range held {
			res := r.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token,
				Outcome: ackwise.OutcomeDead, Reason: string(make([]byte, ackwise.MaxErrorBytes))}})
			if res[0].Err != nil {
				t.Fatalf("settle with %d bytes left: %v", s.disk.Left(), res[0].Err)
			}
			time.Sleep(1500 * time.Millisecond) // virtual
		}
		mem.SetCapacity(-1)
		time.Sleep(2 * time.Second) // virtual
		rest := len(<-more)
		for rest+len(held) < 200 {
			rest += len(receive(t, r, 1000))
		}
	})
}

// A Receive that waits because more is in flight than could be settled is looked after, also while
// nothing of the reserve is used and nobody does anything.
func TestAReceiveWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mem := fullStore(t, 200, Options{ReserveBytes: 128 << 10})
		defer s.Close()
		mem.SetCapacity(fillingRoom)
		time.Sleep(2 * time.Second) // virtual: there is room
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		receive(t, r, 100)
		time.Sleep(2 * time.Second) // virtual: the mark is written
		(&filling{mem: mem}).fill()
		more := make(chan int, 1)
		go func() {
			ds, err := r.Receive(t.Context(), 1000)
			if err != nil {
				t.Error(err)
			}
			more <- len(ds)
		}()
		time.Sleep(time.Minute) // virtual
		if len(more) > 0 || !s.disk.Whole() {
			t.Fatalf("%d were handed out, %d bytes are left", len(more), s.disk.Left())
		}
		mem.SetCapacity(-1)
		time.Sleep(2 * time.Second) // virtual
		synctest.Wait()
		select {
		case n := <-more:
			if n != 100 {
				t.Errorf("%d were handed out with room again, want 100", n)
			}
		default:
			t.Fatal("Receive still waits though there is room")
		}
	})
}

// A log that finds neither disk nor reserve stops with the words for it, and is opened again when
// there is room; nothing that was settled comes back.
func TestAReserveUsedUpIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mem := fullStore(t, 3, Options{ReserveBytes: 64 << 10})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		ds := receive(t, r, 3)
		settle(t, r, ds[0], ackwise.OutcomeAck)
		var err error
		extends := 0
		for ; err == nil && extends < 1000; extends++ {
			err = r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[1].Token,
				Outcome: ackwise.OutcomeExtend}})[0].Err
		}
		if !errors.Is(err, wal.ErrNoSpace) || !errors.Is(s.Err(), ErrFatal) || s.disk.Left() != 0 {
			t.Fatalf("after %d extends: %v, %v, %d bytes left", extends, err, s.Err(),
				s.disk.Left())
		}
		_ = s.Close() // says what has stopped it
		mem.SetCapacity(-1)
		s = openMem(t, mem, Options{ReserveBytes: 64 << 10})
		defer s.Close()
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		got := map[string]bool{}
		for len(got) < 2 {
			for _, d := range receive(t, r, 3) {
				settle(t, r, d, ackwise.OutcomeAck)
				got[d.ID] = true
			}
		}
		if got[ds[0].ID] {
			t.Error("what was settled came back")
		}
		verify(t, s)
	})
}

// A checkpoint for which there is no room leaves what settling needs, and the store goes on.
func TestACheckpointLeavesRoomToSettle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, mem := fullStore(t, 20, Options{ReserveBytes: 64 << 10, MaxTableBytes: 1 << 20})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		held := receive(t, r, 20)
		mem.SetCapacity(fillingRoom)
		time.Sleep(2 * time.Second) // virtual: the reserve is whole again
		_, err := s.Commit(t.Context(), Commit{Writes: []TableWrite{{Table: "t", Key: "k",
			Value: make([]byte, 200<<10)}}})
		if err != nil {
			t.Fatal(err)
		}
		(&filling{mem: mem}).fill()
		if err := s.takeCheckpoint(); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("a checkpoint larger than the reserve: %v", err)
		}
		free, err := mem.FreeBytes("/store")
		if left := free + s.disk.Left(); err != nil || left < s.settleRoom() {
			t.Errorf("it left %d bytes, settling needs %d, %v", left, s.settleRoom(), err)
		}
		for _, d := range held {
			settle(t, r, d, ackwise.OutcomeAck)
		}
		mem.SetCapacity(-1)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A full disk is looked at once a second, and one with room is not looked at.
func TestRoomIsLookedForOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newFilling(0)
		faults := vfs.NewFaults(disk)
		s := openMem(t, faults, Options{ReserveBytes: 2 << 20})
		defer s.Close()
		create(t, s, "orders", "billing", SubscriptionOptions{})
		looks := func(d time.Duration) int {
			synctest.Wait()
			before := faults.Calls(vfs.OpAllocate)
			time.Sleep(d) // virtual
			synctest.Wait()
			return faults.Calls(vfs.OpAllocate) - before
		}
		if n := looks(time.Hour); n != 0 {
			t.Errorf("a disk with room was looked at %d times", n)
		}
		disk.fill()
		if err := s.CreateTopic(t.Context(), "other", TopicOptions{}); err != nil {
			t.Fatal(err)
		}
		if n := looks(100 * time.Second); n < 99 || n > 101 {
			t.Errorf("a full disk was looked at %d times in 100 s", n)
		}
		before := faults.Calls(vfs.OpAllocate)
		for i := range 20 { // each uses up some more of the reserve
			time.Sleep(10 * time.Millisecond) // virtual
			_, err := s.Commit(t.Context(), Commit{Writes: []TableWrite{{Table: "t",
				Key: fmt.Sprint(i), Value: make([]byte, 40<<10)}}})
			if err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if n := faults.Calls(vfs.OpAllocate) - before; n > 1 {
			t.Errorf("a full disk was looked at %d times in 200 ms", n)
		}
		disk.mem.SetCapacity(-1)
		if n := looks(time.Hour); n != 1 || !s.disk.Whole() {
			t.Errorf("a disk with room again was looked at %d times", n)
		}
	})
}

// A disk that is full at the first start is refused with what to do, and nothing is left behind
// that a later start trips over.
func TestFullAtTheFirstStart(t *testing.T) {
	const reserved = 64 << 10
	for _, capacity := range []int64{0, 1, 4096, reserved - 1} {
		synctest.Test(t, func(t *testing.T) {
			mem := vfs.NewMem()
			if err := mem.MkdirAll("/store"); err != nil {
				t.Fatal(err)
			}
			mem.SetCapacity(capacity)
			o := Options{ReserveBytes: reserved}
			if err := o.fill(); err != nil {
				t.Fatal(err)
			}
			_, err := openOn(mem, "/store", o)
			hint, ok := errors.AsType[*ackwise.HintError](err)
			if !errors.Is(err, wal.ErrNoSpace) || !ok || hint.Hint == "" {
				t.Errorf("first start: %v", err)
			}
			if names, err := mem.ReadDir("/store"); err != nil || len(names) > 0 {
				t.Errorf("%v is left behind, %v", names, err)
			}
			mem.SetCapacity(-1)
			s := openMem(t, mem, Options{ReserveBytes: reserved})
			create(t, s, "orders", "billing", SubscriptionOptions{})
			publish(t, s, ackwise.Message{Topic: "orders"})
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A file system without a working sync is refused, with what to do.
func TestNoSyncIsRefused(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpSync, vfs.OpSyncDir} {
		mem := vfs.NewMem()
		if err := mem.MkdirAll("/store"); err != nil {
			t.Fatal(err)
		}
		o := Options{}
		if err := o.fill(); err != nil {
			t.Fatal(err)
		}
		fault := &vfs.Fault{Op: op, N: 1, Onward: true, Err: syscall.EINVAL}
		faults := vfs.NewFaults(mem, fault)
		_, err := openOn(faults, "/store", o)
		hint, ok := errors.AsType[*ackwise.HintError](err)
		if !errors.Is(err, reserve.ErrNoSync) || !ok || hint.Hint == "" || faults.Fired(fault) == 0 {
			t.Errorf("open: %v", err)
		}
		if names, err := mem.ReadDir("/store"); err != nil || len(names) > 0 {
			t.Errorf("%v is left behind, %v", names, err)
		}
	}
}
