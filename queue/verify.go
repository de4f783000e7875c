package queue

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"

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
	live := s.st.Snapshot()
	end := s.log.End()
	marks := s.marks
	group := s.append(nil, true) // released when all that the snapshot saw is written
	s.mu.Unlock()
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
	if digest(again.Snapshot()) != digest(live) {
		var b bytes.Buffer
		_, _ = live.WriteTo(&b) // a buffer takes everything
		was := state.New()
		if err := was.Load(&b, int64(b.Len())); err != nil {
			return report, err
		}
		for _, d := range state.Differences(again, was) {
			find("the state recomputed from the log is not the live one: %s", d)
		}
	}
	return report, s.verifyBodies(ctx, again, &report, find)
}

// verifyBatch is how many messages Verify reads at a time.
const verifyBatch = 4096

// verifyBodies reads the records of all messages that live in a state of our own.
func (s *Store) verifyBodies(ctx context.Context, st *state.State, report *VerifyReport,
	find func(string, ...any)) error {
	batch, buf := make([]uint64, 0, verifyBatch), []byte(nil)
	read := func() {
		slices.Sort(batch)
		buf = s.log.ReadBatch(batch, buf, func(i int, r wal.Record, err error) {
			if err != nil { // also where it is gone: nothing is freed while we read
				find("message at %s: %v", position(batch[i]), err)
				return
			}
			report.Messages++
			report.Bytes += int64(len(r.Payload))
		})
		batch = batch[:0]
	}
	err := st.Positions(func(pos uint64) error {
		if batch = append(batch, pos); len(batch) == verifyBatch {
			read()
		}
		return context.Cause(ctx)
	})
	read()
	return err
}

// digest tells unequal states apart without holding both as bytes.
func digest(snapshot *state.Snapshot) [sha256.Size]byte {
	h := sha256.New()
	w := bufio.NewWriterSize(h, 64<<10)
	_, _ = snapshot.WriteTo(w) // a hash takes everything
	_ = w.Flush()
	return [sha256.Size]byte(h.Sum(nil))
}

// recompute makes the state at the position end from the oldest checkpoint, and compares the newer
// ones on its way. A damaged one is named, and left out while there is another.
func (s *Store) recompute(ctx context.Context, marks []mark, end uint64, report *VerifyReport,
	find func(string, ...any)) (*state.State, error) {
	st, from := state.New(), uint64(0)
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
	for i, m := range marks {
		var err error
		if from == 0 {
			st, _, err = s.readCheckpoint(m.pos, passOver)
		} else if err = replay(m.pos); err != nil {
			return nil, err
		} else {
			err = s.compareCheckpoint(m, st, find)
		}
		_, damaged := errors.AsType[*CorruptionError](err)
		switch {
		case damaged && (from > 0 || i < len(marks)-1):
			find("%v", err)
		case err != nil:
			return nil, err
		default:
			from = m.pos
		}
	}
	return st, replay(end)
}

// compareCheckpoint compares a checkpoint with the state recomputed for its position. It is read
// into memory only where they differ.
func (s *Store) compareCheckpoint(m mark, st *state.State, find func(string, ...any)) error {
	r, _, err := openCheckpoint(s.fs, s.dir, m.pos)
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err = readWindows(r, r.left, passOver); err == nil {
		_, err = io.Copy(sum, r)
	}
	if err = errors.Join(err, r.file.Close()); err != nil {
		return err
	}
	if [sha256.Size]byte(sum.Sum(nil)) == digest(st.Snapshot()) {
		return nil
	}
	on, _, err := s.readCheckpoint(m.pos, passOver)
	if err != nil {
		return err
	}
	for _, d := range state.Differences(st, on) {
		find("checkpoint %s is not what the log says: %s", checkpointName(m.pos), d)
	}
	return nil
}
