package logsource

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestOrdQueue compares the queue with a sorted list.
func TestOrdQueue(t *testing.T) {
	rnd := rand.New(rand.NewPCG(9, 9))
	var q ordQueue
	var want []uint64
	for i := range 20_000 {
		if q.first() == nil != (len(want) == 0) {
			t.Fatalf("step %d: first %v, %d are in it", i, q.first(), len(want))
		}
		if len(want) == 0 || rnd.IntN(2) == 0 {
			m := &msg{ord: uint64(i*10 - rnd.IntN(500)*rnd.IntN(2) + 5000)}
			if slices.Contains(want, m.ord) {
				continue
			}
			q.push(m)
			want = append(want, m.ord)
			slices.Sort(want)
			continue
		}
		if first, m := q.first(), q.pop(); first != m || m.ord != want[0] {
			t.Fatalf("step %d: popped %d, want %d", i, m.ord, want[0])
		}
		want = want[1:]
	}
}
