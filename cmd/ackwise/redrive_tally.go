package main

import (
	"sync"

	"github.com/ackwise/ackwise"
)

// letterState is what is known of a letter that has not left its store.
type letterState uint8

const (
	letterOpen letterState = iota
	letterUnknown
	letterRejected
)

// letterKey names a letter: a store that many write to may hold two of one ID.
type letterKey struct {
	id, partition string
	position      ackwise.Position
}

func keyOf(d *ackwise.Delivery) letterKey { return letterKey{d.ID, d.Partition, d.Position} }

// maxTold bounds the letters whose state is remembered, and the keys. What is beyond is tried again
// when it comes again, and counted as often.
const maxTold = 100_000

// tally counts what becomes of letters. Each stays under it until it has left its store.
type tally struct {
	mu       sync.Mutex // guards all below
	letters  map[letterKey]letterState
	stuck    map[string]bool // message keys that a rejected letter has
	accepted int64
}

func newTally() *tally {
	return &tally{letters: map[letterKey]letterState{}, stuck: map[string]bool{}}
}

// note notes what is known of a letter. Rejected stays rejected.
func (t *tally) note(k letterKey, s letterState) {
	t.mu.Lock()
	defer t.mu.Unlock()
	was, known := t.letters[k]
	if known && was == letterRejected || !known && len(t.letters) >= maxTold {
		return
	}
	t.letters[k] = s
}

// reject notes a letter that its target will never take.
func (t *tally) reject(d *ackwise.Delivery) {
	t.note(keyOf(d), letterRejected)
	t.mu.Lock()
	defer t.mu.Unlock()
	if d.Key != "" && len(t.stuck) < maxTold {
		t.stuck[d.Key] = true
	}
}

// seen notes a letter that was handed out, and reports whether it was rejected before, and whether
// one of its key was.
func (t *tally) seen(d *ackwise.Delivery) (rejected, stuck bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	k := keyOf(d)
	s, known := t.letters[k]
	if !known && len(t.letters) < maxTold {
		t.letters[k] = letterOpen
	}
	return s == letterRejected, t.stuck[d.Key]
}

// gone notes a letter that has left its store.
func (t *tally) gone(k letterKey) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.letters, k)
	t.accepted++
}

func (t *tally) counts() (accepted, rejected, unknown, left int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, s := range t.letters {
		switch s {
		case letterRejected:
			rejected++
		case letterUnknown:
			unknown++
		case letterOpen:
		}
	}
	return t.accepted, rejected, unknown, int64(len(t.letters))
}
