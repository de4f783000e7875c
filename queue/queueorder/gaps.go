package queueorder

import (
	"context"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// maxAsked bounds the numbers that are looked for at a time, at most once a second.
const maxAsked = 1024

// lookForGaps carries out orders, and asks where missing numbers are.
func (s *session) lookForGaps() error {
	now := time.Now()
	s.mu.Lock()
	orders := s.orders
	s.orders = nil
	var gaps []ordering.Gap
	for _, o := range orders {
		o.gaps = s.m.GiveUp(now, o.key, o.last)
		gaps = append(gaps, o.gaps...)
	}
	var missing []ordering.Missing
	if !now.Before(s.askAt) {
		missing = s.m.Missing(now, maxAsked)
	}
	s.mu.Unlock()
	var stop error
	if len(missing) > 0 {
		states, err := s.opt.Finder.Find(s.work, missing)
		done := time.Now()
		s.askAt = done.Add(max(min(maxIdle, s.ask), 10*done.Sub(now))) // a long search is a rare one
		if err != nil || len(states) != len(missing) {
			// Nothing is given up on a guess: the gap stays until somebody can say.
			s.opt.Logger.Error("look for missing numbers", "source", s.opt.Topic+"/"+
				s.opt.Subscription, "answers", len(states), "questions", len(missing), "err", err)
		} else {
			s.mu.Lock()
			var more []ordering.Gap
			more, stop = s.m.Answer(now, missing, states)
			s.mu.Unlock()
			gaps = append(gaps, more...)
		}
	}
	if err := s.goOn(gaps); err != nil {
		return err
	}
	for _, o := range orders {
		close(o.done)
	}
	return stop
}

// goOn makes durable that numbers were given up, and tells of them.
func (s *session) goOn(gaps []ordering.Gap) error {
	if len(gaps) == 0 {
		return nil
	}
	var keys []string
	seen := map[string]bool{}
	for _, g := range gaps {
		if !seen[g.Key] {
			seen[g.Key] = true
			keys = append(keys, g.Key)
		}
	}
	if _, err := s.round(s.work, nil, keys); err != nil {
		return err
	}
	for _, g := range gaps {
		s.opt.Logger.Warn("went on without numbers", "out", s.opt.Out, "key", g.Key,
			"first", g.First, "last", g.Last, "state", g.State, "since", g.Since)
		s.note(ackwise.Event{Kind: "gave-up", Key: g.Key, Err: &ordering.GapError{Gap: g}})
	}
	s.tell()
	return nil
}

// books is the Finder of a subscription: its dead letters, and what is unfinished there.
type books struct {
	store      Store
	topic, sub string
	read       func(*ackwise.Message) (ordering.Arrival, error)
}

const (
	peekPage  = 10_000
	peekPages = 10
)

// Find implements ordering.Finder. Where more is unfinished than it looks through, what it did not
// see may be in the rest, and is late.
func (b *books) Find(ctx context.Context, missing []ordering.Missing) (
	[]ordering.Whereabouts, error) {
	at := make(map[ordering.Missing]int, len(missing))
	for i, m := range missing {
		at[m] = i
	}
	states := make([]ordering.Whereabouts, len(missing))
	found := func(m *ackwise.Message, w ordering.Whereabouts) {
		a, err := b.read(m)
		if err != nil {
			return
		}
		if i, wanted := at[ordering.Missing{Key: a.Key, Number: a.Number}]; wanted {
			states[i] = w
			delete(at, missing[i])
		}
	}
	rest := ordering.Late
	after := ackwise.Position("")
	for range peekPages {
		page, err := b.store.Peek(ctx, b.topic, b.sub, queue.PeekOptions{Max: peekPage, After: after})
		if err != nil {
			return nil, fmt.Errorf("look through %s/%s: %w", b.topic, b.sub, err)
		}
		for i := range page {
			if page[i].State == queue.StateDead {
				found(&page[i].Message, ordering.Parked)
			} else {
				found(&page[i].Message, ordering.Late)
			}
			after = max(after, page[i].Position)
		}
		if len(page) < peekPage {
			rest = ordering.Lost
			break
		}
		if len(at) == 0 {
			break
		}
	}
	for _, i := range at {
		states[i] = rest
	}
	return states, nil
}
