package queue

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue/internal/dedup"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// Get reads a table's entry as of the last commit. An absent key has version 0.
func (s *Store) Get(ctx context.Context, table, key string) (Entry, error) {
	if err := ackwise.ValidateName("table", table); err != nil {
		return Entry{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return Entry{}, err
	}
	value, version := s.st.Table(table, key)
	return Entry{Value: value, Version: version}, nil
}

// Keys lists the keys of a table that begin with prefix, sorted, at most max.
func (s *Store) Keys(ctx context.Context, table, prefix string, max int) ([]string, error) {
	err := errors.Join(ackwise.ValidateName("table", table), atLeast("max", max, 1))
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	return s.st.TableKeys(table, prefix, max), nil
}

// Commit carries out a transaction in one atomic record. The results are those of c.Publish. It is
// refused as a whole, with nothing changed, when one of its parts is: ErrConflict, the error of a
// publish or that of a settlement. A repeat of a commit that was carried out is answered as such.
func (s *Store) Commit(ctx context.Context, c Commit) ([]ackwise.Result, error) {
	if err := s.checkCommit(&c); err != nil {
		return nil, err
	}
	probes := s.probeCommit(&c)
	s.mu.Lock()
	for s.dedup.made.Load() != probes.made { // a topic was made meanwhile: its window was not asked
		s.mu.Unlock()
		probes = s.probeCommit(&c)
		s.mu.Lock()
	}
	results, group, err := s.commit(&c, probes)
	s.unlock()
	if err != nil {
		return nil, err
	}
	select {
	case <-group.Synced():
		if err := group.Err(); err != nil {
			return nil, err
		}
	case <-ctx.Done():
		return nil, fmt.Errorf("commit, outcome unknown: %w", context.Cause(ctx))
	}
	return results, nil
}

// checkCommit reports what is wrong with a transaction before the state is looked at.
func (s *Store) checkCommit(c *Commit) error {
	if err := s.checkBatch(c.Publish); err != nil {
		return err
	}
	if c.ID != "" {
		if err := ackwise.ValidateID(c.ID); err != nil {
			return err
		}
	}
	for _, r := range c.Reads {
		if err := ackwise.ValidateName("table", r.Table); err != nil {
			return err
		}
	}
	for _, w := range c.Writes {
		if err := ackwise.ValidateName("table", w.Table); err != nil {
			return err
		}
		if len(w.Key) > ackwise.MaxKeyBytes || len(w.Value) > s.opt.MaxBodyBytes {
			return fmt.Errorf("a table entry of %d bytes: %w", len(w.Key)+len(w.Value),
				ackwise.ErrTooLarge)
		}
	}
	return s.checkOnce(c)
}

// commit decides on a transaction and carries it out. The caller holds mu.
func (s *Store) commit(c *Commit, probes commitProbes) ([]ackwise.Result, *wal.Group, error) {
	if err := s.usable(); err != nil {
		return nil, nil, err
	}
	if s.repeated(c) {
		results := make([]ackwise.Result, len(c.Publish))
		for i := range results {
			results[i] = ackwise.Result{Class: ackwise.ResultAccepted, ID: c.Publish[i].ID,
				Duplicate: true}
		}
		// The sync that covers this empty unit covers the first one too.
		return results, s.append(nil, true), nil
	}
	for _, r := range c.Reads {
		if _, version := s.st.Table(r.Table, r.Key); version != r.Version {
			return nil, nil, fmt.Errorf("table %s, key %.80q: %w", r.Table, r.Key, ErrConflict)
		}
	}
	if grow := s.growth(c.Writes); grow > 0 &&
		s.st.TableLen+grow > s.opt.MaxTableBytes {
		return nil, nil, fmt.Errorf("the tables are at their bound of %d bytes (MaxTableBytes): %w",
			s.opt.MaxTableBytes, ackwise.ErrFull)
	}
	plan, err := s.planPublishes(c, probes.publish)
	if err != nil {
		return nil, nil, err
	}
	if plan.once, err = s.planOnce(c, probes.once); err != nil {
		return nil, nil, err
	}
	records, err := s.settleAll(c.Settle)
	if err != nil {
		return nil, nil, err
	}
	for _, again := range plan.again {
		if err := s.st.Do(again); err != nil {
			return nil, nil, s.stop(err)
		}
		records = append(records, again)
	}
	for _, w := range c.Writes {
		// The state keeps the value: it must not be the caller's.
		put := &state.TablePut{Table: w.Table, Key: w.Key, Value: slices.Clone(w.Value),
			Version: s.st.NextTableVersion()}
		if err := s.st.Do(put); err != nil {
			return nil, nil, s.stop(err)
		}
		records = append(records, put)
	}
	if c.ID != "" {
		done := s.st.Commit(c.ID)
		if err := s.st.Do(done); err != nil {
			return nil, nil, s.stop(err)
		}
		records = append(records, done)
	}
	return plan.results, s.appendCommit(records, plan), nil
}

// growth returns by how many bytes writes make the tables longer: what is there may always be made
// smaller. The caller holds mu.
func (s *Store) growth(writes []TableWrite) (bytes int) {
	size := make(map[tableKey]int, len(writes)) // of what is there by then
	for _, w := range writes {
		at := tableKey{w.Table, w.Key}
		was, written := size[at]
		if old, version := s.st.Table(w.Table, w.Key); !written && version != 0 {
			was = len(w.Key) + len(old)
		}
		if size[at] = 0; w.Value != nil {
			size[at] = len(w.Key) + len(w.Value)
		}
		bytes += size[at] - was
	}
	return bytes
}

// repeated reports whether a transaction was carried out before: its ID is known, or it settles
// deliveries and all of them are settled just so.
func (s *Store) repeated(c *Commit) bool {
	if c.ID != "" {
		return s.st.Committed(c.ID)
	}
	for i := range c.Settle {
		if !s.alreadySettled(&c.Settle[i]) {
			return false
		}
	}
	return len(c.Settle) > 0
}

func (s *Store) alreadySettled(st *ackwise.Settlement) bool {
	tok, err := decodeToken(st.Token)
	if err != nil || tok.store != s.storeNumber() {
		return false
	}
	return s.st.SettledAs(tok.sub, tok.gen, st.Outcome)
}

// settleAll carries out the settlements of a transaction: all, or none.
func (s *Store) settleAll(ss []ackwise.Settlement) ([]state.Record, error) {
	seen := make(map[ackwise.LeaseToken]bool, len(ss))
	subs := make([]*state.Sub, len(ss))
	for i := range ss {
		tok, err := decodeToken(ss[i].Token)
		if err != nil || tok.store != s.storeNumber() || seen[ss[i].Token] {
			return nil, ackwise.ErrBadToken
		}
		seen[ss[i].Token] = true
		if subs[i] = s.st.SubByID(tok.sub); subs[i] == nil {
			return nil, ackwise.ErrBadToken
		}
		err = s.st.CanSettle(state.Settling{Sub: subs[i], Seq: tok.seq, Gen: tok.gen,
			Outcome: ss[i].Outcome})
		if err != nil {
			return nil, err
		}
	}
	var records []state.Record
	var result ackwise.SettleResult
	now := s.clock.now()
	for i := range ss {
		records, result = s.settleOne(now, nil, &ss[i], records)
		if result.Err != nil && len(records) > 0 {
			// CanSettle allowed it, and the transaction's own settlements forbid it. What was
			// applied must not be left half done.
			return nil, s.stop(fmt.Errorf("settle in transaction: %w", result.Err))
		}
		if result.Err != nil {
			return nil, result.Err
		}
		s.st.Touch(subs[i])
	}
	return records, nil
}

// publishPlan is what a transaction publishes: nil where dedup knows the message already.
type publishPlan struct {
	messages []*state.Publish
	results  []ackwise.Result
	again    []state.Record
	once     []state.Record // the keys that it makes done
}

// planPublishes admits the messages of a transaction: all, or none.
func (s *Store) planPublishes(c *Commit, probes []dedup.Probe) (publishPlan, error) {
	now := s.clock.now()
	plan := publishPlan{messages: make([]*state.Publish, len(c.Publish)),
		results: make([]ackwise.Result, len(c.Publish))}
	inBatch := make(map[string]bool)
	adding := make(map[uint32]int) // to each topic's window
	for i := range c.Publish {
		m := &c.Publish[i]
		err := s.checkMessage(m)
		var t *state.Topic
		if err == nil {
			t, _, err = s.admit(now, m)
		}
		if err != nil {
			return plan, fmt.Errorf("publish in transaction: %w", err)
		}
		r := &state.Publish{Now: now, Topic: t.ID, Given: m.ID != "", Message: *m}
		plan.results[i] = ackwise.Result{Class: ackwise.ResultAccepted, ID: m.ID}
		if !r.Given {
			r.Message.ID = ackwise.NewID(s.clock.wall(now))
			plan.results[i].ID = r.Message.ID
			plan.messages[i] = r
			continue
		}
		seen, known, err := s.dedup.known(t, &probes[i], now, adding[t.ID])
		switch {
		case err != nil:
			return plan, fmt.Errorf("publish in transaction: %w", err)
		case known && seen.Sum != sumOf(m), inBatch[m.ID]:
			return plan, fmt.Errorf("message %q: %w", m.ID, ackwise.ErrIDConflict)
		case known:
			plan.results[i].Position, plan.results[i].Duplicate = position(seen.Pos), true
			plan.again = append(plan.again, t.ProducedAgain())
		default:
			plan.messages[i] = r
			adding[t.ID]++
		}
		inBatch[m.ID] = true
	}
	return plan, nil
}

// appendCommit writes the parts of a transaction as one atomic unit: what is applied already, then
// the keys that are done and the messages, which are applied when their positions are known.
func (s *Store) appendCommit(records []state.Record, plan publishPlan) *wal.Group {
	unit := make([]wal.Record, 0, len(records)+len(plan.messages))
	for _, r := range records {
		unit = append(unit, wal.Record{Type: r.Type(), Payload: r.Append(nil)})
	}
	at := len(unit)
	for _, r := range plan.once {
		unit = append(unit, wal.Record{Type: r.Type(), Payload: r.Append(nil)})
	}
	for _, p := range plan.messages {
		if p != nil {
			unit = append(unit, wal.Record{Type: p.Type(), Payload: p.Append(nil)})
		}
	}
	group := s.log.Append(unit, true)
	if group.Err() != nil {
		return group
	}
	for _, r := range plan.once {
		if err := s.st.Place(r, unit[at].Pos, len(unit[at].Payload)); err != nil {
			_ = s.stop(err) // tells every waiter
			return group
		}
		at++
	}
	for i, p := range plan.messages {
		if p == nil {
			continue
		}
		if err := s.st.ApplyPublish(p, unit[at].Pos, len(unit[at].Payload)); err != nil {
			_ = s.stop(err) // tells every waiter
			return group
		}
		plan.results[i].Position = position(unit[at].Pos)
		at++
	}
	return group
}

// stop makes the store unusable: its state is no longer what the log says. It is opened again from
// the disk. The caller holds mu.
func (s *Store) stop(err error) error {
	if s.fatal == nil {
		s.fatal = fmt.Errorf("%w: %w", ErrFatal, err)
		s.wakeAll()
		s.cancel()
	}
	return s.fatal
}

// Transactor is what a transaction runs on: a Store, or a client of one.
type Transactor interface {
	Get(ctx context.Context, table, key string) (Entry, error)
	Commit(ctx context.Context, c Commit) ([]ackwise.Result, error)
	Look(ctx context.Context, set string, ask idempotency.Ask) (idempotency.Answer, error)
}

// Transactor returns what Transact commits on.
func (r *Receiver) Transactor() Transactor { return r.store }

// Tx is a transaction under way: reads come from the last commit and from its own writes, and
// everything takes effect at once when the handler returns nil, or not at all. It is for one
// goroutine.
type Tx struct {
	on     Transactor
	commit Commit
	read   map[tableKey]bool
	wrote  map[tableKey]int // index in commit.Writes
}

type tableKey struct{ table, key string }

// Get reads a table's value; nil = the key is absent. The commit is refused, and the handler run
// again, when another transaction changes the value meanwhile.
func (tx *Tx) Get(ctx context.Context, table, key string) ([]byte, error) {
	at := tableKey{table, key}
	if i, ok := tx.wrote[at]; ok {
		return tx.commit.Writes[i].Value, nil
	}
	e, err := tx.on.Get(ctx, table, key)
	if err != nil {
		return nil, err
	}
	if !tx.read[at] {
		tx.read[at] = true
		tx.commit.Reads = append(tx.commit.Reads,
			TableRead{Table: table, Key: key, Version: e.Version})
	}
	return e.Value, nil
}

// Put writes a table's value; nil deletes the key.
func (tx *Tx) Put(table, key string, value []byte) {
	at := tableKey{table, key}
	w := TableWrite{Table: table, Key: key, Value: value}
	if i, ok := tx.wrote[at]; ok {
		tx.commit.Writes[i] = w
		return
	}
	tx.wrote[at] = len(tx.commit.Writes)
	tx.commit.Writes = append(tx.commit.Writes, w)
}

// Publish adds messages that are published with the commit.
func (tx *Tx) Publish(msgs ...ackwise.Message) {
	tx.commit.Publish = append(tx.commit.Publish, msgs...)
}

// Once makes a key of a dedup set done with the commit, and so in one record with the effects and
// the ack: there is no gap in which only one of them happened. done reports that it was before,
// within the set's window, and its effects were made: the handler leaves them out. A key that is
// claimed puts the delivery off (ackwise.Snooze) for as long as the claim lasts, but a minute at
// most; another payload under the key is ackwise.ErrIDConflict; a full set is ackwise.ErrFull, from
// the commit.
//
// Use a set for Once or for claims, not for both: a key whose claim ran out is made done here, and
// nobody tells that its former holder may have made an effect outside the store.
func (tx *Tx) Once(ctx context.Context, set, key string, sum idempotency.Sum) (done bool,
	err error) {
	for _, ask := range tx.commit.Once[set] {
		if none := (idempotency.Sum{}); ask.Key == key && ask.Sum != sum && ask.Sum != none &&
			sum != none {
			return false, conflictOf(set, key)
		}
		if ask.Key == key {
			return true, nil // by this transaction
		}
	}
	ask := idempotency.Ask{Key: key, Sum: sum}
	a, err := tx.on.Look(ctx, set, ask)
	if err != nil {
		return false, err
	}
	switch a.Status {
	case idempotency.Done:
		return true, nil
	case idempotency.Busy:
		return false, ackwise.Snooze(min(a.Wait, maxOnceWait))
	case idempotency.Conflict:
		return false, conflictOf(set, key)
	case idempotency.Claimed: // Look claims nothing
	}
	if tx.commit.Once == nil {
		tx.commit.Once = make(map[string][]idempotency.Ask)
	}
	tx.commit.Once[set] = append(tx.commit.Once[set], ask)
	return false, nil
}

func conflictOf(set, key string) error {
	return fmt.Errorf("dedup store %s, key %.80q: %w", set, key, ackwise.ErrIDConflict)
}

// maxOnceWait bounds how long a claimed key puts a delivery off: its claim may end early.
const maxOnceWait = time.Minute

// maxConflicts bounds how often a handler runs again because of a conflict before the delivery
// goes back to its subscription.
const maxConflicts = 100

type transaction struct {
	fn func(ctx context.Context, tx *Tx, d *ackwise.Delivery) error
	on Transactor
}

// Transact makes a handler whose effects inside the store (tables, publishes) and whose ack are one
// atomic record: exactly-once inside the engine. fn may run again where another transaction had
// changed what it read. It binds to a source that has a method Transactor() Transactor.
func Transact(
	fn func(ctx context.Context, tx *Tx, d *ackwise.Delivery) error,
) ackwise.Transactional {
	return &transaction{fn: fn}
}

// Bind implements ackwise.Transactional.
func (t *transaction) Bind(source ackwise.Source) error {
	on, ok := source.(interface{ Transactor() Transactor })
	if !ok {
		return &ackwise.HintError{
			Err: fmt.Errorf("queue.Transact cannot settle deliveries of a %T: "+
				"they are not in the embedded engine", source),
			Hint: "consume from a queue.Receiver, or use at-least-once with a deduplicating handler"}
	}
	t.on = on.Transactor()
	return nil
}

// Handle implements ackwise.Handler.
func (t *transaction) Handle(ctx context.Context, d *ackwise.Delivery) error {
	for range maxConflicts {
		tx := &Tx{on: t.on, read: make(map[tableKey]bool), wrote: make(map[tableKey]int)}
		if err := t.fn(ctx, tx, d); err != nil {
			return err
		}
		tx.commit.Settle = []ackwise.Settlement{{Token: d.Token, Outcome: ackwise.OutcomeAck}}
		_, err := t.on.Commit(ctx, tx.commit)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return ErrConflict
}
