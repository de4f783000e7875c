package ddbstore

import (
	"sync"
	"time"
)

// sighting is what was seen of a claim, and since when. Its time has a monotonic reading.
type sighting struct {
	fence, beat int64
	since       time.Time
}

// watch knows how long claims of others have been seen unchanged. It is what a lease is judged by:
// no other machine's clock is asked, and this one's cannot be set.
type watch struct {
	max int

	mu   sync.Mutex // guards seen
	seen map[string]sighting
}

func newWatch(most int) *watch { return &watch{max: most, seen: make(map[string]sighting)} }

// left says how much of a claim's lease is left at least: all of it where the claim is new or its
// holder has spoken since. A sighting that was given up, because there are too many, begins anew:
// the claim is then taken over later, and never too early.
func (w *watch) left(key string, c claim, now time.Time) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	s, ok := w.seen[key]
	if !ok || s.fence != c.fence || s.beat != c.beat {
		if !ok && len(w.seen) >= w.max {
			for other := range w.seen {
				delete(w.seen, other)
				break
			}
		}
		w.seen[key] = sighting{fence: c.fence, beat: c.beat, since: now}
		return c.lease
	}
	return c.lease - now.Sub(s.since)
}

// forget ends the watch over a key.
func (w *watch) forget(key string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.seen, key)
}
