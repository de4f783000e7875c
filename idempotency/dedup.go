package idempotency

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// maxMade bounds the completions that are kept for another try.
const maxMade = 4096

// Dedup makes a handler that makes each message's effect once in the store's window: it claims the
// message's key, calls h, and completes the key. What h returns decides:
//
//	nil, Drop                          complete: a duplicate is acked (and observed), h is not called
//	Reject, Snooze, RetryAfter, error  given back: the next delivery, or the redrive, begins anew
//	a panic                            nothing: the claim runs out, and the next is a Takeover
//
// A duplicate that comes while the first runs is snoozed, never acked. A key with another payload
// is rejected, so that it becomes a dead letter that says so; so is an empty key. Where the store
// cannot be asked, or is full, the message is nacked: it is neither done nor dropped.
//
// While h works its claim is extended. Its context ends, with a cause that is ErrFence, when the
// claim is lost. An effect whose completion could not be said is an error: the handler remembers
// it, and says it before it claims that key again.
//
// Dedup refuses a store whose window is shorter than Options.Again, and one whose name is used by
// another rule, see Store.Bind.
func Dedup(ctx context.Context, s Store, h ackwise.Handler, o Options) (ackwise.Handler, error) {
	one := ackwise.BatchHandlerFunc(func(ctx context.Context, ds []*ackwise.Delivery) []error {
		return []error{h.Handle(ctx, ds[0])}
	})
	g, err := newDedup(ctx, s, one, o)
	if err != nil {
		return nil, err
	}
	return ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		return g.HandleBatch(ctx, []*ackwise.Delivery{d})[0]
	}), nil
}

// DedupBatch is Dedup for handlers of batches: one call of the store claims the batch, one settles
// it, and h gets what was claimed. Behind a message of a key that is put off or refused, the rest
// of that key's run is given back, so that its order holds. The context of h ends when any of its
// claims is lost.
func DedupBatch(ctx context.Context, s Store, h ackwise.BatchHandler, o Options) (
	ackwise.BatchHandler, error) {
	return newDedup(ctx, s, h, o)
}

// dedup is the handler of both.
type dedup struct {
	s Store
	h ackwise.BatchHandler
	o Options

	mu   sync.Mutex            // guards made
	made map[string]Settlement // effects that were made and are not known to be complete, by key

	observing sync.Mutex // held while Options.Observe runs, one call at a time; taken alone
}

func newDedup(ctx context.Context, s Store, h ackwise.BatchHandler, o Options) (*dedup, error) {
	if err := o.fill(s.Window()); err != nil {
		return nil, fmt.Errorf("set up dedup: %w", err)
	}
	if err := s.Bind(ctx, o.Rule); err != nil {
		return nil, fmt.Errorf("set up dedup: %w", err)
	}
	return &dedup{s: s, h: h, o: o, made: make(map[string]Settlement)}, nil
}

// HandleBatch claims, calls the handler with what was claimed, and settles.
func (g *dedup) HandleBatch(ctx context.Context, ds []*ackwise.Delivery) []error {
	results := make([]error, len(ds))
	asks := make([]Ask, len(ds))
	for i, d := range ds {
		asks[i] = Ask{Key: g.o.Key(d), Sum: g.o.Sum(d), Lease: g.o.Lease}
	}
	g.completeMade(ctx, asks)
	held := &holder{s: g.s, lease: g.o.Lease, most: g.o.MaxHold,
		until: time.Now().Add(g.o.Lease)}
	answers, err := askAll(ctx, g.s, asks)
	if err != nil {
		for i := range results {
			results[i] = err
		}
		return results
	}
	c := g.sort(ds, asks, answers, results)
	held.claims = c.claims
	held.failed = func(err error) { g.tell("extend-failed", c.ds[0], err) }
	if len(c.ds) > 0 {
		g.handle(ctx, held, c, results)
	}
	if len(c.back) > 0 {
		g.giveBack(ctx, held, c)
	}
	return results
}

// claimed is what the handler is going to be called with: the deliveries, their claims, and where
// they stand in the batch.
type claimed struct {
	ds     []*ackwise.Delivery
	claims []Claim
	at     []int
	back   []Settlement // claimed behind a message of their key that is not done: given back
	behind []*ackwise.Delivery
}

// sort sets the results of what was not claimed, and returns what was.
func (g *dedup) sort(ds []*ackwise.Delivery, asks []Ask, answers []Answer,
	results []error) claimed {
	var c claimed
	blocked := make(map[string]bool) // message keys whose run is broken
	for i, a := range answers {
		d, key := ds[i], asks[i].Key
		if a.Status != Claimed {
			results[i] = turnedDown(key, a, g.o.BusyDelay, g.s.Window())
			switch a.Status {
			case Done:
				g.observe("duplicate", d, nil)
			case Busy, Conflict:
				g.observe(a.Status.String(), d, results[i])
			}
			blocked[d.Key] = blocked[d.Key] || results[i] != nil
			continue
		}
		if a.Takeover {
			g.observe("takeover", d, nil)
		}
		claim := Claim{Key: key, Fence: a.Fence, Takeover: a.Takeover}
		if d.Key != "" && blocked[d.Key] {
			// The loop releases it, whatever is said here.
			results[i] = fmt.Errorf("handle %.80q: an earlier message of its key is put off: %w", key,
				ackwise.Snooze(g.o.BusyDelay))
			c.back = append(c.back, giveBack(claim))
			c.behind = append(c.behind, d)
			continue
		}
		c.ds = append(c.ds, d)
		c.claims = append(c.claims, claim)
		c.at = append(c.at, i)
	}
	return c
}

// giveBack releases what is not going to be handled.
func (g *dedup) giveBack(ctx context.Context, held *holder, c claimed) {
	for i, err := range held.settle(ctx, c.back) {
		if err != nil {
			g.tell("release-failed", c.behind[i], err)
		}
	}
}

// handle calls the handler and settles what it says.
func (g *dedup) handle(ctx context.Context, held *holder, c claimed, results []error) {
	var errs []error
	early := held.during(ctx, func(ctx context.Context) {
		errs = g.h.HandleBatch(ctx, c.ds)
		if cause := context.Cause(ctx); errors.Is(cause, ErrFence) {
			for _, d := range c.ds {
				g.observe("lost", d, cause)
			}
		}
	})
	if early != nil {
		g.turnAway(ctx, held, c, results, early)
		return
	}
	if len(errs) != len(c.ds) {
		// As after a panic, nobody knows which effects were made: the claims run out.
		err := fmt.Errorf("the batch handler returned %d results for %d deliveries: all of them "+
			"count as failed", len(errs), len(c.ds))
		for _, at := range c.at {
			results[at] = err
		}
		return
	}
	batch := make([]Settlement, len(c.ds))
	for i, claim := range c.claims {
		batch[i] = giveBack(claim)
		if final(errs[i]) {
			batch[i] = Settlement{Key: claim.Key, Fence: claim.Fence, Verb: Complete}
		}
	}
	for i, err := range held.settle(ctx, batch) {
		results[c.at[i]] = g.settled(c.ds[i], batch[i], errs[i], err)
	}
}

// turnAway gives back what could not begin, because its claims were lost before.
func (g *dedup) turnAway(ctx context.Context, held *holder, c claimed, results []error, why error) {
	batch := make([]Settlement, len(c.ds))
	for i, claim := range c.claims {
		batch[i] = giveBack(claim)
		results[c.at[i]] = fmt.Errorf("claim %.80q: %w", claim.Key, why)
		g.observe("lost", c.ds[i], why)
	}
	held.settle(ctx, batch) // what does not come through runs out
}

// final reports whether a handler's result completes its claim. A drop does: the message is away
// with its reason, and so is its duplicate. A rejection does not: the message may be redriven.
func final(err error) bool {
	o := ackwise.OutcomeOf(err).Outcome
	return o == ackwise.OutcomeAck || o == ackwise.OutcomeDrop
}

// settled returns the result of a message whose handler returned handled, and whose settlement
// came to err.
func (g *dedup) settled(d *ackwise.Delivery, s Settlement, handled, err error) error {
	switch {
	case err == nil:
		return handled
	case s.Verb != Complete:
		g.tell("release-failed", d, err)
		return handled
	}
	if mayPass(err) {
		g.keepMade(s)
	}
	err = unknown(s.Key, err)
	g.observe("unknown", d, err)
	return err
}

// keepMade remembers an effect that was made, so that the next delivery can complete it. Where many
// are remembered one of them goes: its claim runs out, and its next delivery is a takeover.
func (g *dedup) keepMade(s Settlement) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for key := range g.made {
		if len(g.made) < maxMade {
			break
		}
		delete(g.made, key)
	}
	g.made[s.Key] = s
}

// completeMade tries once more to complete, before they are claimed again, those keys whose effect
// this handler has made while the store was away. Where that does not come through, the claim that
// follows is Busy, or a takeover.
func (g *dedup) completeMade(ctx context.Context, asks []Ask) {
	var batch []Settlement
	g.mu.Lock()
	for _, a := range asks {
		if s, ok := g.made[a.Key]; ok {
			batch = append(batch, s)
		}
	}
	g.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	results, err := g.s.Settle(ctx, batch)
	if err != nil || len(results) != len(batch) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, s := range batch {
		if !mayPass(results[i]) && g.made[s.Key].Fence == s.Fence {
			delete(g.made, s.Key)
		}
	}
}

// tell logs and observes what no returned error says.
func (g *dedup) tell(kind string, d *ackwise.Delivery, err error) {
	g.o.Logger.Warn("dedup: "+kind, "id", d.ID, "key", d.Key, "attempt", d.Attempt, "error", err)
	g.observe(kind, d, err)
}

func (g *dedup) observe(kind string, d *ackwise.Delivery, err error) {
	if g.o.Observe == nil {
		return
	}
	e := ackwise.Event{Kind: kind, Time: time.Now(), ID: d.ID, Key: d.Key, Attempt: d.Attempt,
		Cause: d.Cause, Err: err}
	g.observing.Lock()
	defer g.observing.Unlock()
	g.o.Observe(e)
}
