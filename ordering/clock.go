package ordering

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
)

// ClockOptions configure a Clock. Node and Keeper are required.
type ClockOptions struct {
	// Node names the producer in its stamps. No two clocks that run at a time may share a name:
	// their stamps could be equal. Required.
	Node string
	// Keeper makes the clock go on behind its last stamp after a restart. It is this clock's
	// alone. Required.
	Keeper Keeper
	// MaxDrift is how far ahead of the wall clock a stamp that is observed may be: one further
	// ahead is refused, so that one wrong clock does not carry all others away. It should be more
	// than the MaxDrift and Ahead of any peer together, whose own stamps may be that far ahead after
	// what it observed and a restart; and peers refuse the stamps of a clock whose wall was set back
	// by more, until the wall is there again. Default: 1 min.
	MaxDrift time.Duration
	// Ahead is how far ahead of the wall clock, or of a stamp that is observed, a time is kept, and
	// so how often the keeper saves, and how far a clock may jump at a restart. A clock that is that
	// far ahead of the wall already goes on by 1 ms at each restart. Default: 1 s.
	Ahead time.Duration
	// Now reads the wall clock. Default: time.Now.
	Now func() time.Time
}

func (o *ClockOptions) fill() error {
	o.MaxDrift = cmp.Or(o.MaxDrift, time.Minute)
	o.Ahead = cmp.Or(o.Ahead, time.Second)
	if o.Now == nil {
		o.Now = time.Now
	}
	var node, keeper error
	if o.Node == "" {
		node = &ackwise.InvalidError{Field: "Node", Reason: "a clock's stamps need its name"}
	} else {
		node = ackwise.Stamp{Node: o.Node}.Validate()
	}
	if o.Keeper == nil {
		keeper = &ackwise.InvalidError{Field: "Keeper",
			Reason: "without one a restart could give a stamp twice"}
	}
	return errors.Join(node, keeper, atLeast("MaxDrift", o.MaxDrift, time.Millisecond),
		atLeast("Ahead", o.Ahead, time.Millisecond))
}

// DriftError reports a stamp that is too far ahead of the wall clock.
type DriftError struct {
	Stamp ackwise.Stamp
	Wall  time.Time     // what the wall clock said
	Max   time.Duration // how far ahead is allowed
}

// Error names the stamp, how far it is ahead, and what is allowed.
func (e *DriftError) Error() string {
	ahead := time.Duration(e.Stamp.Millis-e.Wall.UnixMilli()) * time.Millisecond
	return fmt.Sprintf("the stamp %s is %s ahead of the wall clock, at most %s is allowed: "+
		"one of the two clocks is wrong", e.Stamp, ahead, e.Max)
}

// Clock is a hybrid logical clock: its stamps follow the wall clock, only grow, and are behind
// every stamp that it gave or observed. It is safe for concurrent use.
//
// A wall clock that is set back makes it count on from where it was. A counter that is full moves
// it a millisecond on. After a restart it begins at the limit that its keeper saved, which is ahead
// of all that was used.
type Clock struct {
	opt    ClockOptions
	saving chan struct{} // holds one token while somebody saves a limit; taken before mu

	mu    sync.Mutex // guards all below; not held across a save
	last  ackwise.Stamp
	limit int64 // stamps with Millis below it may be used: it is saved
}

// limitName is the record that a Clock keeps.
const limitName = "limit"

// NewClock returns a clock that goes on where its keeper says that it was.
func NewClock(ctx context.Context, o ClockOptions) (*Clock, error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	c := &Clock{opt: o, saving: make(chan struct{}, 1), last: ackwise.Stamp{Node: o.Node}}
	err := o.Keeper.Load(ctx, func(r Record) error {
		if r.Name != limitName || len(r.Value) != 8 {
			return fmt.Errorf("a clock does not write the record %.40q of %d bytes: the keeper "+
				"belongs to something else", r.Name, len(r.Value))
		}
		c.limit = int64(binary.BigEndian.Uint64(r.Value))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("load clock: %w", err)
	}
	// What was used is below the limit; the first stamp is the limit's own millisecond or later.
	c.last.Millis, c.last.Counter = c.limit-1, math.MaxUint32
	if c.limit == 0 {
		c.last.Millis = 0
	}
	return c, nil
}

// Now returns a stamp that is later than all that the clock gave or observed before, also before a
// restart. About once per Ahead it waits for the keeper.
func (c *Clock) Now(ctx context.Context) (ackwise.Stamp, error) {
	for {
		c.mu.Lock()
		next := c.next()
		if next.Millis < c.limit {
			c.last = next
			c.mu.Unlock()
			return next, nil
		}
		c.mu.Unlock()
		// Where the clock is ahead of the wall, the limit moves by a millisecond only: many restarts
		// in a row do not carry it away from its peers.
		upTo := c.opt.Now().Add(c.opt.Ahead).UnixMilli()
		if err := c.save(ctx, next.Millis, upTo); err != nil {
			return ackwise.Stamp{}, err
		}
	}
}

// next returns the stamp behind the last one. The caller holds mu.
func (c *Clock) next() ackwise.Stamp {
	s := c.last
	wall := c.opt.Now().UnixMilli()
	switch {
	case wall > s.Millis:
		s.Millis, s.Counter = wall, 0
	case s.Counter == math.MaxUint32:
		s.Millis, s.Counter = s.Millis+1, 0
	default:
		s.Counter++
	}
	return s
}

// Observe makes every later stamp of the clock later than s, also after a restart. A stamp that is
// further ahead of the wall clock than MaxDrift is refused with a *DriftError and changes nothing.
func (c *Clock) Observe(ctx context.Context, s ackwise.Stamp) error {
	if err := s.Validate(); err != nil {
		return err
	}
	wall := c.opt.Now()
	if s.Millis-wall.UnixMilli() > c.opt.MaxDrift.Milliseconds() {
		return &DriftError{Stamp: s, Wall: wall, Max: c.opt.MaxDrift}
	}
	for {
		c.mu.Lock()
		if s.Millis < c.limit {
			if s.Millis > c.last.Millis ||
				s.Millis == c.last.Millis && s.Counter > c.last.Counter {
				c.last.Millis, c.last.Counter = s.Millis, s.Counter
			}
			c.mu.Unlock()
			return nil
		}
		c.mu.Unlock()
		if err := c.save(ctx, s.Millis, s.Millis+c.opt.Ahead.Milliseconds()); err != nil {
			return err
		}
	}
}

// save moves the limit to upTo, and behind a time. One call saves for all that wait.
func (c *Clock) save(ctx context.Context, millis, upTo int64) error {
	select {
	case c.saving <- struct{}{}:
		defer func() { <-c.saving }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	c.mu.Lock()
	limit := c.limit
	c.mu.Unlock()
	if millis < limit {
		return nil
	}
	limit = max(millis+1, upTo)
	value := binary.BigEndian.AppendUint64(nil, uint64(limit))
	// Cut off half way it would be unknown whether the limit holds, so it is not cut off.
	err := c.opt.Keeper.Save(context.WithoutCancel(ctx), []Record{{Name: limitName, Value: value}})
	if err != nil {
		return fmt.Errorf("save clock: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.limit = limit
	return nil
}

func atLeast[T ~int | ~int64](field string, value, least T) error {
	if value < least {
		return &ackwise.InvalidError{Field: field,
			Reason: fmt.Sprintf("it is %v, at least %v is needed", value, least)}
	}
	return nil
}
