package nakadi

import (
	"context"
	"sync"
)

// lanes lets one request at a time carry messages of a key. It takes all keys of a request at once
// or none, so that two requests never wait for each other.
type lanes struct {
	mu    sync.Mutex          // guards all below
	busy  map[string]struct{} // event type and key
	freed chan struct{}       // closed and replaced when keys were given back
}

func newLanes() *lanes {
	return &lanes{busy: map[string]struct{}{}, freed: make(chan struct{})}
}

// take waits until all keys are free.
func (l *lanes) take(ctx context.Context, keys []string) error {
	for {
		freed, ok := l.try(keys)
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-freed:
		}
	}
}

func (l *lanes) try(keys []string) (<-chan struct{}, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		if _, taken := l.busy[key]; taken {
			return l.freed, false
		}
	}
	for _, key := range keys {
		l.busy[key] = struct{}{}
	}
	return nil, true
}

func (l *lanes) give(keys []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, key := range keys {
		delete(l.busy, key)
	}
	close(l.freed)
	l.freed = make(chan struct{})
}
