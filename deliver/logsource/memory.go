package logsource

import "github.com/ackwise/ackwise"

// slab makes values a few at a time, which costs less than one by one. They are cleared when they
// are no longer used.
type slab[T any] struct{ rest []T }

// slabSize is how many values stay in memory, cleared or not, as long as one of them is used.
const slabSize = 16

func (s *slab[T]) new() *T {
	if len(s.rest) == 0 {
		s.rest = make([]T, slabSize)
	}
	v := &s.rest[0]
	s.rest = s.rest[1:]
	return v
}

// memory remembers the outcomes of the latest settlements, so that a repeated one can be told from
// a late one. Nobody asks it of a settlement that is neither.
type memory struct {
	ring []settled
	next int // where the next one goes, once the ring is full
	most int
	near int // where the next question is likely to find its answer: they are asked in order
}

// settled is how a hand-out ended.
type settled struct {
	token   token
	outcome ackwise.Outcome
}

func (r *memory) put(t token, o ackwise.Outcome) {
	if len(r.ring) < r.most {
		r.ring = append(r.ring, settled{t, o})
		return
	}
	r.ring[r.next] = settled{t, o}
	r.next = (r.next + 1) % r.most
}

// find returns how the hand-out of a token ended.
func (r *memory) find(t token) (o ackwise.Outcome, ok bool) {
	for i := range r.ring {
		at := (r.near + i) % len(r.ring)
		if r.ring[at].token == t {
			r.near = at + 1
			return r.ring[at].outcome, true
		}
	}
	return 0, false
}

// forget drops what is remembered of an assignment that was lost: its settlements may not have been
// written.
func (r *memory) forget(epoch uint64) {
	for i := range r.ring {
		if r.ring[i].token.epoch == epoch {
			r.ring[i] = settled{}
		}
	}
}
