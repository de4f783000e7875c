package wal

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise/internal/vfs"
)

const testDir = "/db/log"

// testOptions are those of most tests: small segments, so that there are several.
func testOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: testDir, SegmentBytes: 2048}
}

// bubble runs a test in which the mark's second passes only when the test lets it.
func bubble(t *testing.T, fn func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, fn)
}

func mustOpen(t *testing.T, o Options) (*Log, Recovery) {
	t.Helper()
	l, rec, err := Open(o)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return l, rec
}

func mustClose(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// put appends one unit and waits until it is released, as synced where it is durable.
func put(t *testing.T, l *Log, durable bool, payloads ...string) []Record {
	t.Helper()
	recs := make([]Record, len(payloads))
	for i, p := range payloads {
		recs[i] = Record{Type: byte(len(p)), Payload: []byte(p)}
	}
	g := l.Append(recs, durable)
	if durable {
		<-g.Synced()
	} else {
		<-g.Written()
	}
	if err := g.Err(); err != nil {
		t.Fatalf("append %.20q: %v", payloads, err)
	}
	return recs
}

// contents replays everything that can be: what lies behind the last sparse segment.
func contents(l *Log) ([]string, error) {
	var got []string
	from, last := uint64(0), uint64(0)
	for _, s := range l.Segments() {
		if s.Sparse {
			from = s.End
		}
	}
	err := l.Replay(from, 0, func(r Record) error {
		if len(got) > 0 && r.Pos <= last {
			return fmt.Errorf("position %d after %d", r.Pos, last)
		}
		if int(r.Type) != len(r.Payload)%256 {
			return fmt.Errorf("type %d of %.20q", r.Type, r.Payload)
		}
		last = r.Pos
		got = append(got, string(r.Payload))
		return nil
	})
	return got, err
}

func wantContents(t *testing.T, l *Log, want []string) {
	t.Helper()
	got, err := contents(l)
	if err != nil {
		t.Fatalf("Replay: %v", err)
	}
	if !slices.Equal(got, want) {
		t.Fatalf("log holds %.60q, want %.60q", got, want)
	}
}

// segmentOf returns the segment that holds a position.
func segmentOf(t *testing.T, l *Log, pos uint64) SegmentID {
	t.Helper()
	for _, s := range l.Segments() {
		if s.Base <= pos && pos < s.End {
			return s.ID
		}
	}
	t.Fatalf("no segment holds position %d", pos)
	return 0
}

// files returns the names that end so, in order.
func files(t *testing.T, fs vfs.FS, suffix string) []string {
	t.Helper()
	names, err := fs.ReadDir(testDir)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(names, func(n string) bool { return !strings.HasSuffix(n, suffix) })
}

func readTestFile(t *testing.T, m *vfs.Mem, name string) []byte {
	t.Helper()
	b, err := m.ReadFile(filepath.Join(testDir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func writeTestFile(t *testing.T, m *vfs.Mem, name string, content []byte) {
	t.Helper()
	if err := m.WriteFile(filepath.Join(testDir, name), content); err != nil {
		t.Fatal(err)
	}
}

// fixture is the disk of a killed log: want is what it holds, all of it synced; the last group's
// place is known, and no mark covers it.
type fixture struct {
	disk       *vfs.Mem
	want       []string
	last       string // the file with the last group
	start, end int64  // of the last group in it
}

// killed makes a fixture of n groups.
func killed(t *testing.T, n int) fixture {
	t.Helper()
	m := vfs.NewMem()
	l, _ := mustOpen(t, testOptions(m))
	f := fixture{}
	var recs []Record
	for i := range n {
		p := fmt.Sprintf("payload %03d %s", i, strings.Repeat("x", i*37%700))
		recs = put(t, l, true, p, p+"'")
		f.want = append(f.want, p, p+"'")
	}
	f.disk = m.Clone()
	infos := l.Segments()
	s := infos[len(infos)-1]
	f.last = segmentName(s.ID)
	f.start = blockBytes + int64(recs[0].Pos-headerBytes-s.Base)
	f.end = s.Bytes
	mustClose(t, l)
	return f
}
