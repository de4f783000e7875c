package wal

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

// nowhere is a file system whose files forget all but their first block.
type nowhere struct{ vfs.FS }

type nowhereFile struct{ vfs.File }

func (n nowhere) Create(name string) (vfs.File, error) {
	f, err := n.FS.Create(name)
	return nowhereFile{f}, err
}

func (f nowhereFile) WriteAt(p []byte, off int64) (int, error) {
	if off > 0 {
		return len(p), nil
	}
	return f.File.WriteAt(p, off)
}

// BenchmarkAppend is what an append and its part of a group cost the processor: nothing waits for a
// disk. Each caller waits for every 64th group, as a store does that pushes back.
func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{100, 1024} {
		b.Run(fmt.Sprintf("%d-bytes", size), func(b *testing.B) {
			l, _, err := Open(Options{FS: nowhere{vfs.NewMem()}, Dir: testDir})
			if err != nil {
				b.Fatal(err)
			}
			payload := bytes.Repeat([]byte("x"), size)
			b.ReportAllocs()
			b.SetParallelism(8)
			b.RunParallel(func(pb *testing.PB) {
				recs := []Record{{Type: 1, Payload: payload}}
				for i := 1; pb.Next(); i++ {
					g := l.Append(recs, true)
					if i%64 == 0 {
						<-g.Synced()
					}
				}
			})
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkPublish is an append with its sync.
func BenchmarkPublish(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d-goroutines", writers), func(b *testing.B) {
			l, _, err := Open(Options{Dir: b.TempDir()})
			if err != nil {
				b.Fatal(err)
			}
			payload := bytes.Repeat([]byte("x"), 256)
			b.ReportAllocs()
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					recs := []Record{{Type: 1, Payload: payload}}
					for i := w; i < b.N; i += writers {
						<-l.Append(recs, true).Synced()
					}
				})
			}
			wg.Wait()
			if err := l.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
