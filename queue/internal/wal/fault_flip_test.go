package wal

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise/internal/vfs"
)

// rotten is a log of one full segment of 64 KiB that nobody writes to any more.
type rotten struct {
	disk *vfs.Mem
	want []string
	name string // of the segment
	size int64
	// The engine closes with a checkpoint at the end of its log, and gives it to Open. By it alone a
	// file that was cut short is told from a torn tail. 0 = the log was killed, none is known.
	checkpoint uint64
}

func rottenOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, SegmentBytes: 1 << 20, StoreID: [16]byte{7}}
}

// grown makes a rotten log, which was closed, or killed after it had been idle for the mark.
func grown(t *testing.T, closed bool) rotten {
	t.Helper()
	m := vfs.NewMem()
	l, _ := mustOpen(t, rottenOptions(m))
	r := rotten{name: segmentName(1)}
	for i := 0; l.End() < 63<<10; i++ {
		p := fmt.Sprintf("%04d %s", i, strings.Repeat("payload ", i*37%120))
		put(t, l, i%3 > 0, p, "second "+p)
		r.want = append(r.want, p, "second "+p)
	}
	time.Sleep(2 * markDelay) // virtual: the mark is written
	synctest.Wait()
	r.disk = m.Clone()
	synced := l.Synced()
	mustClose(t, l)
	if closed {
		r.disk, r.checkpoint = m, synced
	}
	b := readTestFile(t, r.disk, r.name)
	r.size = int64(len(b))
	return r
}

// judge opens a damaged disk: the content is the original's, or the damage is refused by its name.
func (r *rotten) judge(disk *vfs.Mem) (refused bool, err error) {
	o := rottenOptions(disk)
	o.CheckpointPos = r.checkpoint
	l, _, err := Open(o)
	if err == nil {
		i := 0
		err = l.Replay(0, 0, func(rec Record) error {
			if i >= len(r.want) || string(rec.Payload) != r.want[i] ||
				int(rec.Type) != len(r.want[i])%256 {
				return fmt.Errorf("silently another record: %d is %.20q", i, rec.Payload)
			}
			i++
			return nil
		})
		if closeErr := l.Close(); err == nil && closeErr != nil {
			return false, closeErr
		}
		if err == nil && i < len(r.want) {
			return false, fmt.Errorf("silently only %d records of %d", i, len(r.want))
		}
	}
	if err == nil {
		return false, nil
	}
	var damage *CorruptionError
	var format *FormatError
	if errors.As(err, &damage) && damage.Segment != "" || errors.As(err, &format) {
		return true, nil
	}
	return false, err
}

// Row: any bit flipped before the mark. The short form tries one bit in 64.
func TestFaultEveryBitOf64KiBFlipped(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	for _, c := range []struct {
		name   string
		closed bool
		step   int
	}{{"closed", true, 1}, {"idle", false, 16}} {
		t.Run(c.name, func(t *testing.T) {
			step := 67 * c.step // odd: every bit of a byte has its turn
			if longFaults() {
				step = c.step
			}
			bubble(t, func(t *testing.T) {
				r := grown(t, c.closed)
				refused, harmless := 0, 0
				path := filepath.Join(testDir, r.name)
				for bit := int64(0); bit < r.size*8; bit += int64(step) {
					disk := r.disk.Clone()
					if err := disk.Flip(path, bit/8, 1<<(bit%8)); err != nil {
						t.Fatal(err)
					}
					found, err := r.judge(disk)
					if err != nil {
						t.Fatalf("bit %d of byte %d: %v", bit%8, bit/8, err)
					}
					if found {
						refused++
					} else {
						harmless++
					}
				}
				t.Logf("%d of %d bits flipped: %d refused, %d harmless, 0 silent", refused+harmless,
					r.size*8, refused, harmless)
				if refused+harmless < int(r.size*8)/step || refused < harmless || harmless == 0 {
					t.Errorf("of %d bytes", r.size)
				}
			})
		})
	}
}

// Row: every sector of 512 bytes zeroed, dropped, swapped with another, or doubled over another.
func TestFaultEverySectorSpoiled(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	step := 23
	if longFaults() {
		step = 1
	}
	bubble(t, func(t *testing.T) {
		r := grown(t, true)
		whole := readTestFile(t, r.disk, r.name)
		n := len(whole) / blockBytes
		tried, refused, index := 0, 0, 0
		sector := func(b []byte, i int) []byte { return b[i*blockBytes : (i+1)*blockBytes] }
		try := func(what string, i, j int, change func(b []byte) []byte) {
			if index++; what != "zeroed" && what != "dropped" && index%step != 0 {
				return
			}
			disk := r.disk.Clone()
			writeTestFile(t, disk, r.name, change(slices.Clone(whole)))
			found, err := r.judge(disk)
			if err != nil {
				t.Fatalf("sector %d %s %d: %v", i, what, j, err)
			}
			tried++
			if found {
				refused++
			}
		}
		for i := range n {
			try("zeroed", i, i, func(b []byte) []byte { clear(sector(b, i)); return b })
			try("dropped", i, i, func(b []byte) []byte {
				return slices.Delete(b, i*blockBytes, (i+1)*blockBytes)
			})
			for j := range n {
				if i == j {
					continue
				}
				try("doubled over", i, j, func(b []byte) []byte {
					copy(sector(b, j), sector(whole, i))
					return b
				})
				if i < j {
					try("swapped with", i, j, func(b []byte) []byte {
						copy(sector(b, j), sector(whole, i))
						copy(sector(b, i), sector(whole, j))
						return b
					})
				}
			}
		}
		t.Logf("%d sectors spoiled, %d refused, 0 silent", tried, refused)
		if tried < (n*n*3/2)/step || refused < tried*9/10 {
			t.Errorf("%d tried, %d refused: too few", tried, refused)
		}
	})
}

// Row: segments missing, shortened, swapped, from another directory: every pair of files of two
// logs with the same history, and every length of every file.
func TestFaultEveryPairOfFilesExchanged(t *testing.T) {
	disk := func(t *testing.T, id byte) (*vfs.Mem, rotten) {
		p := newPlayer(*seedFlag)
		p.opt = func(fs vfs.FS) Options {
			o := faultOptions(fs)
			o.StoreID = [16]byte{id}
			return o
		}
		if _, err := p.run("O" + script); err != nil {
			t.Fatal(err)
		}
		r := rotten{want: p.book.sent[p.book.freed:], checkpoint: p.log.Synced()}
		mustClose(t, p.log)
		return p.disk, r
	}
	bubble(t, func(t *testing.T) {
		mine, r := disk(t, 7)
		other, _ := disk(t, 8)
		names, err := mine.ReadDir(testDir)
		if err != nil || len(names) < 5 {
			t.Fatalf("files %v, %v", names, err)
		}
		tried, refused := 0, 0
		try := func(what string, mayPass bool, change func(m *vfs.Mem)) {
			t.Helper()
			m := mine.Clone()
			change(m)
			tried++
			found, err := r.judge(m)
			if err != nil || !found && !mayPass {
				t.Errorf("%s: refused %t, %v", what, found, err)
			}
			if found {
				refused++
			}
		}
		for _, to := range names {
			whole := readTestFile(t, mine, to)
			try(to+" is missing", false, func(m *vfs.Mem) { mustRemove(t, m, to) })
			for cut := 0; cut < len(whole); cut += 64 {
				// What was cut may be padding, or the mark itself.
				try(fmt.Sprint(to, " cut to ", cut), true, func(m *vfs.Mem) {
					writeTestFile(t, m, to, whole[:cut])
				})
			}
			for _, from := range names {
				try("another log's "+from+" as "+to, false, func(m *vfs.Mem) {
					writeTestFile(t, m, to, readTestFile(t, other, from))
				})
				if from != to {
					try(from+" as "+to, false, func(m *vfs.Mem) {
						writeTestFile(t, m, to, readTestFile(t, mine, from))
					})
				}
				if from < to {
					try(from+" and "+to+" swapped", false, func(m *vfs.Mem) {
						writeTestFile(t, m, to, readTestFile(t, mine, from))
						writeTestFile(t, m, from, whole)
					})
				}
			}
		}
		t.Logf("%d exchanges of %d files, %d refused, 0 silent", tried, len(names), refused)
		if tried < 100 || refused < tried*8/10 {
			t.Errorf("%d tried, %d refused: too few", tried, refused)
		}
	})
}

func mustRemove(t *testing.T, m *vfs.Mem, name string) {
	t.Helper()
	if err := m.Remove(filepath.Join(testDir, name)); err != nil {
		t.Fatal(err)
	}
}

// Row: a checkpoint newer than its log: every position beyond the end, and none before it.
func TestFaultCheckpointBeyondTheLog(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPlayer(*seedFlag)
		if _, err := p.run("O" + script); err != nil {
			t.Fatal(err)
		}
		end := p.log.End()
		mustClose(t, p.log)
		refused := 0
		for at := end - 2*blockBytes; at < end+8*blockBytes; at += 128 {
			o := faultOptions(p.disk.Clone())
			o.CheckpointPos = at
			l, rec, err := Open(o)
			if err == nil {
				if mustClose(t, l); rec.End < at {
					t.Errorf("a log that ends at %d took a checkpoint at %d", rec.End, at)
				}
				continue
			}
			var damage *CorruptionError
			if refused++; !errors.As(err, &damage) || at <= end {
				t.Errorf("checkpoint at %d, end at %d: %v", at, end, err)
			}
		}
		if refused < 20 {
			t.Errorf("only %d were refused", refused)
		}
	})
}
