package logsource

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ackwise/ackwise/internal/pause"
)

// round is one write of all that has changed, and who waits for it.
type round struct {
	done chan struct{}        // closed when it is over
	errs map[*partition]error // what was not written; set before done is closed
}

// wait returns when the round is over, or with ctx's cause.
func (r *round) wait(ctx context.Context) error {
	if r == nil {
		return nil
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fault returns why p was not written.
func (r *round) fault(p *partition) error {
	if r == nil {
		return nil
	}
	return r.errs[p]
}

// write writes notes and positions when somebody waits for it, when it is time, and when a
// partition leaves.
func (s *Source) write(ctx context.Context) {
	for {
		t := time.NewTimer(s.writeIn())
		select {
		case <-s.kick:
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
		s.writeRound(ctx)
		if ctx.Err() != nil {
			s.writeLast(ctx)
			return
		}
	}
}

// How long, and how often, Close repeats a write that fails.
const (
	closePatience = 5 * time.Second
	closeRetry    = 100 * time.Millisecond
)

// writeLast writes all partitions that Close has left, until they are gone.
func (s *Source) writeLast(ctx context.Context) {
	for left := true; left; {
		s.mu.Lock()
		s.join()
		s.mu.Unlock()
		s.writeRound(ctx)
		s.mu.Lock()
		left = len(s.member.parts) > 0
		s.mu.Unlock()
		if left {
			pause.For(context.WithoutCancel(ctx), closeRetry)
		}
	}
}

// writeIn returns how long nothing has to be written without anybody asking.
func (s *Source) writeIn() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	at := s.lazyAt
	if leave := s.member.nextLeave(now); at.IsZero() || !leave.IsZero() && leave.Before(at) {
		at = leave
	}
	switch {
	case at.IsZero():
		return math.MaxInt64
	case at.Before(s.retryAt):
		at = s.retryAt
	}
	return at.Sub(now)
}

func (s *Source) writeRound(ctx context.Context) {
	<-s.writing // a Transact ends by itself
	defer func() { s.writing <- struct{}{} }()
	r, marks, writes := s.begin()
	if len(marks) == 0 {
		r.end()
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.opts.CommitTimeout)
	errs := s.log.Commit(ctx, marks)
	cancel()
	for _, name := range s.finish(r, writes, errs) {
		s.log.Release(name)
	}
	r.end()
	s.resume()
	s.tell()
}

// begin takes what is to be written. Without a waiter it is only what has become due.
func (s *Source) begin() (*round, []Mark, []write) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	r := s.next
	s.next = nil
	leave := s.member.nextLeave(now)
	due := !s.lazyAt.IsZero() && !now.Before(s.lazyAt) || !leave.IsZero() && !now.Before(leave)
	if r == nil && (!due || now.Before(s.retryAt)) {
		return nil, nil, nil
	}
	s.lazyAt = time.Time{}
	marks, writes := s.member.marks(now)
	return r, marks, writes
}

// finish takes in what became of a write, and returns the partitions to be released.
func (s *Source) finish(r *round, writes []write, errs []error) (release []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.retryAt = time.Time{}
	for i := range writes {
		err := error(nil)
		if i < len(errs) {
			err = errs[i]
		} else {
			err = errors.New("the log gave no result")
		}
		fenced := errors.Is(err, ErrFenced)
		if s.closed {
			delete(s.unwritten, writes[i].p)
		}
		if s.member.wrote(&writes[i], err, fenced, now) {
			release = append(release, writes[i].p.name)
		}
		if err == nil || fenced {
			continue
		}
		s.retryAt = now.Add(s.opts.RetryEvery)
		if (r == nil || s.opts.CommitEvery > 0) && s.lazyAt.IsZero() {
			s.lazyAt = s.retryAt
		}
		err = fmt.Errorf("commit %s: %w", writes[i].p.name, err)
		if r != nil {
			r.errs[writes[i].p] = err
		}
		if s.closed {
			s.unwritten[writes[i].p] = err
		}
	}
	s.wakeReceivers()
	return release
}

func (r *round) end() {
	if r != nil {
		close(r.done)
	}
}
