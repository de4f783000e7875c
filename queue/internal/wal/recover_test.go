package wal

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// wantDamage checks that an error is damage of a file, with a hint; an offset < 0 may be any.
func wantDamage(t *testing.T, err error, name string, offset int64) {
	t.Helper()
	var damage *CorruptionError
	var hint *ackwise.HintError
	if !errors.As(err, &damage) || !errors.As(err, &hint) {
		t.Fatalf("got %v, want damage with a hint", err)
	}
	if damage.Segment != name || damage.Dir != testDir || offset >= 0 && damage.Offset != offset {
		t.Fatalf("damage in %s at %d, want %s at %d: %v", damage.Segment, damage.Offset, name,
			offset, err)
	}
}

// snapshot is the content of every file.
func snapshot(t *testing.T, m *vfs.Mem) map[string]string {
	t.Helper()
	names, err := m.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, n := range names {
		all[n] = string(readTestFile(t, m, n))
	}
	return all
}

func TestTornTailIsCutAndCounted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 8)
		whole := readTestFile(t, f.disk, f.last)
		size := int(f.end - f.start)
		kept := f.want[:len(f.want)-2]
		rng := rand.New(rand.NewPCG(1, 2))
		older := readTestFile(t, f.disk, files(t, f.disk, segmentSuffix)[0])
		fill := func(cut int, with func(i int) byte) []byte {
			b := slices.Clone(whole[:f.start+int64(cut)])
			for i := cut; i < size; i++ {
				b = append(b, with(i))
			}
			return b
		}
		check := func(name string, content []byte) {
			t.Helper()
			disk := f.disk.Clone()
			writeTestFile(t, disk, f.last, content)
			l, rec, err := Open(testOptions(disk))
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			defer mustClose(t, l)
			want, torn := kept, int64(len(content))-f.start
			records := f.start + headerBytes + int64(groupLength(whole, f))
			if bytes.HasPrefix(content, whole[:records]) && len(content) == len(whole) {
				want, torn = f.want, 0 // only padding was lost
			}
			if rec.Torn != torn {
				t.Fatalf("%s: cut %d bytes, want %d", name, rec.Torn, torn)
			}
			wantContents(t, l, want)
			more := append(slices.Clone(want), "more")
			put(t, l, true, "more")
			wantContents(t, l, more)
		}
		for cut := range size {
			check(fmt.Sprint("cut at ", cut), whole[:f.start+int64(cut)])
			check(fmt.Sprint("zeros from ", cut), fill(cut, func(int) byte { return 0 }))
			check(fmt.Sprint("ones from ", cut), fill(cut, func(int) byte { return 0xff }))
			check(fmt.Sprint("garbage from ", cut),
				fill(cut, func(int) byte { return byte(rng.Uint32()) }))
			check(fmt.Sprint("old bytes from ", cut),
				fill(cut, func(i int) byte { return older[(blockBytes+i)%len(older)] }))
		}
	})
}

func groupLength(whole []byte, f fixture) uint32 {
	b := whole[f.start:]
	return uint32(b[24]) | uint32(b[25])<<8 | uint32(b[26])<<16
}

func TestEveryBitFlipIsRefusedOrHarmless(t *testing.T) {
	for _, free := range []int{0, 1} {
		t.Run(fmt.Sprint(free, " recycled files"), func(t *testing.T) {
			bubble(t, func(t *testing.T) { everyBitFlip(t, free) })
		})
	}
}

func everyBitFlip(t *testing.T, free int) {
	m := vfs.NewMem()
	for id := range free {
		writeFree(t, m, SegmentID(id+1))
	}
	l, _ := mustOpen(t, testOptions(m))
	var want []string
	for i := range 6 {
		p := fmt.Sprint(i, strings.Repeat("z", i*60))
		put(t, l, i%2 == 0, p, "+")
		want = append(want, p, "+")
	}
	mustClose(t, l)
	refused, harmless := 0, 0
	for name, content := range snapshot(t, m) {
		for bit := range len(content) * 8 {
			disk := m.Clone()
			b := []byte(content)
			b[bit/8] ^= 1 << (bit % 8)
			writeTestFile(t, disk, name, b)
			if flipRefused(t, disk, want, fmt.Sprintf("bit %d of %s", bit, name)) {
				refused++
			} else {
				harmless++
			}
		}
	}
	if refused == 0 || harmless == 0 {
		t.Errorf("%d refused, %d harmless: the test sees only one of both", refused, harmless)
	}
	t.Logf("%d refused, %d harmless, 0 silent", refused, harmless)
}

// flipRefused opens a rotten disk. Either the log refuses, and nothing has changed if it was Open
// that did, or the content is whole.
func flipRefused(t *testing.T, disk *vfs.Mem, want []string, what string) bool {
	t.Helper()
	before := snapshot(t, disk)
	l, _, err := Open(testOptions(disk))
	if err != nil {
		after := snapshot(t, disk)
		for name := range before {
			if before[name] != after[name] || len(before) != len(after) {
				t.Fatalf("%s: Open refused and changed %s", what, name)
			}
		}
	} else {
		defer mustClose(t, l)
		var got []string
		got, err = contents(l)
		if err == nil && !slices.Equal(got, want) {
			t.Fatalf("%s: silently other content %.30q", what, got)
		}
	}
	var damage *CorruptionError
	var format *FormatError
	if err != nil && !errors.As(err, &damage) && !errors.As(err, &format) {
		t.Fatalf("%s: %v is neither damage nor a format", what, err)
	}
	return err != nil
}

func TestSurgeryOnFilesIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 12)
		other := killed(t, 12)
		names := files(t, f.disk, segmentSuffix)
		if len(names) < 3 {
			t.Fatalf("only %d segments", len(names))
		}
		refuse := func(what, name string, change func(m *vfs.Mem)) {
			t.Helper()
			disk := f.disk.Clone()
			change(disk)
			_, _, err := Open(testOptions(disk))
			t.Log(what)
			wantDamage(t, err, name, -1)
		}
		for i, name := range names {
			b := readTestFile(t, f.disk, name)
			refuse("missing "+name, name, func(m *vfs.Mem) {
				if err := m.Remove(filepath.Join(testDir, name)); err != nil {
					t.Fatal(err)
				}
			})
			refuse("another store's "+name, name, func(m *vfs.Mem) {
				writeTestFile(t, m, name, readTestFile(t, other.disk, name))
			})
			refuse("empty "+name, name, func(m *vfs.Mem) { writeTestFile(t, m, name, nil) })
			if i < len(names)-1 {
				refuse("shortened "+name, name, func(m *vfs.Mem) {
					writeTestFile(t, m, name, b[:len(b)-1])
				})
			}
			for _, with := range names {
				if with != name {
					refuse("swapped "+name+" with "+with, min(name, with), func(m *vfs.Mem) {
						writeTestFile(t, m, name, readTestFile(t, f.disk, with))
						writeTestFile(t, m, with, b)
					})
				}
			}
		}
		refuse("list missing", names[0], func(m *vfs.Mem) {
			if err := m.Remove(filepath.Join(testDir, manifestName)); err != nil {
				t.Fatal(err)
			}
		})
		refuse("another store's list", names[0], func(m *vfs.Mem) {
			writeTestFile(t, m, manifestName, readTestFile(t, other.disk, manifestName))
		})
		refuse("a full segment beyond the list", segmentName(99), func(m *vfs.Mem) {
			writeTestFile(t, m, segmentName(99), readTestFile(t, f.disk, names[0]))
		})
	})
}

func TestOtherStoreAndCheckpointBeyondTheEndAreRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 4)
		o := testOptions(f.disk)
		o.StoreID = [16]byte{1}
		_, _, err := Open(o)
		wantDamage(t, err, manifestName, 0)
		o = testOptions(f.disk)
		o.CheckpointPos = 1 << 20
		_, _, err = Open(o)
		wantDamage(t, err, f.last, f.end)
		o.FS = vfs.NewMem()
		_, _, err = Open(o)
		wantDamage(t, err, segmentName(1), 0)
	})
}

func TestCheckpointMakesATornTailDamage(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 2)
		b := readTestFile(t, f.disk, f.last)
		b[f.start+headerBytes+frameBytes] ^= 1
		writeTestFile(t, f.disk, f.last, b)
		o := testOptions(f.disk)
		o.CheckpointPos = uint64(f.start-blockBytes) + headerBytes + 1
		_, _, err := Open(o)
		wantDamage(t, err, f.last, f.start)
	})
}

func TestNewerFormatIsRefused(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 4)
		for _, name := range []string{f.last, manifestName} {
			disk := f.disk.Clone()
			b := readTestFile(t, disk, name)
			b[8] = formatVersion + 1
			writeTestFile(t, disk, name, b)
			_, _, err := Open(testOptions(disk))
			var format *FormatError
			if !errors.As(err, &format) || format.Found != formatVersion+1 ||
				format.Supported != formatVersion {
				t.Errorf("%s: %v, want a FormatError with both versions", name, err)
			}
		}
	})
}

// TestStaleBytesDoNotComeBack cuts group N although N+1 behind it is whole, writes another N of the
// same length, and looks whether the old N+1 follows it again.
func TestStaleBytesDoNotComeBack(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		o := testOptions(m)
		o.SegmentBytes = 1 << 20
		l, _ := mustOpen(t, o)
		put(t, l, true, "synced")
		n := put(t, l, false, "N.......")[0]
		put(t, l, false, "N+1.....")
		disk := m.Clone()
		mustClose(t, l)
		b := readTestFile(t, disk, segmentName(1))
		from := blockBytes + n.Pos - headerBytes
		clear(b[from : from+blockBytes])
		writeTestFile(t, disk, segmentName(1), b)
		want := []string{"synced"}
		for round := range 3 {
			o.FS = disk
			l, rec := mustOpen(t, o)
			if round == 0 && rec.Torn != 2*blockBytes {
				t.Fatalf("cut %d bytes, want %d", rec.Torn, 2*blockBytes)
			}
			wantContents(t, l, want)
			p := fmt.Sprintf("N'%d.....", round)
			put(t, l, round > 0, p)
			want = append(want, p)
			disk = disk.Clone()
			mustClose(t, l)
		}
	})
}

func TestLeftoversAreRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		f := killed(t, 4)
		writeTestFile(t, f.disk, manifestName+tempSuffix, []byte("half"))
		writeTestFile(t, f.disk, segmentName(77)+tempSuffix, nil)
		writeTestFile(t, f.disk, "notes.txt", []byte("a person's"))
		l, _ := mustOpen(t, testOptions(f.disk))
		defer mustClose(t, l)
		wantContents(t, l, f.want)
		names, err := f.disk.ReadDir(testDir)
		if err != nil || !slices.Contains(names, "notes.txt") {
			t.Errorf("names %v, %v: a strange file must stay", names, err)
		}
		for _, n := range names {
			if strings.HasSuffix(n, tempSuffix) {
				t.Errorf("%s is still there", n)
			}
		}
	})
}

// Open takes a free file for its segment, so that it does not write over the temporary file of the
// same number that a crash has left.
func TestLeftoverOfTheNumberThatOpenGivesIsRemoved(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := vfs.NewMem()
		writeFree(t, m, 1000)
		writeTestFile(t, m, segmentName(1001)+tempSuffix, []byte("half"))
		l, _ := mustOpen(t, testOptions(m))
		defer mustClose(t, l)
		if s := l.segments[0]; s.found == 0 || s.info.ID != 1001 {
			t.Fatalf("segment %d was made in a file of %d bytes", s.info.ID, s.found)
		}
		if temp := files(t, m, tempSuffix); len(temp) > 0 {
			t.Errorf("%q are still there", temp)
		}
	})
}
