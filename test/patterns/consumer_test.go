package patterns

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/internal/pause"
)

// order is a delivery that a consumer gets, a line of JSON.
type order struct {
	N       int             `json:"n"`
	Message ackwise.Message `json:"message"`
	Fail    bool            `json:"fail,omitempty"` // its handler fails before the effect
	Die     string          `json:"die,omitempty"`  // the consumer dies at this step
}

// What a consumer says of a delivery.
const (
	saidAck      = "ack"
	saidNack     = "nack"
	saidEffect   = "effect"   // outside of the store, made now
	saidTakeover = "takeover" // its claim was somebody else's
	saidBusy     = "busy"     // somebody else has the claim
	saidDone     = "done"     // the effect was made before
	saidConflict = "conflict" // compare-and-set found another value
	saidDying    = "dying"
)

// saying is a line of JSON that a consumer writes.
type saying struct {
	N     int           `json:"n"`
	What  string        `json:"what"`
	ID    string        `json:"id"`
	Step  string        `json:"step,omitempty"`
	Delay time.Duration `json:"delay,omitempty"` // saidNack: of a snooze
	Err   string        `json:"err,omitempty"`
}

var (
	// Nobody tries again what a closed store has refused.
	errDead   = fmt.Errorf("this consumer is dead: %w", ackwise.ErrClosed)
	errFailed = errors.New("the handler failed, as it was told to")
)

// consumer is one consumer, a process or a goroutine.
type consumer struct {
	process bool // it dies by SIGKILL
	handle  ackwise.Handler
	kill    func() // ends the pipes of a goroutine
	dead    atomic.Bool

	mu  sync.Mutex // guards out: one write a line
	out io.Writer
}

type orderKey struct{}

// serve handles what comes in until its end.
func (c *consumer) serve(ctx context.Context, in io.Reader) error {
	var handlers sync.WaitGroup
	defer handlers.Wait()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		o := new(order)
		if err := json.Unmarshal(lines.Bytes(), o); err != nil {
			return fmt.Errorf("read order: %w", err)
		}
		handlers.Go(func() { c.one(context.WithValue(ctx, orderKey{}, o), o) })
	}
	return nil
}

func (c *consumer) one(ctx context.Context, o *order) {
	d := &ackwise.Delivery{Message: o.Message, Attempt: 1}
	err := c.step(ctx, "begin")
	if err == nil {
		err = c.handle.Handle(ctx, d)
	}
	if err == nil {
		err = c.step(ctx, "end")
	}
	v := ackwise.OutcomeOf(err)
	s := saying{N: o.N, What: saidAck, ID: o.Message.ID, Delay: v.Delay, Err: v.Reason}
	if v.Outcome != ackwise.OutcomeAck {
		s.What = saidNack
	}
	c.say(s)
}

// say writes a line, unless the consumer is dead. What cannot be written any more is not heard.
func (c *consumer) say(s saying) {
	line, err := json.Marshal(s)
	if err != nil {
		panic(err) // it is made of texts and numbers
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.dead.Load() {
		_, _ = c.out.Write(append(line, '\n'))
	}
}

// tell says something of the delivery that ctx belongs to.
func (c *consumer) tell(ctx context.Context, what string) {
	if o, ok := ctx.Value(orderKey{}).(*order); ok {
		c.say(saying{N: o.N, What: what, ID: o.Message.ID})
	}
}

// step is where a consumer may be told to die. It returns errDead in one that is dead.
func (c *consumer) step(ctx context.Context, name string) error {
	o, ok := ctx.Value(orderKey{}).(*order)
	if ok && o.Die == name && !c.dead.Load() {
		c.say(saying{N: o.N, What: saidDying, ID: o.Message.ID, Step: name})
		if c.process {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {} // it comes at once
		}
		if c.dead.CompareAndSwap(false, true) {
			c.kill()
		}
	}
	if c.dead.Load() {
		return errDead
	}
	return nil
}

// around makes a call between two steps.
func (c *consumer) around(ctx context.Context, name string, call func() error) error {
	if err := c.step(ctx, "before "+name); err != nil {
		return err
	}
	err := call()
	if dead := c.step(ctx, "after "+name); dead != nil {
		return dead // nobody is left to hear the answer
	}
	return err
}

// failing fails where the delivery says so.
func failing(ctx context.Context) error {
	if o, ok := ctx.Value(orderKey{}).(*order); ok && o.Fail {
		return errFailed
	}
	return nil
}

// store is a Store as a consumer that may die sees it.
type store struct {
	idempotency.Store
	c *consumer
}

// Claim implements idempotency.Store.
func (s *store) Claim(ctx context.Context, asks []idempotency.Ask) (
	answers []idempotency.Answer, err error) {
	err = s.c.around(ctx, "claim", func() error {
		answers, err = s.Store.Claim(ctx, asks)
		for _, a := range answers {
			switch {
			case a.Takeover:
				s.c.tell(ctx, saidTakeover)
			case a.Status == idempotency.Busy:
				s.c.tell(ctx, saidBusy)
			case a.Status == idempotency.Done:
				s.c.tell(ctx, saidDone)
			}
		}
		return err
	})
	return answers, err
}

// Settle implements idempotency.Store.
func (s *store) Settle(ctx context.Context, claims []idempotency.Settlement) (
	results []error, err error) {
	name := "extend"
	for _, claim := range claims {
		switch claim.Verb {
		case idempotency.Complete:
			name = "complete"
		case idempotency.Release:
			name = "release"
		}
	}
	err = s.c.around(ctx, name, func() error {
		results, err = s.Store.Settle(ctx, claims)
		return err
	})
	return results, err
}

// table is a Table as a consumer that may die sees it.
type table struct {
	idempotency.Table
	c *consumer
}

// Get implements idempotency.Table.
func (t *table) Get(ctx context.Context, key string) (e idempotency.Entry, err error) {
	err = t.c.around(ctx, "get", func() error {
		e, err = t.Table.Get(ctx, key)
		if !t.c.process { // in memory nothing takes time, and nobody would come in between
			pause.For(ctx, 2*time.Millisecond)
		}
		return err
	})
	return e, err
}

// Put implements idempotency.Table.
func (t *table) Put(ctx context.Context, key string, data []byte) error {
	return t.c.around(ctx, "put", func() error { return t.Table.Put(ctx, key, data) })
}

// Swap implements idempotency.Table.
func (t *table) Swap(ctx context.Context, key string, old uint64, data []byte) (
	version uint64, err error) {
	err = t.c.around(ctx, "swap", func() error {
		version, err = t.Table.Swap(ctx, key, old, data)
		if errors.Is(err, idempotency.ErrChanged) {
			t.c.tell(ctx, saidConflict)
		}
		return err
	})
	return version, err
}

// Upsert implements idempotency.Table.
func (t *table) Upsert(ctx context.Context, key string, stamp ackwise.Stamp, data []byte) (
	wrote bool, err error) {
	err = t.c.around(ctx, "upsert", func() error {
		wrote, err = t.Table.Upsert(ctx, key, stamp, data)
		if err == nil && !wrote {
			t.c.tell(ctx, saidDone)
		}
		return err
	})
	return wrote, err
}
