package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/queue/internal/dedup"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

const (
	// maxClaims bounds the claims of a set that are not settled. Those that ran out count for a
	// window, since the next one is to be told of them.
	maxClaims = 1 << 18
	// maxResultsBytes bounds the bytes of a set's results.
	maxResultsBytes = 64 << 30
	// maxRuleBytes bounds the rule of a set.
	maxRuleBytes = 1024
	// maxSets bounds the dedup sets of a store: they stay for good.
	maxSets = 1024
)

// OpenSet makes the dedup set of a name where it is missing. It remembers for window which keys are
// done, and bounds them and the claims together by maxKeys: at the bound a new key is ErrFull. A
// set that is there keeps its window, so another one is an *ackwise.InvalidError, and takes the
// bound. A store has at most 1,024 sets, which stay: one more is ErrFull.
//
// Use a set for claims or for Tx.Once, not for both: Tx.Once makes a key whose claim ran out done,
// and nobody tells it that the former holder may have made an effect outside the store.
func (s *Store) OpenSet(ctx context.Context, name string, window time.Duration, maxKeys int) error {
	err := errors.Join(ackwise.ValidateName("dedup store", name),
		refuse(window < time.Millisecond || window > maxDelay, "Window",
			"it is %s, 1ms to %s are allowed", window, maxDelay),
		atLeast("MaxKeys", maxKeys, 1))
	if err != nil {
		return err
	}
	windowMillis := (window + time.Millisecond - 1).Milliseconds() // never shorter
	first := false
	err = s.change(func() (state.Record, error) {
		x := s.st.Set(name)
		switch n := len(s.st.Sets()); {
		case x == nil && n >= maxSets:
			return nil, fmt.Errorf("make dedup store %s: there are %d, and no more are allowed: %w",
				name, n, ackwise.ErrFull)
		case x == nil:
			first = n == 0
			return s.st.MakeSet(s.clock.now(), name, windowMillis, maxKeys), nil
		case x.WindowMillis() != windowMillis:
			return nil, &ackwise.InvalidError{Field: "Window", Value: window.String(),
				Reason: fmt.Sprintf("the dedup store %s was made with a window of %s, for which its "+
					"keys are kept; use another name for another window", name,
					time.Duration(x.WindowMillis())*time.Millisecond)}
		case x.MaxKeys() != maxKeys:
			return x.Bound(s.clock.now(), maxKeys), nil
		}
		return nil, nil
	})
	if first { // a program that knows no sets is to refuse the directory for its format
		kick(s.checkpoint)
	}
	return err
}

// BindSet says by which rule the keys and sums of a dedup set are made. The first rule is kept for
// good; another one is an *idempotency.RuleError.
func (s *Store) BindSet(ctx context.Context, name, rule string) error {
	if rule == "" || len(rule) > maxRuleBytes {
		return &ackwise.InvalidError{Field: "rule", Reason: fmt.Sprintf(
			"it is %d bytes long; 1 to %d are needed", len(rule), maxRuleBytes)}
	}
	if err := s.checkCount(ctx, 0); err != nil {
		return err
	}
	return s.change(func() (state.Record, error) {
		x, err := s.set(name)
		switch {
		case err != nil:
			return nil, err
		case x.Rule == "":
			return x.Bind(s.clock.now(), rule), nil
		case x.Rule != rule:
			return nil, &idempotency.RuleError{Store: name, Kept: x.Rule, Got: rule}
		}
		return nil, nil
	})
}

// set finds a dedup set by name. The caller holds mu.
func (s *Store) set(name string) (*state.Set, error) {
	if err := s.usable(); err != nil {
		return nil, err
	}
	if x := s.st.Set(name); x != nil {
		return x, nil
	}
	if err := ackwise.ValidateName("dedup store", name); err != nil {
		return nil, err
	}
	var names []string
	for _, x := range s.st.Sets() {
		names = append(names, x.Name)
	}
	return nil, &ackwise.NotFoundError{Kind: "dedup store", Name: name,
		Nearest: nearest.Of(name, names)}
}

// Claim asks for the right to make the effects of keys, as idempotency.Store's Claim. It returns
// when the claims are written: they survive a killed process. After a power cut the last ones may
// be gone, and with them that they were ever held (Answer.Takeover); their fences never come again.
func (s *Store) Claim(ctx context.Context, set string, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	return s.ClaimCall(ctx, set, 0, asks)
}

// ClaimCall is Claim for a caller that may have to repeat the call because it never heard the
// answer: the same number, which is not 0, gets the claims that it has got.
func (s *Store) ClaimCall(ctx context.Context, set string, call uint64, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	return s.askAll(ctx, &asking{set: set, call: call, asks: asks})
}

// Look tells what Claim would say of a key, and claims nothing: the zero Status means that the key
// is free, or that its claim ran out. The ask's lease does not matter.
func (s *Store) Look(ctx context.Context, set string, ask idempotency.Ask) (
	idempotency.Answer, error) {
	ask.Lease = time.Millisecond
	answers, err := s.askAll(ctx, &asking{set: set, look: true, asks: []idempotency.Ask{ask}})
	if err != nil {
		return idempotency.Answer{}, err
	}
	return answers[0], answers[0].Err
}

// asking is a call of Claim or Look under way.
type asking struct {
	set     string
	call    uint64
	look    bool
	asks    []idempotency.Ask
	answers []idempotency.Answer

	// Set under mu.
	x       *state.Set
	now     int64
	records []state.Record
	durable bool                // an answer speaks of what is not synced yet
	claimed bool                // an answer gives a claim
	results []resultAt          // that the answers owe
	seen    map[string]struct{} // the keys asked for so far, where the call may be a repeat
}

// resultAt says where in the log the result of a done key stands.
type resultAt struct {
	answer int
	pos    uint64
}

// askAll answers each ask, in order.
func (s *Store) askAll(ctx context.Context, a *asking) ([]idempotency.Answer, error) {
	if err := s.checkCount(ctx, len(a.asks)); err != nil {
		return nil, err
	}
	size := 0
	keys := make([]string, len(a.asks))
	a.answers = make([]idempotency.Answer, len(a.asks))
	for i := range a.asks {
		size += len(a.asks[i].Key)
		if a.answers[i].Err = a.asks[i].Validate(); a.answers[i].Err == nil {
			keys[i] = a.asks[i].Key
		}
	}
	if err := s.checkSize(size); err != nil {
		return nil, err
	}
	probes := s.lockProbed(a.set, keys)
	group, err := s.answerAll(a, probes)
	s.unlock()
	if err == nil && group != nil {
		err = waitFor(ctx, group, a.durable)
	}
	if err != nil {
		return nil, fmt.Errorf("claim in dedup store %s: %w", a.set, err)
	}
	s.readResults(a)
	return a.answers, nil
}

// checkCount reports why a call with so many keys is refused before any of them is looked at.
func (s *Store) checkCount(ctx context.Context, keys int) error {
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("use dedup store: %w", context.Cause(ctx))
	case keys > s.opt.MaxBatch:
		return fmt.Errorf("a batch of %d keys, at most %d are allowed (MaxBatch): %w", keys,
			s.opt.MaxBatch, ackwise.ErrTooLarge)
	}
	return nil
}

// checkSize reports why a call with so many bytes is refused.
func (s *Store) checkSize(size int) error {
	if size > s.opt.MaxBatchBytes {
		return fmt.Errorf("a batch of %d bytes, at most %d are allowed (MaxBatchBytes): %w", size,
			s.opt.MaxBatchBytes, ackwise.ErrTooLarge)
	}
	return nil
}

// lockProbed asks the closed buckets of a set for keys ("" = not for this one), and takes mu.
func (s *Store) lockProbed(set string, keys []string) []dedup.Probe {
	probes := make([]dedup.Probe, len(keys))
	for {
		made := s.dedup.made.Load()
		s.dedup.probeSet(set, keys, probes, s.clock.now())
		s.mu.Lock()
		if s.dedup.made.Load() == made {
			return probes
		}
		s.mu.Unlock() // a set was made meanwhile: its window was not asked
	}
}

// probeSet is probe for the keys of a dedup set.
func (d *windows) probeSet(set string, keys []string, probes []dedup.Probe, now int64) {
	w, ok := d.bySet.Load(set)
	if !ok {
		return
	}
	for i, key := range keys {
		if key != "" {
			probes[i] = w.(*dedup.Window).Probe(key, now)
		}
	}
}

// answerAll answers the asks in the state. The answers hold when the group is released as durable
// says; nil = they hold now. The caller holds mu.
func (s *Store) answerAll(a *asking, probes []dedup.Probe) (*wal.Group, error) {
	var err error
	if a.x, err = s.set(a.set); err != nil {
		return nil, err
	}
	if err := s.pendingRoom(); err != nil {
		return nil, err
	}
	a.now = s.clock.now()
	if a.call != 0 {
		a.seen = make(map[string]struct{}, len(a.asks))
	}
	for i := range a.asks {
		if a.answers[i].Err == nil {
			a.answers[i] = s.answerOne(a, i, &probes[i])
		}
	}
	switch {
	case len(a.records) > 0:
		return s.append(a.records, a.durable), nil
	case a.durable, a.claimed: // by a call before, whose record may not be written yet
		return s.append(nil, a.durable), nil
	}
	return nil, nil
}

// pendingRoom reports that too much waits for the disk. The caller holds mu.
func (s *Store) pendingRoom() error {
	if pending := s.log.PendingBytes(); pending > maxPendingBytes {
		return fmt.Errorf("%d bytes wait for the disk: %w", pending, ackwise.ErrFull)
	}
	return nil
}

// answerOne answers one ask. The caller holds mu.
func (s *Store) answerOne(a *asking, i int, p *dedup.Probe) (answer idempotency.Answer) {
	ask := &a.asks[i]
	seen, done, err := s.dedup.byID[a.x.ID].Confirm(p, a.now)
	if err != nil {
		return idempotency.Answer{Err: fmt.Errorf("look for the key: %w", s.dedup.explain(err))}
	}
	if done {
		a.durable = a.durable || seen.Pos >= s.log.Synced()
		same, kept := a.x.DoneAs(ask.Sum, seen.Sum)
		if !same {
			return idempotency.Answer{Status: idempotency.Conflict}
		}
		if kept {
			a.results = append(a.results, resultAt{i, seen.Pos})
		}
		return idempotency.Answer{Status: idempotency.Done, Time: s.clock.wall(seen.At)}
	}
	if a.look {
		return a.x.Look(a.now, ask)
	}
	if _, known := a.x.Claimed(ask.Key); !known {
		err = s.setRoom(a.x, a.now, 0)
	} else if a.x.Look(a.now, ask).Status == 0 { // it ran out, and is taken over
		err = s.diskRoom(a.now, idempotency.MaxKeyBytes)
	}
	if err != nil {
		return idempotency.Answer{Err: err}
	}
	call := a.call
	if call != 0 { // the second time in a call a key is busy, also where the call is a repeat
		if _, twice := a.seen[ask.Key]; twice {
			call = 0
		}
		a.seen[ask.Key] = struct{}{}
	}
	a.records, answer = a.x.Claim(a.now, call, ask, a.records)
	a.claimed = a.claimed || answer.Status == idempotency.Claimed
	return answer
}

// setRoom reports why a set takes no new key beside adding others. The caller holds mu.
func (s *Store) setRoom(x *state.Set, now int64, adding int) error {
	claims, w := x.Claims()+adding, s.dedup.byID[x.ID]
	full := func(format string, args ...any) error {
		return fmt.Errorf("dedup store %s is full: %w: %w", x.Name, fmt.Errorf(format, args...),
			ackwise.ErrFull)
	}
	err := w.Full(now, claims)
	switch {
	case claims >= maxClaims:
		return full("%d claims are held, or ran out within the window", claims)
	case x.ResultBytes() >= maxResultsBytes:
		return full("its results take %d bytes", x.ResultBytes())
	case err == nil:
		return s.diskRoom(now, idempotency.MaxKeyBytes)
	}
	s.dedup.note(w)
	if done := w.Count(now); done+claims >= x.MaxKeys() {
		return full("%d keys are done and %d claimed, of %d (MaxKeys)", done, claims, x.MaxKeys())
	}
	return full("%w", err)
}

// waitFor waits until a group is released: written, or synced where durable.
func waitFor(ctx context.Context, g *wal.Group, durable bool) error {
	released := g.Written()
	if durable {
		released = g.Synced()
	}
	select {
	case <-released:
		return g.Err()
	case <-ctx.Done():
		return fmt.Errorf("outcome unknown: %w", context.Cause(ctx))
	}
}

// readResults reads the results that the answers owe, without mu: they are kept for longer than
// their keys are done.
func (s *Store) readResults(a *asking) {
	size := 0
	for _, r := range a.results {
		key := a.asks[r.answer].Key
		result, err := s.readResult(a.x, r.pos, key)
		if size += len(result); err == nil && size > s.opt.MaxBatchBytes {
			err = fmt.Errorf("the results of this call are longer than %d bytes (MaxBatchBytes); "+
				"ask for fewer keys: %w", s.opt.MaxBatchBytes, ackwise.ErrTooLarge)
		}
		if err != nil {
			a.answers[r.answer] = idempotency.Answer{Err: fmt.Errorf("read result of key %.80q: %w",
				key, err)}
			continue
		}
		a.answers[r.answer].Result = result
	}
}

func (s *Store) readResult(x *state.Set, pos uint64, key string) ([]byte, error) {
	r, err := s.log.ReadAt(pos, nil)
	if err != nil && gone(err) {
		return nil, fmt.Errorf("its window has ended meanwhile; ask again: %w", err)
	}
	if err != nil {
		return nil, err
	}
	result, err := x.Result(r.Payload, key)
	if err != nil {
		return nil, fmt.Errorf("decode record at %s: %w", position(pos), err)
	}
	return bytes.Clone(result), nil
}
