package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// Bounds of settling: so often, with pauses of 20, 80, 320 and 1,280 ms, while the lease lasts.
const (
	settleTries   = 5
	settlePause   = 20 * time.Millisecond
	settleTimeout = 5 * time.Second // the least that one call is given
)

// holder keeps claims while their effects are made, and settles them after that.
type holder struct {
	s      Store
	lease  time.Duration
	most   time.Duration // how long the claims are extended in all
	claims []Claim
	until  time.Time // when the claims run out, if they are not extended
	// failed is told of an extension that did not come through; it will be tried again.
	failed func(error)
}

// during runs work while the claims are extended. Work's context ends with a cause when they are
// lost. Where work panics, the claims are left as they are: nobody knows whether the effect was
// made, and whoever takes over is told so. Its error says that the claims were lost before work
// could begin.
func (h *holder) during(ctx context.Context, work func(ctx context.Context)) error {
	if err := h.freshen(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.WithValue(ctx, claimsKey{}, h.claims))
	defer cancel(nil)
	// A handler may outlast its context, so its claims do as well.
	extending, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { h.extendUntil(extending, cancel) }) // ends when work has returned
	defer wg.Wait()
	defer stop()
	work(ctx)
	return nil
}

// freshen extends claims whose answer took so long that little is left of them: work must not begin
// under a claim that has run out, which another one may hold by now.
func (h *holder) freshen(ctx context.Context) error {
	if h.next() > 0 {
		return nil
	}
	came, err := h.extend(ctx)
	switch {
	case err != nil || came:
		return err
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return nil // what is left of the lease allows another try
}

// next is how long it is until the next extension is due: a third of the lease after the last one.
func (h *holder) next() time.Duration { return max(0, time.Until(h.until)-2*h.lease/3) }

// extendUntil extends the claims until ctx ends or they are lost.
func (h *holder) extendUntil(ctx context.Context, lost context.CancelCauseFunc) {
	begun := time.Now()
	next := time.NewTimer(h.next())
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		if time.Since(begun) >= h.most {
			lost(fmt.Errorf("claim held for %s, the longest allowed: %w", h.most, ErrFence))
			return
		}
		came, err := h.extend(ctx)
		if err != nil {
			lost(err)
			return
		}
		wait := h.lease / 3
		if !came { // and at the lease's end at the latest
			wait = min(h.lease/12, max(time.Until(h.until), time.Millisecond/4))
		}
		next.Reset(wait)
	}
}

// extend extends the claims once, and reports whether that came through. Its error means that they
// are lost.
func (h *holder) extend(ctx context.Context) (bool, error) {
	asked := time.Now()
	batch := make([]Settlement, len(h.claims))
	for i, c := range h.claims {
		batch[i] = Settlement{Key: c.Key, Fence: c.Fence, Verb: Extend, Lease: h.lease}
	}
	deadline := h.until
	if !asked.Before(deadline) { // it ran out; nobody may have taken over yet
		deadline = asked.Add(min(h.lease, settleTimeout))
	}
	call, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	results, err := h.s.Settle(call, batch)
	if err == nil {
		err = errors.Join(results...)
	}
	switch {
	case err == nil:
		h.until = asked.Add(h.lease)
		return time.Now().Before(h.until), nil
	case ctx.Err() != nil:
		return false, nil // the work has ended meanwhile
	case errors.Is(err, ErrFence):
		return false, fmt.Errorf("extend claim: %w", err)
	case !time.Now().Before(h.until):
		return false, fmt.Errorf("extend claim: %w: it ran out, and the store said: %w", ErrFence,
			err)
	}
	h.failed(err)
	return false, nil
}

// settle carries out settlements, and tries again what may pass. It goes on when ctx has ended:
// what was made has to be said. It returns one result each.
func (h *holder) settle(ctx context.Context, all []Settlement) []error {
	ctx = context.WithoutCancel(ctx)
	results := make([]error, len(all))
	open := make([]int, len(all))
	for i := range all {
		open[i] = i
	}
	pause := settlePause
	for try := 1; ; try++ {
		open = h.settleOnce(ctx, all, open, results)
		again := time.Now().Add(pause)
		if len(open) == 0 || try == settleTries || again.After(h.until) {
			return results
		}
		timer := time.NewTimer(pause)
		<-timer.C
		pause *= 4
	}
}

// settleOnce settles those that are open and returns those that still are.
func (h *holder) settleOnce(ctx context.Context, all []Settlement, open []int,
	results []error) []int {
	deadline := time.Now().Add(settleTimeout)
	if deadline.Before(h.until) {
		deadline = h.until
	}
	call, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	batch := make([]Settlement, len(open))
	for i, at := range open {
		batch[i] = all[at]
	}
	answers, err := h.s.Settle(call, batch)
	if err == nil && len(answers) != len(batch) {
		err = fmt.Errorf("the store answered %d of %d settlements", len(answers), len(batch))
	}
	left := open[:0]
	for i, at := range open {
		if results[at] = err; err == nil {
			results[at] = answers[i]
		}
		if mayPass(results[at]) {
			left = append(left, at)
		}
	}
	return left
}

// giveBack is the settlement of a claim whose effect was not made. One that was taken over is made
// to run out instead of being released: the holder before it may have made the effect, and the next
// one has to be told so as well.
func giveBack(c Claim) Settlement {
	if c.Takeover {
		return Settlement{Key: c.Key, Fence: c.Fence, Verb: Extend, Lease: time.Millisecond}
	}
	return Settlement{Key: c.Key, Fence: c.Fence, Verb: Release}
}

// mayPass reports whether a settlement may be tried again.
func mayPass(err error) bool {
	_, invalid := errors.AsType[*ackwise.InvalidError](err)
	return err != nil && !invalid && !errors.Is(err, ErrFence) && !errors.Is(err, ackwise.ErrClosed)
}

// turnedDown says what an answer other than a claim means for the message, as an error that a
// handler may return: nil for what is done.
func turnedDown(key string, a Answer, busyDelay, window time.Duration) error {
	switch {
	case a.Status == Done:
		return nil
	case a.Status == Busy:
		delay := busyDelay
		if a.Wait > 0 {
			delay = min(delay, a.Wait)
		}
		return fmt.Errorf("claim %.80q: another one makes its effect: %w", key,
			ackwise.Snooze(delay))
	case a.Status == Conflict:
		return fmt.Errorf("claim %.80q: %w", key, ackwise.Reject(fmt.Errorf("the dedup key %.80q "+
			"is known with another payload: one of the two messages has a wrong ID", key)))
	case errors.Is(a.Err, ackwise.ErrFull):
		// There is room again when the store's next bucket goes.
		delay := min(max(window/8, busyDelay), maxFullDelay)
		return ackwise.RetryAfter(fmt.Errorf("claim %.80q: %w", key, a.Err), delay)
	case a.Err == nil:
		return fmt.Errorf("claim %.80q: the store answered %s", key, a.Status)
	}
	if _, invalid := errors.AsType[*ackwise.InvalidError](a.Err); invalid {
		return ackwise.Reject(fmt.Errorf("claim %.80q: %w", key, a.Err))
	}
	return fmt.Errorf("claim %.80q: %w", key, a.Err)
}

// askAll asks and checks that each ask has its answer.
func askAll(ctx context.Context, s Store, asks []Ask) ([]Answer, error) {
	answers, err := s.Claim(ctx, asks)
	if err != nil {
		return nil, fmt.Errorf("claim in dedup store: %w", err)
	}
	if len(answers) != len(asks) {
		return nil, fmt.Errorf("claim in dedup store: it answered %d of %d asks", len(answers),
			len(asks))
	}
	return answers, nil
}

// unknown is the error of an effect that was made and whose completion did not come through.
func unknown(key string, err error) error {
	if errors.Is(err, ErrFence) {
		return fmt.Errorf("complete %.80q: its effect was made, and may be made again by whoever "+
			"took over: %w", key, err)
	}
	return fmt.Errorf("complete %.80q: its effect was made, its completion is not known: %w", key,
		err)
}
