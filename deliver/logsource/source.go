package logsource

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// Source is an ackwise.Source over a Log. Its methods may be called from several goroutines.
type Source struct {
	log    Log
	opts   Options
	cancel context.CancelFunc // ends the reader and the writer
	reader sync.WaitGroup
	writer sync.WaitGroup
	kick   chan struct{} // one place: the writer looks again
	// writing holds one token: whoever has it writes, the writer or a Transact. Taken before mu.
	writing chan struct{}

	pauseMu sync.Mutex // guards the order of Log.Pause calls; taken before mu
	seenMu  sync.Mutex // guards the order of Observe calls; taken before mu

	mu      sync.Mutex // guards all below; never held during I/O
	member  *member
	next    *round        // the write that somebody waits for; nil = nobody does
	changed chan struct{} // closed and replaced when a Receive should look again
	lazyAt  time.Time     // when settlements that nobody waits for are written; zero = none
	retryAt time.Time     // not before then is a failed write repeated; zero = none failed
	pollErr error         // what the last Poll said
	closed  bool
	// unwritten is what was not written since closed, and why.
	unwritten map[*partition]error
}

// New makes a Source of a Log. The source owns the log and closes it. It begins to poll at once.
func New(log Log, o Options) (*Source, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("make log source: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Source{log: log, opts: o, cancel: cancel, kick: make(chan struct{}, 1),
		writing: make(chan struct{}, 1), member: newMember(o), changed: make(chan struct{}),
		unwritten: map[*partition]error{}}
	s.writing <- struct{}{}
	s.reader.Go(func() { s.read(ctx) })  // until Close cancels ctx, or a final error
	s.writer.Go(func() { s.write(ctx) }) // until Close cancels ctx, and after its last round
	return s, nil
}

// Features describes the source: it keeps the order of each key within its partition, has no leases
// of its own, holds retries in place, and counts across owners through its notes.
func (s *Source) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Extend: true, MaxNackDelay: s.opts.MaxDelay,
		Counts: true, Causes: true, KeyRuns: true}
}

// Receive hands out up to most messages, after the journal knows of them. What was claimed when ctx
// ends, or could not be journalled, is handed out to a later call.
func (s *Source) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	for {
		claims, r, wait, err := s.claim(max(1, most))
		s.tell()
		if err != nil {
			return nil, err
		}
		if len(claims) == 0 {
			if err := wait.until(ctx); err != nil {
				return nil, err
			}
			continue
		}
		ds, err := s.handOut(ctx, claims, r)
		if len(ds) > 0 || err != nil {
			return ds, err
		}
	}
}

// lull is what a Receive with nothing to hand out waits for.
type lull struct {
	changed <-chan struct{}
	due     time.Time
}

func (w lull) until(ctx context.Context) error {
	var due <-chan time.Time
	if !w.due.IsZero() {
		t := time.NewTimer(time.Until(w.due))
		defer t.Stop()
		due = t.C
	}
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-w.changed:
	case <-due:
	}
	return nil
}

func (s *Source) claim(most int) ([]claim, *round, lull, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, lull{}, ackwise.ErrClosed
	}
	claims := s.member.take(most, time.Now())
	if len(claims) > 0 {
		if !s.member.unwritten(claims) {
			return claims, nil, lull{}, nil
		}
		return claims, s.join(), lull{}, nil
	}
	if err := s.pollErr; err != nil && (!ended(err) || s.member.idle()) {
		if !final(err) {
			s.pollErr = nil
		}
		return nil, nil, lull{}, err
	}
	return nil, nil, lull{changed: s.changed, due: s.member.nextDue()}, nil
}

// join returns the next round, which writes all that has happened until now. mu is held.
func (s *Source) join() *round {
	if s.next == nil {
		s.next = &round{done: make(chan struct{}), errs: map[*partition]error{}}
		s.wakeWriter()
	}
	return s.next
}

func (s *Source) wakeWriter() {
	select {
	case s.kick <- struct{}{}:
	default: // it has not looked yet
	}
}

// wakeReceivers makes waiting Receives look again. mu is held.
func (s *Source) wakeReceivers() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// handOut waits for the note of the claims, and gives them out or takes them back.
func (s *Source) handOut(ctx context.Context, claims []claim, r *round) (
	[]*ackwise.Delivery, error) {
	err := r.wait(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		err = s.member.stale(r)
	}
	var ds []*ackwise.Delivery
	var back []claim
	var failed error
	for _, cl := range claims {
		fault := err
		if fault == nil {
			fault = r.fault(cl.p)
		}
		switch {
		case cl.p.epoch == 0: // lost or released meanwhile
		case fault != nil || cl.p.leaving:
			back = append(back, cl)
			failed = fault
		default:
			cl.m.handed.given = true
			ds = append(ds, &cl.m.handed.delivery)
		}
	}
	if len(back) > 0 {
		s.member.takeBack(back, time.Now())
		s.wakeReceivers()
		s.wakeWriter()
	}
	if len(ds) > 0 {
		return ds, nil
	}
	return nil, failed
}

// Settle carries out settlements in their order. Unless Options.CommitEvery says otherwise it
// returns when they are written; what could not be written has an error, and is written by a
// repeated call.
func (s *Source) Settle(ctx context.Context, list []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(list))
	parts := make([]*partition, len(list))
	r := s.settle(list, results, parts)
	s.resume()
	s.tell()
	if r == nil {
		return results
	}
	err := r.wait(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, p := range parts {
		if p == nil || results[i].Err != nil {
			continue
		}
		fault := err
		if fault == nil {
			fault = r.fault(p)
		}
		switch {
		case p.lost:
			results[i] = ackwise.SettleResult{Err: ackwise.ErrLeaseLost}
		case fault != nil:
			results[i].Err = fmt.Errorf("write settlement: %w", fault)
		}
	}
	return results
}

func (s *Source) settle(
	list []ackwise.Settlement, results []ackwise.SettleResult, parts []*partition) *round {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	dirty := false
	for i := range list {
		if s.closed {
			results[i].Err = ackwise.ErrLeaseLost
			continue
		}
		results[i], parts[i] = s.member.settle(&list[i], now)
		dirty = dirty || parts[i] != nil && parts[i].version != parts[i].written
	}
	if !dirty {
		return nil
	}
	s.wakeReceivers()
	if s.opts.CommitEvery == 0 {
		return s.join()
	}
	if s.lazyAt.IsZero() {
		s.lazyAt = now.Add(s.opts.CommitEvery)
	}
	s.wakeWriter()
	return nil
}

// read polls the log until ctx ends or the log says something final.
func (s *Source) read(ctx context.Context) {
	for ctx.Err() == nil {
		changes, err := s.log.Poll(ctx, s.opts.PollMessages)
		if ctx.Err() != nil {
			return // Close gives back what is in memory; the rest was not taken in
		}
		if err != nil && !ended(err) {
			err = fmt.Errorf("poll log: %w", err)
		}
		err = s.takeIn(changes, err)
		s.resume()
		s.tell()
		if err == nil {
			continue
		}
		if final(err) {
			return
		}
		t := time.NewTimer(s.opts.RetryEvery)
		select {
		case <-ctx.Done():
		case <-t.C:
		}
		t.Stop()
	}
}

func (s *Source) takeIn(changes []Change, err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ackwise.ErrClosed
	}
	now := time.Now()
	for i := range changes {
		if fault := s.member.apply(&changes[i], now); fault != nil {
			// Reading on would pass the record: nothing more is read at all.
			err = &finalError{fmt.Errorf("read partition %s: %w", changes[i].Partition, fault)}
			break
		}
	}
	s.pollErr = err
	// What an earlier owner has settled may let the position move, and nobody waits for that: at the
	// end of a partition no later write would carry it along.
	if s.lazyAt.IsZero() && s.member.dirty() {
		s.lazyAt = now.Add(max(s.opts.CommitEvery, unaskedDelay))
	}
	s.wakeReceivers()
	s.wakeWriter()
	return err
}

// unaskedDelay is how long a write waits that nobody has asked for.
const unaskedDelay = 100 * time.Millisecond

// finalError is an error after which nothing more comes.
type finalError struct{ err error }

func (e *finalError) Error() string { return e.err.Error() }
func (e *finalError) Unwrap() error { return e.err }
func (e *finalError) Final() bool   { return true }

// ended reports whether a log says that nothing will come any more: by io.EOF itself. One that is
// wrapped is a connection that was cut.
func ended(err error) bool { return err == io.EOF } //nolint:errorlint // see above

func final(err error) bool {
	var f interface{ Final() bool }
	return errors.Is(err, ackwise.ErrClosed) || errors.As(err, &f) && f.Final()
}

// resume tells the log which partitions to pause and which to resume.
func (s *Source) resume() {
	s.pauseMu.Lock()
	defer s.pauseMu.Unlock()
	s.mu.Lock()
	pause, resume := s.member.pauses(time.Now())
	s.mu.Unlock()
	for _, name := range pause {
		s.log.Pause(name, true)
	}
	for _, name := range resume {
		s.log.Pause(name, false)
	}
}

// tell passes on what was seen.
func (s *Source) tell() {
	s.seenMu.Lock()
	defer s.seenMu.Unlock()
	s.mu.Lock()
	seen := s.member.seen
	s.member.seen = nil
	s.mu.Unlock()
	for _, e := range seen {
		if s.opts.Observe == nil {
			return
		}
		s.opts.Observe(e)
	}
}

// Close gives all partitions back: settlements are written, and the next owner is told that what is
// still in flight here was not lost with its consumer. Then it closes the log. What the log
// refuses, as a group does while its members change, is written again for closePatience.
func (s *Source) Close() error {
	if !s.leave() {
		return nil
	}
	s.cancel() // the writer does its last rounds
	s.reader.Wait()
	s.writer.Wait()
	s.tell()
	errs := append(slices.Collect(maps.Values(s.unwritten)), s.log.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close log source: %w", err)
	}
	return nil
}

// leave revokes all partitions, and reports whether nobody has done so before.
func (s *Source) leave() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.closed = true
	now := time.Now()
	for _, p := range s.member.parts {
		giveUp := now.Add(closePatience)
		if p.leaving && p.giveUp.Before(giveUp) {
			giveUp = p.giveUp // the log does not wait longer
		}
		s.member.revoke(p, now, giveUp)
	}
	s.wakeReceivers()
	return true
}
