package memstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
)

// buckets is how many buckets a window is divided into. A key stays done for the window and
// at most one bucket more.
const buckets = 8

// Options configure a Store.
type Options struct {
	// Name tells stores apart in errors. Default: "memory".
	Name string
	// Window is how long a key stays done; it may be up to an eighth longer. Default: 24 h.
	Window time.Duration
	// MaxKeys bounds the keys that are claimed or done. A full store answers ackwise.ErrFull.
	// Default: 1,000,000.
	MaxKeys int
	// Now is the clock. One that goes backwards stands still meanwhile. Default: time.Now.
	Now func() time.Time
}

// Store is an idempotency.Store in this process's memory, for tests and for effects that the
// process itself holds: it forgets everything when the process ends.
//
// A claim that ran out is remembered, so that the next one is told of it, for a window after its
// end; it counts among MaxKeys.
type Store struct {
	o     Options
	start time.Time // the store's time is what has passed since then

	mu     sync.Mutex // guards the fields below
	time   time.Duration
	rule   string
	closed bool
	fence  uint64 // of the last claim
	claims map[string]*claim
	done   []bucket      // oldest first; the last one is open
	keys   int           // in claims and done together
	swept  time.Duration // when claims were last looked through
}

type claim struct {
	fence uint64
	sum   idempotency.Sum
	end   time.Duration // of the lease
}

// bucket holds what was completed from start on, for one width.
type bucket struct {
	start time.Duration
	keys  map[string]done
}

type done struct {
	fence  uint64
	sum    idempotency.Sum
	result []byte
	time   time.Time
}

// Open makes an empty Store.
func Open(o Options) (*Store, error) {
	if o.Name == "" {
		o.Name = "memory"
	}
	if o.Window == 0 {
		o.Window = 24 * time.Hour
	}
	if o.MaxKeys == 0 {
		o.MaxKeys = 1_000_000
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	var faults []error
	faults = append(faults, ackwise.ValidateName("dedup store", o.Name))
	if o.Window < buckets {
		faults = append(faults, &ackwise.InvalidError{Field: "Window", Value: o.Window.String(),
			Reason: "it has to be longer than no time"})
	}
	if o.MaxKeys < 0 {
		faults = append(faults, &ackwise.InvalidError{Field: "MaxKeys",
			Reason: fmt.Sprintf("%d is less than one key", o.MaxKeys)})
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("make memory store: %w", err)
	}
	return &Store{o: o, start: o.Now(), claims: make(map[string]*claim)}, nil
}

// Bind keeps the first rule, and refuses another one with a *RuleError.
func (m *Store) Bind(ctx context.Context, rule string) error {
	if rule == "" {
		return &ackwise.InvalidError{Field: "rule", Reason: "it is empty"}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx); err != nil {
		return err
	}
	if m.rule != "" && m.rule != rule {
		return &idempotency.RuleError{Store: m.o.Name, Kept: m.rule, Got: rule}
	}
	m.rule = rule
	return nil
}

// Claim answers each ask.
func (m *Store) Claim(ctx context.Context, asks []idempotency.Ask) ([]idempotency.Answer, error) {
	now := m.o.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	m.pass(now)
	answers := make([]idempotency.Answer, len(asks))
	for i, a := range asks {
		answers[i] = m.claim(a)
	}
	return answers, nil
}

// claim answers one ask. The caller holds mu.
func (m *Store) claim(a idempotency.Ask) idempotency.Answer {
	if err := a.Validate(); err != nil {
		return idempotency.Answer{Err: err}
	}
	if d, ok := m.find(a.Key); ok {
		if !a.Sum.Fits(d.sum) {
			return idempotency.Answer{Status: idempotency.Conflict}
		}
		return idempotency.Answer{Status: idempotency.Done, Result: bytes.Clone(d.result),
			Time: d.time}
	}
	c, known := m.claims[a.Key]
	switch {
	case known && !a.Sum.Fits(c.sum):
		return idempotency.Answer{Status: idempotency.Conflict}
	case known && m.time < c.end:
		return idempotency.Answer{Status: idempotency.Busy, Wait: c.end - m.time}
	case !known && m.keys >= m.o.MaxKeys:
		return idempotency.Answer{Err: fmt.Errorf("claim in dedup store %s: it holds %d keys: %w",
			m.o.Name, m.keys, ackwise.ErrFull)}
	case !known:
		c = &claim{}
		m.claims[a.Key] = c
		m.keys++
	}
	m.fence++
	c.fence, c.end = m.fence, m.time+a.Lease
	if a.Sum != (idempotency.Sum{}) {
		c.sum = a.Sum
	}
	return idempotency.Answer{Status: idempotency.Claimed, Fence: c.fence, Takeover: known}
}

// Settle carries out each settlement.
func (m *Store) Settle(ctx context.Context, claims []idempotency.Settlement) ([]error, error) {
	now := m.o.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.enter(ctx); err != nil {
		return nil, err
	}
	m.pass(now)
	results := make([]error, len(claims))
	for i, s := range claims {
		results[i] = m.settle(s, now)
	}
	return results, nil
}

// settle carries out one settlement. The caller holds mu.
func (m *Store) settle(s idempotency.Settlement, now time.Time) error {
	if err := s.Validate(); err != nil {
		return err
	}
	c, known := m.claims[s.Key]
	if !known {
		d, done := m.find(s.Key)
		switch {
		case done && s.Verb == idempotency.Complete && d.fence == s.Fence:
			return nil
		case !done && s.Verb == idempotency.Release:
			return nil // it is free, by this claim's release or by a later one's
		}
		return idempotency.ErrFence
	}
	if c.fence != s.Fence {
		return idempotency.ErrFence
	}
	switch s.Verb {
	case idempotency.Extend:
		c.end = m.time + s.Lease
	case idempotency.Release:
		delete(m.claims, s.Key)
		m.keys--
	case idempotency.Complete:
		delete(m.claims, s.Key)
		m.open().keys[s.Key] = done{fence: c.fence, sum: c.sum, time: now,
			result: append([]byte(nil), s.Result...)}
	}
	return nil
}

// find looks for a done key, the newest bucket first. The caller holds mu.
func (m *Store) find(key string) (done, bool) {
	for _, bucket := range slices.Backward(m.done) {
		if d, ok := bucket.keys[key]; ok {
			return d, true
		}
	}
	return done{}, false
}

// open returns the bucket that is filled now. The caller holds mu.
func (m *Store) open() *bucket {
	if n := len(m.done); n == 0 || m.time >= m.done[n-1].start+m.width() {
		m.done = append(m.done, bucket{start: m.time, keys: make(map[string]done)})
	}
	return &m.done[len(m.done)-1]
}

func (m *Store) width() time.Duration { return m.o.Window / buckets }

// enter refuses a call that must not do anything. The caller holds mu.
func (m *Store) enter(ctx context.Context) error {
	if m.closed {
		return fmt.Errorf("use dedup store %s: %w", m.o.Name, ackwise.ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("use dedup store %s: %w", m.o.Name, context.Cause(ctx))
	}
	return nil
}

// pass lets time pass: buckets go whole once their last key is out of the window, and so do claims
// that ran out as long ago. The caller holds mu.
func (m *Store) pass(now time.Time) {
	m.time = max(m.time, now.Sub(m.start))
	for len(m.done) > 0 && m.time >= m.done[0].start+m.width()+m.o.Window {
		m.keys -= len(m.done[0].keys)
		m.done[0].keys = nil // the slice may keep its array
		m.done = m.done[1:]
	}
	if m.time < m.swept+m.width() {
		return
	}
	m.swept = m.time
	for key, c := range m.claims {
		if m.time >= c.end+m.o.Window {
			delete(m.claims, key)
			m.keys--
		}
	}
}

// Window is how long a key stays done.
func (m *Store) Window() time.Duration { return m.o.Window }

// Close ends the store and forgets what it holds.
func (m *Store) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.claims, m.done = true, nil, nil
	return nil
}
