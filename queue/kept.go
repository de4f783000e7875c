package queue

import (
	"context"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/arena"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// Read returns kept messages of a topic by the positions that their publishes returned, in the
// order that was asked for, without a hand-out. A message is kept while a subscription needs it or
// the topic retains it. One that is not is a *ackwise.NotFoundError, but may still be read until
// its part of the log is freed. Positions are bounded by MaxBatch and bodies together by
// MaxBatchBytes: more is ErrTooLarge.
func (s *Store) Read(ctx context.Context, topic string, positions []ackwise.Position) (
	[]ackwise.Message, error) {
	if len(positions) > s.opt.MaxBatch {
		return nil, fmt.Errorf("read %d messages, at most %d are allowed: %w", len(positions),
			s.opt.MaxBatch, ackwise.ErrTooLarge)
	}
	at := make([]uint64, len(positions))
	for i, p := range positions {
		var err error
		if at[i], err = parsePosition(p); err != nil {
			return nil, err
		}
	}
	id, err := s.topicID(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := make([]ackwise.Message, len(positions))
	err = s.readKept(at, func(i int, p *state.Publish) error {
		if p.Topic != id {
			return notKept(at[i])
		}
		out[i] = p.Message
		out[i].Topic = topic
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Scan shows the kept messages of a topic behind a position ("" = from the beginning), in the order
// in which they were accepted, whichever subscription needs them; State, Counts and History are
// empty, and what is scheduled and not due is left out. At most max, MaxBatch and MaxBatchBytes
// come at a time, and none only where there are no more. A message that was scheduled has the
// position of its publish also when it is due: who has read on past it by then does not see it.
func (s *Store) Scan(ctx context.Context, topic string, after ackwise.Position, max int) (
	[]Peeked, error) {
	if err := atLeast("max", max, 1); err != nil {
		return nil, err
	}
	from := uint64(0)
	if after != "" {
		var err error
		if from, err = parsePosition(after); err != nil {
			return nil, err
		}
	}
	var out []Peeked
	for len(out) == 0 { // what was listed may all be settled before it is read
		at, err := s.listKept(ctx, topic, from, min(max, s.opt.MaxBatch))
		if err != nil || len(at) == 0 {
			return out, err
		}
		err = s.readKept(at, func(i int, p *state.Publish) error {
			p.Message.Topic = topic
			out = append(out, Peeked{Message: p.Message, Position: position(at[i]),
				Accepted: s.clock.wall(p.Now)})
			return nil
		})
		if err != nil && !gone(err) {
			return nil, err
		}
		from = at[len(at)-1]
	}
	return out, nil
}

// listKept returns the positions of kept messages behind one.
func (s *Store) listKept(ctx context.Context, topic string, after uint64, max int) (
	[]uint64, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	t, err := s.topic(topic)
	if err != nil {
		return nil, err
	}
	var at []uint64
	bytes := 0
	for _, k := range t.Scan(after, max) {
		if bytes += int(k.Size); len(at) > 0 && bytes > s.opt.MaxBatchBytes {
			break
		}
		at = append(at, k.Pos)
	}
	return at, nil
}

func (s *Store) topicID(ctx context.Context, topic string) (uint32, error) {
	if err := ctx.Err(); err != nil {
		return 0, context.Cause(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return 0, err
	}
	t, err := s.topic(topic)
	if err != nil {
		return 0, err
	}
	return t.ID, nil
}

// readKept reads messages and calls fn for each, sorted by position; i is its place in at. One that
// is not kept is left out and told at the end, by an error that is gone.
func (s *Store) readKept(at []uint64, fn func(i int, p *state.Publish) error) error {
	r := s.readings.take()
	defer s.readings.put(r)
	handed := make([]state.HandOut, len(at))
	for i, pos := range at {
		handed[i].Pos = pos
	}
	r.at(handed)
	memory := arena.New(len(at), 0)
	var first, missing error
	bytes := 0
	publish := (&state.Publish{}).Type()
	r.buf = s.log.ReadBatch(r.positions, r.buf, func(i int, rec wal.Record, err error) {
		if r.order != nil {
			i = r.order[i]
		}
		switch {
		case first != nil:
			return
		case err != nil && gone(err):
			missing = fmt.Errorf("%w: %w", notKept(at[i]), err)
			return
		case err != nil:
			first = s.explainRead(at[i], err)
			return
		case rec.Type != publish:
			first = notKept(at[i])
			return
		}
		if bytes += len(rec.Payload); bytes > s.opt.MaxBatchBytes && len(at) > 1 {
			first = fmt.Errorf("read %d messages, which are over the %d bytes that one batch may "+
				"have: %w", len(at), s.opt.MaxBatchBytes, ackwise.ErrTooLarge)
			return
		}
		p, err := state.DecodePublish(rec.Payload, memory)
		if err != nil {
			first = fmt.Errorf("decode message at %s: %w", position(at[i]), err)
			return
		}
		first = fn(i, &p)
	})
	if first == nil {
		first = missing
	}
	return first
}

// explainRead tells what it means that there is no sound record at a position: damage, if something
// that lives stands there; else it was asked for by mistake.
func (s *Store) explainRead(pos uint64, err error) error {
	if _, damaged := errors.AsType[*CorruptionError](err); damaged {
		s.mu.Lock()
		lives := len(s.st.LivePositions(pos, pos+1)) > 0
		s.mu.Unlock()
		if !lives {
			return notKept(pos)
		}
	}
	return fmt.Errorf("read message at %s: %w", position(pos), err)
}

func notKept(pos uint64) error {
	return &ackwise.NotFoundError{Kind: "message", Name: string(position(pos))}
}
