package queue

import (
	"context"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/queue/internal/dedup"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// maxPendingBytes is how much may wait for a slow disk before publish pushes back.
const maxPendingBytes = 256 << 20

var _ ackwise.Sink = (*Store)(nil)

// Features implements ackwise.Sink.
func (s *Store) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: true, Dedup: true, MaxBatch: s.opt.MaxBatch,
		MaxBodyBytes: s.opt.MaxBodyBytes}
}

// Publish implements ackwise.Sink: it accepts each message by itself, in order, and returns when
// all that were accepted are synced. Refusals are ErrFull (retryable), *ackwise.InvalidError,
// *ackwise.NotFoundError, ErrTooLarge and ErrIDConflict (rejected). When ctx ends first, what may
// have been accepted is ResultUnknown: publish it again with the same ID.
func (s *Store) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	return s.Schedule(ctx, 0, msgs)
}

// Schedule is Publish for messages that take their place in the topic after delay.
func (s *Store) Schedule(ctx context.Context, delay time.Duration,
	msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	if err := s.checkBatch(msgs); err != nil {
		for i := range results {
			results[i] = refused(ackwise.ResultRejected, msgs[i].ID, err)
		}
		return results
	}
	var one [1]publishing // the most frequent batch needs no allocation
	ps := one[:]
	if len(msgs) != 1 {
		ps = make([]publishing, len(msgs))
	}
	for i := range msgs { // what can be done before the mutex is taken
		ps[i].m, ps[i].id = &msgs[i], msgs[i].ID
		if err := s.checkMessage(&msgs[i]); err != nil {
			results[i] = refused(ackwise.ResultRejected, "", err)
		} else if msgs[i].ID == "" {
			ps[i].id = ackwise.NewID(time.Now())
		}
	}
	group := s.publishAll(ctx, delay, ps, results)
	var failed error
	if group != nil {
		select {
		case <-group.Synced():
			failed = group.Err()
		case <-ctx.Done():
			failed = context.Cause(ctx)
		}
	}
	for i := range results {
		s.publishResult(&ps[i], &results[i], failed)
	}
	return results
}

// publishing is a message on its way through Schedule.
type publishing struct {
	m   *ackwise.Message
	id  string // the message's, or the one that was made for it
	pos uint64 // of its record, or of that of the first copy

	probe dedup.Probe // what was known of its ID before the mutex was taken
}

// publishAll accepts or refuses each message, in order. What was accepted holds once the returned
// group is synced; nil = nothing was.
func (s *Store) publishAll(ctx context.Context, delay time.Duration, ps []publishing,
	results []ackwise.Result) *wal.Group {
	for made := s.probeAll(ps, results); ; made = s.probeAll(ps, results) {
		s.mu.Lock()
		if s.dedup.made.Load() == made {
			break
		}
		s.mu.Unlock() // a topic was made meanwhile: its window was not asked
	}
	defer s.unlock()
	var group *wal.Group
	now := s.clock.now()
	for i := range ps {
		switch {
		case results[i].Err != nil: // refused already
		case ctx.Err() != nil:
			results[i] = refused(ackwise.ResultNotAttempted, "", context.Cause(ctx))
		default:
			var g *wal.Group
			if results[i], g = s.publishOne(now, delay, &ps[i]); g != nil {
				group = g
			}
		}
	}
	return group
}

// publishResult completes the result of a message; failed is why its group was not synced.
func (s *Store) publishResult(p *publishing, r *ackwise.Result, failed error) {
	r.ID = p.m.ID
	if r.Class != ackwise.ResultAccepted {
		return
	}
	r.ID = p.id
	if failed != nil {
		*r = refused(ackwise.ResultUnknown, p.id, failed)
		return
	}
	r.Position = position(p.pos)
	if s.opt.Observe != nil {
		s.observe(ackwise.Event{Kind: "published", Pipeline: p.m.Topic, ID: p.id, Key: p.m.Key})
	}
}

// checkBatch reports why a whole batch is refused.
func (s *Store) checkBatch(msgs []ackwise.Message) error {
	if len(msgs) > s.opt.MaxBatch {
		return fmt.Errorf("a batch of %d messages, at most %d are allowed: %w",
			len(msgs), s.opt.MaxBatch, ackwise.ErrTooLarge)
	}
	bytes := 0
	for i := range msgs {
		bytes += len(msgs[i].Body)
	}
	if bytes > s.opt.MaxBatchBytes {
		return fmt.Errorf("a batch of %d bytes, at most %d are allowed: %w",
			bytes, s.opt.MaxBatchBytes, ackwise.ErrTooLarge)
	}
	return nil
}

func refused(class ackwise.ResultClass, id string, err error) ackwise.Result {
	return ackwise.Result{Class: class, ID: id, Err: err}
}

// publishOne accepts or refuses one message, and sets where its record stands. The caller holds mu.
func (s *Store) publishOne(now int64, delay time.Duration, p *publishing) (
	ackwise.Result, *wal.Group) {
	if err := s.usable(); err != nil {
		return refused(ackwise.ResultRetryable, "", err), nil
	}
	m := p.m
	t, class, err := s.admit(now, m)
	if err != nil {
		return refused(class, "", err), nil
	}
	if m.ID != "" {
		seen, known, err := s.dedup.known(t, &p.probe, now, 0)
		switch {
		case err != nil:
			return refused(ackwise.ResultRetryable, "", err), nil
		case known && seen.Sum != sumOf(m):
			return refused(ackwise.ResultRejected, "", fmt.Errorf("message %q: %w", m.ID,
				ackwise.ErrIDConflict)), nil
		case known:
			// The sync that covers this record covers the first copy too.
			again := t.ProducedAgain()
			if err := s.st.Do(again); err != nil {
				return refused(ackwise.ResultRetryable, "", err), nil
			}
			p.pos = seen.Pos
			return ackwise.Result{Class: ackwise.ResultAccepted, Duplicate: true},
				s.append([]state.Record{again}, true)
		}
	}
	s.accepting = state.Publish{Now: now, Topic: t.ID, Given: m.ID != "", Message: *m}
	s.accepting.Message.ID = p.id
	if delay > 0 {
		s.accepting.Due = now + delay.Milliseconds()
	}
	return s.accept(p)
}

// accept appends the message in s.accepting to the log and to the state. The caller holds mu.
func (s *Store) accept(p *publishing) (ackwise.Result, *wal.Group) {
	r := &s.accepting
	s.buf = r.Head(s.buf[:0])
	s.records = append(s.records[:0],
		wal.Record{Type: r.Type(), Payload: s.buf, Rest: r.Message.Body})
	group := s.log.Append(s.records, true)
	if err := group.Err(); err != nil {
		return refused(ackwise.ResultRetryable, "", err), nil
	}
	p.pos = s.records[0].Pos
	if err := s.st.ApplyPublish(r, p.pos, len(s.buf)+len(r.Message.Body)); err != nil {
		return refused(ackwise.ResultRejected, "", err), nil
	}
	return ackwise.Result{Class: ackwise.ResultAccepted}, group
}

// checkMessage reports what is wrong with a message whatever the state is.
func (s *Store) checkMessage(m *ackwise.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if len(m.Body) > s.opt.MaxBodyBytes {
		return fmt.Errorf("a body of %d bytes, at most %d are allowed (MaxBodyBytes): %w",
			len(m.Body), s.opt.MaxBodyBytes, ackwise.ErrTooLarge)
	}
	return nil
}

// admit reports why a checked message is refused before its ID is looked at. The caller holds mu.
func (s *Store) admit(now int64, m *ackwise.Message) (*state.Topic, ackwise.ResultClass, error) {
	t, err := s.topic(m.Topic)
	if err != nil {
		return nil, ackwise.ResultRejected, err
	}
	messages, bytes := t.Kept()
	full := func(what string, bound any) error {
		return fmt.Errorf("topic %s is at its bound of %v %s: %w", t.Name, bound, what,
			ackwise.ErrFull)
	}
	switch {
	case messages >= int64(t.Config.MaxMessages):
		return nil, ackwise.ResultRetryable, full("messages", t.Config.MaxMessages)
	case bytes+int64(len(m.Body)) > t.Config.MaxBytes:
		return nil, ackwise.ResultRetryable, full("bytes", t.Config.MaxBytes)
	}
	if err := s.diskRoom(now, len(m.Body)); err != nil {
		return nil, ackwise.ResultRetryable, err
	}
	if sub, over := t.ParkedFull(m.Key); over {
		return nil, ackwise.ResultRetryable, fmt.Errorf(
			"the key is parked on %s/%s, whose quota of parked messages is reached: %w",
			t.Name, sub, ackwise.ErrFull)
	}
	return t, ackwise.ResultAccepted, nil
}

// diskRoom reports why the disk takes nothing new of so many bytes. The caller holds mu.
func (s *Store) diskRoom(now int64, size int) error {
	switch {
	case !s.disk.Whole():
		return fmt.Errorf("the disk is full, %d of %d bytes of the reserve are left "+
			"(ReserveBytes); settlements go on: %w", s.disk.Left(), s.opt.ReserveBytes,
			ackwise.ErrFull)
	case s.freeBytes(now)-int64(s.log.PendingBytes()+size) < s.opt.MinFreeBytes:
		return fmt.Errorf("the disk has %d bytes free, and %d are left for settlements "+
			"(MinFreeBytes): %w", s.free, s.opt.MinFreeBytes, ackwise.ErrFull)
	case s.log.PendingBytes() > maxPendingBytes:
		return fmt.Errorf("%d bytes wait for the disk: %w", s.log.PendingBytes(), ackwise.ErrFull)
	}
	return nil
}

// askFreeMillis is how long an answer about the free space holds.
const askFreeMillis = 100

// freeBytes returns the free space of the disk. It asks the system, which answers from memory, at
// most ten times a second. The caller holds mu.
func (s *Store) freeBytes(now int64) int64 {
	if s.askedAt == 0 || now-s.askedAt >= askFreeMillis {
		if free, err := s.log.FreeBytes(); err == nil {
			s.free, s.askedAt = free, now
		}
	}
	return s.free
}

// topic finds a topic by name. The caller holds mu.
func (s *Store) topic(name string) (*state.Topic, error) {
	if t := s.st.Topic(name); t != nil {
		return t, nil
	}
	if err := ackwise.ValidateName("topic", name); err != nil {
		return nil, err
	}
	var names []string
	for _, t := range s.st.Topics() {
		names = append(names, t.Name)
	}
	return nil, &ackwise.NotFoundError{Kind: "topic", Name: name,
		Nearest: nearest.Of(name, names)}
}

// subscription finds a subscription by names. The caller holds mu.
func (s *Store) subscription(topic, name string) (*state.Sub, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	t, err := s.topic(topic)
	if err != nil {
		return nil, err
	}
	if q := t.Sub(name); q != nil {
		return q, nil
	}
	if err := ackwise.ValidateName("subscription", name); err != nil {
		return nil, err
	}
	var names []string
	for _, q := range t.Subs {
		names = append(names, q.Name)
	}
	return nil, &ackwise.NotFoundError{Kind: "subscription", Name: topic + "/" + name,
		Nearest: nearest.Of(name, names)}
}
