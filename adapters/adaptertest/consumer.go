package adaptertest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
)

// setup is how a consumer's loop is set up.
type setup struct {
	Concurrency int           `json:"concurrency"`
	MaxInFlight int           `json:"max_in_flight"`
	MaxCrashes  int           `json:"max_crashes"`
	MaxHandOuts int           `json:"max_hand_outs"`
	StopGrace   time.Duration `json:"stop_grace"`

	SettleTimeout time.Duration `json:"settle_timeout"`
}

// consumer is the loop of a consumer that its test drives: every delivery waits for an order.
type consumer struct {
	undo  func(*ackwise.Message)
	out   *lineWriter
	die   func()        // ends the process, or what stands for it
	gone  chan struct{} // closed when what stands for the process was killed
	stop  context.CancelFunc
	inner ackwise.Source

	mu      sync.Mutex // guards the fields below
	n       int
	waiting map[int]chan order
	ids     map[ackwise.LeaseToken]string // of what is held
	swallow bool
}

func newConsumer(src ackwise.Source, undo func(*ackwise.Message), out io.Writer) *consumer {
	if undo == nil {
		undo = func(*ackwise.Message) {}
	}
	return &consumer{undo: undo, out: &lineWriter{w: out}, gone: make(chan struct{}), inner: src,
		waiting: map[int]chan order{}, ids: map[ackwise.LeaseToken]string{}}
}

// run consumes until it is told to stop, or the orders end.
func (c *consumer) run(ctx context.Context, s setup, in io.Reader) error {
	ctx, c.stop = context.WithCancel(ctx)
	defer c.stop()
	var obeying sync.WaitGroup
	obeying.Go(func() { c.obey(in) }) // until the test closes the orders: it has heard of the end
	defer obeying.Wait()
	f := c.inner.Features()
	c.say(said{Kind: saysOpen, Features: &f})
	o := deliver.Options{Pipeline: "suite", Concurrency: s.Concurrency, MaxInFlight: s.MaxInFlight,
		MaxCrashes: s.MaxCrashes, MaxHandOuts: s.MaxHandOuts, MaxFailures: deliver.Unlimited,
		StopGrace: s.StopGrace, SettleTimeout: s.SettleTimeout, RevokeGrace: 300 * time.Millisecond,
		Backoff: deliver.Backoff{First: 10 * time.Millisecond, Cap: 50 * time.Millisecond},
		Breaker: deliver.Breaker{Off: true}, RetryBudget: deliver.RetryBudget{Off: true},
		Observe: c.observe}
	if !f.Dead {
		o.DeadLetters = deliver.DeadLetterFunc(c.bury)
	}
	err := deliver.Run(ctx, &spy{c.inner, c}, ackwise.HandlerFunc(c.handle), o)
	if isClosed(c.gone) {
		return nil // a killed process closes nothing
	}
	err = errors.Join(err, c.inner.Close())
	if err != nil {
		c.say(said{Kind: saysFailed, Reason: err.Error()})
		return err
	}
	c.say(said{Kind: saysEnded})
	return nil
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func (c *consumer) say(s said) {
	s.At = time.Now().UnixNano()
	_ = c.out.write(s) // nobody to tell where nobody reads
}

// obey reads orders. Their end is a stop: the test is gone.
func (c *consumer) obey(in io.Reader) {
	defer c.stop()
	_ = eachLine(in, func(o order) {
		c.mu.Lock()
		ch := c.waiting[o.N]
		if o.Do == doSwallow {
			c.swallow = true
		}
		c.mu.Unlock()
		switch {
		case o.Do == doStop:
			c.stop()
		case ch != nil:
			ch <- o // it has room for the one order
		}
	})
}

// wait says what happened and waits for its order.
func (c *consumer) wait(ctx context.Context, s said) (order, error) {
	ch := make(chan order, 1)
	c.mu.Lock()
	c.n++
	s.N = c.n
	s.Held = len(c.ids)
	c.waiting[s.N] = ch
	c.mu.Unlock()
	c.say(s)
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.waiting, s.N)
	}()
	select {
	case o := <-ch:
		return o, nil
	case <-ctx.Done():
		s.Kind, s.Reason = saysInterrupted, context.Cause(ctx).Error()
		c.say(s)
		return order{}, context.Cause(ctx)
	}
}

func (c *consumer) describe(kind string, d *ackwise.Delivery) said {
	m := d.Message
	c.undo(&m)
	return said{Kind: kind, ID: m.ID, Key: []byte(m.Key), Token: []byte(d.Token), Sum: sumOf(&m),
		Partition: d.Partition, Attempt: d.Attempt, Cause: d.Cause, Counts: d.Counts, Time: m.Time}
}

var errAsked = errors.New("the suite asked for a failure")

func (c *consumer) handle(ctx context.Context, d *ackwise.Delivery) error {
	o, err := c.wait(ctx, c.describe(saysGot, d))
	if err != nil {
		return err
	}
	switch o.Do {
	case doNack:
		return ackwise.RetryAfter(errAsked, o.Delay)
	case doSnooze:
		return ackwise.Snooze(o.Delay)
	case doDie:
		c.say(said{Kind: saysDies, ID: d.ID})
		c.die()
		<-c.gone
	}
	return nil
}

// bury tells the test of a dead letter, and is durable when the test has heard.
func (c *consumer) bury(ctx context.Context, d *ackwise.Delivery, reason string) error {
	s := c.describe(saysDead, d)
	s.Reason = reason
	_, err := c.wait(ctx, s)
	return err
}

func (c *consumer) observe(e ackwise.Event) {
	if e.Kind == "dead" {
		c.say(said{Kind: saysDead, ID: e.ID})
	}
}

// spy stands before the source: it knows what is held, and can keep back an answer.
type spy struct {
	ackwise.Source
	c *consumer
}

// Receive notes what was received.
func (s *spy) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	ds, err := s.Source.Receive(ctx, most)
	if len(ds) > most {
		err = errors.Join(err, fmt.Errorf("it gave %d deliveries, %d were asked for", len(ds), most))
		s.c.say(said{Kind: saysFailed, Reason: err.Error()})
	}
	for _, d := range ds {
		line := s.c.describe(saysReceived, d)
		s.c.mu.Lock()
		s.c.ids[d.Token] = line.ID
		line.Held = len(s.c.ids)
		s.c.mu.Unlock()
		s.c.say(line)
	}
	return ds, err
}

// Settle settles, says what has come of it, and keeps the answer back where it was told to.
func (s *spy) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	c := s.c
	for _, one := range ss {
		if one.Outcome != ackwise.OutcomeExtend {
			c.say(said{Kind: saysSettling, Token: []byte(one.Token), Outcome: one.Outcome.String()})
		}
	}
	results := s.Source.Settle(ctx, ss)
	if len(results) != len(ss) {
		c.say(said{Kind: saysFailed, Reason: fmt.Sprintf("%d settlements got %d results", len(ss),
			len(results))})
	}
	swallowed := false
	for i, r := range results {
		if ss[i].Outcome != ackwise.OutcomeExtend {
			swallowed = c.settled(&ss[i], r.Err) || swallowed
		}
	}
	if swallowed {
		<-c.gone // the answer never comes: the process is killed now
	}
	return results
}

// settled says what has come of a settlement, and reports whether its answer is to be kept back.
func (c *consumer) settled(s *ackwise.Settlement, err error) (swallowed bool) {
	c.mu.Lock()
	id, known := c.ids[s.Token]
	if err == nil || isLost(err) {
		delete(c.ids, s.Token)
	}
	swallowed = c.swallow && err == nil && s.Outcome == ackwise.OutcomeAck
	c.mu.Unlock()
	line := said{Kind: saysSettled, ID: id, Token: []byte(s.Token), Outcome: s.Outcome.String()}
	switch {
	case err != nil:
		line.Kind, line.Reason, line.Lost = saysRefused, err.Error(), isLost(err)
	case !known: // it was told before
		return false
	case swallowed:
		line.Kind = saysSwallowed
	}
	c.say(line)
	return swallowed
}
