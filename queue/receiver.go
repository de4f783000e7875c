package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/arena"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// Receiver is a consumer's session on a subscription, an ackwise.Source.
type Receiver struct {
	store   *Store
	opt     ReceiverOptions
	session *state.Session // its fields are guarded by store.mu
	sub     *state.Sub     // likewise
	lease   time.Duration
	name    string // TOPIC/SUBSCRIPTION
}

var _ ackwise.Source = (*Receiver)(nil)

// Receiver opens a consumer's session on a subscription, or takes up the one that o.Session names.
func (s *Store) Receiver(ctx context.Context, topic, sub string, o ReceiverOptions) (
	*Receiver, error) {
	setDefault(&o.MaxInFlight, 10_000)
	setDefault(&o.Name, s.opt.Process)
	setDefault(&o.Session, ackwise.NewID(time.Now()))
	err := errors.Join(atLeast("MaxInFlight", o.MaxInFlight, 1),
		atLeast("Lease", o.Lease, 0), ackwise.ValidateID(o.Session))
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	s.mu.Lock()
	q, err := s.subscription(topic, sub)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	r := &Receiver{store: s, opt: o, sub: q, name: topic + "/" + sub, lease: o.Lease}
	setDefault(&r.lease, time.Duration(q.Config.LeaseMillis)*time.Millisecond)
	if r.session = s.st.Session(o.Session); r.session != nil {
		defer s.unlock()
		if r.session.Sub != q {
			return nil, &ackwise.InvalidError{Field: "session", Value: o.Session,
				Reason: "it is open on another subscription"}
		}
		r.session.Connected = true
		return r, nil
	}
	open := &state.OpenSession{Now: s.clock.now(), ID: s.st.NextID(), Sub: q.ID, Word: o.Session,
		Name: o.Name, Foreign: o.Foreign, Process: o.Process}
	group, err := s.do(open, false)
	if err == nil {
		r.session = s.st.Session(o.Session)
		r.session.Connected = true
	}
	s.unlock()
	if err == nil {
		err = wait(group, false)
	}
	return r, err
}

// do applies records that the caller made and appends them. The caller holds mu.
func (s *Store) do(r state.Record, durable bool) (*wal.Group, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if err := s.st.Do(r); err != nil {
		return nil, err
	}
	return s.append([]state.Record{r}, durable), nil
}

// Session returns the session's name, with which another Receiver can take it up again.
func (r *Receiver) Session() string { return r.opt.Session }

// Features implements ackwise.Source.
func (r *Receiver) Features() ackwise.Features {
	f := ackwise.Features{Lease: r.lease, Extend: true, MaxNackDelay: maxDelay, Dead: true,
		Counts: true, Causes: true, MaxBatch: r.store.opt.MaxBatch}
	if r.sub.Config.Ordered {
		f.Order, f.KeyRuns = ackwise.OrderKey, true
	}
	return f
}

// maxDelay is the longest delay of a nack, a snooze or a schedule.
const maxDelay = 10 * 365 * 24 * time.Hour

// Receive implements ackwise.Source. Messages come in the order of the log. A message whose body
// can no longer be read becomes a dead letter with that reason, and the others go on. What the
// deliveries of one call hold lies together in chunks of up to 64 KiB, which a single one keeps in
// memory: who keeps few of many for long keeps copies.
func (r *Receiver) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	if max < 1 {
		return nil, &ackwise.InvalidError{Field: "max", Reason: "at least one is needed"}
	}
	for {
		out, group, ready, err := r.claim(ctx, max)
		switch {
		case err != nil:
			return nil, err
		case group != nil:
			if err := wait(group, false); err != nil {
				return nil, err
			}
			if ds, err := r.deliveries(out); err != nil || len(ds) > 0 {
				return ds, err
			}
			continue
		case ready == nil: // the line moved on, with nothing to hand out yet
			continue
		}
		select {
		case <-ready.ready:
		case <-ctx.Done():
			r.unwait(ready)
			return nil, context.Cause(ctx)
		}
	}
}

// claim hands out what it can, or registers to be told when it can.
func (r *Receiver) claim(ctx context.Context, max int) (
	[]state.HandOut, *wal.Group, *waiter, error) {
	s := r.store
	s.mu.Lock()
	defer s.unlock()
	if err := r.usable(); err != nil {
		return nil, nil, nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, nil, context.Cause(ctx)
	}
	max = min(max, s.opt.MaxBatch, r.opt.MaxInFlight-r.session.InFlight, s.handOutRoom())
	if max > 0 {
		records, out := s.st.HandOut(s.clock.now(), state.Ask{Session: r.session, Max: max,
			MaxBytes: s.opt.MaxBatchBytes, Lease: r.lease.Milliseconds(), Synced: s.log.Synced()})
		if len(records) > 0 {
			group := s.append(records, false)
			s.st.Touch(r.sub)
			if len(out) == 0 {
				group = nil
			}
			return out, group, nil, nil
		}
	}
	w := &waiter{session: r.session, max: r.opt.MaxInFlight, ready: make(chan struct{})}
	s.addWaiter(r.sub, w)
	s.st.Touch(r.sub)
	return nil, nil, w, nil
}

// usable reports why the receiver can do nothing any more. The caller holds mu.
func (r *Receiver) usable() error {
	if err := r.store.usable(); err != nil {
		return err
	}
	if r.store.st.Session(r.opt.Session) != r.session {
		return fmt.Errorf("session %s on %s: %w", r.opt.Session, r.name, ackwise.ErrClosed)
	}
	return nil
}

// unwait takes a waiter back. If it was told already, the next one is.
func (r *Receiver) unwait(w *waiter) {
	s := r.store
	s.mu.Lock()
	defer s.unlock()
	for i, other := range s.waiters[r.sub] {
		if other == w {
			s.removeWaiter(r.sub, i)
			break
		}
	}
	s.st.Touch(r.sub)
}

// deliveryChunk is how many deliveries share one allocation: so many a kept one keeps alive.
const deliveryChunk = 64

// deliveries reads the bodies of what was handed out.
func (r *Receiver) deliveries(out []state.HandOut) ([]*ackwise.Delivery, error) {
	s := r.store
	ds := make([]*ackwise.Delivery, len(out))
	var chunk []ackwise.Delivery
	bytes := 0
	for i := range out {
		if i%deliveryChunk == 0 {
			chunk = make([]ackwise.Delivery, min(deliveryChunk, len(out)-i))
		}
		ds[i] = &chunk[i%deliveryChunk]
		bytes += int(out[i].Size)
	}
	memory := arena.New(len(out), bytes)
	faults, err := s.readMessages(out, ds, memory)
	if err != nil {
		return nil, err
	}
	deadline := s.clock.wall(s.clock.now()).Add(r.lease)
	tok := token{store: s.storeNumber(), sub: r.sub.ID}
	readable := ds[:0]
	for i, d := range ds {
		o := &out[i]
		tok.seq, tok.gen = o.Seq, o.Gen
		text := tok.text()
		d.Token = ackwise.LeaseToken(memory.String(text[:]))
		if fault := faults[i]; fault != nil {
			r.bury(d.Token, fault)
			continue
		}
		at := positionText(o.Pos)
		d.Position = ackwise.Position(memory.String(at[:]))
		d.Topic = r.sub.Topic.Name
		d.Attempt, d.Counts, d.Cause, d.History = o.Counts.HandOuts, o.Counts, o.Cause, o.History
		d.Deadline, d.Epoch, d.Suspect = deadline, o.Epoch, o.Suspect
		readable = append(readable, d)
	}
	if s.opt.Observe != nil {
		for _, d := range readable {
			s.observe(ackwise.Event{Kind: "handed-out", Pipeline: r.name, ID: d.ID, Key: d.Key,
				Attempt: d.Attempt, Cause: d.Cause})
		}
	}
	return readable, nil
}

// bury makes a message that can no longer be read a dead letter.
func (r *Receiver) bury(tok ackwise.LeaseToken, fault error) {
	r.store.opt.Logger.Error("unreadable message", "subscription", r.name, "err", fault)
	r.Settle(context.Background(), []ackwise.Settlement{{Token: tok,
		Outcome: ackwise.OutcomeDead, Reason: fault.Error()}})
}

// Settle implements ackwise.Source. It returns when the settlements survive a killed process, and
// when dead letters and drops (with SyncAcks: all) are synced; so does a repeat. A late ack, nack,
// dead or drop counts while nobody else holds the message; a late ack that is refused is remembered
// as ack-lost.
func (r *Receiver) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	s := r.store
	results := make([]ackwise.SettleResult, len(ss))
	s.mu.Lock()
	durable, now := r.opt.SyncAcks, s.clock.now()
	var records []state.Record
	wanted := false // something to wait for
	for i := range ss {
		before := len(records)
		records, results[i] = s.settleOne(now, r, &ss[i], records)
		if len(records) == before && !results[i].Already {
			continue
		}
		wanted = true
		o := ss[i].Outcome
		durable = durable || o == ackwise.OutcomeDead || o == ackwise.OutcomeDrop
	}
	var group *wal.Group
	if wanted { // a repeat waits for the unit that covers the first copy too
		group = s.append(records, durable)
		s.st.Touch(r.sub)
	}
	s.unlock()
	if group == nil {
		return results
	}
	released := group.Written()
	if durable {
		released = group.Synced()
	}
	var failed error
	select {
	case <-released:
		failed = group.Err()
	case <-ctx.Done():
		failed = context.Cause(ctx)
	}
	for i := range results {
		if failed != nil && results[i].Err == nil {
			results[i] = ackwise.SettleResult{Err: fmt.Errorf("settle: %w", failed)}
		}
		if s.opt.Observe != nil {
			s.observe(ackwise.Event{Kind: "settled", Pipeline: r.name, Outcome: ss[i].Outcome,
				Err: results[i].Err})
		}
	}
	return results
}

// settleOne carries out one settlement in the state, and adds what says so to records. r is nil in
// a transaction, which may settle deliveries of any subscription. The caller holds mu.
func (s *Store) settleOne(now int64, r *Receiver, st *ackwise.Settlement, records []state.Record) (
	[]state.Record, ackwise.SettleResult) {
	if err := s.usable(); err != nil {
		return records, ackwise.SettleResult{Err: err}
	}
	tok, err := decodeToken(st.Token)
	if err == nil && tok.store != s.storeNumber() {
		err = ackwise.ErrBadToken
	}
	if err == nil && st.Outcome == ackwise.OutcomeDrop && st.Reason == "" {
		err = &ackwise.InvalidError{Field: "reason", Reason: "a drop needs one"}
	}
	if err == nil && (st.Delay < 0 || st.Delay > maxDelay) {
		err = &ackwise.InvalidError{Field: "delay", Value: st.Delay.String(),
			Reason: fmt.Sprintf("it must be between 0 and %s", maxDelay)}
	}
	if err != nil {
		return records, ackwise.SettleResult{Err: err}
	}
	q := s.st.SubByID(tok.sub)
	if q == nil || r != nil && q != r.sub {
		return records, ackwise.SettleResult{Err: ackwise.ErrBadToken}
	}
	delay := st.Delay
	if st.Outcome == ackwise.OutcomeExtend && delay == 0 {
		delay = time.Duration(q.Config.LeaseMillis) * time.Millisecond
		if r != nil {
			delay = r.lease
		}
	}
	until := now + delay.Milliseconds()
	records, already, err := s.st.Settle(now, state.Settling{Sub: q, Seq: tok.seq, Gen: tok.gen,
		Outcome: st.Outcome, Reason: st.Reason, Until: until}, records)
	result := ackwise.SettleResult{Err: err, Already: already}
	if err == nil && st.Outcome == ackwise.OutcomeExtend {
		result.Deadline = s.clock.wall(until)
	}
	return records, result
}

// Keep gives back every hand-out of the session whose token is not in held: they never reached the
// consumer. They are handed out again with cause released, and spend nothing. A client calls it
// after an interrupted Receive, and when it takes its session up again.
func (r *Receiver) Keep(ctx context.Context, held []ackwise.LeaseToken) error {
	s := r.store
	keep := make(map[uint64]bool, len(held))
	for _, h := range held {
		if tok, err := decodeToken(h); err == nil {
			keep[tok.gen] = true
		}
	}
	s.mu.Lock()
	if err := r.usable(); err != nil {
		s.mu.Unlock()
		return err
	}
	var records []state.Record
	now := s.clock.now()
	s.st.Held(r.session, func(seq, gen uint64) {
		if keep[gen] {
			return
		}
		// It is held, so nothing speaks against giving it back.
		records, _, _ = s.st.Settle(now, state.Settling{Sub: r.sub, Seq: seq, Gen: gen,
			Outcome: ackwise.OutcomeRelease}, records)
	})
	if len(records) == 0 {
		s.unlock()
		return nil
	}
	group := s.append(records, false)
	s.st.Touch(r.sub)
	s.unlock()
	return wait(group, false)
}

// Close ends the session in good order: what it holds is handed out again, cause rebalanced.
func (r *Receiver) Close() error { return r.end(state.EndRebalanced) }

// Lost ends the session as one whose consumer died: what it holds is handed out again, cause
// consumer-lost. A server calls it when a consumer's connection closes without a word.
func (r *Receiver) Lost() error { return r.end(state.EndLost) }

func (r *Receiver) end(how state.End) error {
	s := r.store
	s.mu.Lock()
	if r.usable() != nil { // ended before, or its store
		s.mu.Unlock()
		return nil
	}
	group, err := s.do(&state.EndSession{Now: s.clock.now(), ID: r.session.ID, How: how}, false)
	for _, w := range s.waiters[r.sub] {
		if w.session == r.session {
			close(w.ready)
			w.session = nil
		}
	}
	s.dropEnded(r.sub)
	s.st.Touch(r.sub)
	s.unlock()
	if err != nil {
		return err
	}
	return wait(group, false)
}

// dropEnded forgets the waiters of a session that ended. The caller holds mu.
func (s *Store) dropEnded(q *state.Sub) {
	before := len(s.waiters[q])
	left := slices.DeleteFunc(s.waiters[q], func(w *waiter) bool { return w.session == nil })
	s.waiting.Add(int64(len(left) - before))
	s.waiters[q] = left
	if len(left) == 0 {
		delete(s.waiters, q)
	}
}
