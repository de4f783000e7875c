package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue/internal/dedup"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// SettleClaims ends or extends claims, as idempotency.Store's Settle. A completion is synced when
// it returns; what else it says is written, and survives a killed process. The last 65,536
// completions are known by their fences; an older one that is repeated is ErrFence. While the disk
// is full, a completion with a result and an extension are ackwise.ErrFull where they would take
// the room that the other claims need to be settled: they can be asked for again.
func (s *Store) SettleClaims(ctx context.Context, set string, claims []idempotency.Settlement) (
	[]error, error) {
	if err := s.checkCount(ctx, len(claims)); err != nil {
		return nil, err
	}
	st := settling{set: set, claims: claims, results: make([]error, len(claims))}
	size := 0
	keys := make([]string, len(claims)) // to be looked for
	for i := range claims {
		c := &claims[i]
		size += len(c.Key) + len(c.Result)
		st.results[i] = c.Validate()
		if st.results[i] == nil && c.Verb == idempotency.Release {
			keys[i] = c.Key
		}
	}
	if err := s.checkSize(size); err != nil {
		return nil, err
	}
	probes := s.lockProbed(set, keys)
	err := s.settleClaims(&st, probes)
	s.unlock()
	if err == nil && st.group != nil {
		err = waitFor(ctx, st.group, st.durable)
	}
	if err != nil {
		return nil, fmt.Errorf("settle in dedup store %s: %w", set, err)
	}
	return st.results, nil
}

// settling is a call of SettleClaims under way.
type settling struct {
	set     string
	claims  []idempotency.Settlement
	results []error

	// Set under mu.
	x       *state.Set
	now     int64
	decided []idempotency.Settlement // and not yet applied
	in      map[string]struct{}      // their keys
	durable bool                     // there is a completion, or the repeat of one
	repeat  bool                     // something was settled by another call's record
	group   *wal.Group               // the last one that was appended to; nil = none
	synced  bool                     // group was appended to as a durable one
}

// settleClaims decides on each settlement, in order. The caller holds mu.
func (s *Store) settleClaims(st *settling, probes []dedup.Probe) error {
	var err error
	if st.x, err = s.set(st.set); err != nil {
		return err
	}
	if err := s.pendingRoom(); err != nil {
		return err
	}
	st.now = s.clock.now()
	st.in = make(map[string]struct{}, len(st.claims))
	for i := range st.claims {
		c := &st.claims[i]
		if st.results[i] != nil {
			continue
		}
		if _, twice := st.in[c.Key]; twice { // the second one must see the first
			if err := s.flush(st); err != nil {
				return err
			}
		}
		if fence, known := st.x.Claimed(c.Key); !known || c.Fence != fence {
			st.results[i] = s.settleStale(st, c, known, &probes[i])
			continue
		}
		alone := c.Verb == idempotency.Complete && c.Result != nil
		if alone || c.Verb == idempotency.Extend {
			size := settleBytes + len(st.decided)*idempotency.MaxKeyBytes + len(c.Result)
			if st.results[i] = s.putOff(st.now, size); st.results[i] != nil {
				continue
			}
		}
		st.durable = st.durable || c.Verb == idempotency.Complete
		if !alone {
			st.decided = append(st.decided, *c)
			st.in[c.Key] = struct{}{}
			continue
		}
		err := s.flush(st)
		if err == nil {
			err = s.place(st, st.x.Settle(st.now, []idempotency.Settlement{*c}))
		}
		if err != nil {
			return err
		}
	}
	if err := s.flush(st); err != nil {
		return err
	}
	if st.repeat && st.group == nil || st.durable && !st.synced { // the unit that covers them
		st.group = s.append(nil, st.durable)
	}
	return nil
}

// settleStale answers a settlement whose claim is not held any more. The caller holds mu.
func (s *Store) settleStale(st *settling, c *idempotency.Settlement, claimed bool,
	p *dedup.Probe) error {
	switch {
	case claimed:
		return idempotency.ErrFence
	case c.Verb == idempotency.Complete && st.x.Completed(c.Key, c.Fence):
		st.durable, st.repeat = true, true
		return nil
	case c.Verb != idempotency.Release:
		return idempotency.ErrFence
	}
	_, done, err := s.dedup.byID[st.x.ID].Confirm(p, st.now)
	switch {
	case err != nil:
		return fmt.Errorf("look for the key: %w", s.dedup.explain(err))
	case done:
		return idempotency.ErrFence
	}
	st.repeat = true
	return nil // it is free, by this claim's release or by a later one's
}

// flush puts what is decided into the log and the state. The caller holds mu.
func (s *Store) flush(st *settling) error {
	if len(st.decided) == 0 {
		return nil
	}
	r := st.x.Settle(st.now, st.decided)
	st.decided = st.decided[:0]
	clear(st.in)
	return s.place(st, r)
}

// place appends a record and applies it at its place. The caller holds mu.
func (s *Store) place(st *settling, r state.Record) error {
	s.buf = r.Append(s.buf[:0])
	s.records = append(s.records[:0], wal.Record{Type: r.Type(), Payload: s.buf})
	st.group, st.synced = s.log.Append(s.records, st.durable), st.durable
	if err := st.group.Err(); err != nil {
		return err
	}
	if err := s.st.Place(r, s.records[0].Pos, len(s.buf)); err != nil {
		return s.stop(err)
	}
	return nil
}

// probeOnce asks for the keys that a transaction makes done, by set.
func (s *Store) probeOnce(c *Commit) map[string][]dedup.Probe {
	if len(c.Once) == 0 {
		return nil
	}
	now := s.clock.now()
	all := make(map[string][]dedup.Probe, len(c.Once))
	for set, asks := range c.Once {
		keys := make([]string, len(asks))
		for i := range asks {
			keys[i] = asks[i].Key
		}
		all[set] = make([]dedup.Probe, len(asks))
		s.dedup.probeSet(set, keys, all[set], now)
	}
	return all
}

// checkOnce reports what is wrong with the keys that a transaction makes done.
func (s *Store) checkOnce(c *Commit) error {
	keys := 0
	for _, asks := range c.Once {
		keys += len(asks)
	}
	if keys > s.opt.MaxBatch {
		return fmt.Errorf("%d dedup keys, at most %d are allowed (MaxBatch): %w", keys,
			s.opt.MaxBatch, ackwise.ErrTooLarge)
	}
	for set, asks := range c.Once {
		if err := ackwise.ValidateName("dedup store", set); err != nil {
			return err
		}
		seen := make(map[string]bool, len(asks))
		for _, ask := range asks {
			ask.Lease = time.Millisecond // it does not matter
			if err := ask.Validate(); err != nil {
				return err
			}
			if seen[ask.Key] {
				return &ackwise.InvalidError{Field: "dedup key", Value: ask.Key,
					Reason: "it is made done twice in one transaction"}
			}
			seen[ask.Key] = true
		}
	}
	return nil
}

// planOnce decides on the keys that a transaction makes done: all, or none. One that is done, or
// claimed by somebody, is ErrConflict: the transaction has to look again. The caller holds mu.
func (s *Store) planOnce(c *Commit, probes map[string][]dedup.Probe) ([]state.Record, error) {
	var records []state.Record
	now := s.clock.now()
	for _, name := range slices.Sorted(maps.Keys(c.Once)) {
		x, err := s.set(name)
		if err != nil {
			return nil, err
		}
		for i := range c.Once[name] {
			ask := &c.Once[name][i]
			_, done, err := s.dedup.byID[x.ID].Confirm(&probes[name][i], now)
			if err != nil {
				return nil, fmt.Errorf("look for the key: %w", s.dedup.explain(err))
			}
			if done || x.Look(now, ask).Status != 0 {
				return nil, fmt.Errorf("dedup store %s, key %.80q: %w", name, ask.Key, ErrConflict)
			}
			if _, known := x.Claimed(ask.Key); known {
				continue
			}
			if err := s.setRoom(x, now, i); err != nil {
				return nil, err
			}
		}
		records = append(records, x.Once(now, c.Once[name]))
	}
	return records, nil
}
