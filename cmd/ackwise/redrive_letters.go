package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// deadSource is the dead letters of a subscription as a source, oldest first: those that are there
// when it is made. An ack takes a letter away: by then its target has accepted it.
type deadSource struct {
	d      deadStore
	p      pipeline
	before time.Time
	// back brings letters back to their own subscription, in the step that takes them away; else
	// they are dropped, for this reason.
	back   bool
	reason string

	letters chan queue.DeadLetter // closed at the end
	fault   error                 // why they ended early; set before the close
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	changed chan struct{} // something came back, or is gone: holds one token

	mu       sync.Mutex // guards all below
	serial   int
	out      map[ackwise.LeaseToken]queue.DeadLetter
	returned []queue.DeadLetter
}

func newDeadSource(ctx context.Context, d deadStore, p pipeline, now time.Time) *deadSource {
	ctx, cancel := context.WithCancel(ctx)
	s := &deadSource{d: d, p: p, before: now, letters: make(chan queue.DeadLetter),
		cancel: cancel, changed: make(chan struct{}, 1),
		out: map[ackwise.LeaseToken]queue.DeadLetter{}}
	s.wg.Go(func() { // ends with the last letter, or with Close
		defer close(s.letters)
		s.fault = eachDead(ctx, d, p, queue.DeadFilter{Before: now}, func(l queue.DeadLetter) error {
			select {
			case s.letters <- l:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	})
	return s
}

// Features returns those of letters that nobody else holds.
func (s *deadSource) Features() ackwise.Features {
	return ackwise.Features{Order: ackwise.OrderKey, Extend: true, Causes: true, KeyRuns: true}
}

// Receive returns letters, those that came back first, and io.EOF once none can come any more.
func (s *deadSource) Receive(ctx context.Context, max int) ([]*ackwise.Delivery, error) {
	letters := s.letters
	for {
		if ds, held := s.again(max); len(ds) > 0 {
			return ds, nil
		} else if letters == nil && !held {
			return nil, io.EOF
		}
		select {
		case l, ok := <-letters:
			if ok {
				return s.more(l, max), nil
			}
			if s.fault != nil && !errors.Is(s.fault, context.Canceled) {
				return nil, fmt.Errorf("list dead letters: %w", s.fault)
			}
			letters = nil // what is out may come back
		case <-s.changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// more hands out a letter and those that are ready behind it.
func (s *deadSource) more(l queue.DeadLetter, max int) []*ackwise.Delivery {
	ls := []queue.DeadLetter{l}
	for len(ls) < max {
		select {
		case l, ok := <-s.letters:
			if ok {
				ls = append(ls, l)
				continue
			}
		default:
		}
		break
	}
	return s.handOut(ls)
}

// again hands out what came back, and reports whether something is still out.
func (s *deadSource) again(max int) ([]*ackwise.Delivery, bool) {
	s.mu.Lock()
	n := min(max, len(s.returned))
	ls := slices.Clone(s.returned[:n])
	s.returned = s.returned[n:]
	held := len(s.out) > 0
	s.mu.Unlock()
	return s.handOut(ls), held
}

func (s *deadSource) handOut(ls []queue.DeadLetter) []*ackwise.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	ds := make([]*ackwise.Delivery, len(ls))
	for i, l := range ls {
		s.serial++
		token := ackwise.LeaseToken(fmt.Sprint(s.serial))
		s.out[token] = l
		ds[i] = &ackwise.Delivery{Message: l.Message, Attempt: 1, Cause: ackwise.CauseRedriven,
			Counts: ackwise.Counts{Redrives: l.Counts.Redrives}, Token: token,
			Position: l.Position, Epoch: l.Epoch}
	}
	return ds
}

// Settle takes away what was accepted. What was rejected is not handed out again; the rest is.
func (s *deadSource) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	results := make([]ackwise.SettleResult, len(ss))
	var ids []string
	s.mu.Lock()
	for i, one := range ss {
		l, ok := s.out[one.Token]
		switch {
		case !ok:
			results[i].Err = ackwise.ErrLeaseLost
		case one.Outcome == ackwise.OutcomeAck:
			ids = append(ids, l.Message.ID)
		}
	}
	s.mu.Unlock()
	var err error
	if len(ids) > 0 {
		err = s.takeAway(ctx, ids)
	}
	s.mu.Lock()
	for i, one := range ss {
		l, ok := s.out[one.Token]
		switch {
		case !ok || one.Outcome == ackwise.OutcomeExtend:
			continue
		case one.Outcome == ackwise.OutcomeAck && err != nil:
			results[i].Err = err
			continue
		case one.Outcome == ackwise.OutcomeNack || one.Outcome == ackwise.OutcomeRelease:
			s.returned = append(s.returned, l)
		}
		delete(s.out, one.Token)
	}
	s.mu.Unlock()
	select {
	case s.changed <- struct{}{}:
	default:
	}
	return results
}

// takeAway takes letters out of the store. Those that are not there any more were taken by
// somebody else; one that died again since is left.
func (s *deadSource) takeAway(ctx context.Context, ids []string) (err error) {
	f := queue.DeadFilter{IDs: ids, Before: s.before}
	if s.back {
		_, err = s.d.Redrive(ctx, s.p.topic, s.p.sub, f, false)
	} else {
		_, err = s.d.DropDead(ctx, s.p.topic, s.p.sub, f, s.reason)
	}
	return err
}

// Close ends the listing.
func (s *deadSource) Close() error {
	s.cancel()
	s.wg.Wait()
	return nil
}

// backSink accepts what the source brings back itself, in its ack.
type backSink struct{}

// Publish accepts.
func (backSink) Publish(_ context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	for i := range results {
		results[i].Class = ackwise.ResultAccepted
	}
	return results
}

// Features returns those of a sink that keeps all orders.
func (backSink) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: true, Dedup: true}
}

// Close does nothing.
func (backSink) Close() error { return nil }
