package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise/internal/vfs"
)

// numbered appends n records to a log, a few in a group, and returns them.
func numbered(t *testing.T, l *Log, n int) []Record {
	t.Helper()
	var all []Record
	for len(all) < n {
		var payloads []string
		for i := range min(7, n-len(all)) {
			payloads = append(payloads, fmt.Sprint("record ", len(all)+i,
				strings.Repeat("~", len(all)%60)))
		}
		all = append(all, put(t, l, true, payloads...)...)
	}
	return all
}

// sealed returns the numbers of all segments but the last, and where they end.
func sealed(l *Log) (ids []SegmentID, end uint64) {
	infos := l.Segments()
	for _, s := range infos[:len(infos)-1] {
		ids = append(ids, s.ID)
	}
	return ids, infos[len(infos)-1].Base
}

// wantSparse reads everything that stands before end: the chosen records are there, and no other.
func wantSparse(t *testing.T, l *Log, recs []Record, chosen map[uint64]bool, end uint64) {
	t.Helper()
	var kept []Record
	var positions []uint64
	for _, want := range recs {
		if want.Pos >= end {
			break
		}
		positions = append(positions, want.Pos)
		if chosen[want.Pos] {
			kept = append(kept, want)
		} else if r, err := l.ReadAt(want.Pos, nil); !NotKept(err) {
			t.Fatalf("ReadAt(%d) = %.20q, %v, but it was not chosen", want.Pos, r.Payload, err)
		}
	}
	if len(kept) == 0 {
		t.Fatal("nothing was chosen")
	}
	wantReads(t, l, kept)
	next := 0
	l.ReadBatch(positions, nil, func(i int, r Record, err error) {
		switch {
		case i != next, chosen[positions[i]] != (err == nil), err != nil && !NotKept(err):
			t.Errorf("ReadBatch: %d-th call: %d, %v", next, i, err)
		case err == nil && (!bytes.Equal(r.Payload, recs[i].Payload) || r.Pos != positions[i] ||
			r.Type != recs[i].Type):
			t.Errorf("ReadBatch: record %d is %.20q at %d", i, r.Payload, r.Pos)
		}
		next++
	})
	if next != len(positions) {
		t.Errorf("ReadBatch called %d times, want %d", next, len(positions))
	}
}

// choose takes about one record of share that stand before end.
func choose(recs []Record, end uint64, share int) (positions []uint64, chosen map[uint64]bool) {
	chosen = map[uint64]bool{}
	for i, r := range recs {
		if r.Pos < end && i*7919%share == 0 {
			positions = append(positions, r.Pos)
			chosen[r.Pos] = true
		}
	}
	return positions, chosen
}

func TestCompactedRecordsStayWhereTheyWere(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		o := testOptions(m)
		o.SegmentBytes = 8192
		l, _ := mustOpen(t, o)
		recs := numbered(t, l, 3000) // the table has several pages
		ids, end := sealed(l)
		positions, chosen := choose(recs, end, 3)
		if len(ids) < 5 || len(positions) < 2*pageEntries {
			t.Fatalf("%d segments, %d records", len(ids), len(positions))
		}
		if err := l.Compact(ids, positions); err != nil {
			t.Fatal(err)
		}
		infos := l.Segments()
		if s := infos[0]; len(infos) != 2 || !s.Sparse || infos[1].Sparse || s.Base != 0 ||
			s.End != end || s.Bytes != int64(len(readTestFile(t, m, segmentName(s.ID)))) {
			t.Fatalf("segments %+v", infos)
		}
		if err := l.Replay(0, 0, func(Record) error { return nil }); !errors.Is(err, errSparse) {
			t.Errorf("Replay into a sparse segment: %v", err)
		}
		for _, disk := range []*vfs.Mem{m, m.Clone(), m.CrashClone(rand.New(rand.NewPCG(3, 4)))} {
			if disk != m {
				o.FS = disk
				l, _ = mustOpen(t, o)
			}
			wantSparse(t, l, recs, chosen, end)
			var want []string
			for _, r := range recs {
				if r.Pos >= end {
					want = append(want, string(r.Payload))
				}
			}
			wantContents(t, l, want)
			mustClose(t, l)
		}
	})
}

// TestCompactAgain puts sparse segments and others together, in several orders.
func TestCompactAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(m))
		recs := numbered(t, l, 300)
		ids, _ := sealed(l)
		if len(ids) < 9 {
			t.Fatalf("%d segments", len(ids))
		}
		if err := l.Remove(ids[4]); err != nil { // a hole, which the new segment spans
			t.Fatal(err)
		}
		chosen := map[uint64]bool{}
		for round, part := range [][2]int{{2, 4}, {0, 2}, {0, 2}, {2, 4}, {0, 3}} {
			ids, _ := sealed(l)
			ids = ids[part[0]:part[1]]
			infos := l.Segments()[part[0]:part[1]]
			var positions []uint64
			for i, r := range recs {
				if r.Pos < infos[0].Base || r.Pos >= infos[len(infos)-1].End {
					continue
				}
				_, err := l.ReadAt(r.Pos, nil)
				if err == nil && i%5 != round {
					positions = append(positions, r.Pos)
					chosen[r.Pos] = true
				} else {
					delete(chosen, r.Pos)
				}
			}
			if err := l.Compact(ids, positions); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			infos = l.Segments()
			if !slices.IsSortedFunc(infos, func(a, b SegmentInfo) int {
				return int(a.End) - int(b.Base)
			}) {
				t.Fatalf("round %d: segments %+v", round, infos)
			}
		}
		if s := l.Segments()[0]; !s.Sparse || len(l.Segments()) < 5 {
			t.Fatalf("segments %+v", l.Segments())
		}
		end := l.Segments()[0].End
		wantSparse(t, l, recs, chosen, end)
		mustClose(t, l)
		l, rec := mustOpen(t, testOptions(m))
		wantSparse(t, l, recs, chosen, end)
		put(t, l, true, filling('n'))
		put(t, l, true, "more")
		numbers := map[SegmentID]bool{}
		for _, s := range l.Segments() {
			if numbers[s.ID] || s.ID > l.number {
				t.Errorf("number %d twice, or above %d", s.ID, l.number)
			}
			numbers[s.ID] = true
		}
		if err := l.Remove(l.Segments()[0].ID); err != nil {
			t.Fatal(err)
		}
		if _, err := l.ReadAt(recs[0].Pos, nil); !NotKept(err) || rec.Torn != 0 {
			t.Errorf("read of a removed sparse segment: %v; torn %d", err, rec.Torn)
		}
		mustClose(t, l)
	})
}

func TestCompactRefusesWhatItCannotDo(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	recs := numbered(t, l, 100)
	ids, end := sealed(l)
	first := l.Segments()[0]
	active := l.Segments()[len(ids)].ID
	before := snapshot(t, m)
	for _, c := range []struct {
		name      string
		ids       []SegmentID
		positions []uint64
		want      error
	}{
		{"no segment", nil, []uint64{recs[0].Pos}, errNotNeighbours},
		{"no position", ids[:1], nil, errPositions},
		{"no neighbours", []SegmentID{ids[0], ids[2]}, []uint64{recs[0].Pos}, errNotNeighbours},
		{"not in order", []SegmentID{ids[1], ids[0]}, []uint64{recs[0].Pos}, errNotNeighbours},
		{"not there", []SegmentID{999}, []uint64{recs[0].Pos}, errNotNeighbours},
		{"the active one", append(slices.Clone(ids), active), []uint64{recs[0].Pos},
			errNotNeighbours},
		{"unsorted", ids, []uint64{recs[1].Pos, recs[0].Pos}, errPositions},
		{"twice the same", ids, []uint64{recs[1].Pos, recs[1].Pos}, errPositions},
		{"behind them", ids, []uint64{end}, errPositions},
		{"behind the first", ids[:1], []uint64{first.End}, errPositions},
	} {
		if err := l.Compact(c.ids, c.positions); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	err := l.Compact(ids, []uint64{recs[0].Pos + 1}) // no record begins there
	wantDamage(t, err, segmentName(ids[0]), blockBytes+int64(recs[0].Pos)+1)
	if after := snapshot(t, m); len(after) != len(before) {
		t.Errorf("%d files became %d", len(before), len(after))
	}
	wantReads(t, l, recs)
}

func TestCompactOnAFullDiskChangesNothing(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	recs := numbered(t, l, 100)
	ids, end := sealed(l)
	positions, chosen := choose(recs, end, 2)
	used := 0
	for _, content := range snapshot(t, m) {
		used += len(content)
	}
	failed := 0
	for spare := 0; ; spare += 500 {
		m.SetCapacity(int64(used + spare))
		err := l.Compact(ids, positions)
		if err == nil {
			break
		}
		if !errors.Is(err, ErrNoSpace) || len(files(t, m, tempSuffix)) > 0 ||
			len(l.Segments()) != len(ids)+1 {
			t.Fatalf("with %d bytes to spare: %v, segments %d", spare, err, len(l.Segments()))
		}
		failed++
		wantReads(t, l, recs)
	}
	if failed < 3 {
		t.Errorf("the disk was full %d times", failed)
	}
	m.SetCapacity(-1)
	wantSparse(t, l, recs, chosen, end)
	put(t, l, true, "goes on")
}

// TestLogGoesOnWhileItIsCompacted has the copy hang, goes on writing into new segments, and removes
// one of the segments that are being compacted.
func TestLogGoesOnWhileItIsCompacted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		faults := vfs.NewFaults(m)
		l, _ := mustOpen(t, testOptions(faults))
		defer mustClose(t, l)
		for i := range 4 {
			put(t, l, true, filling('a'+byte(i))) // each fills a segment
		}
		hold := make(chan struct{})
		block := &vfs.Fault{Op: vfs.OpWrite, N: 1, Block: hold}
		faults.Set(block)
		done := make(chan error)
		go func() { done <- l.Compact([]SegmentID{1, 2}, []uint64{headerBytes, 2048 + headerBytes}) }()
		synctest.Wait()
		put(t, l, true, filling('e'))
		put(t, l, true, filling('f'))
		if err := l.Remove(2); err != nil {
			t.Fatal(err)
		}
		put(t, l, true, filling('g'))
		close(hold)
		if err := <-done; !NotKept(err) || faults.Fired(block) != 1 {
			t.Fatalf("Compact = %v, but a segment was removed meanwhile", err)
		}
		if names := files(t, m, tempSuffix); len(names) > 0 {
			t.Errorf("files %q are left", names)
		}
		var want []string
		for _, b := range "acdefg" {
			want = append(want, filling(byte(b)))
		}
		wantContents(t, l, want)
	})
}

// TestBitFlipsInASparseSegment flips bits: what was chosen is read as it was, or refused as damage
// of this file; it never passes for not kept.
func TestBitFlipsInASparseSegment(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(m))
		recs := numbered(t, l, 60)
		ids, end := sealed(l)
		positions, chosen := choose(recs, end, 2)
		if err := l.Compact(ids, positions); err != nil {
			t.Fatal(err)
		}
		name := segmentName(l.Segments()[0].ID)
		table := l.segments[0].table
		mustClose(t, l)
		content := readTestFile(t, m, name)
		rng := rand.New(rand.NewPCG(*seedFlag, 9))
		refused, harmless := 0, 0
		for at := range content {
			disk := m.Clone()
			b := bytes.Clone(content)
			b[at] ^= 1 << rng.IntN(8)
			writeTestFile(t, disk, name, b)
			bad := 0
			l, _, err := Open(testOptions(disk))
			if err != nil {
				wantRefused(t, err, name)
				bad++
			} else {
				l.ReadBatch(positions, nil, func(i int, r Record, err error) {
					if err != nil {
						wantDamage(t, err, name, -1)
						bad++
					} else if !chosen[r.Pos] || r.Pos != positions[i] {
						t.Fatalf("-seed %d: byte %d: position %d", *seedFlag, at, r.Pos)
					}
				})
				mustClose(t, l)
			}
			if bad > 0 {
				refused++
			} else {
				harmless++
			}
			if int64(at) >= table && bad != len(positions) {
				t.Fatalf("-seed %d: byte %d of the table: %d of %d unreadable", *seedFlag, at, bad,
					len(positions))
			}
		}
		if refused < pageBytes || harmless > 2*blockBytes {
			t.Errorf("%d refused, %d harmless", refused, harmless)
		}
	})
}

// wantRefused is wantDamage, or a format that is not known.
func wantRefused(t *testing.T, err error, name string) {
	t.Helper()
	if _, ok := errors.AsType[*FormatError](err); !ok {
		wantDamage(t, err, name, -1)
	}
}

func TestSurgeryOnSparseFilesIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(m))
		for i := range 4 {
			put(t, l, true, filling('a'+byte(i))) // each fills a segment
		}
		for id := SegmentID(1); id < 3; id++ {
			if err := l.Compact([]SegmentID{id}, []uint64{
				uint64(id-1)*2048 + headerBytes}); err != nil {
				t.Fatal(err)
			}
		}
		infos := l.Segments()
		first, second := segmentName(infos[0].ID), segmentName(infos[1].ID)
		mustClose(t, l)
		b := readTestFile(t, m, first)
		for _, c := range []struct {
			name   string
			change func(d *vfs.Mem)
		}{
			{"missing", func(d *vfs.Mem) {
				if err := d.Remove(filepath.Join(testDir, first)); err != nil {
					t.Fatal(err)
				}
			}},
			{"shortened", func(d *vfs.Mem) { writeTestFile(t, d, first, b[:len(b)-1]) }},
			{"another sparse one", func(d *vfs.Mem) {
				writeTestFile(t, d, first, readTestFile(t, m, second))
			}},
			{"one that is not sparse", func(d *vfs.Mem) {
				writeTestFile(t, d, first, readTestFile(t, m, segmentName(infos[2].ID)))
			}},
		} {
			d := m.Clone()
			c.change(d)
			_, _, err := Open(testOptions(d))
			t.Log(c.name)
			wantDamage(t, err, first, -1)
		}
	})
}

// crowd is what writes to a log and reads from it at once. Each reader knows what it reads.
type crowd struct {
	log        *Log
	stop       atomic.Bool
	read, away atomic.Int64 // reads of what was there, and of what was not kept

	mu   sync.Mutex // guards recs
	recs []Record
}

func (c *crowd) write(w int) {
	for i := 0; !c.stop.Load(); i++ {
		p := fmt.Appendf(nil, "writer %d record %d %s", w, i, strings.Repeat(".", i%300))
		unit := []Record{{Type: 1, Payload: p}}
		if g := c.log.Append(unit, i%3 == 0); i%3 == 0 {
			<-g.Synced()
		} else {
			<-g.Written()
		}
		c.mu.Lock()
		c.recs = append(c.recs, unit[0])
		c.mu.Unlock()
	}
}

// pick returns one of the last records.
func (c *crowd) pick(rng *rand.Rand) (Record, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.recs) == 0 {
		return Record{}, false
	}
	return c.recs[len(c.recs)-1-rng.IntN(min(len(c.recs), 500))], true
}

func (c *crowd) check(t *testing.T, rng *rand.Rand) {
	for !c.stop.Load() {
		want, ok := c.pick(rng)
		if !ok {
			continue
		}
		got, err := c.log.ReadAt(want.Pos, nil)
		switch {
		case NotKept(err):
			c.away.Add(1)
		case err != nil || !bytes.Equal(got.Payload, want.Payload):
			t.Errorf("read %.30q, %v, want %.30q", got.Payload, err, want.Payload)
			c.stop.Store(true)
		default:
			c.read.Add(1)
		}
	}
}

// clear compacts two segments, or removes three of which one was compacted before.
func (c *crowd) clear(infos []SegmentInfo) error {
	var positions []uint64
	c.mu.Lock()
	for i, r := range c.recs {
		if r.Pos >= infos[1].Base && r.Pos < infos[2].End && i%2 == 0 {
			positions = append(positions, r.Pos)
		}
	}
	c.mu.Unlock()
	slices.Sort(positions)
	if infos[1].Sparse || len(positions) == 0 {
		return c.log.Remove(infos[0].ID, infos[1].ID, infos[2].ID)
	}
	return c.log.Compact([]SegmentID{infos[1].ID, infos[2].ID}, positions)
}

func (c *crowd) enough() bool { return c.read.Load() > 200 && c.away.Load() > 20 }

func TestWritersReadersAndCompaction(t *testing.T) {
	l, _ := mustOpen(t, Options{FS: vfs.NewMem(), Dir: testDir, SegmentBytes: 4096})
	c := &crowd{log: l}
	var wg sync.WaitGroup
	for w := range 2 {
		wg.Go(func() { c.write(w) })
		wg.Go(func() { c.check(t, rand.New(rand.NewPCG(5, uint64(w)))) })
	}
	for round := 0; (round < 60 || !c.enough()) && round < 50_000 && !c.stop.Load(); {
		infos := l.Segments()
		if len(infos) < 5 {
			<-l.Append(nil, true).Synced()
			continue
		}
		round++
		if err := c.clear(infos); err != nil {
			t.Error(err)
			c.stop.Store(true)
		}
	}
	c.stop.Store(true)
	wg.Wait()
	if !c.enough() {
		t.Errorf("%d reads, %d of what was not kept: the test sees too few", c.read.Load(),
			c.away.Load())
	}
	mustClose(t, l)
}
