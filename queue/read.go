package queue

import (
	"errors"
	"fmt"
	"slices"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// readMessages reads the messages whose records stand at positions. A damaged one is a fault of its
// own; err means that nothing can be read. Topics are not set. The caller does not hold mu, and
// makes sure that the messages are kept.
func (s *Store) readMessages(positions []uint64) (
	messages []ackwise.Message, faults []error, err error) {
	order := make([]int, len(positions))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		switch {
		case positions[a] < positions[b]:
			return -1
		case positions[a] > positions[b]:
			return 1
		}
		return 0
	})
	sorted := make([]uint64, len(positions))
	for i, at := range order {
		sorted[i] = positions[at]
	}
	messages, faults = make([]ackwise.Message, len(positions)), make([]error, len(positions))
	s.log.ReadBatch(sorted, nil, func(i int, r wal.Record, readErr error) {
		at := order[i]
		var corrupt *CorruptionError
		switch {
		case errors.As(readErr, &corrupt):
			faults[at] = readErr
		case readErr != nil:
			err = fmt.Errorf("read message at %s: %w", position(sorted[i]), readErr)
		default:
			p, decodeErr := state.DecodePublish(r.Payload, true)
			if decodeErr != nil {
				faults[at] = fmt.Errorf("decode message at %s: %w", position(sorted[i]), decodeErr)
				return
			}
			messages[at] = p.Message
		}
	})
	return messages, faults, err
}

// readMessage reads the record of one message.
func (s *Store) readMessage(pos uint64) (*state.Publish, error) {
	r, err := s.log.ReadAt(pos, nil)
	if err != nil {
		return nil, fmt.Errorf("read message at %s: %w", position(pos), err)
	}
	p, err := state.DecodePublish(r.Payload, true)
	if err != nil {
		return nil, fmt.Errorf("decode message at %s: %w", position(pos), err)
	}
	return p, nil
}
