package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise/internal/vfs"
)

// filling is a payload whose group is as long as a segment of testOptions.
func filling(b byte) string {
	return strings.Repeat(string(rune(b)), 2048-headerBytes-frameBytes)
}

func TestRemovedFilesAreWrittenAgain(t *testing.T) {
	for _, c := range []struct {
		name            string
		bound, free     int // Options.FreeSegments, and how many are free then
		created, reused int // of the next six segments
	}{
		{"as by default", 0, 4, 2, 4},
		{"fewer", 2, 2, 4, 2},
		{"none", NoFreeSegments, 0, 6, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := vfs.NewMem()
			faults := vfs.NewFaults(m)
			o := testOptions(faults)
			o.FreeSegments = c.bound
			l, _ := mustOpen(t, o)
			defer mustClose(t, l)
			for i := range 7 {
				put(t, l, true, filling('a'+byte(i)))
			}
			if err := l.Remove(1, 2, 3, 4, 5, 6); err != nil {
				t.Fatal(err)
			}
			if n := len(files(t, m, freeSuffix)); n != c.free {
				t.Fatalf("%d free files, want %d", n, c.free)
			}
			creates := faults.Calls(vfs.OpCreate)
			want := []string{filling('g')}
			for i := range 6 {
				want = append(want, filling('h'+byte(i)))
				put(t, l, true, want[i+1])
			}
			reused := 0
			for _, s := range l.segments {
				if s.found > 0 {
					reused++
				}
			}
			created := faults.Calls(vfs.OpCreate) - creates - 6 // less the lists
			if created != c.created || reused != c.reused {
				t.Errorf("%d files made and %d used again, want %d and %d", created, reused,
					c.created, c.reused)
			}
			wantContents(t, l, want)
			for _, d := range []*vfs.Mem{m.Clone(), m.CrashClone(rand.New(rand.NewPCG(1, 2)))} {
				l, _ := mustOpen(t, testOptions(d))
				wantContents(t, l, want)
				mustClose(t, l)
			}
		})
	}
}

func TestOpenKeepsFreeFilesThatAreWorthIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 4)
		o := testOptions(f.disk)
		o.FreeSegments = 2
		for id, size := range []int{100, 2048, 2047, 4 * 2048, 5 * 2048, 2048} {
			writeTestFile(t, f.disk, freeName(SegmentID(id+1)), make([]byte, size))
		}
		writeTestFile(t, f.disk, "notes.free", []byte("a person's"))
		l, _ := mustOpen(t, o)
		want := []string{freeName(2), freeName(4), "notes.free"}
		if got := files(t, f.disk, freeSuffix); !slices.Equal(got, want) {
			t.Errorf("free files %q, want %q", got, want)
		}
		wantContents(t, l, f.want)
		mustClose(t, l)
	})
}

// TestOpeningAgainAndAgainUsesNoFilesUp opens a log that nobody writes to.
func TestOpeningAgainAndAgainUsesNoFilesUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		for id := range 3 {
			writeFree(t, m, SegmentID(id+1))
		}
		for round := range 5 {
			l, rec := mustOpen(t, testOptions(m))
			if rec.Torn != 0 || l.segments[len(l.segments)-1].found == 0 {
				t.Errorf("round %d: torn %d, file of %d bytes", round, rec.Torn,
					l.segments[len(l.segments)-1].found)
			}
			mustClose(t, l)
			if n := len(files(t, m, freeSuffix)); n != 2 {
				t.Fatalf("round %d: %d free files, want 2", round, n)
			}
		}
	})
}

func writeFree(t *testing.T, m *vfs.Mem, id SegmentID) {
	t.Helper()
	if err := m.MkdirAll(testDir); err != nil {
		t.Fatal(err)
	}
	writeTestFile(t, m, freeName(id), bytes.Repeat([]byte{0xa5}, 3000))
}

// TestFileThatIsReadIsNotWrittenAgain removes a segment while a Replay is in the middle of it, and
// writes enough for every free file to be used.
func TestFileThatIsReadIsNotWrittenAgain(t *testing.T) {
	giveUp := map[string]func(l *Log, first SegmentID, pos uint64) error{
		"removed": func(l *Log, first SegmentID, _ uint64) error { return l.Remove(first) },
		"compacted": func(l *Log, first SegmentID, pos uint64) error {
			return l.Compact([]SegmentID{first}, []uint64{pos})
		},
	}
	for name, away := range giveUp {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			o := testOptions(m)
			o.SegmentBytes = 4 * scanWindow
			l, _ := mustOpen(t, o)
			defer mustClose(t, l)
			fill := func(b byte) (recs []Record) {
				for range 8 {
					recs = append(recs, put(t, l, true,
						strings.Repeat(string(rune(b)), scanWindow/2))...)
				}
				return recs
			}
			first := fill('a')
			fill('b')
			n := 0
			err := l.Replay(0, l.Segments()[0].End, func(r Record) error {
				if n == 0 {
					if err := away(l, 1, first[3].Pos); err != nil {
						return err
					}
					fill('c')
					fill('d')
				}
				n++
				if strings.Trim(string(r.Payload), "a") != "" {
					return fmt.Errorf("record %d holds %.20q", n, r.Payload)
				}
				return nil
			})
			if err != nil || n != 8 {
				t.Errorf("Replay gave %d records, %v, want 8", n, err)
			}
			if names := files(t, m, freeSuffix); len(names) != 0 {
				t.Errorf("free files %q of a segment that was being read", names)
			}
		})
	}
}

func TestSegmentThatIsRemovedBeforeItsFileIsOpenIsNotKept(t *testing.T) {
	bubble(t, func(t *testing.T) {
		hold := make(chan struct{})
		faults := vfs.NewFaults(vfs.NewMem())
		l, _ := mustOpen(t, testOptions(faults))
		defer mustClose(t, l)
		r := put(t, l, true, filling('a'))[0]
		put(t, l, true, filling('b'))
		block := &vfs.Fault{Op: vfs.OpOpen, N: 1, Block: hold}
		faults.Set(block)
		done := make(chan error)
		go func() {
			_, err := l.ReadAt(r.Pos, nil)
			done <- err
		}()
		synctest.Wait()
		if err := l.Remove(1); err != nil {
			t.Fatal(err)
		}
		put(t, l, true, filling('c'))
		close(hold)
		if err := <-done; !NotKept(err) || faults.Fired(block) != 1 {
			t.Errorf("read of a segment that was removed meanwhile: %v", err)
		}
	})
}

// TestBodyLikeAGroupDoesNotComeBack writes a body that holds a group with the checksums of its own
// segment, for exactly that place and position where the next group of the file's next life would
// be.
func TestBodyLikeAGroupDoesNotComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(m))
		const base, pos = 2 * 2048, 2*2048 + blockBytes
		fake := appendRecord(make([]byte, headerBytes), &Record{Type: 4, Payload: []byte("fake")})
		h := groupHeader{pos: pos, synced: base, length: uint32(len(fake) - headerBytes), count: 1}
		sealGroup(fake, h, segmentSeed(l.StoreID(), 1, 1))
		body := []byte(filling('a'))
		copy(body[blockBytes-headerBytes-frameBytes:], fake)
		put(t, l, true, string(body))
		put(t, l, true, filling('b'))
		if err := l.Remove(1); err != nil {
			t.Fatal(err)
		}
		want := []string{filling('b'), "new"}
		r := put(t, l, true, "new")[0]
		disk := m.Clone()
		mustClose(t, l)
		b := readTestFile(t, disk, segmentName(segmentOf(t, l, r.Pos)))
		if r.Pos != base+headerBytes || !bytes.Equal(b[2*blockBytes:][:len(fake)], fake) {
			t.Fatalf("the new record is at %d, and the file does not hold the old body", r.Pos)
		}
		l, rec := mustOpen(t, testOptions(disk))
		defer mustClose(t, l)
		wantContents(t, l, want)
		if rec.Torn != 0 {
			t.Errorf("torn %d, but the bytes of an earlier life are none of the log's", rec.Torn)
		}
	})
}

// TestCutAndRewriteInARecycledFile cuts two unsynced groups N and N+1 of which only N is torn, and
// brings the file back, by recycling, at the very position where N was. N' is written there, of the
// same length, and the old N+1 stands behind it.
func TestCutAndRewriteInARecycledFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		l, _ := mustOpen(t, testOptions(m))
		put(t, l, true, filling('s')) // all of segment 1
		n := put(t, l, false, strings.Repeat("N", 1400))[0]
		old := put(t, l, false, strings.Repeat("O", 400))[0]
		if segmentOf(t, l, n.Pos) != 2 || segmentOf(t, l, old.Pos) != 2 {
			t.Fatal("the groups are not where the trap is")
		}
		disk := m.Clone()
		mustClose(t, l)
		b := readTestFile(t, disk, segmentName(2))
		clear(b[blockBytes : 2*blockBytes])
		writeTestFile(t, disk, segmentName(2), b)

		want := []string{filling('s')}
		l, rec := mustOpen(t, testOptions(disk))
		if rec.Torn != 4*blockBytes || len(files(t, disk, freeSuffix)) != 1 {
			t.Fatalf("cut %d bytes, free files %q", rec.Torn, files(t, disk, freeSuffix))
		}
		wantContents(t, l, want)
		next := disk.Clone() // killed before anything was written
		mustClose(t, l)

		l, _ = mustOpen(t, testOptions(next))
		r := put(t, l, false, strings.Repeat("P", 1400))[0]
		want = append(want, strings.Repeat("P", 1400))
		file := segmentName(segmentOf(t, l, r.Pos))
		last := next.Clone()
		mustClose(t, l)
		again := readTestFile(t, last, file)
		if r.Pos != n.Pos || !bytes.Equal(again[4*blockBytes:], b[4*blockBytes:]) {
			t.Fatalf("N' is at %d, N was at %d; or the old N+1 is not behind it", r.Pos, n.Pos)
		}
		l, rec = mustOpen(t, testOptions(last))
		defer mustClose(t, l)
		wantContents(t, l, want)
		if rec.Torn != 0 {
			t.Errorf("torn %d, want 0: the old N+1 was cut long ago", rec.Torn)
		}
	})
}

// TestTornTailOfARecycledFile counts what is the segment's own, and nothing of an earlier life.
func TestTornTailOfARecycledFile(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		writeFree(t, m, 1)
		l, _ := mustOpen(t, testOptions(m))
		put(t, l, true, "synced")
		name := segmentName(l.Segments()[0].ID)
		put(t, l, false, "torn")
		put(t, l, false, strings.Repeat("whole", 120))
		disk := m.Clone()
		size := l.Segments()[0].Bytes
		mustClose(t, l)
		b := readTestFile(t, disk, name)
		if len(b) != 3000 || size != 5*blockBytes {
			t.Fatalf("a file of %d bytes with %d of its own", len(b), size)
		}
		for _, c := range []struct {
			name string
			from int // where the file is lost
			to   int
			torn int64
			want []string
		}{
			{"the second group", 2 * blockBytes, 3 * blockBytes, 3 * blockBytes,
				[]string{"synced"}},
			{"the third group's records", 3*blockBytes + 100, 3*blockBytes + 101, 2 * blockBytes,
				[]string{"synced", "torn"}},
			{"all behind the first group", 2 * blockBytes, 3000, 0, []string{"synced"}},
		} {
			d := disk.Clone()
			lost := bytes.Clone(b)
			for i := c.from; i < c.to; i++ {
				lost[i] ^= 0xff
			}
			writeTestFile(t, d, name, lost)
			l, rec := mustOpen(t, testOptions(d))
			if rec.Torn != c.torn || rec.Torn > 0 && rec.TornPos == 0 {
				t.Errorf("%s: torn %d at %d, want %d", c.name, rec.Torn, rec.TornPos, c.torn)
			}
			wantContents(t, l, c.want)
			mustClose(t, l)
		}
	})
}

func TestDamageInARecycledFileIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		writeFree(t, m, 1)
		l, _ := mustOpen(t, testOptions(m))
		put(t, l, true, "first")
		put(t, l, true, "second") // its mark covers the first
		name := segmentName(l.Segments()[0].ID)
		disk := m.Clone()
		mustClose(t, l)
		b := readTestFile(t, disk, name)
		b[blockBytes+headerBytes+frameBytes] ^= 1
		writeTestFile(t, disk, name, b)
		_, _, err := Open(testOptions(disk))
		wantDamage(t, err, name, blockBytes)
	})
}

// TestNumbersAreNotGivenTwice frees a sparse segment, whose number is above that of the last one.
func TestNumbersAreNotGivenTwice(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	for _, p := range []string{filling('a'), filling('b'), "c"} {
		put(t, l, true, p) // the first two fill a segment each
	}
	if err := l.Compact([]SegmentID{1, 2}, []uint64{headerBytes}); err != nil {
		t.Fatal(err)
	}
	sparse := l.Segments()[0].ID
	if err := l.Remove(sparse); err != nil {
		t.Fatal(err)
	}
	if last := l.Segments()[0].ID; sparse <= last {
		t.Fatalf("the sparse segment is %d, the last one %d", sparse, last)
	}
	mustClose(t, l)
	free := files(t, m, freeSuffix)
	l, _ = mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	if id := l.Segments()[1].ID; id <= sparse || !slices.Contains(free, freeName(sparse)) {
		t.Errorf("segment %d was made, and %d was there before; free were %q", id, sparse, free)
	}
}

// TestUnlistedSegmentWithRecordsIsRefused has an older list beside a newer segment.
func TestUnlistedSegmentWithRecordsIsRefused(t *testing.T) {
	for _, free := range []int{0, 2} {
		t.Run(fmt.Sprint(free, " recycled files"), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := vfs.NewMem()
				for id := range free {
					writeFree(t, m, SegmentID(id+1))
				}
				l, _ := mustOpen(t, testOptions(m))
				put(t, l, true, filling('a'))
				older := m.Clone()
				put(t, l, true, "b")
				name := segmentName(l.Segments()[1].ID)
				newer := m.Clone()
				mustClose(t, l)
				writeTestFile(t, older, name, readTestFile(t, newer, name)[:blockBytes])
				l, _ = mustOpen(t, testOptions(older.Clone())) // a header alone is a leftover
				mustClose(t, l)
				writeTestFile(t, older, name, readTestFile(t, newer, name))
				_, _, err := Open(testOptions(older))
				wantDamage(t, err, name, 0)
			})
		})
	}
}

// TestFreeFileThatIsGoneIsMissedByNobody removes a free file behind the log's back.
func TestFreeFileThatIsGoneIsMissedByNobody(t *testing.T) {
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	defer mustClose(t, l)
	put(t, l, true, filling('a'))
	put(t, l, true, filling('b'))
	if err := l.Remove(1); err != nil {
		t.Fatal(err)
	}
	if err := m.Remove(testDir + "/" + freeName(1)); err != nil {
		t.Fatal(err)
	}
	put(t, l, true, filling('c'))
	wantContents(t, l, []string{filling('b'), filling('c')})
}

func TestFailedRemoveOffersNoFile(t *testing.T) {
	m := vfs.NewMem()
	faults := vfs.NewFaults(m)
	l, _ := mustOpen(t, testOptions(faults))
	defer mustClose(t, l)
	put(t, l, true, filling('a'))
	put(t, l, true, filling('b'))
	sync := &vfs.Fault{Op: vfs.OpSyncDir, N: 2, Err: errPower} // the first is the list's
	faults.Set(sync)
	if err := l.Remove(1); !errors.Is(err, errPower) || faults.Fired(sync) != 1 {
		t.Fatalf("Remove = %v, want the failure of the sync", err)
	}
	put(t, l, true, filling('c'))
	if s := l.segments[len(l.segments)-1]; s.found != 0 {
		t.Error("a file was written again whose removal is not known to be durable")
	}
}
