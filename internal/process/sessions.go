package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// Session is a consumer's session on a source: a Receiver of package queue or client.
type Session interface {
	ackwise.Source
	// Lost ends the session as one whose consumer died.
	Lost() error
}

// SessionsOptions configure Sessions.
type SessionsOptions struct {
	// Open opens a session. Required.
	Open func(ctx context.Context) (Session, error)
	// Count is how many sessions there are at most, one for each process that may die by itself,
	// and InFlight how many deliveries each one holds at most. Defaults: 1 and 1.
	Count, InFlight int
	// Max is how many deliveries are handed out in all; then the source ends. Default: no limit.
	Max int
	// Settled is told of each settlement that has ended a delivery, or has failed to, once it has
	// returned. Default: nobody is told.
	Settled func(d *ackwise.Delivery, o ackwise.Outcome, err error)
}

// Sessions is a Source made of several sessions, so that the death of one handler process is the
// loss of one session. Its Handler sees to that.
type Sessions struct {
	o        SessionsOptions
	features ackwise.Features

	mu        sync.Mutex // guards the fields below and the consumers' fields
	consumers []*consumer
	opening   int
	handed    int
	ended     chan struct{} // closed by End
	over      bool          // ended is closed
	changed   chan struct{} // closed and replaced when there may be room
}

// consumer is one session and what it holds.
type consumer struct {
	session  Session
	held     map[ackwise.LeaseToken]*hold
	reserved int  // room that a Receive under way may fill
	ending   bool // its process died: it gets nothing more, and is lost once all is settled
	lost     bool // Lost was called
}

type holdState uint8

const (
	waiting  holdState = iota // not handled yet
	running                   // being handled
	finished                  // handled, to be settled
)

// hold is a delivery that a session holds.
type hold struct {
	d        *ackwise.Delivery
	state    holdState
	released bool      // the handler gave it back unattempted
	deadline time.Time // of its lease; zero = none
}

// NewSessions opens the first session.
func NewSessions(ctx context.Context, o SessionsOptions) (*Sessions, error) {
	o.Count, o.InFlight = max(o.Count, 1), max(o.InFlight, 1)
	if o.Settled == nil {
		o.Settled = func(*ackwise.Delivery, ackwise.Outcome, error) {}
	}
	first, err := o.Open(ctx)
	if err != nil {
		return nil, err
	}
	s := &Sessions{o: o, features: first.Features(), ended: make(chan struct{}),
		changed: make(chan struct{})}
	s.add(first)
	return s, nil
}

// Features returns those of the sessions.
func (s *Sessions) Features() ackwise.Features { return s.features }

func (s *Sessions) add(session Session) *consumer {
	c := &consumer{session: session, held: make(map[ackwise.LeaseToken]*hold)}
	s.consumers = append(s.consumers, c)
	return c
}

// Held returns how many deliveries are held.
func (s *Sessions) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, c := range s.consumers {
		n += len(c.held)
	}
	return n
}

// End ends the source: Receive hands nothing more out and returns io.EOF.
func (s *Sessions) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.over = true
		close(s.ended)
	}
}

// Close closes the sessions in good order.
func (s *Sessions) Close() error {
	s.End()
	s.mu.Lock()
	consumers := s.consumers
	s.consumers = nil
	s.mu.Unlock()
	var errs []error
	for _, c := range consumers {
		if c.ending {
			errs = append(errs, c.session.Lost())
		} else {
			errs = append(errs, c.session.Close())
		}
	}
	return errors.Join(errs...)
}

// Receive returns deliveries of one session that has room.
func (s *Sessions) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := s.endWith(ctx, cancel)
	defer stop()
	for {
		c, n, err := s.reserve(ctx, most)
		if err != nil {
			return nil, ended(ctx, err)
		}
		ds, err := c.session.Receive(ctx, n)
		ds, lost := s.received(c, n, ds)
		if len(ds) > 0 {
			return ds, nil
		}
		if err != nil && !lost {
			return nil, ended(ctx, err)
		}
	}
}

// endWith cancels a Receive when the source ends.
func (s *Sessions) endWith(ctx context.Context, cancel context.CancelCauseFunc) (stop func()) {
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() { // ends with the Receive
		select {
		case <-s.ended:
			cancel(io.EOF)
		case <-done:
		case <-ctx.Done():
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// ended is the error of a Receive: io.EOF where that is why it was cancelled.
func ended(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), io.EOF) {
		return io.EOF
	}
	return err
}

// lookAgain is how often a Receive without room looks for leases that have run out.
const lookAgain = time.Second

// reserve waits for a session with room and reserves it.
func (s *Sessions) reserve(ctx context.Context, most int) (*consumer, int, error) {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		s.loseEnding(time.Now())
		c, n, changed, err := s.tryReserve(most)
		switch {
		case err != nil:
			return nil, 0, err
		case c != nil:
			return c, n, nil
		case n > 0:
			if err := s.openOne(ctx); err != nil {
				return nil, 0, err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, 0, context.Cause(ctx)
		case <-changed:
		case <-tick.C:
		}
	}
}

// tryReserve returns a session and its room, or no session and 1 where one is to be opened, or what
// to wait for.
func (s *Sessions) tryReserve(most int) (*consumer, int, <-chan struct{}, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.o.Max > 0 {
		most = min(most, s.o.Max-s.handed)
	}
	if s.over || most <= 0 {
		return nil, 0, nil, io.EOF
	}
	for _, c := range s.consumers {
		room := min(most, s.o.InFlight-len(c.held)-c.reserved)
		if c.ending || room <= 0 {
			continue
		}
		c.reserved += room
		s.handed += room
		return c, room, nil, nil
	}
	if len(s.consumers)+s.opening < s.o.Count {
		s.opening++
		return nil, 1, nil, nil
	}
	return nil, 0, s.changed, nil
}

// loseEnding forgets leases that have run out and gives up the sessions that only waited for them.
func (s *Sessions) loseEnding(now time.Time) {
	var lose []func()
	s.mu.Lock()
	for _, c := range slices.Clone(s.consumers) {
		c.forgetExpired(now)
		lose = append(lose, s.loseNow(c))
	}
	s.mu.Unlock()
	for _, f := range lose {
		f()
	}
}

// forgetExpired forgets what the loop has left to its lease.
func (c *consumer) forgetExpired(now time.Time) {
	for token, h := range c.held {
		if isLost(h.d) && h.state != running ||
			!h.deadline.IsZero() && now.After(h.deadline.Add(lookAgain)) {
			delete(c.held, token)
		}
	}
}

func isLost(d *ackwise.Delivery) bool {
	select {
	case <-d.Lost():
		return true
	default:
		return false
	}
}

func (s *Sessions) openOne(ctx context.Context) error {
	session, err := s.o.Open(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
	if err != nil {
		return fmt.Errorf("open session: %w", err)
	}
	s.add(session)
	return nil
}

// received books what a Receive brought. What a session brings that was lost meanwhile is not
// handed on: it is lost with it.
func (s *Sessions) received(c *consumer, reserved int, ds []*ackwise.Delivery) (
	_ []*ackwise.Delivery, lost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.reserved -= reserved
	s.handed -= reserved
	defer s.wake()
	if c.ending {
		return nil, true
	}
	s.handed += len(ds)
	for _, d := range ds {
		c.held[d.Token] = &hold{d: d, deadline: d.Deadline}
	}
	return ds, false
}

// wake wakes who waits for room. s.mu is held.
func (s *Sessions) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// Settle settles each delivery in its session. One whose session was lost answers ErrLeaseLost.
func (s *Sessions) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(ss))
	parts := s.split(ss, results)
	var wg sync.WaitGroup
	for _, p := range parts {
		wg.Go(func() { // ends with the call
			rs := p.c.session.Settle(ctx, p.ss)
			for i, r := range rs {
				results[p.at[i]] = r
			}
			s.settled(p, rs)
		})
	}
	wg.Wait()
	return results
}

// part is the settlements of one session.
type part struct {
	c     *consumer
	ss    []ackwise.Settlement
	at    []int // their places in the whole
	holds []*hold
}

func (s *Sessions) split(ss []ackwise.Settlement, results []ackwise.SettleResult) []*part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []*part
	for i, st := range ss {
		c, h := s.find(st.Token)
		if h == nil {
			results[i].Err = ackwise.ErrLeaseLost
			continue
		}
		if h.released && st.Outcome == ackwise.OutcomeSnooze {
			st = ackwise.Settlement{Token: st.Token, Outcome: ackwise.OutcomeRelease}
		}
		var p *part
		for _, other := range parts {
			if other.c == c {
				p = other
			}
		}
		if p == nil {
			p = &part{c: c}
			parts = append(parts, p)
		}
		p.ss, p.at, p.holds = append(p.ss, st), append(p.at, i), append(p.holds, h)
	}
	return parts
}

// find returns who holds a delivery; nil = nobody. s.mu is held.
func (s *Sessions) find(token ackwise.LeaseToken) (*consumer, *hold) {
	for _, c := range s.consumers {
		if h := c.held[token]; h != nil {
			return c, h
		}
	}
	return nil, nil
}

func (s *Sessions) settled(p *part, rs []ackwise.SettleResult) {
	s.mu.Lock()
	for i, r := range rs {
		extend := p.ss[i].Outcome == ackwise.OutcomeExtend
		switch {
		case extend && r.Err == nil:
			p.holds[i].deadline = r.Deadline
		case r.Err == nil, errors.Is(r.Err, ackwise.ErrLeaseLost),
			errors.Is(r.Err, ackwise.ErrSettled), errors.Is(r.Err, ackwise.ErrBadToken):
			delete(p.c.held, p.ss[i].Token)
		}
	}
	lose := s.loseNow(p.c)
	s.wake()
	s.mu.Unlock()
	lose()
	for i, r := range rs {
		if p.ss[i].Outcome != ackwise.OutcomeExtend {
			s.o.Settled(p.holds[i].d, p.ss[i].Outcome, r.Err)
		}
	}
}

// Handler makes h the handler of these sessions: a *LostError of h is the loss of the session that
// holds its delivery, with all that is handled beside it.
func (s *Sessions) Handler(h ackwise.Handler) ackwise.Handler {
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		if isLost(d) {
			return &LostError{errors.New("its session ended before it was handled")}
		}
		s.setState(d.Token, running, false)
		err := h.Handle(ctx, d)
		if _, ok := errors.AsType[*LostError](err); ok {
			s.lose(d.Token)
		} else {
			s.setState(d.Token, finished, errors.Is(err, errReleased))
		}
		return err
	})
}

func (s *Sessions) setState(token ackwise.LeaseToken, state holdState, released bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, h := s.find(token); h != nil {
		h.state, h.released = state, released
	}
}

// lose gives up the session that holds a delivery: what has not been handled yet is released, what
// has been handled is still settled, and the rest is lost.
func (s *Sessions) lose(token ackwise.LeaseToken) {
	s.mu.Lock()
	c, _ := s.find(token)
	if c == nil || c.ending {
		s.mu.Unlock()
		return
	}
	c.ending = true
	var untouched []ackwise.Settlement
	for t, h := range c.held {
		if h.state == finished {
			continue
		}
		if h.state == waiting {
			untouched = append(untouched, ackwise.Settlement{Token: t,
				Outcome: ackwise.OutcomeRelease})
		}
		h.d.MarkLost()
		delete(c.held, t)
	}
	s.mu.Unlock()
	if len(untouched) > 0 {
		// Where this fails they are lost with the session, which is no less true.
		ctx, cancel := context.WithTimeout(context.Background(), releaseTimeout)
		c.session.Settle(ctx, untouched)
		cancel()
	}
	s.mu.Lock()
	lose := s.loseNow(c)
	s.mu.Unlock()
	lose()
}

const releaseTimeout = 5 * time.Second

// loseNow returns what ends the session of a died process, if all it had handled is settled. s.mu
// is held; the returned function is called without it.
func (s *Sessions) loseNow(c *consumer) func() {
	if !c.ending || c.lost || len(c.held) > 0 {
		return func() {}
	}
	c.lost = true
	s.consumers = slices.DeleteFunc(slices.Clone(s.consumers),
		func(other *consumer) bool { return other == c })
	return func() {
		// An error means that it ended already, by itself or with the store.
		_ = c.session.Lost()
		s.mu.Lock()
		s.wake()
		s.mu.Unlock()
	}
}
