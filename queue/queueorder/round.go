package queueorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// part is what a commit does for one message, or for one key's row.
type part struct {
	message  *ackwise.Message // to publish; nil = none
	read     ackwise.Position // where the message is still to be read from; "" = it is here
	settle   *ackwise.Settlement
	arrival  ordering.Arrival
	hold     bool // it goes into the held topic, and where it is there has to be told
	key      string
	row      []byte            // nil = none
	released bool              // it was held on disk
	from     *ackwise.Delivery // where it is here
}

// fromBatch marks a Ref that is a place in the batch and not yet a position.
const fromBatch = 1 << 63

// roundBytes is how much one round lets go at a time, beside what it has just received.
const roundBytes = 4 << 20

// round takes a batch in, lets go what may go, and makes both durable in one commit. keys are those
// whose rows have changed besides. more says that it is worth calling again at once.
func (s *session) round(ctx context.Context, ds []*ackwise.Delivery, keys []string) (
	more bool, err error) {
	s.mu.Lock()
	s.m.Trim()
	s.mu.Unlock()
	now := time.Now()
	for _, d := range ds {
		if d.Key == "" {
			continue
		}
		if err := s.learn(d.Key, now); err != nil {
			return false, err
		}
	}
	parts, full, more := s.plan(now, ds, keys)
	s.putOff(full)
	if len(parts) == 0 {
		if len(full) > 0 {
			pause.For(ctx, fullWait)
		}
		return false, nil
	}
	if err := s.fetch(parts); err != nil {
		return false, err
	}
	s.drain.going = map[ackwise.Position]bool{}
	for i := range parts {
		if parts[i].released {
			s.drain.going[parts[i].read] = true
		}
	}
	if err := s.commit(ctx, parts); err != nil {
		return false, err
	}
	s.drain.gone += len(s.drain.going)
	s.drain.going = nil
	s.tell()
	return more, nil
}

// plan decides. It does no I/O. The parts are in the order in which the machine decided, so that
// they may as well be carried out one by one.
func (s *session) plan(now time.Time, ds []*ackwise.Delivery, keys []string) (
	parts []part, full []*ackwise.Delivery, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		parts = append(parts, part{key: key, row: s.m.Row(key)})
	}
	taken := make([]bool, len(ds)) // and not let go
	arrivals, sorted, bytes := s.read(ds)
	released := 0
	release := func() {
		for released < s.opt.Batch && (bytes < roundBytes || released == 0) {
			a, ok := s.m.Next(now)
			if !ok {
				return
			}
			released++
			p := part{arrival: a, key: a.Key, row: s.m.Row(a.Key)}
			if a.Ref&fromBatch != 0 {
				i := int(a.Ref &^ fromBatch)
				taken[i] = false
				p.message, p.settle, p.from = s.out(&ds[i].Message), ack(ds[i]), ds[i]
			} else {
				bytes += a.Size
				p.read, p.released = positionOf(a.Ref), true
			}
			parts = append(parts, p)
		}
		more = true
	}
	for _, i := range sorted {
		p, verdict := s.arrive(now, ds[i], &arrivals[i])
		switch verdict {
		case ordering.VerdictTaken:
			taken[i] = true
			release()
		case ordering.VerdictFull:
			if ds[i].Token != "" {
				full = append(full, ds[i])
			}
		case ordering.VerdictDuplicate, ordering.VerdictLate, ordering.VerdictRefused:
			parts = append(parts, p)
		}
	}
	release()
	for i, d := range ds {
		if !taken[i] {
			continue
		}
		m := d.Message
		m.Topic = s.opt.Held
		parts = append(parts, part{message: &m, settle: ack(d), arrival: arrivals[i].Arrival, hold: true,
			key: d.Key, row: s.m.Row(d.Key), from: d})
	}
	return parts, full, more
}

// came is what was read of a delivery.
type came struct {
	ordering.Arrival
	err error
}

// read reads the order of each delivery, and sorts them by it, key by key: a run that came in one
// batch then goes in one, also where there is no room to hold it. bytes are those of all bodies.
func (s *session) read(ds []*ackwise.Delivery) (all []came, sorted []int, bytes int) {
	all, sorted = make([]came, len(ds)), make([]int, len(ds))
	for i, d := range ds {
		sorted[i] = i
		bytes += len(d.Body)
		if d.Key != "" {
			all[i].Arrival, all[i].err = s.m.Read(&d.Message)
			all[i].Ref = fromBatch | uint64(i)
		}
	}
	slices.SortStableFunc(sorted, func(i, j int) int {
		a, b := &all[i], &all[j]
		return cmp.Or(strings.Compare(a.Key, b.Key), cmp.Compare(a.Number, b.Number),
			a.Stamp.Compare(b.Stamp))
	})
	return all, sorted, bytes
}

// arrive decides about one delivery. The part is for those that are neither taken nor put off. The
// caller holds mu.
func (s *session) arrive(now time.Time, d *ackwise.Delivery, a *came) (
	p part, v ordering.Verdict) {
	if d.Key == "" {
		return part{message: s.out(&d.Message), settle: ack(d)}, ordering.VerdictDuplicate
	}
	p.from, v = d, ordering.VerdictRefused
	err := a.err
	if err == nil {
		v, err = s.m.Arrive(now, a.Arrival)
	}
	switch v {
	case ordering.VerdictTaken, ordering.VerdictFull:
	case ordering.VerdictDuplicate:
		p.settle = ack(d)
	case ordering.VerdictLate:
		p.key, p.row = d.Key, s.m.Row(d.Key)
		p.settle = ack(d)
		if s.opt.Order.DropLate {
			p.settle = &ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeDrop,
				Reason: "late: its key has gone on without it"}
		} else {
			p.message = s.out(&d.Message)
			p.message.Headers = append(slices.Clone(d.Headers),
				ackwise.Header{Name: ordering.HeaderLate, Value: []byte("true")})
		}
		s.note(ackwise.Event{Kind: "late", ID: d.ID, Key: d.Key, Attempt: d.Attempt})
	case ordering.VerdictRefused:
		p.settle = &ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeDead,
			Reason: ackwise.CutError(err.Error())}
		s.note(ackwise.Event{Kind: "refused", ID: d.ID, Key: d.Key, Attempt: d.Attempt, Err: err})
	}
	if d.Token == "" {
		p.settle = nil
	}
	return p, v
}

func (s *session) out(m *ackwise.Message) *ackwise.Message {
	c := *m
	c.Topic = s.opt.Out
	return &c
}

// ack settles a delivery; nil = it is none, but a message that was brought.
func ack(d *ackwise.Delivery) *ackwise.Settlement {
	if d.Token == "" {
		return nil
	}
	return &ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
}

// putOff snoozes what there is no room for: longer each time, so that others behind it are seen.
func (s *session) putOff(full []*ackwise.Delivery) {
	if len(full) == 0 {
		return
	}
	ss := make([]ackwise.Settlement, len(full))
	for i, d := range full {
		ss[i] = ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeSnooze,
			Delay: backoff(d.Attempt)}
	}
	s.source.Settle(s.work, ss) // what goes wrong comes back when its lease runs out
	now := time.Now()
	s.crowded = now.Add(2 * maxBackoff)
	if now.Sub(s.toldAt) < tellEvery {
		return
	}
	s.toldAt = now
	rep := s.Report()
	s.opt.Logger.Warn("no room to hold messages (MaxHeld, MaxKeys, or the held topic's bounds): they "+
		"are put off in the source, up to its MaxWaiting", "source", s.opt.Topic+"/"+
		s.opt.Subscription, "messages", len(full), "held", rep.Held, "keys", rep.Keys,
		"oldest", rep.Oldest)
}

// tellEvery is how often it is logged that there is no room.
const tellEvery = time.Minute

const maxBackoff = 64 * time.Second

// backoff is 1 s, doubled with each attempt up to about a minute.
func backoff(attempt int) time.Duration {
	return min(maxBackoff, time.Second<<min(max(attempt-1, 0), 6))
}

// fetch reads the bodies that parts lack.
func (s *session) fetch(parts []part) error {
	var need []*part
	for i := range parts {
		if parts[i].read != "" {
			need = append(need, &parts[i])
		}
	}
	if len(need) == 0 {
		return nil
	}
	return s.fetchSome(need)
}

func (s *session) fetchSome(need []*part) error {
	at := make([]ackwise.Position, len(need))
	for i, p := range need {
		at[i] = p.read
	}
	ms, err := s.store.Read(s.work, s.opt.Held, at)
	if errors.Is(err, ackwise.ErrTooLarge) && len(need) > 1 {
		half := len(need) / 2
		return errors.Join(s.fetchSome(need[:half]), s.fetchSome(need[half:]))
	}
	if err != nil {
		return fmt.Errorf("read held messages: %w", err)
	}
	for i, p := range need {
		p.message = s.out(&ms[i])
	}
	return nil
}

// commit makes parts durable, in one commit; where one of them can never be, one by one.
func (s *session) commit(ctx context.Context, parts []part) error {
	c := queue.Commit{ID: ackwise.NewID(time.Now()), Reads: []queue.TableRead{s.fence}}
	rows := map[string]int{}
	for i := range parts {
		p := &parts[i]
		if p.message != nil {
			c.Publish = append(c.Publish, *p.message)
		}
		if p.settle != nil {
			c.Settle = append(c.Settle, *p.settle)
		}
		if p.row == nil {
			continue
		}
		w := queue.TableWrite{Table: s.opt.Table, Key: p.key, Value: p.row}
		if at, there := rows[p.key]; there {
			c.Writes[at] = w
			continue
		}
		rows[p.key] = len(c.Writes)
		c.Writes = append(c.Writes, w)
	}
	results, err := s.send(ctx, c, slices.ContainsFunc(parts, func(p part) bool { return p.hold }))
	switch {
	case err == nil:
		return s.moved(parts, results)
	case errors.Is(err, ackwise.ErrFull):
		return s.withoutHolds(ctx, parts)
	case errors.Is(err, queue.ErrConflict):
		return ErrTakenOver
	case !forEver(err):
		return fmt.Errorf("commit: %w", err)
	case len(parts) > 1:
		for i := range parts {
			if err := s.commit(ctx, parts[i:i+1]); err != nil {
				return err
			}
		}
		return nil
	}
	return s.poison(&parts[0], err)
}

// withoutHolds makes durable what else there is where messages could not be held: the loop goes on,
// and what lets others go can come. Those that could not are put off.
func (s *session) withoutHolds(ctx context.Context, parts []part) error {
	var rest []part
	var off []*ackwise.Delivery
	now := time.Now()
	s.mu.Lock()
	for _, p := range parts {
		if !p.hold {
			rest = append(rest, p)
			continue
		}
		s.m.Untake(now, p.arrival)
		if p.settle != nil {
			off = append(off, p.from)
		}
	}
	s.mu.Unlock()
	s.putOff(off)
	if len(rest) == 0 {
		pause.For(ctx, fullWait)
		return nil
	}
	return s.commit(ctx, rest)
}

// forEver reports whether a commit can never be accepted because of what is in it.
func forEver(err error) bool {
	_, invalid := errors.AsType[*ackwise.InvalidError](err)
	return invalid || errors.Is(err, ackwise.ErrIDConflict) || errors.Is(err, ackwise.ErrTooLarge)
}

// poison deals with a message that the out topic can never take. It becomes a dead letter, of its
// source where it has just come, and of the held topic where it was held; its number stays missing,
// as parked, and other keys go on. One that was brought is left to its delivery.
func (s *session) poison(p *part, err error) error {
	at := p.read
	switch {
	case p.settle != nil:
		_, err := s.end(s.source, []ackwise.Settlement{{Token: p.settle.Token,
			Outcome: ackwise.OutcomeDead, Reason: ackwise.CutError(err.Error())}})
		if err != nil {
			return err
		}
		return errAgain
	case p.from != nil:
		at = p.from.Position
	case !p.released:
		return fmt.Errorf("commit row of key %.80q: %w", p.key, err)
	}
	s.opt.Logger.Error("a message cannot be let go, and becomes a dead letter: publish to another "+
		"topic or let its dedup window pass, and redrive it", "out", s.opt.Out, "held", s.opt.Held,
		"id", p.message.ID, "key", p.key, "number", p.arrival.Number, "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unfit[at] = ackwise.CutError(err.Error())
	return errAgain
}

// moved tells the machine where held messages are.
func (s *session) moved(parts []part, results []ackwise.Result) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range parts {
		p := &parts[i]
		if p.message == nil {
			continue
		}
		r := results[0]
		results = results[1:]
		if !p.hold {
			continue
		}
		if r.Position == "" { // a repeat after a hand-over does not say where
			return errAgain
		}
		var err error
		if p.arrival.Ref, err = refOf(r.Position); err != nil {
			return err
		}
		s.m.Moved(p.arrival)
	}
	return nil
}

// send commits, and waits while there is no room, unless something is held with it; meanwhile the
// held topic is drained, which makes room. A settlement whose lease is lost is left out: the
// message comes again and is known then.
func (s *session) send(ctx context.Context, c queue.Commit, holds bool) ([]ackwise.Result, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		results, err := s.store.Commit(s.work, c)
		switch {
		case err == nil:
			return results, nil
		case errors.Is(err, ackwise.ErrFull) && !holds:
			s.opt.Logger.Warn("no room, waiting", "out", s.opt.Out, "err", err)
			s.drain.waiting = true
			err = s.drainHeld(ctx)
			if s.drain.waiting = false; err != nil {
				return nil, err
			}
			if !pause.For(ctx, wait) {
				return nil, context.Cause(ctx)
			}
			c.Settle = s.extend(s.source, c.Settle)
		case unsettled(err):
			before := len(c.Settle)
			if c.Settle = s.extend(s.source, c.Settle); len(c.Settle) == before {
				return nil, err
			}
		default:
			return nil, err
		}
	}
}

func unsettled(err error) bool {
	return errors.Is(err, ackwise.ErrLeaseLost) || errors.Is(err, ackwise.ErrSettled) ||
		errors.Is(err, ackwise.ErrBadToken)
}

// extend holds leases longer, and returns those that are still ours.
func (s *session) extend(from ackwise.Source, ss []ackwise.Settlement) []ackwise.Settlement {
	longer := make([]ackwise.Settlement, len(ss))
	for i := range ss {
		longer[i] = ackwise.Settlement{Token: ss[i].Token, Outcome: ackwise.OutcomeExtend}
	}
	var ours []ackwise.Settlement
	for i, r := range from.Settle(s.work, longer) {
		if r.Err == nil {
			ours = append(ours, ss[i])
		}
	}
	return ours
}

// note keeps something to tell when it is durable.
func (s *session) note(e ackwise.Event) {
	if s.opt.Observe != nil {
		e.Time, e.Pipeline = time.Now(), s.opt.Topic+"/"+s.opt.Subscription
		s.events = append(s.events, e)
	}
}

func (s *session) tell() {
	for _, e := range s.events {
		s.opt.Observe(e)
	}
	s.events = nil
}

// A position of the engine is a number of 16 hexadecimal digits.
func refOf(p ackwise.Position) (uint64, error) {
	ref, err := strconv.ParseUint(string(p), 16, 63)
	if err != nil {
		return 0, fmt.Errorf("read position: %w", err)
	}
	return ref, nil
}

func positionOf(ref uint64) ackwise.Position {
	return ackwise.Position(fmt.Sprintf("%016x", ref))
}
