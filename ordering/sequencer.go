package ordering

import (
	"cmp"
	"container/list"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ackwise/ackwise"
)

// SequencerOptions configure a Sequencer. Keeper is required.
type SequencerOptions struct {
	// Keeper keeps the numbers. It is this sequencer's alone. Required.
	Keeper Keeper
	// MaxOpen bounds the messages that have a number and are not confirmed. At it, new ones are
	// refused with ackwise.ErrFull. Default: 100,000.
	MaxOpen int
	// MaxKeys bounds the keys: each is remembered for good. At it, new ones are refused with
	// ackwise.ErrFull. Default: 1 million.
	MaxKeys int
	// Remember is how many confirmed messages still get their number again, for a producer that
	// repeats what it was told is accepted. Default: 10,000.
	Remember int
}

// Number is what a Sequencer is asked for and what it answers.
type Number struct {
	Key, ID string // the message's. Neither is empty
	N       uint64 // its number within the key, from 1
	Again   bool   // the message had it before
	Err     error  // why it has none: *ackwise.InvalidError or ackwise.ErrFull
}

// Sequencer numbers the messages of each key: 1, 2, 3 and so on, without a gap. A message keeps its
// number until it is confirmed, and a while longer, also over a restart, so that a publish whose
// fate is unknown is repeated with the number that it had. It is safe for concurrent use.
type Sequencer struct {
	opt    SequencerOptions
	saving chan struct{} // holds one token while somebody saves; taken before mu

	mu        sync.Mutex // guards all below; not held across a save
	last      map[string]uint64
	given     map[string]*numbered // by ID
	open      int                  // of given, those not confirmed
	confirmed *list.List           // of given, IDs of the others, oldest first
	unsaved   []Record
	queued    uint64 // changes made
	saved     uint64 // of them, those kept
	fault     error  // a save failed: what is kept is unknown
}

type numbered struct {
	key  string
	n    uint64
	done bool
}

// What the names of a Sequencer's records begin with.
const (
	keyRecord = "k" // and the key: the last number given
	idRecord  = "i" // and the ID: number, 1 = confirmed, key
)

// NewSequencer returns a sequencer that goes on where its keeper says that it was.
func NewSequencer(ctx context.Context, o SequencerOptions) (*Sequencer, error) {
	o.MaxOpen = cmp.Or(o.MaxOpen, 100_000)
	o.MaxKeys = cmp.Or(o.MaxKeys, 1_000_000)
	o.Remember = cmp.Or(o.Remember, 10_000)
	var keeper error
	if o.Keeper == nil {
		keeper = &ackwise.InvalidError{Field: "Keeper",
			Reason: "without one a restart could give a number twice"}
	}
	err := errors.Join(keeper, atLeast("MaxOpen", o.MaxOpen, 1), atLeast("MaxKeys", o.MaxKeys, 1),
		atLeast("Remember", o.Remember, 1))
	if err != nil {
		return nil, err
	}
	s := &Sequencer{opt: o, saving: make(chan struct{}, 1), last: map[string]uint64{},
		given: map[string]*numbered{}, confirmed: list.New()}
	if err := o.Keeper.Load(ctx, s.load); err != nil {
		return nil, fmt.Errorf("load sequencer: %w", err)
	}
	return s, nil
}

func (s *Sequencer) load(r Record) error {
	n, used := binary.Uvarint(r.Value)
	switch {
	case len(r.Name) < 2 || used <= 0:
	case r.Name[:1] == keyRecord && used == len(r.Value):
		s.last[r.Name[1:]] = n
		return nil
	case r.Name[:1] == idRecord && used < len(r.Value) && r.Value[used] <= 1:
		g := &numbered{n: n, done: r.Value[used] == 1, key: string(r.Value[used+1:])}
		s.given[r.Name[1:]] = g
		if g.done {
			s.confirmed.PushBack(r.Name[1:])
		} else {
			s.open++
		}
		return nil
	}
	return fmt.Errorf("a sequencer does not write the record %.40q of %d bytes: the keeper belongs "+
		"to something else", r.Name, len(r.Value))
}

// Assign fills in N and Again, or Err, of each number, and returns when they are durable. An error
// of the whole call says nothing of the numbers: ask again for the same IDs.
func (s *Sequencer) Assign(ctx context.Context, ns []Number) error {
	s.mu.Lock()
	for i := range ns {
		s.assign(&ns[i])
	}
	upTo, err := s.queued, s.fault
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.save(ctx, upTo)
}

// assign gives one number. The caller holds mu.
func (s *Sequencer) assign(n *Number) {
	n.N, n.Again, n.Err = 0, false, checkNumber(n)
	if n.Err != nil {
		return
	}
	if g := s.given[n.ID]; g != nil {
		if g.key != n.Key {
			n.Err = &ackwise.InvalidError{Field: "id", Value: n.ID,
				Reason: "it has a number already, of another key"}
			return
		}
		n.N, n.Again = g.n, true
		return
	}
	last, known := s.last[n.Key]
	switch {
	case !known && len(s.last) >= s.opt.MaxKeys:
		n.Err = fmt.Errorf("the sequencer is at its bound of %d keys (MaxKeys): %w",
			s.opt.MaxKeys, ackwise.ErrFull)
		return
	case s.open >= s.opt.MaxOpen:
		n.Err = fmt.Errorf("%d numbered messages are not confirmed (MaxOpen): %w; publish them "+
			"again, or return their numbers", s.open, ackwise.ErrFull)
		return
	}
	n.N = last + 1
	s.last[n.Key] = n.N
	s.given[n.ID] = &numbered{key: n.Key, n: n.N}
	s.open++
	s.note(keyRecord+n.Key, binary.AppendUvarint(nil, n.N))
	s.note(idRecord+n.ID, idValue(s.given[n.ID]))
}

func checkNumber(n *Number) error {
	switch {
	case n.Key == "":
		return &ackwise.InvalidError{Field: "key", Reason: "a message without a key has no order"}
	case len(n.Key) >= ackwise.MaxKeyBytes:
		return &ackwise.InvalidError{Field: "key", Reason: fmt.Sprintf(
			"%d bytes long, a sequencer takes at most %d", len(n.Key), ackwise.MaxKeyBytes-1)}
	}
	return ackwise.ValidateID(n.ID)
}

func idValue(g *numbered) []byte {
	b := binary.AppendUvarint(nil, g.n)
	if g.done {
		b = append(b, 1)
	} else {
		b = append(b, 0)
	}
	return append(b, g.key...)
}

// note adds a record to what has to be saved. The caller holds mu.
func (s *Sequencer) note(name string, value []byte) {
	s.unsaved = append(s.unsaved, Record{Name: name, Value: value})
	s.queued++
}

// maxUnsaved is how many records Confirm leaves for the next call to save.
const maxUnsaved = 10_000

// Confirm says that messages are accepted. It is saved with the next numbers: a crash before leaves
// them unconfirmed, which costs room and nothing else.
func (s *Sequencer) Confirm(ctx context.Context, ids ...string) error {
	s.mu.Lock()
	for _, id := range ids {
		g := s.given[id]
		if g == nil || g.done {
			continue
		}
		g.done = true
		s.open--
		s.confirmed.PushBack(id)
		s.note(idRecord+id, idValue(g))
	}
	for s.confirmed.Len() > s.opt.Remember {
		id, _ := s.confirmed.Remove(s.confirmed.Front()).(string)
		delete(s.given, id)
		s.note(idRecord+id, nil)
	}
	upTo, err, wait := s.queued, s.fault, len(s.unsaved) > maxUnsaved
	s.mu.Unlock()
	if err != nil || !wait {
		return err
	}
	return s.save(ctx, upTo)
}

// Return takes the number of a message back that was not accepted and never will be. The key's next
// message gets it, where no later number of the key is given already; else lost is true: nothing
// can take its place without changing the order of its key, and consumers will miss it.
func (s *Sequencer) Return(ctx context.Context, id string) (lost bool, err error) {
	s.mu.Lock()
	g := s.given[id]
	if g == nil || g.done {
		s.mu.Unlock()
		return false, nil
	}
	delete(s.given, id)
	s.open--
	s.note(idRecord+id, nil)
	if lost = s.last[g.key] != g.n; !lost {
		s.last[g.key]--
		s.note(keyRecord+g.key, binary.AppendUvarint(nil, s.last[g.key]))
	}
	upTo, err := s.queued, s.fault
	s.mu.Unlock()
	if err != nil {
		return lost, err
	}
	return lost, s.save(ctx, upTo)
}

// Unconfirmed lists the messages that have a number and are not confirmed, by key and number: after
// a restart a producer publishes them again, or returns their numbers.
func (s *Sequencer) Unconfirmed() []Number {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Number
	for id, g := range s.given {
		if !g.done {
			all = append(all, Number{Key: g.key, ID: id, N: g.n, Again: true})
		}
	}
	slices.SortFunc(all, func(a, b Number) int {
		if a.Key != b.Key {
			return cmp.Compare(a.Key, b.Key)
		}
		return cmp.Compare(a.N, b.N)
	})
	return all
}

// save returns when all changes up to a number are kept. One call saves for all that wait.
func (s *Sequencer) save(ctx context.Context, upTo uint64) error {
	select {
	case s.saving <- struct{}{}:
		defer func() { <-s.saving }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	s.mu.Lock()
	records, queued, saved, fault := s.unsaved, s.queued, s.saved, s.fault
	if fault == nil && saved < upTo {
		s.unsaved = nil
	}
	s.mu.Unlock()
	if fault != nil || saved >= upTo {
		return fault
	}
	// Cut off half way it would be unknown what is kept, so it is not cut off.
	err := s.opt.Keeper.Save(context.WithoutCancel(ctx), records)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.fault = fmt.Errorf("save sequencer, which has to be made anew: %w", err)
		return s.fault
	}
	s.saved = queued
	return nil
}

// Close saves what Confirm left. The keeper is the caller's to close.
func (s *Sequencer) Close(ctx context.Context) error {
	s.mu.Lock()
	upTo, err := s.queued, s.fault
	s.mu.Unlock()
	if err != nil {
		return err
	}
	return s.save(ctx, upTo)
}
