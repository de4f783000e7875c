package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// fakeSource is a small queue with leases in memory: ready messages are handed out in order, an
// ordered one at most one live run a key. It counts what it did and what it was told to break.
type fakeSource struct {
	t *testing.T
	f ackwise.Features

	mu        sync.Mutex // guards all below
	msgs      []*fakeMessage
	wake      chan struct{}
	tokens    map[ackwise.LeaseToken]*fakeMessage
	gen       int
	endWhen   int // Receive says io.EOF once so many have left; 0 = never
	left      []string
	outcomes  map[string][]ackwise.Outcome // per ID, what was carried out
	settles   [][]ackwise.Settlement
	settleErr func(s ackwise.Settlement) error // nil = carried out
	applied   func(s ackwise.Settlement) error // error after carrying it out: the answer is lost
	faults    int
	recvErr   func() error
	receives  int
	maxHeld   int
	ackLost   int
	end       error // what Receive says at endWhen
}

type fakeMessage struct {
	m        ackwise.Message
	counts   ackwise.Counts
	suspect  bool
	token    ackwise.LeaseToken
	d        *ackwise.Delivery
	deadline time.Time
	due      time.Time
	cause    ackwise.Cause
	out      string // "" = still on the subscription; else "ack", "drop", "dead"
}

func newFake(t *testing.T, f ackwise.Features) *fakeSource {
	return &fakeSource{t: t, f: f, wake: make(chan struct{}, 1), end: errEnded,
		tokens:   make(map[ackwise.LeaseToken]*fakeMessage),
		outcomes: make(map[string][]ackwise.Outcome)}
}

type finalError struct{ error }

func (finalError) Final() bool { return true }

var errEnded error = finalError{errors.New("the test is over")}

func (s *fakeSource) add(id, key string) *fakeMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := &fakeMessage{m: ackwise.Message{ID: id, Key: key, Topic: "t"}, cause: ackwise.CauseFirst}
	s.msgs = append(s.msgs, m)
	s.nudge()
	return m
}

func (s *fakeSource) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *fakeSource) Features() ackwise.Features { return s.f }
func (s *fakeSource) Close() error               { return nil }

func (s *fakeSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	s.mu.Lock()
	s.receives++
	if s.recvErr != nil {
		if err := s.recvErr(); err != nil {
			s.mu.Unlock()
			return nil, err
		}
	}
	s.mu.Unlock()
	for {
		ds, next, err := s.take(max)
		if len(ds) > 0 || err != nil {
			return ds, err
		}
		timer := time.NewTimer(next)
		select {
		case <-s.wake:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

func (s *fakeSource) take(limit int) ([]*ackwise.Delivery, time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.endWhen > 0 && len(s.left) >= s.endWhen {
		return nil, 0, s.end
	}
	next := time.Hour
	blocked := make(map[string]bool)
	var ds []*ackwise.Delivery
	for _, m := range s.msgs {
		if m.out != "" {
			continue
		}
		if m.token != "" && !m.deadline.IsZero() && !now.Before(m.deadline) {
			s.back(m, ackwise.CauseLeaseExpired)
			m.counts.Crashes++
		}
		keyed := s.f.Order == ackwise.OrderKey && m.m.Key != ""
		if m.token != "" || now.Before(m.due) || keyed && blocked[m.m.Key] {
			blocked[m.m.Key] = true
			for _, at := range []time.Time{m.due, m.deadline} {
				if d := at.Sub(now); d > 0 {
					next = min(next, d)
				}
			}
			continue
		}
		if len(ds) == limit {
			break
		}
		blocked[m.m.Key] = !s.f.KeyRuns // a run may follow in the same batch
		ds = append(ds, s.handOut(m, now))
	}
	s.maxHeld = max(s.maxHeld, len(s.tokens))
	return ds, next, nil
}

func (s *fakeSource) handOut(m *fakeMessage, now time.Time) *ackwise.Delivery {
	s.gen++
	m.counts.HandOuts++
	m.token = ackwise.LeaseToken(strconv.Itoa(s.gen))
	m.d = &ackwise.Delivery{Message: m.m, Attempt: m.counts.HandOuts, Cause: m.cause,
		Token: m.token, Suspect: m.suspect}
	if s.f.Counts {
		m.d.Counts = m.counts
	} else if s.f.HandOuts {
		m.d.Counts.HandOuts = m.counts.HandOuts
	}
	if s.f.Lease > 0 {
		m.deadline = now.Add(s.f.Lease)
		m.d.Deadline = m.deadline
	}
	s.tokens[m.token] = m
	return m.d
}

func (s *fakeSource) back(m *fakeMessage, cause ackwise.Cause) {
	delete(s.tokens, m.token)
	m.token, m.cause, m.deadline = "", cause, time.Time{}
	if m.out == "" && s.f.MaxHandOuts > 0 && m.counts.HandOuts >= s.f.MaxHandOuts {
		m.out = "given up"
		s.left = append(s.left, m.m.ID)
	}
	s.nudge()
}

func (s *fakeSource) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settles = append(s.settles, slices.Clone(ss))
	results := make([]ackwise.SettleResult, len(ss))
	for i, st := range ss {
		results[i] = s.settle1(st)
	}
	return results
}

func (s *fakeSource) settle1(st ackwise.Settlement) ackwise.SettleResult {
	if s.settleErr != nil {
		if err := s.settleErr(st); err != nil {
			s.faults++
			return ackwise.SettleResult{Err: err}
		}
	}
	m, now := s.tokens[st.Token], time.Now()
	if m == nil || !m.deadline.IsZero() && !now.Before(m.deadline) {
		if st.Outcome == ackwise.OutcomeAck {
			s.ackLost++
		}
		return ackwise.SettleResult{Err: ackwise.ErrLeaseLost}
	}
	if s.f.KeyRuns && m.m.Key != "" && st.Outcome != ackwise.OutcomeExtend {
		for _, other := range s.msgs {
			if other == m {
				break
			}
			if other.m.Key == m.m.Key && other.token != "" {
				return ackwise.SettleResult{Err: ackwise.ErrRunOrder}
			}
		}
	}
	s.outcomes[m.m.ID] = append(s.outcomes[m.m.ID], st.Outcome)
	switch st.Outcome {
	case ackwise.OutcomeAck, ackwise.OutcomeDrop, ackwise.OutcomeDead:
		m.out = st.Outcome.String()
		s.left = append(s.left, m.m.ID)
		s.back(m, m.cause)
	case ackwise.OutcomeNack:
		if st.Delay > s.f.MaxNackDelay {
			s.t.Errorf("nack of %s with delay %s, at most %s is allowed", m.m.ID, st.Delay,
				s.f.MaxNackDelay)
		}
		m.counts.Failures++
		m.due = now.Add(st.Delay)
		s.back(m, ackwise.CauseFailed)
	case ackwise.OutcomeSnooze:
		m.due = now.Add(st.Delay)
		s.back(m, ackwise.CauseSnoozed)
	case ackwise.OutcomeRelease:
		s.back(m, ackwise.CauseReleased)
	case ackwise.OutcomeExtend:
		m.deadline = now.Add(s.f.Lease)
	}
	if s.applied != nil {
		if err := s.applied(st); err != nil {
			s.faults++
			return ackwise.SettleResult{Err: err, Deadline: m.deadline}
		}
	}
	return ackwise.SettleResult{Deadline: m.deadline}
}

// locked runs f under the source's mutex.
func (s *fakeSource) locked(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// leases is a source with everything: the shape of the embedded engine.
func leases() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Lease: 30 * time.Second, Extend: true,
		MaxNackDelay: 24 * time.Hour, Dead: true, Counts: true, Causes: true, KeyRuns: true}
}

// logLike is a source without leases or delays: the shape of a position-only one.
func logLike() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, KeyRuns: true}
}

// seeded returns options with repeatable jitter.
func seeded(seed uint64) Options {
	r := rand.New(rand.NewPCG(seed, seed))
	return Options{Rand: r.Float64}
}

// fullDelay makes every backoff its longest.
func fullDelay() float64 { return 1 }

// runFor runs the loop beside the test; stop ends it and returns its error.
func runFor(t *testing.T, src ackwise.Source, h ackwise.Handler, o Options) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, src, h, o) }()
	return func() error {
		cancel()
		return <-done
	}
}

// watcher records events.
type watcher struct {
	mu     sync.Mutex // guards events
	events []ackwise.Event
}

func (w *watcher) see(e ackwise.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events = append(w.events, e)
}

func (w *watcher) count(kind string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, e := range w.events {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

// calls records what a handler saw.
type calls struct {
	mu      sync.Mutex // guards all below
	ids     []string
	times   []time.Time
	running int
	most    int
	live    map[string]int // running handlers by key
	overlap int            // times that two of a key ran at once
}

func (c *calls) begin(d *ackwise.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ids = append(c.ids, d.ID)
	c.times = append(c.times, time.Now())
	c.running++
	c.most = max(c.most, c.running)
	if c.live == nil {
		c.live = make(map[string]int)
	}
	if c.live[d.Key]++; d.Key != "" && c.live[d.Key] > 1 {
		c.overlap++
	}
}

func (c *calls) finish(d *ackwise.Delivery) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running--
	c.live[d.Key]--
}

func (c *calls) seen() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.ids)
}

// wait waits in virtual time, or until ctx ends, whose cause it then returns.
func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func id(i int) string { return fmt.Sprintf("m%04d", i) }
