package wal

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

func TestRoundTrip(t *testing.T) {
	for _, fs := range []struct {
		name string
		fs   vfs.FS
		dir  string
	}{{"in memory", vfs.NewMem(), testDir}, {"on disk", vfs.OS{}, t.TempDir() + "/a/log"}} {
		t.Run(fs.name, func(t *testing.T) {
			o := Options{FS: fs.fs, Dir: fs.dir, SegmentBytes: 4096}
			var want []string
			var recs []Record
			for round := range 3 {
				l, rec := mustOpen(t, o)
				if rec.New != (round == 0) || rec.Epoch != uint64(round+1) || rec.Torn != 0 {
					t.Fatalf("round %d: recovery %+v", round, rec)
				}
				wantContents(t, l, want)
				for i := range 40 {
					p := fmt.Sprintf("r%d-%d %s", round, i, strings.Repeat("y", i*211%6000))
					rs := put(t, l, i%3 > 0, p, "")
					recs = append(recs, rs...)
					want = append(want, p, "")
				}
				wantReads(t, l, recs)
				mustClose(t, l)
			}
		})
	}
}

// wantReads reads every record alone and in one batch.
func wantReads(t *testing.T, l *Log, recs []Record) {
	t.Helper()
	var positions []uint64
	for _, want := range recs {
		positions = append(positions, want.Pos)
		got, err := l.ReadAt(want.Pos, make([]byte, 0, 100))
		if err != nil || got.Type != want.Type || !bytes.Equal(got.Payload, want.Payload) {
			t.Fatalf("ReadAt(%d) = %.40q, %v, want %.40q", want.Pos, got.Payload, err, want.Payload)
		}
	}
	next := 0
	l.ReadBatch(positions, nil, func(i int, r Record, err error) {
		if i != next || err != nil || r.Pos != positions[i] ||
			!bytes.Equal(r.Payload, recs[i].Payload) {
			t.Errorf("ReadBatch: %d-th call: %d, %.40q, %v", next, i, r.Payload, err)
		}
		next++
	})
	if next != len(recs) {
		t.Errorf("ReadBatch called %d times, want %d", next, len(recs))
	}
}

func TestReplayFromAnyPosition(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	var recs []Record
	for i := range 30 {
		recs = append(recs, put(t, l, true, fmt.Sprint("a", i), strings.Repeat("b", i*50))...)
	}
	for i := range recs {
		for _, from := range []uint64{recs[i].Pos, recs[i].Pos - 1} {
			to := l.End()
			if i+9 < len(recs) {
				to = recs[i+9].Pos
			}
			var got []uint64
			err := l.Replay(from, to, func(r Record) error {
				got = append(got, r.Pos)
				return nil
			})
			if err != nil || len(got) != min(9, len(recs)-i) || got[0] != recs[i].Pos {
				t.Fatalf("Replay(%d, %d) = %v, %v", from, to, got, err)
			}
		}
	}
	stop := errors.New("enough")
	calls := 0
	err := l.Replay(0, 0, func(Record) error { calls++; return stop })
	if !errors.Is(err, stop) || calls != 1 {
		t.Errorf("Replay = %v after %d calls, want the callback's error after 1", err, calls)
	}
}

func TestConcurrentAppendsShareGroupsAndKeepOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		hold := make(chan struct{})
		faults := vfs.NewFaults(m)
		o := testOptions(faults)
		o.SegmentBytes = 64 << 10
		l, _ := mustOpen(t, o)
		const writers, each = 16, 200
		var wg sync.WaitGroup
		syncs := faults.Calls(vfs.OpSync)
		// One sync hangs, so that all appends meanwhile pile up in one group behind it.
		faults.Set(&vfs.Fault{Op: vfs.OpSync, N: 1, Block: hold})
		for range writers {
			wg.Go(func() { <-l.Append([]Record{{}}, true).Synced() })
			time.Sleep(time.Millisecond) // in the bubble: until it waits
		}
		close(hold)
		wg.Wait()
		if n := faults.Calls(vfs.OpSync) - syncs; n != 2 {
			t.Errorf("%d syncs for %d appends while one hung, want 2", n, writers)
		}
		for w := range writers {
			wg.Go(func() {
				for i := range each {
					p := fmt.Appendf(nil, "%02d-%03d", w, i)
					g := l.Append([]Record{{Type: byte(len(p)), Payload: p}}, true)
					<-g.Synced()
					if g.Err() != nil {
						t.Error(g.Err())
					}
				}
			})
		}
		wg.Wait()
		got, err := contents(l)
		got = slices.DeleteFunc(got, func(p string) bool { return p == "" })
		if err != nil || len(got) != writers*each {
			t.Fatalf("log holds %d records, %v, want %d", len(got), err, writers*each)
		}
		next := map[string]int{}
		for _, p := range got {
			if want := fmt.Sprintf("%s-%03d", p[:2], next[p[:2]]); p != want {
				t.Fatalf("got %s, want %s", p, want)
			}
			next[p[:2]]++
		}
		mustClose(t, l)
		if g := l.Append(nil, true); !errors.Is(g.Err(), ackwise.ErrClosed) {
			t.Errorf("append after Close: %v", g.Err())
		}
	})
}

func TestNothingIsReleasedBeforeItsSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hold := make(chan struct{})
		faults := vfs.NewFaults(vfs.NewMem())
		o := testOptions(faults)
		var synced, written uint64
		o.Released = func(w, s uint64, err error) { written, synced = w, s }
		l, _ := mustOpen(t, o)
		block := &vfs.Fault{Op: vfs.OpSync, N: 1, Block: hold}
		faults.Set(block)
		g := l.Append([]Record{{Payload: []byte("a")}}, true)
		next := l.Append([]Record{{Payload: []byte("b")}}, true) // joins, or fills while a syncs
		synctest.Wait()
		if faults.Fired(block) != 1 {
			t.Fatal("the sync did not hang")
		}
		select {
		case <-g.Synced():
			t.Error("released as synced before the sync returned")
		case <-next.Synced():
			t.Error("the next group was released before the sync returned")
		default:
		}
		<-g.Written()
		if written == 0 || synced != 0 || l.Written() != written || l.Synced() != 0 {
			t.Errorf("told %d, %d; watermarks %d, %d", written, synced, l.Written(), l.Synced())
		}
		close(hold)
		<-g.Synced()
		<-next.Synced()
		mustClose(t, l)
		if synced < next.End() || l.Synced() != synced {
			t.Errorf("told %d, watermark %d, want at least %d", synced, l.Synced(), next.End())
		}
	})
}

func TestFailedSyncLatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		faults := vfs.NewFaults(m)
		o := testOptions(faults)
		var told []error
		calls := 0
		o.Released = func(_, _ uint64, err error) {
			calls++
			if err != nil {
				told = append(told, err)
			}
		}
		l, _ := mustOpen(t, o)
		put(t, l, true, "good")
		acks := l.Append([]Record{{Payload: []byte("ack")}}, false)
		<-acks.Written()
		before := l.Synced()
		fail := &vfs.Fault{Op: vfs.OpSync, N: 1, Err: syscall.EIO}
		faults.Set(fail)
		g := l.Append([]Record{{Type: 3, Payload: []byte("bad")}}, true)
		<-g.Synced()
		<-acks.Synced()
		if faults.Fired(fail) != 1 || !errors.Is(g.Err(), syscall.EIO) || acks.Err() == nil {
			t.Fatalf("failed sync: group %v, earlier unsynced group %v", g.Err(), acks.Err())
		}
		synctest.Wait()
		calls = 0
		later := l.Append([]Record{{Payload: []byte("later")}}, true)
		<-later.Synced()
		<-later.Written()
		time.Sleep(time.Hour) // virtual: the mark's timer must not come either
		if !errors.Is(later.Err(), syscall.EIO) || len(told) != 1 || calls != 0 {
			t.Errorf("after the failure: %v, told %v, %d calls", later.Err(), told, calls)
		}
		if l.Synced() != before {
			t.Errorf("synced moved from %d to %d by a failed sync", before, l.Synced())
		}
		if err := l.Close(); !errors.Is(err, syscall.EIO) {
			t.Errorf("Close = %v, want the failure", err)
		}
	})
}

func TestFullDisk(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	if free, err := l.FreeBytes(); err != nil || free < 1<<40 {
		t.Fatalf("FreeBytes = %d, %v", free, err)
	}
	m.SetCapacity(8 << 10)
	var want []string
	var g *Group
	for i := 0; ; i++ {
		p := fmt.Sprint("message ", i)
		g = l.Append([]Record{{Type: byte(len(p)), Payload: []byte(p)}}, true)
		if <-g.Synced(); g.Err() != nil {
			break
		}
		want = append(want, p)
	}
	var hint *ackwise.HintError
	if !errors.Is(g.Err(), ErrNoSpace) || !errors.Is(g.Err(), syscall.ENOSPC) ||
		!errors.As(g.Err(), &hint) || len(want) == 0 {
		t.Fatalf("after %d groups: %v, want ErrNoSpace with a hint", len(want), g.Err())
	}
	_ = l.Close()
	if _, _, err := Open(testOptions(m)); err != nil && !errors.Is(err, ErrNoSpace) {
		t.Fatalf("Open on the full disk: %v", err)
	}
	m.SetCapacity(1 << 20)
	l, _ = mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	wantContents(t, l, want)
}

func TestIdleMarkIsWrittenOnceAndThenNothingRuns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		faults := vfs.NewFaults(m)
		l, _ := mustOpen(t, testOptions(faults))
		put(t, l, true, "one")
		put(t, l, false, "two")
		end := l.End()
		time.Sleep(markDelay - time.Millisecond) // virtual
		synctest.Wait()
		if l.End() != end || l.Synced() == l.Written() {
			t.Fatal("something was written before the second was over")
		}
		time.Sleep(time.Millisecond) // virtual
		synctest.Wait()
		if l.End() != end+blockBytes || l.Synced() != l.End() {
			t.Fatalf("after a second: end %d, synced %d, want %d", l.End(), l.Synced(),
				end+blockBytes)
		}
		calls := faults.Calls(vfs.OpAny)
		time.Sleep(24 * time.Hour) // virtual
		synctest.Wait()
		if n := faults.Calls(vfs.OpAny) - calls; n != 0 {
			t.Errorf("%d calls that change the disk while idle, want 0", n)
		}
		// What the mark covers is damage when it is gone, no longer a torn tail.
		disk := m.Clone()
		mustClose(t, l)
		name := files(t, disk, segmentSuffix)[0]
		b := readTestFile(t, disk, name)
		b[blockBytes+headerBytes+frameBytes] ^= 1
		writeTestFile(t, disk, name, b)
		_, _, err := Open(testOptions(disk))
		wantDamage(t, err, name, blockBytes)
	})
}

func TestUnsyncedWritesDoNotPileUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		l, _ := mustOpen(t, testOptions(vfs.NewMem()))
		defer mustClose(t, l)
		for range 40 {
			put(t, l, false, "ack")
			time.Sleep(100 * time.Millisecond) // virtual
		}
		if lag := l.Written() - l.Synced(); lag > 11*blockBytes {
			t.Errorf("%d bytes wait for a sync under a stream of acks", lag)
		}
	})
}

func TestNoSyncReleasesWithoutSync(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		faults := vfs.NewFaults(m)
		o := Options{FS: faults, Dir: testDir, NoSync: true}
		l, _ := mustOpen(t, o)
		n := faults.Calls(vfs.OpSync)
		put(t, l, true, "a")
		put(t, l, true, "b")
		time.Sleep(time.Hour) // virtual
		synctest.Wait()
		if got := faults.Calls(vfs.OpSync) - n; got != 0 {
			t.Errorf("%d syncs, want 0", got)
		}
		disk := m.Clone()
		mustClose(t, l)
		for _, d := range []*vfs.Mem{m, disk} {
			l, _ := mustOpen(t, testOptions(d))
			wantContents(t, l, []string{"a", "b"})
			mustClose(t, l)
		}
	})
}

func TestRemove(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	var want []string
	var old Record
	for i := range 20 {
		p := fmt.Sprint(i, strings.Repeat(".", 400))
		r := put(t, l, true, p)[0]
		if id := segmentOf(t, l, r.Pos); id == 2 {
			old = r
		} else if id != 4 {
			want = append(want, p)
		}
	}
	if old.Pos == 0 {
		t.Fatal("no record in segment 2")
	}
	active := l.Segments()[len(l.Segments())-1].ID
	if err := l.Remove(2, 4, active, 999); err != nil {
		t.Fatal(err)
	}
	if names := files(t, m, segmentSuffix); slices.Contains(names, segmentName(2)) ||
		!slices.Contains(names, segmentName(active)) {
		t.Errorf("files %v", names)
	}
	if _, err := l.ReadAt(old.Pos, nil); !errors.Is(err, errNotKept) {
		t.Errorf("read of a removed record: %v", err)
	}
	wantContents(t, l, want)
	mustClose(t, l)
	l, _ = mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	wantContents(t, l, want)
}

func TestManySegmentsKeepFewFilesOpen(t *testing.T) {
	l, _ := mustOpen(t, Options{FS: vfs.NewMem(), Dir: testDir, SegmentBytes: 512})
	defer mustClose(t, l)
	var recs []Record
	for i := range 3 * maxHandles {
		recs = append(recs, put(t, l, true, fmt.Sprint(i))...)
	}
	wantReads(t, l, recs)
	if l.handles > maxHandles || len(l.Segments()) < 2*maxHandles {
		t.Errorf("%d files open of %d segments", l.handles, len(l.Segments()))
	}
}

func TestRottenRecordFailsAlone(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	recs := put(t, l, true, "first", "second", strings.Repeat("third", 2000), "fourth")
	name := segmentName(segmentOf(t, l, recs[1].Pos))
	b := readTestFile(t, m, name)
	off := blockBytes + int64(recs[1].Pos)
	b[off+frameBytes] ^= 4
	writeTestFile(t, m, name, b)
	_, err := l.ReadAt(recs[1].Pos, nil)
	wantDamage(t, err, name, off)
	var bad []int
	l.ReadBatch([]uint64{recs[0].Pos, recs[1].Pos, recs[2].Pos, recs[3].Pos}, nil,
		func(i int, r Record, err error) {
			if err != nil {
				bad = append(bad, i)
			} else if !bytes.Equal(r.Payload, recs[i].Payload) {
				t.Errorf("record %d holds %.20q", i, r.Payload)
			}
		})
	if !slices.Equal(bad, []int{1}) {
		t.Errorf("unreadable: %v, want only 1", bad)
	}
}
