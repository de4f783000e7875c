package deliver

import (
	"container/heap"
	"time"
)

// timers are calls that are due at a time. Each looks itself whether it still means anything.
type timers struct{ heap timerHeap }

type timer struct {
	at time.Time
	do func(now time.Time)
}

func (t *timers) add(at time.Time, do func(now time.Time)) { heap.Push(&t.heap, timer{at, do}) }

// next returns when the first is due; zero = there is none.
func (t *timers) next() time.Time {
	if len(t.heap) == 0 {
		return time.Time{}
	}
	return t.heap[0].at
}

// fire carries out all that are due.
func (t *timers) fire(now time.Time) {
	for len(t.heap) > 0 && !t.heap[0].at.After(now) {
		heap.Pop(&t.heap).(timer).do(now)
	}
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = timer{}
	*h = old[:len(old)-1]
	return last
}
