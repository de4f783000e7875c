package queueorder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// ErrTakenOver says that another one works on the same topics, or in the same table, now.
var ErrTakenOver = errors.New("another resequencer has taken over")

// errAgain: what is in memory is no longer what is on disk; it is read again.
var errAgain = errors.New("read the held messages again")

// Resequencer brings the messages of a subscription into a topic in the order of their keys.
type Resequencer struct {
	store Store
	opt   Options
	books *books

	mu      sync.Mutex                  // guards all below; not held across I/O
	machine *ordering.Resequencer       // nil = it does not run
	orders  []*order                    // not carried out yet
	unfit   map[ackwise.Position]string // what the out topic does not take, and why
}

// order is a person's word to go on without a number.
type order struct {
	key  string
	last uint64
	gaps []ordering.Gap
	left bool // its caller waits no more
	done chan struct{}
}

// Open prepares a resequencer: it makes the topics that are missing. Run does the work.
func Open(ctx context.Context, s Store, o Options) (*Resequencer, error) {
	if err := o.fill(s); err != nil {
		return nil, err
	}
	if err := setUp(ctx, s, &o); err != nil {
		return nil, fmt.Errorf("open resequencer to %s: %w", o.Out, err)
	}
	reader, err := ordering.NewResequencer(o.Order)
	if err != nil {
		return nil, err
	}
	b := &books{store: s, topic: o.Topic, sub: o.Subscription, held: o.Held, read: reader.Read}
	if o.Finder == nil {
		o.Finder = b
	}
	return &Resequencer{store: s, opt: o, books: b, unfit: map[ackwise.Position]string{}}, nil
}

// Run does the work until ctx ends, and then returns nil. It returns a *ordering.GapError where a
// policy says stop, ErrTakenOver, and what else makes it impossible to go on. It may be called
// again after that.
func (r *Resequencer) Run(ctx context.Context) error {
	for {
		err := r.session(ctx)
		if !errors.Is(err, errAgain) || ctx.Err() != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("resequence %s/%s: %w", r.opt.Topic, r.opt.Subscription, err)
		}
	}
}

// Report returns the figures of the present Run; zero where there is none.
func (r *Resequencer) Report() ordering.Report {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.machine == nil {
		return ordering.Report{}
	}
	return r.machine.Report()
}

// GiveUp orders a key to go on without the missing numbers up to last, whatever its policy says. It
// waits until Run has done so, and returns what was given up: none where the key waits for none. An
// order that Run could not make durable is carried out by the next Run; one whose ctx has ended is
// not, unless that is under way.
func (r *Resequencer) GiveUp(ctx context.Context, key string, last uint64) (
	[]ordering.Gap, error) {
	o := &order{key: key, last: last, done: make(chan struct{})}
	r.mu.Lock()
	r.orders = append(r.orders, o)
	r.mu.Unlock()
	select {
	case <-o.done:
		return o.gaps, nil
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if i := slices.Index(r.orders, o); i >= 0 {
		r.orders = slices.Delete(r.orders, i, i+1)
		return nil, fmt.Errorf("give up numbers, nothing was done: %w", context.Cause(ctx))
	}
	o.left = true
	return nil, fmt.Errorf("give up numbers, outcome unknown: %w", context.Cause(ctx))
}

func (r *Resequencer) isUnfit(at ackwise.Position) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, unfit := r.unfit[at]
	return unfit
}

// session is one life of what is in memory.
type session struct {
	*Resequencer
	m       *ordering.Resequencer // under mu
	work    context.Context       // outlives the Run's
	source  ackwise.Source
	held    ackwise.Source
	fence   queue.TableRead // our name is still there
	drain   drain
	ask     time.Duration   // Options.Order.Ask
	askAt   time.Time       // when missing numbers may be looked for again
	crowded time.Time       // until then messages that were put off are in the source
	toldAt  time.Time       // when that was logged
	events  []ackwise.Event // to be told of when they are durable
}

// session works until something ends it; nil only when ctx has ended.
func (r *Resequencer) session(ctx context.Context) (err error) {
	m, err := ordering.NewResequencer(r.opt.Order)
	if err != nil {
		return err
	}
	s := &session{Resequencer: r, m: m, work: context.WithoutCancel(ctx), drain: newDrain(),
		ask: cmp.Or(r.opt.Order.Ask, maxIdle)}
	if s.fence, err = takeOver(s.work, r.store, r.opt.Table); err != nil {
		return err
	}
	s.source, err = r.opt.Receiver(s.work, r.opt.Topic, r.opt.Subscription, queue.ReceiverOptions{})
	if err != nil {
		return fmt.Errorf("open source: %w", err)
	}
	defer func() { err = errors.Join(err, s.source.Close()) }()
	s.held, err = r.opt.Receiver(s.work, r.opt.Held, heldSub, queue.ReceiverOptions{})
	if err != nil {
		return fmt.Errorf("open held messages: %w", err)
	}
	defer func() { err = errors.Join(err, s.held.Close()) }()
	if err := s.load(ctx); err != nil {
		return fmt.Errorf("load held messages: %w", err)
	}
	r.mu.Lock()
	r.machine = m
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.machine = nil
		r.mu.Unlock()
	}()
	for ctx.Err() == nil {
		if err := s.step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// load fills the memory from the held topic and the rows.
func (s *session) load(ctx context.Context) error {
	dead, err := deadOf(s.work, s.store, s.opt.Held)
	if err != nil {
		return err
	}
	for i := range dead {
		s.drain.dead[dead[i].Position] = true
	}
	after := ackwise.Position("")
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		page, err := s.store.Scan(s.work, s.opt.Held, after, s.opt.Batch)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			if err := s.loadOne(&page[i]); err != nil {
				return fmt.Errorf("message %s at %s of %s: %w", page[i].Message.ID,
					page[i].Position, s.opt.Held, err)
			}
		}
		after = page[len(page)-1].Position
	}
}

func (s *session) loadOne(p *queue.Peeked) error {
	if s.drain.dead[p.Position] {
		return nil // its number is missing until somebody redrives it
	}
	if s.isUnfit(p.Position) {
		s.drain.gone++
		return nil
	}
	a, err := s.m.Read(&p.Message)
	if err == nil {
		err = s.learn(a.Key, time.Now())
	}
	if err == nil {
		a.Ref, err = refOf(p.Position)
	}
	if err == nil && !s.m.Restore(p.Accepted, a) {
		s.drain.gone++
	}
	return err
}

// learn makes sure that the machine knows a key.
func (s *session) learn(key string, now time.Time) error {
	if s.m.Knows(key) {
		return nil
	}
	row, err := s.store.Get(s.work, s.opt.Table, key)
	if err != nil {
		return fmt.Errorf("read row: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m.Learn(now, key, row.Value)
}

// Waits of the loop.
const (
	maxIdle  = time.Second           // with nothing to do
	fullWait = 50 * time.Millisecond // after a batch for which there was no room
	minWait  = time.Millisecond
)

// step is one turn of the loop: orders, gaps, what may go, what is done with, and a new batch.
func (s *session) step(ctx context.Context) error {
	if err := s.carryOut(); err != nil {
		return err
	}
	if err := s.lookForGaps(ctx); err != nil {
		return err
	}
	for more := true; more && ctx.Err() == nil; {
		var err error
		if more, err = s.round(ctx, nil, nil); err != nil {
			return err
		}
	}
	if err := s.drainHeld(ctx); err != nil {
		return err
	}
	ds, err := s.receive(ctx, s.source, s.opt.Batch, s.pause())
	if err != nil || len(ds) == 0 {
		return err
	}
	_, err = s.round(ctx, ds, nil)
	return err
}

// pause is how long the source may keep us waiting.
func (s *session) pause() time.Duration {
	s.mu.Lock()
	wake := s.m.Wake()
	s.mu.Unlock()
	now := time.Now()
	d := maxIdle
	if !wake.IsZero() {
		if !s.opt.Order.ByStamp && wake.Before(s.askAt) {
			wake = s.askAt
		}
		d = min(d, wake.Sub(now))
	}
	return max(minWait, min(d, s.drain.pause(now)))
}

// receive takes what there is within a time; none is no error.
func (s *session) receive(ctx context.Context, from ackwise.Source, max int, wait time.Duration) (
	[]*ackwise.Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	ds, err := from.Receive(ctx, max)
	if err != nil && ctx.Err() != nil {
		return nil, nil // the caller looks whether it was the Run's
	}
	if err != nil {
		return nil, fmt.Errorf("receive: %w", err)
	}
	return ds, nil
}
