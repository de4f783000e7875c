package dedup

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

// filled returns a window of closed buckets that are written, and the IDs in it.
func filled(t testing.TB, buckets, each int) (*Window, func(i int) string) {
	t.Helper()
	o := testOptions(vfs.OS{})
	o.Dir, o.BucketIDs, o.MaxIDs, o.WindowMillis = t.TempDir(), each, 1<<30, 1<<40
	w := New(o)
	id := func(i int) string { return fmt.Sprintf("0b7f9c1e-77aa-4c1d-9d53-%012d", i) }
	var lock sync.Mutex
	for i := range buckets*each + 1 {
		w.Add(id(i), Seen{Pos: uint64(i), Sum: uint64(i), At: int64(i / 100)})
		if w.waiting > 0 {
			if err := w.Maintain(&lock, isSynced); err != nil {
				t.Fatal(err)
			}
		}
	}
	return w, id
}

// A million IDs in files take at most two and a half bytes of memory each; none of them is lost,
// and few that are not there cost a read.
func TestAMillionIDs(t *testing.T) {
	const buckets, each = 4, 1 << 18
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w, id := filled(t, buckets, each)
	runtime.GC()
	runtime.ReadMemStats(&after)
	v := w.view.Load()
	if len(v.closed) != buckets || v.open.count != 1 {
		t.Fatalf("%d buckets, %d IDs in memory", len(v.closed), v.open.count)
	}
	held := buckets * each
	per := float64(after.HeapAlloc-before.HeapAlloc) / float64(held)
	t.Logf("%.2f bytes an ID", per)
	if per < 1 || per > 2.5 {
		t.Errorf("%.2f bytes an ID", per)
	}
	rng := rand.New(rand.NewPCG(*seedFlag, 2))
	for range 20_000 {
		i := rng.IntN(held)
		p := w.Probe(id(i), 0)
		if s, ok, err := w.Confirm(&p, 0); !ok || err != nil || s.Pos != uint64(i) ||
			s.At != int64(i/100) {
			t.Fatalf("ID %d: found %t, %+v, %v (-seed %d)", i, ok, s, err, *seedFlag)
		}
	}
	passed := 0
	for i := range 100_000 {
		h := w.seed.hash(id(held + 1 + i))
		for _, b := range v.closed {
			if b.file.index.filter.may(h) {
				passed++
			}
		}
	}
	if rate := float64(passed) / 100_000 / buckets; rate > 0.002 {
		t.Errorf("%.4f of the absent IDs pass a filter", rate)
	}
}

func BenchmarkProbe(b *testing.B) {
	w, id := filled(b, 40, 1<<18)
	for name, offset := range map[string]int{"absent": w.total, "present": 0} {
		b.Run(name, func(b *testing.B) {
			ids := make([]string, 1<<14)
			for i := range ids {
				ids[i] = id(offset + i*600)
			}
			for i := 0; b.Loop(); i++ {
				p := w.Probe(ids[i%len(ids)], 0)
				if _, ok, err := w.Confirm(&p, 0); ok != (offset == 0) || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

func BenchmarkAdd(b *testing.B) {
	o := testOptions(newDisk(b))
	o.BucketIDs, o.WindowMillis = 0, 1<<40
	w := New(o)
	ids := make([]string, bucketIDs)
	for i := range ids {
		ids[i] = fmt.Sprintf("0b7f9c1e-77aa-4c1d-9d53-%012d", i)
	}
	for i := 0; b.Loop(); i++ {
		if i%bucketIDs == 0 {
			w.Expire(int64(i/bucketIDs) << 42)
		}
		w.Add(ids[i%bucketIDs], Seen{At: int64(i/bucketIDs) << 42})
	}
}

func BenchmarkWriteBucket(b *testing.B) {
	m := newMemory(1, seedOf([16]byte{1}), bucketIDs)
	for i := range bucketIDs {
		id := fmt.Sprintf("0b7f9c1e-77aa-4c1d-9d53-%012d", i)
		m.put(m.seed.hash(id), id, Seen{Pos: uint64(i)})
	}
	for b.Loop() {
		if _, err := writeFile(newDisk(b), testDir, m, header{topic: 1}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/bucketIDs, "ns/ID")
}
