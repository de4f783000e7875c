package logsource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// ErrUnsettled is what a Transact's write wraps when it cannot be found out whether it was carried
// out. The partitions are then treated as lost: nothing that was true before may be written over
// it.
var ErrUnsettled = errors.New("it is not known whether the settlements were written")

// ErrNoteFull is what Transact answers where the note has no room to name what would be settled out
// of order: it would be handed out again. There is room once earlier messages are settled.
var ErrNoteFull = errors.New("the journal's note has no room for it: messages before it are open")

// errTransacting is what Settle answers for a hand-out that a transaction is settling: how that
// ends is not known yet, and a repeated call hears it.
var errTransacting = errors.New("a transaction is settling it")

// ack is a hand-out that a transaction settles.
type ack struct {
	p     *partition
	m     *msg
	token token
}

// Transact acks hand-outs by a write of the caller's, all of them or none: write gets, for each of
// their partitions, the position and the note that are true once all are acked. Only when write
// returns nil are they acked. Where it returns an error they are still held, and the caller settles
// them in another way; on ErrFenced and ErrUnsettled their partitions are lost.
//
// Nothing else of the source is written meanwhile, so write must end in time. A hand-out that is
// not this member's any more is ErrLeaseLost, and write is not called.
func (s *Source) Transact(ctx context.Context, tokens []ackwise.LeaseToken,
	write func(ctx context.Context, marks []Mark) error) error {
	select {
	case <-s.writing:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	defer func() { s.writing <- struct{}{} }()
	acks, marks, writes, err := s.intend(tokens)
	if err != nil {
		return fmt.Errorf("settle in a transaction: %w", err)
	}
	err = write(ctx, marks)
	s.transacted(acks, writes, err)
	s.resume()
	s.tell()
	if err != nil {
		return fmt.Errorf("settle in a transaction: %w", err)
	}
	return nil
}

// intend makes the marks that would be true if all were acked.
func (s *Source) intend(tokens []ackwise.LeaseToken) ([]ack, []Mark, []write, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, nil, ackwise.ErrLeaseLost
	}
	acks, err := s.member.held(tokens)
	if err != nil {
		return nil, nil, nil, err
	}
	marks, writes, err := s.member.intend(acks, time.Now())
	for _, a := range acks {
		a.m.handed.writing = err == nil
	}
	return acks, marks, writes, err
}

// transacted takes in what became of the write.
func (s *Source) transacted(acks []ack, writes []write, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, a := range acks {
		if a.m.handed != nil { // it is not where the partition was lost meanwhile
			a.m.handed.writing = false
		}
	}
	if err == nil || errors.Is(err, ErrFenced) || errors.Is(err, ErrUnsettled) {
		s.member.transacted(acks, writes, err, now)
	}
	s.wakeReceivers()
	s.wakeWriter()
}

// held returns the hand-outs that tokens name, if all are still this member's.
func (c *member) held(tokens []ackwise.LeaseToken) ([]ack, error) {
	acks := make([]ack, 0, len(tokens))
	for _, text := range tokens {
		t, ok := decodeToken(text)
		same := func(a ack) bool { return a.token == t } // whatever its text
		if !ok || t.owner != c.opts.Owner || slices.ContainsFunc(acks, same) {
			return nil, ackwise.ErrBadToken
		}
		p := c.byEpoch(t.epoch)
		m := p.holds(t)
		if m == nil {
			return nil, ackwise.ErrLeaseLost
		}
		acks = append(acks, ack{p, m, t})
	}
	// In the order of their positions, so that a run is settled in order.
	slices.SortFunc(acks, func(a, b ack) int {
		return cmp.Or(cmp.Compare(a.token.epoch, b.token.epoch), cmp.Compare(a.token.ord, b.token.ord))
	})
	turn := map[*lane]*msg{} // the one before which nothing of the lane is open once all are acked
	for _, a := range acks {
		if a.m.lane == nil {
			continue
		}
		next, seen := turn[a.m.lane]
		if !seen {
			next = a.m.lane.first
		}
		if next != a.m {
			return nil, ackwise.ErrRunOrder
		}
		turn[a.m.lane] = next.next
	}
	return acks, nil
}

// intend makes the notes on copies of the partitions. From the first one on, notes keep room for
// what is settled out of order, so that it is never cut out of one.
func (c *member) intend(acks []ack, now time.Time) (marks []Mark, writes []write, err error) {
	for _, p := range c.parts {
		p.exact = true
	}
	c.exact = true
	total := c.inFlight + len(c.ghosts) - len(acks)
	for _, p := range c.parts {
		copied, n := *p, 0
		copied.tracker.slots = slices.Clone(p.tracker.slots)
		for _, a := range acks {
			if a.p == p {
				copied.tracker.settle(a.m.ord)
				n++
			}
		}
		if n == 0 {
			continue
		}
		copied.inFlight -= n
		ceiling := p.ceiling
		if c.opts.Journal == JournalCeiling {
			ceiling = p.lastRead
		}
		note := copied.snapshot(total, false, now)
		note.spell()
		data, _ := note.encode(c.opts.NoteBytes)
		if told, err := decodeNote(data); err != nil || !slices.Equal(told.spans, note.spans) {
			return nil, nil, errors.Join(fmt.Errorf("%s: %w", p.name, ErrNoteFull), err)
		}
		p.noteSize = len(data)
		marks = append(marks, Mark{Partition: p.name, Position: note.base, Note: data})
		// The acks will add as many versions, which this note tells of already.
		writes = append(writes, write{p: p, version: p.version + uint64(n), sole: note.sole,
			ceiling: ceiling})
	}
	return marks, writes, nil
}

// transacted acks what was written, or loses what cannot be written any more.
func (c *member) transacted(acks []ack, writes []write, err error, now time.Time) {
	if err == nil {
		for _, a := range acks {
			if a.p.epoch == 0 {
				continue // lost meanwhile; what was written stands
			}
			a.p.settle(a.m, &ackwise.Settlement{Outcome: ackwise.OutcomeAck}, now)
			c.ended(a.m)
			c.settled.put(a.token, ackwise.OutcomeAck)
		}
	}
	for i := range writes {
		w := &writes[i]
		switch {
		case w.p.epoch == 0:
		case err != nil:
			c.lose(w.p, now)
		default:
			w.p.written, w.p.soleNoted, w.p.ceiling = w.version, w.sole, w.ceiling
		}
	}
}
