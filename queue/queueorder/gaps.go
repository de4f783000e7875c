package queueorder

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// maxAsked bounds the numbers that are looked for at a time.
const maxAsked = 1 << 16

// carryOut does what was ordered. What could not be made durable is tried again, in the next Run at
// the latest, unless its caller has left.
func (s *session) carryOut() error {
	now := time.Now()
	s.mu.Lock()
	orders := s.orders
	s.orders = nil
	var gaps []ordering.Gap
	for _, o := range orders {
		o.gaps = s.m.GiveUp(now, o.key, o.last)
		gaps = append(gaps, o.gaps...)
	}
	s.mu.Unlock()
	if err := s.goOn(gaps); err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		orders = slices.DeleteFunc(orders, func(o *order) bool { return o.left })
		s.orders = append(orders, s.orders...)
		return err
	}
	for _, o := range orders {
		close(o.done)
	}
	return nil
}

// lookForGaps asks where missing numbers are, about once a second.
func (s *session) lookForGaps(ctx context.Context) error {
	now := time.Now()
	if now.Before(s.askAt) {
		return nil
	}
	s.mu.Lock()
	missing := s.m.Missing(now, maxAsked)
	s.mu.Unlock()
	if len(missing) == 0 {
		return nil
	}
	if now.Before(s.crowded) {
		if err := s.bring(ctx, missing); err != nil {
			return err
		}
	}
	states, err := s.opt.Finder.Find(s.work, missing)
	done := time.Now()
	s.askAt = done.Add(max(min(maxIdle, s.ask), 10*done.Sub(now))) // a long search is a rare one
	if err != nil || len(states) != len(missing) {
		// Nothing is given up on a guess: the gap stays until somebody can say.
		s.opt.Logger.Error("look for missing numbers", "source", s.opt.Topic+"/"+
			s.opt.Subscription, "answers", len(states), "questions", len(missing), "err", err)
		return nil
	}
	s.mu.Lock()
	gaps, stop := s.m.Answer(now, missing, states)
	s.mu.Unlock()
	if len(gaps) > 0 {
		s.askAt = done // a gap that is longer than that is not given up a piece a second
	}
	if err := s.goOn(gaps); err != nil {
		return err
	}
	return stop
}

// bring takes missing numbers out of the source, past what was put off: where it is at its own
// bound (MaxWaiting), or so much was put off that this comes again before anything new is looked
// at, they would never be handed out. Their deliveries come later, and are repeats then.
func (s *session) bring(ctx context.Context, missing []ordering.Missing) error {
	wanted := make(map[ordering.Missing]ackwise.Position, len(missing))
	for _, m := range missing {
		wanted[m] = ""
	}
	left := len(wanted)
	_, err := s.books.walk(s.work, everyPage, func(p *queue.Peeked) bool {
		if p.State == queue.StateDead || p.State == queue.StateDelayed && p.Counts.HandOuts == 0 {
			return true // it is not its time
		}
		a, err := s.books.read(&p.Message)
		if err != nil {
			return true
		}
		m := ordering.Missing{Key: a.Key, Number: a.Number}
		if at, there := wanted[m]; there && at == "" && !s.isUnfit(p.Position) {
			wanted[m] = p.Position
			left--
		}
		return left > 0 && ctx.Err() == nil
	})
	if err != nil {
		s.opt.Logger.Warn("look for what is behind messages put off", "err", err)
		return nil
	}
	ds := s.inTurn(missing, wanted)
	if len(ds) == 0 {
		return nil
	}
	s.opt.Logger.Warn("took messages out of the source past those put off", "source",
		s.opt.Topic+"/"+s.opt.Subscription, "messages", len(ds), "first", ds[0].ID)
	_, err = s.round(ctx, ds, nil)
	return err
}

// inTurn reads the messages, of those found, that their keys need next. They have no token.
func (s *session) inTurn(missing []ordering.Missing, at map[ordering.Missing]ackwise.Position,
) []*ackwise.Delivery {
	var ds []*ackwise.Delivery
	bytes, run := 0, true
	for i, m := range missing {
		run = at[m] != "" && (run || i == 0 || missing[i-1].Key != m.Key)
		if !run {
			continue
		}
		ms, err := s.store.Read(s.work, s.opt.Topic, []ackwise.Position{at[m]})
		if err != nil { // it may be gone by now
			s.opt.Logger.Warn("read message in the source", "topic", s.opt.Topic, "position", at[m],
				"err", err)
			break
		}
		ds = append(ds, &ackwise.Delivery{Message: ms[0], Position: at[m]})
		if bytes += len(ms[0].Body); bytes >= roundBytes || len(ds) == s.opt.Batch {
			break
		}
	}
	return ds
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

// books is the Finder of a subscription: its dead letters, those of the held topic, and what is
// unfinished there.
type books struct {
	store            Store
	topic, sub, held string
	read             func(*ackwise.Message) (ordering.Arrival, error)
}

const (
	peekPage  = 10_000
	peekPages = 10
	everyPage = -1
)

// walk calls fn with what the source has, at most some pages of it, until fn says stop. all reports
// that it came to the end.
func (b *books) walk(ctx context.Context, pages int, fn func(*queue.Peeked) bool) (
	all bool, err error) {
	for o := (queue.PeekOptions{Max: peekPage}); pages != 0; pages-- {
		page, err := b.store.Peek(ctx, b.topic, b.sub, o)
		if err != nil {
			return false, fmt.Errorf("look through %s/%s: %w", b.topic, b.sub, err)
		}
		if len(page) == 0 { // one that is short may lack what was settled meanwhile
			return true, nil
		}
		for i := range page {
			o.After = max(o.After, page[i].Position)
			if !fn(&page[i]) {
				return false, nil
			}
		}
	}
	return false, nil
}

// Find implements ordering.Finder. Where more is unfinished than it looks through, what it did not
// see may be in the rest, and is late.
func (b *books) Find(ctx context.Context, missing []ordering.Missing) (
	[]ordering.Whereabouts, error) {
	at := make(map[ordering.Missing]int, len(missing))
	for i, m := range missing {
		at[m] = i
	}
	states := make([]ordering.Whereabouts, len(missing))
	found := func(p *queue.Peeked) bool {
		a, err := b.read(&p.Message)
		if err != nil {
			return true
		}
		if i, wanted := at[ordering.Missing{Key: a.Key, Number: a.Number}]; wanted {
			if states[i] = ordering.Late; p.State == queue.StateDead {
				states[i] = ordering.Parked
			}
			delete(at, missing[i])
		}
		return len(at) > 0
	}
	rest := ordering.Late
	all, err := b.walk(ctx, peekPages, found)
	if err != nil {
		return nil, err
	}
	if all {
		rest = ordering.Lost
	}
	dead, err := deadOf(ctx, b.store, b.held)
	if err != nil {
		return nil, err
	}
	for i := range dead {
		found(&dead[i])
	}
	for _, i := range at {
		states[i] = rest
	}
	return states, nil
}

// deadOf returns the dead letters of a held topic, at most a page: those that the out topic did not
// take.
func deadOf(ctx context.Context, s Store, held string) ([]queue.Peeked, error) {
	subs, err := s.Subscriptions(ctx, held)
	if err != nil {
		return nil, fmt.Errorf("look at dead letters of %s: %w", held, err)
	}
	for _, sub := range subs {
		if sub.Name != heldSub || sub.Books.Dead == 0 {
			continue
		}
		dead, err := s.Peek(ctx, held, heldSub, queue.PeekOptions{Max: peekPage, State: queue.StateDead})
		if err != nil {
			return nil, fmt.Errorf("look at dead letters of %s: %w", held, err)
		}
		return dead, nil
	}
	return nil, nil
}
