package queue

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// maxFindings bounds what a report lists.
const maxFindings = 100

// Verify recomputes the state from the oldest kept checkpoint and the log behind it, compares it
// with the live one, and reads every kept body. It does not stop the store; the comparison is of
// the moment at which Verify was called.
func (s *Store) Verify(ctx context.Context) (VerifyReport, error) {
	s.verifying.Lock() // no checkpoint frees segments meanwhile
	defer s.verifying.Unlock()
	s.mu.Lock()
	if err := s.usable(); err != nil {
		s.mu.Unlock()
		return VerifyReport{}, err
	}
	live := s.st.Encode(nil)
	end := s.log.End()
	marks := s.marks
	type place struct {
		pos  uint64
		size uint32
	}
	var kept []place
	err := s.st.Positions(func(pos uint64, size uint32) error {
		kept = append(kept, place{pos, size})
		return nil
	})
	group := s.append(nil, true) // released when all that Encode saw is written
	s.mu.Unlock()
	if err != nil {
		return VerifyReport{}, err
	}
	if err := wait(group, true); err != nil {
		return VerifyReport{}, err
	}
	report := VerifyReport{Position: position(end), Findings: []string{}}
	find := func(format string, args ...any) {
		if len(report.Findings) < maxFindings {
			report.Findings = append(report.Findings, fmt.Sprintf(format, args...))
		}
	}
	again, err := s.recompute(ctx, marks, end, &report, find)
	if err != nil {
		return report, err
	}
	if !bytes.Equal(again.Encode(nil), live) {
		was, err := state.Decode(live)
		if err != nil {
			return report, err
		}
		for _, d := range state.Differences(again, was) {
			find("the state recomputed from the log is not the live one: %s", d)
		}
	}
	var buf []byte
	for _, k := range kept {
		if ctx.Err() != nil {
			return report, context.Cause(ctx)
		}
		r, err := s.log.ReadAt(k.pos, buf)
		if err != nil && !gone(err) {
			find("message at %s: %v", position(k.pos), err)
			continue
		}
		buf = r.Payload
		report.Messages++
		report.Bytes += int64(len(r.Payload))
	}
	return report, nil
}

// recompute makes the state at the position end from the oldest checkpoint, and compares the newer
// ones on its way.
func (s *Store) recompute(ctx context.Context, marks []mark, end uint64, report *VerifyReport,
	find func(string, ...any)) (*state.State, error) {
	st, from := state.New(), uint64(0)
	if len(marks) > 0 {
		var err error
		if st, _, err = s.readCheckpoint(marks[0].pos, true); err != nil {
			return nil, err
		}
		from = marks[0].pos
		marks = marks[1:]
	}
	replay := func(to uint64) error {
		err := s.log.Replay(from, to, func(r wal.Record) error {
			report.Records++
			if report.Records%1024 == 0 && ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return st.Apply(r.Pos, r.Type, r.Payload)
		})
		from = to
		return err
	}
	for _, m := range marks {
		if err := replay(m.pos); err != nil {
			return nil, err
		}
		on, _, err := s.readCheckpoint(m.pos, true)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(on.Encode(nil), st.Encode(nil)) {
			for _, d := range state.Differences(st, on) {
				find("checkpoint %s is not what the log says: %s", checkpointName(m.pos), d)
			}
		}
	}
	return st, replay(end)
}
