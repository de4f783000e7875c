package wal

import (
	"fmt"
	"testing"
)

func TestSmoke(t *testing.T) {
	dir := t.TempDir() + "/log"
	for round := range 3 {
		l, rec, err := Open(Options{Dir: dir, SegmentBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%+v %+v", rec, l.Segments())
		n := 0
		if err := l.Replay(0, 0, func(r Record) error { n++; return nil }); err != nil {
			t.Fatal(err)
		}
		if n != round*100 {
			t.Fatalf("replayed %d", n)
		}
		for i := range 100 {
			recs := []Record{{Type: 1, Payload: fmt.Appendf(nil, "r%d-%d", round, i)}}
			g := l.Append(recs, true)
			<-g.Synced()
			if g.Err() != nil {
				t.Fatal(g.Err())
			}
			r, err := l.ReadAt(recs[0].Pos, nil)
			if err != nil || string(r.Payload) != string(recs[0].Payload) {
				t.Fatal(r, err)
			}
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
