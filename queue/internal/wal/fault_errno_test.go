package wal

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise/internal/vfs"
)

// script has every operation, rotations, a freed segment, a quiet second and two reopenings in it.
const script = "DNBDRIDONBDRDOD"

var errnos = []error{syscall.EIO, syscall.EINTR, syscall.EMFILE, syscall.EROFS, syscall.ENOSPC,
	syscall.EDQUOT, io.ErrShortWrite}

// run plays operations until one fails, and returns that.
func (p *player) run(ops string) (done int, err error) {
	for i, op := range ops {
		if err := p.do(op); err != nil {
			return i, err
		}
	}
	return len(ops), nil
}

// latched checks a log after a failed append: it stays failed, and is not synced any further.
func (p *player) latched() error {
	synctest.Wait()
	before := p.log.Synced()
	for range 2 {
		g := p.log.Append([]Record{{Type: 1, Payload: []byte("late")}}, true)
		<-g.Synced()
		if g.Err() == nil {
			return errors.New("an append went well after one had failed")
		}
	}
	if p.log.Synced() != before {
		return errors.New("the synced mark moved after a failure")
	}
	return nil
}

// Row: every call fails once, with each errno: no false acknowledgement, the log goes on correctly
// or latches, and what was told is there when it is opened again, killed or without power.
func TestFaultEveryCallFailsOnceWithEachErrno(t *testing.T) {
	ops := []vfs.Op{vfs.OpCreate, vfs.OpOpen, vfs.OpRename, vfs.OpRemove, vfs.OpMkdir,
		vfs.OpReadDir, vfs.OpSyncDir, vfs.OpRead, vfs.OpWrite, vfs.OpSync, vfs.OpSize,
		vfs.OpAllocate, vfs.OpTruncate, vfs.OpClose}
	var total counts
	fired, latched, unsaid := 0, 0, 0
	bubble(t, func(t *testing.T) {
		for _, op := range ops {
			for i, errno := range errnos {
				if errors.Is(errno, io.ErrShortWrite) && op != vfs.OpWrite {
					continue
				}
				for n := 1; ; n++ {
					f := &vfs.Fault{Op: op, N: n, Err: errno, Short: (n*7 + i) * 100 % 1500}
					p := newPlayer(*seedFlag)
					p.deep, p.on = 200, 20
					faults := vfs.NewFaults(p.disk, f)
					p.fs = faults
					done, err := p.run("O" + script)
					if faults.Fired(f) == 0 {
						err = p.log.Close()
					}
					if faults.Fired(f) == 0 {
						break
					}
					fired++
					what := fmt.Sprintf("call %d of kind %d failed once with %v", n, op, errno)
					if err != nil && strings.ContainsAny(("O" + script + "O")[done:done+1], "DNB") {
						latched++
						if err := p.latched(); err != nil {
							t.Fatalf("%s: %v", what, err)
						}
					} else if err == nil {
						unsaid++
					}
					p.crash(what)
					if p.log != nil {
						_ = p.log.Close() // it has failed, or the fault is in here
					}
					p.crash(what + ", closed")
					if p.err != nil {
						t.Fatal(p.err)
					}
					total.add(p.counts)
				}
			}
		}
	})
	t.Logf("%d faults fired, %d latched the log, %d were not told; %s", fired, latched, unsaid,
		total.String())
	if fired < 600 || latched < 100 || total.states() < 4000 {
		t.Errorf("%d faults, %d latched, %d states: too few", fired, latched, total.states())
	}
}

// Row: a sync fails once, then the log is opened again, then the power goes. The system has marked
// clean what it could not write: it can be read until the power goes, and no sync writes it.
func TestFaultFailedSyncForgetsWhatWasWritten(t *testing.T) {
	var total counts
	fired := 0
	bubble(t, func(t *testing.T) {
		for n := 1; ; n++ {
			f := &vfs.Fault{Op: vfs.OpSync, N: n, Err: syscall.EIO}
			p := newPlayer(*seedFlag)
			faults := vfs.NewFaults(p.disk, f)
			p.fs = faults
			_, err := p.run("O" + script)
			if faults.Fired(f) == 0 {
				err = p.log.Close()
			}
			if faults.Fired(f) == 0 {
				break
			}
			fired++
			if err == nil {
				t.Fatalf("sync %d failed, and nobody was told", n)
			}
			p.disk.ForgetDirty()
			if p.log != nil {
				_ = p.log.Close() // says again what has failed
			}
			now := p.book.page()
			what := fmt.Sprintf("sync %d failed", n)
			p.crash(what)
			p.on = 1
			p.open(p.disk, now, now.written, what+", opened again")
			if p.err != nil {
				t.Fatal(p.err)
			}
			total.add(p.counts)
		}
	})
	t.Logf("%d failed syncs, %s", fired, total.String())
	if fired < 20 || total.states() < 400 {
		t.Errorf("%d failed syncs, %d states: too few", fired, total.states())
	}
}

// Row: the disk is full at every write, and space returns.
func TestFaultFullDiskAtEveryWrite(t *testing.T) {
	var total counts
	refused, opened := 0, 0
	bubble(t, func(t *testing.T) {
		for at := range script {
			for extra := range int64(16) {
				p := newPlayer(*seedFlag)
				p.deep, p.on = 100, 10
				if _, err := p.run("O" + script[:at]); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				p.disk.SetCapacity(p.disk.Used() + extra*300)
				_, err := p.run(script[at:])
				what := fmt.Sprintf("%d bytes more after %s", extra*300, script[:at])
				if err != nil {
					if refused++; !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) {
						t.Fatalf("%s: %v", what, err)
					}
				}
				if p.log != nil {
					_ = p.log.Close() // it may have failed
				}
				if l, _, err := Open(p.opt(p.disk.Clone())); err == nil {
					opened++
					_ = l.Close() // on a full disk
				} else if !errors.Is(err, ErrNoSpace) {
					t.Fatalf("%s: Open on the full disk: %v", what, err)
				}
				p.disk.SetCapacity(-1)
				p.crash(what)
				now := p.book.page()
				p.on = 1
				p.open(p.disk, now, now.written, what+", with space again")
				if p.err != nil {
					t.Fatal(p.err)
				}
				total.add(p.counts)
			}
		}
	})
	t.Logf("full %d times, opened on the full disk %d times, %s", refused, opened, total.String())
	if refused < 100 || total.states() < 1000 {
		t.Errorf("full %d times, %d states: too few", refused, total.states())
	}
}
