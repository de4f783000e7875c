package queue

import (
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// script has every operation in it, with a rotation, two checkpoints and a reopening.
const script = "PKRACFKRNOPRDCA"

var errnos = []error{syscall.EIO, syscall.EINTR, syscall.EMFILE, syscall.EROFS, syscall.ENOSPC,
	syscall.EDQUOT, io.ErrShortWrite}

// run plays the script on a disk with a fault, on through errors, until the store has stopped.
func (p *player) run() (failed error) {
	for _, op := range "O" + script {
		_, err := p.do(op)
		failed = errors.Join(failed, err)
		if err != nil && (p.store == nil || p.r == nil || p.store.Err() != nil || op == 'O') {
			return failed
		}
	}
	return failed
}

// stopped checks a store that a failure has stopped: it says so, and accepts nothing more.
func (p *player) stopped() error {
	if err := p.store.Err(); !errors.Is(err, ErrFatal) {
		return fmt.Errorf("it stopped with %w", err)
	}
	res := p.store.Publish(p.ctx, []ackwise.Message{{Topic: "orders", ID: "late"}})
	if res[0].Class != ackwise.ResultRetryable || !errors.Is(res[0].Err, ErrFatal) {
		return fmt.Errorf("publish after it: %v, %w", res[0].Class, res[0].Err)
	}
	return nil
}

// Row: every call fails once, with each errno: no false acknowledgement, the store goes on or stops
// for good, and what was acknowledged is there when it is opened again, killed or without power.
// The short form gives each call one errno.
func TestFaultEveryCallFailsOnceWithEachErrno(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	ops := []vfs.Op{vfs.OpCreate, vfs.OpOpen, vfs.OpRename, vfs.OpRemove, vfs.OpReadDir,
		vfs.OpSyncDir, vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpSize, vfs.OpAllocate,
		vfs.OpTruncate, vfs.OpClose}
	var total counts
	fired, stopped := 0, 0
	synctest.Test(t, func(t *testing.T) {
		for _, op := range ops {
			for i, errno := range errnos {
				if errors.Is(errno, io.ErrShortWrite) && op != vfs.OpWrite {
					continue
				}
				first, step := 1, 1
				if !long() {
					first, step = 1+i, len(errnos)
				}
				for n := first; ; n += step {
					done, stop := failOnce(t, &total, &vfs.Fault{Op: op, N: n, Err: errno,
						Short: (n*7 + i) * 100 % 1500})
					if done {
						break
					}
					fired++
					if stop {
						stopped++
					}
				}
			}
		}
	})
	t.Logf("%d faults fired, %d stopped the store; %s", fired, stopped, total.String())
	if fired < 100 || stopped < 25 || total.states() < 400 {
		t.Errorf("%d faults, %d stops, %d states: too few", fired, stopped, total.states())
	}
}

// failOnce runs the script with a fault, and judges what is left. done = the fault never fires.
func failOnce(t *testing.T, total *counts, f *vfs.Fault) (done, stopped bool) {
	t.Helper()
	p := newPlayer(t, uint64(f.N))
	p.deep, p.drain = never, 4
	faults := vfs.NewFaults(p.disk, f)
	p.fs = faults
	err := p.run()
	what := fmt.Sprintf("call %d of kind %d failed once with %v", f.N, f.Op, f.Err)
	if p.store != nil && p.store.Err() != nil {
		stopped = true
		if err := p.stopped(); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	closed := p.end()
	if faults.Fired(f) == 0 {
		if err != nil || closed != nil {
			t.Fatalf("without a fault: %v, %v", err, closed)
		}
		return true, false
	}
	p.crash(what)
	if p.err != nil {
		t.Fatal(p.err)
	}
	total.add(p.counts)
	return false, stopped
}

// Row: a sync fails once, then the store is opened again, then the power goes. The system has
// marked clean what it could not write: it can be read until the power goes, and no sync writes it.
func TestFaultFailedSyncForgetsWhatWasWritten(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	var total counts
	fired := 0
	synctest.Test(t, func(t *testing.T) {
		for n := 1; ; n++ {
			if !long() && n > 6 && n%4 != 0 {
				continue
			}
			p := newPlayer(t, uint64(n))
			p.deep, p.drain = never, 4
			f := &vfs.Fault{Op: vfs.OpSync, N: n, Err: syscall.EIO}
			faults := vfs.NewFaults(p.disk, f)
			p.fs = faults
			err := p.run()
			p.disk.ForgetDirty()
			_ = p.end() // says again what has failed
			if faults.Fired(f) == 0 {
				break
			}
			fired++
			if err == nil && p.store.Err() == nil {
				continue // it failed in Close, after everything
			}
			p.crash(fmt.Sprintf("sync %d failed", n))
			p.drain = never // what is drained is gone afterwards
			p.judge(p.disk, true, fmt.Sprintf("sync %d failed, opened again", n))
			p.crash(fmt.Sprintf("sync %d failed, opened again and closed", n))
			if p.err != nil {
				t.Fatal(p.err)
			}
			total.add(p.counts)
		}
	})
	t.Logf("%d failed syncs, %s", fired, total.String())
	if fired < 8 || total.states() < 200 {
		t.Errorf("%d failed syncs, %d states: too few", fired, total.states())
	}
}

// Row: a sync takes 60 s. Nobody is told early, what waits is bounded, and all goes on behind it.
func TestFaultSyncTakesAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{MinFreeBytes: 1})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		slow := 0
		mem.Watch(func(op vfs.Op) {
			if op == vfs.OpSync {
				slow++
				time.Sleep(time.Minute) // virtual
			}
		})
		const publishers = 300
		body := make([]byte, 1<<20)
		begin := time.Now()
		results := make(chan ackwise.Result, publishers)
		for i := range publishers {
			go func() { // ends when its publish is told
				res := s.Publish(t.Context(), []ackwise.Message{{Topic: "orders",
					ID: fmt.Sprint("m", i), Body: body}})[0]
				if res.Class == ackwise.ResultAccepted && time.Since(begin) < time.Minute {
					t.Errorf("%s was told after %v", res.ID, time.Since(begin))
				}
				results <- res
			}()
			synctest.Wait()
		}
		if most := maxPendingBytes + 2<<20; s.log.PendingBytes() > most {
			t.Errorf("%d bytes wait for the disk, at most %d may", s.log.PendingBytes(), most)
		}
		accepted, refused := 0, 0
		for range publishers {
			switch res := <-results; {
			case res.Class == ackwise.ResultAccepted:
				accepted++
			case errors.Is(res.Err, ackwise.ErrFull) && res.Class == ackwise.ResultRetryable:
				refused++
			default:
				t.Errorf("%v: %v", res.Class, res.Err)
			}
		}
		t.Logf("%d accepted, %d refused, %d syncs of a minute", accepted, refused, slow)
		if accepted < 200 || refused < 20 || slow < 2 {
			t.Errorf("%d accepted, %d refused, %d slow syncs", accepted, refused, slow)
		}
		publish(t, s, ackwise.Message{Topic: "orders", ID: "after"})
		mem.Watch(func(vfs.Op) {})
		books, err := s.Books(t.Context())
		if err != nil || books[0].Ready != int64(accepted+1) {
			t.Errorf("books %+v, %v", books, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// Row: reads take 10 s. Publish does not wait for them, and every message still comes once.
func TestFaultReadsTakeTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{SegmentBytes: 1 << 16})
		create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Hour})
		create(t, s, "others", "billing", SubscriptionOptions{})
		for i := range 40 {
			publish(t, s, ackwise.Message{Topic: "orders", ID: fmt.Sprint("m", i),
				Body: make([]byte, 5000)})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{SegmentBytes: 1 << 16}) // it remembers no bodies
		slow := 0
		mem.Watch(func(op vfs.Op) {
			if op == vfs.OpRead {
				slow++
				time.Sleep(10 * time.Second) // virtual
			}
		})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		got := map[string]int{}
		finished := make(chan struct{})
		go func() { // ends when all have come
			defer close(finished)
			for len(got) < 40 {
				ds, err := r.Receive(t.Context(), 7)
				if err != nil {
					t.Error(err)
					return
				}
				for _, d := range ds {
					got[d.ID]++
					settle(t, r, d, ackwise.OutcomeAck)
				}
			}
		}()
		synctest.Wait()
		begin := time.Now()
		if slow == 0 {
			t.Error("no read was slow")
		}
		publish(t, s, ackwise.Message{Topic: "others", ID: "m0"})
		if took := time.Since(begin); took > time.Second {
			t.Errorf("a publish took %v while a read was slow", took)
		}
		<-finished
		for id, n := range got {
			if n != 1 {
				t.Errorf("%s came %d times", id, n)
			}
		}
		mem.Watch(func(vfs.Op) {})
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
