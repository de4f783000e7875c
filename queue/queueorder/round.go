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
	row      []byte // nil = none
	released bool   // it was held on disk
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
			pause(ctx, fullWait)
		}
		return false, nil
	}
	if err := s.fetch(parts); err != nil {
		return false, err
	}
	if err := s.commit(ctx, parts); err != nil {
		return false, err
	}
	for i := range parts {
		if parts[i].released {
			s.drain.gone++
		}
	}
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
				p.message, p.settle = s.out(&ds[i].Message), ack(ds[i])
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
			full = append(full, ds[i])
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
			key: d.Key, row: s.m.Row(d.Key)})
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
	v = ordering.VerdictRefused
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
	return p, v
}

func (s *session) out(m *ackwise.Message) *ackwise.Message {
	c := *m
	c.Topic = s.opt.Out
	return &c
}

func ack(d *ackwise.Delivery) *ackwise.Settlement {
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
}

// backoff is 1 s, doubled with each attempt up to about a minute.
func backoff(attempt int) time.Duration {
	return time.Second << min(max(attempt-1, 0), 6)
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
	results, err := s.send(ctx, c)
	switch {
	case err == nil:
		return s.moved(parts, results)
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

// forEver reports whether a commit can never be accepted because of what is in it.
func forEver(err error) bool {
	_, invalid := errors.AsType[*ackwise.InvalidError](err)
	return invalid || errors.Is(err, ackwise.ErrIDConflict) || errors.Is(err, ackwise.ErrTooLarge)
}

// poison deals with a message that the out topic can never take. One that has just come becomes a
// dead letter of its source, and its number stays missing, as parked.
func (s *session) poison(p *part, err error) error {
	if p.settle == nil {
		return &ackwise.HintError{Err: fmt.Errorf("let number %d of key %.80q go: %w",
			p.arrival.Number, p.key, err),
			Hint: "publish to another topic, or let its dedup window pass"}
	}
	results := s.source.Settle(s.work, []ackwise.Settlement{{Token: p.settle.Token,
		Outcome: ackwise.OutcomeDead, Reason: ackwise.CutError(err.Error())}})
	if results[0].Err != nil {
		return fmt.Errorf("dead-letter message: %w", results[0].Err)
	}
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

// send commits, and waits while there is no room. A settlement whose lease is lost is left out: the
// message comes again and is known then.
func (s *session) send(ctx context.Context, c queue.Commit) ([]ackwise.Result, error) {
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		results, err := s.store.Commit(s.work, c)
		switch {
		case err == nil:
			return results, nil
		case errors.Is(err, ackwise.ErrFull):
			s.opt.Logger.Warn("no room, waiting", "out", s.opt.Out, "err", err)
			if !pause(ctx, wait) {
				return nil, context.Cause(ctx)
			}
			c.Settle = s.extend(c.Settle)
		case unsettled(err):
			before := len(c.Settle)
			if c.Settle = s.extend(c.Settle); len(c.Settle) == before {
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
func (s *session) extend(ss []ackwise.Settlement) []ackwise.Settlement {
	longer := make([]ackwise.Settlement, len(ss))
	for i := range ss {
		longer[i] = ackwise.Settlement{Token: ss[i].Token, Outcome: ackwise.OutcomeExtend}
	}
	var ours []ackwise.Settlement
	for i, r := range s.source.Settle(s.work, longer) {
		if r.Err == nil {
			ours = append(ours, ss[i])
		}
	}
	return ours
}

// pause waits; false = ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
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
