package queue

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

const (
	defaultPeek = 10
	maxListed   = 10_000
)

var stateWords = map[state.Place]State{state.Ready: StateReady, state.Delayed: StateDelayed,
	state.InFlight: StateInFlight, state.Parked: StateParked, state.Dead: StateDead}

// Peek shows messages of a subscription in the order of the log, scheduled ones last, without a
// hand-out. With an ID it looks through all that are kept.
func (s *Store) Peek(ctx context.Context, topic, sub string, o PeekOptions) ([]Peeked, error) {
	setDefault(&o.Max, defaultPeek)
	if o.Max < 0 || o.Max > maxListed {
		return nil, &ackwise.InvalidError{Field: "max", Reason: "it must be between 1 and 10,000"}
	}
	after := uint64(0)
	if o.After != "" {
		var err error
		if after, err = parsePosition(o.After); err != nil {
			return nil, err
		}
	}
	var seen []state.Seen
	err := s.view(topic, sub, func(q *state.Sub) {
		s.st.Walk(q, func(m state.Seen) bool {
			if (o.State == "" || stateWords[m.Place] == o.State) && m.Pos > after {
				seen = append(seen, m)
			}
			return o.ID != "" || len(seen) < o.Max
		})
	})
	if err != nil {
		return nil, err
	}
	out := []Peeked{}
	for _, m := range seen {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		p, err := s.readMessage(m.Pos)
		if err != nil {
			if gone(err) {
				continue
			}
			return nil, err
		}
		if o.ID != "" && p.Message.ID != o.ID {
			continue
		}
		p.Message.Topic = topic
		v := Peeked{Message: p.Message, State: stateWords[m.Place], Position: position(m.Pos),
			Counts: m.Counts, Cause: m.Cause, Consumer: m.Consumer, History: m.History,
			Accepted: s.clock.wall(p.Now)}
		if m.Place == state.Delayed || m.Place == state.InFlight {
			v.Due = s.clock.wall(m.Due)
		}
		if out = append(out, v); len(out) == o.Max {
			break
		}
	}
	return out, nil
}

// gone reports whether a message could not be read because it was settled meanwhile and its segment
// is no longer kept; damage is another error.
func gone(err error) bool { return wal.NotKept(err) }

// view calls fn with a subscription, under mu.
func (s *Store) view(topic, sub string, fn func(q *state.Sub)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	q, err := s.subscription(topic, sub)
	if err != nil {
		return err
	}
	fn(q)
	return nil
}

// DeadLetters lists dead letters, oldest first.
func (s *Store) DeadLetters(ctx context.Context, topic, sub string, f DeadFilter) (
	[]DeadLetter, error) {
	setDefault(&f.Max, maxListed)
	var dead []state.Seen
	err := s.view(topic, sub, func(q *state.Sub) { dead = s.st.DeadLetters(q) })
	if err != nil {
		return nil, err
	}
	out := []DeadLetter{}
	for _, m := range dead {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if !f.matchesState(m) {
			continue
		}
		p, err := s.readMessage(m.Pos)
		var corrupt *CorruptionError
		switch {
		case err != nil && gone(err):
			continue
		case errors.As(err, &corrupt): // listed without its body, so that it can be dropped
			p = &state.Publish{}
		case err != nil:
			return nil, err
		}
		if !f.matchesMessage(&p.Message) {
			continue
		}
		p.Message.Topic = topic
		d := DeadLetter{Message: p.Message, Position: position(m.Pos), Counts: m.Counts,
			Time: time.UnixMilli(m.Since).UTC(), FirstSeen: time.UnixMilli(m.FirstSeen).UTC(),
			Cause: m.Cause, Error: m.Error, History: m.History, Epoch: m.Epoch,
			Parked: m.Parked}
		if out = append(out, d); len(out) == f.Max {
			break
		}
	}
	return out, nil
}

func (f *DeadFilter) matchesState(m state.Seen) bool {
	at := time.UnixMilli(m.Since)
	return (f.Cause == ackwise.CauseUnknown || m.Cause == f.Cause) &&
		strings.Contains(m.Error, f.Error) &&
		(f.Before.IsZero() || at.Before(f.Before)) && (f.After.IsZero() || !at.Before(f.After))
}

func (f *DeadFilter) matchesMessage(m *ackwise.Message) bool {
	return (f.Key == "" || m.Key == f.Key) && (len(f.IDs) == 0 || slices.Contains(f.IDs, m.ID))
}

// Redrive brings the dead letters that f chooses back to the head of their keys and returns how
// many. With redo the effect is ordered again: the epoch grows by one, so that consumers who
// deduplicate apply it again.
func (s *Store) Redrive(ctx context.Context, topic, sub string, f DeadFilter, redo bool) (
	int, error) {
	return s.changeDead(ctx, topic, sub, f, func(now int64, q *state.Sub, seq uint64) (
		state.Record, bool) {
		return s.st.Redrive(now, q, seq, redo)
	})
}

// DropDead drops the dead letters that f chooses, with a reason that is counted. It returns how
// many.
func (s *Store) DropDead(ctx context.Context, topic, sub string, f DeadFilter, reason string) (
	int, error) {
	if err := needReason(reason); err != nil {
		return 0, err
	}
	return s.changeDead(ctx, topic, sub, f, func(now int64, q *state.Sub, seq uint64) (
		state.Record, bool) {
		return s.st.DropDead(now, q, seq, reason)
	})
}

// changeDead carries out a change of each dead letter that f chooses, as one atomic unit.
func (s *Store) changeDead(ctx context.Context, topic, sub string, f DeadFilter,
	change func(now int64, q *state.Sub, seq uint64) (state.Record, bool)) (int, error) {
	letters, err := s.DeadLetters(ctx, topic, sub, f)
	if err != nil {
		return 0, err
	}
	chosen := make(map[ackwise.Position]bool, len(letters))
	for _, d := range letters {
		chosen[d.Position] = true
	}
	s.mu.Lock()
	q, err := s.subscription(topic, sub)
	if err != nil {
		s.mu.Unlock()
		return 0, err
	}
	var records []state.Record
	now := s.clock.now()
	for _, m := range s.st.DeadLetters(q) {
		if !chosen[position(m.Pos)] {
			continue
		}
		if r, ok := change(now, q, m.Seq); ok {
			records = append(records, r)
		}
	}
	if len(records) == 0 {
		s.mu.Unlock()
		return 0, nil
	}
	group := s.append(records, true)
	s.st.Touch(q)
	s.unlock()
	if err := wait(group, true); err != nil {
		return 0, err
	}
	s.observe(ackwise.Event{Kind: "redriven", Pipeline: topic + "/" + sub})
	return len(records), nil
}

// ParkedKeys lists the keys that are parked or draining, longest first, at most max.
func (s *Store) ParkedKeys(ctx context.Context, topic, sub string, max int) ([]ParkedKey, error) {
	if err := atLeast("max", max, 1); err != nil {
		return nil, err
	}
	var keys []state.ParkedKey
	err := s.view(topic, sub, func(q *state.Sub) { keys = s.st.ParkedKeys(q) })
	if err != nil {
		return nil, err
	}
	out := []ParkedKey{}
	for _, k := range keys[:min(max, len(keys))] {
		p, err := s.readMessage(k.Head.Pos)
		if err != nil {
			if gone(err) {
				continue
			}
			return nil, err
		}
		out = append(out, ParkedKey{Key: p.Message.Key, ID: p.Message.ID, State: k.Mode,
			Depth: k.Depth, Since: time.UnixMilli(k.Since).UTC(), Error: k.Head.Error,
			Attempts: k.Head.Counts.HandOuts})
	}
	return out, nil
}
