package queue

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/arena"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// reading is what one read of many messages works in.
type reading struct {
	positions []uint64
	order     []int  // whose position each is; nil = they are sorted as they come
	buf       []byte // of the log's
}

// readings keeps what reads that are over worked in, for the next ones.
type readings struct {
	mu   sync.Mutex // guards free
	free []*reading
}

const (
	keptReadings    = 4       // as many reads at a time find memory
	keptReadingSize = 2 << 20 // larger buffers are not kept
)

func (k *readings) take() *reading {
	k.mu.Lock()
	defer k.mu.Unlock()
	n := len(k.free)
	if n == 0 {
		return new(reading)
	}
	r := k.free[n-1]
	k.free = k.free[:n-1]
	return r
}

func (k *readings) put(r *reading) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.free) < keptReadings && cap(r.buf) <= keptReadingSize {
		k.free = append(k.free, r)
	}
}

// at notes the positions of what was handed out, sorted. They nearly always are: only what was
// scheduled or redriven stands elsewhere in the log than in line.
func (r *reading) at(out []state.HandOut) {
	r.positions, r.order = r.positions[:0], nil
	for i := range out {
		r.positions = append(r.positions, out[i].Pos)
	}
	if slices.IsSorted(r.positions) {
		return
	}
	r.order = make([]int, len(out))
	for i := range r.order {
		r.order[i] = i
	}
	slices.SortFunc(r.order, func(a, b int) int { return cmp.Compare(out[a].Pos, out[b].Pos) })
	for i, at := range r.order {
		r.positions[i] = out[at].Pos
	}
}

// readMessages reads the messages that were handed out into ds, their content into memory of a. A
// damaged one is a fault of its own, by its place in ds; err means that nothing can be read.
// Topics are not set. The caller does not hold mu, and makes sure that the messages are kept.
func (s *Store) readMessages(out []state.HandOut, ds []*ackwise.Delivery, a *arena.Arena) (
	faults map[int]error, err error) {
	r := s.readings.take()
	defer s.readings.put(r)
	r.at(out)
	fault := func(at int, err error) {
		if faults == nil {
			faults = make(map[int]error)
		}
		faults[at] = err
	}
	r.buf = s.log.ReadBatch(r.positions, r.buf, func(i int, rec wal.Record, readErr error) {
		at := i
		if r.order != nil {
			at = r.order[i]
		}
		if readErr != nil {
			if _, damaged := errors.AsType[*CorruptionError](readErr); damaged {
				fault(at, readErr)
			} else {
				err = fmt.Errorf("read message at %s: %w", position(out[at].Pos), readErr)
			}
			return
		}
		p, decodeErr := state.DecodePublish(rec.Payload, a)
		if decodeErr != nil {
			fault(at, fmt.Errorf("decode message at %s: %w", position(out[at].Pos), decodeErr))
			return
		}
		ds[at].Message = p.Message
	})
	return faults, err
}

// readMessage reads the record of one message.
func (s *Store) readMessage(pos uint64) (*state.Publish, error) {
	r, err := s.log.ReadAt(pos, nil)
	if err != nil {
		return nil, fmt.Errorf("read message at %s: %w", position(pos), err)
	}
	p, err := state.DecodePublish(bytes.Clone(r.Payload), nil) // the read was longer than the record
	if err != nil {
		return nil, fmt.Errorf("decode message at %s: %w", position(pos), err)
	}
	return &p, nil
}
