package kafka

import (
	"context"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
)

// alone publishes one record at a time, through a producer of its own: when the brokers refuse a
// batch they do not say to the client which of its records is to blame, and records of other calls
// may stand in it. A batch of one record has no doubt.
type alone struct {
	s    *Sink
	turn chan struct{} // holds one token: whoever has it produces
	cl   *kgo.Client   // made when it is first needed; belongs to the holder of the token
}

func newAlone(s *Sink) *alone {
	a := &alone{s: s, turn: make(chan struct{}, 1)}
	a.turn <- struct{}{}
	return a
}

// isolate publishes again, each alone and in their order, what was refused together.
func (c *call) isolate(ctx context.Context) {
	c.mu.Lock()
	var again []int
	for i := range c.recs {
		r := &c.recs[i]
		if _, stuck := c.stuck[c.msgs[i].Key]; r.rec != nil && (r.over && refused(r.err) ||
			stuck && !r.tried) {
			again = append(again, i)
		}
	}
	guilty := slices.ContainsFunc(again, func(i int) bool { return c.recs[i].over })
	c.mu.Unlock()
	if !guilty {
		return
	}
	select {
	case <-c.s.single.turn:
	case <-ctx.Done():
		return
	}
	defer func() { c.s.single.turn <- struct{}{} }()
	for _, i := range again {
		c.alone(ctx, i)
	}
}

// alone publishes one record by itself, unless one of its key is stuck for another reason than
// having been refused.
func (c *call) alone(ctx context.Context, i int) {
	a := c.s.single
	for _, r := range c.before(i) {
		if r.err != nil && !refused(r.err) || !r.over {
			return
		}
	}
	if ctx.Err() != nil {
		return
	}
	if a.cl == nil {
		cl, err := c.s.client()
		if err != nil {
			c.set(i, fmt.Errorf("make a producer: %w", err))
			return
		}
		a.cl = cl
	}
	// A copy: the first producer may still hold the record.
	rec := *c.recs[i].rec
	err := a.cl.ProduceSync(ctx, &rec).FirstErr()
	c.mu.Lock()
	c.recs[i].rec = &rec
	c.mu.Unlock()
	c.set(i, err)
}

// before returns what became of the earlier messages of i's key.
func (c *call) before(i int) []sent {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []sent
	for j := range i {
		if key := c.msgs[j].Key; key != "" && key == c.msgs[i].Key && c.recs[j].rec != nil {
			out = append(out, c.recs[j])
		}
	}
	return out
}

func (c *call) set(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &c.recs[i]
	r.over, r.tried, r.alone, r.err = true, true, true, err
}

func (a *alone) close() {
	<-a.turn
	defer func() { a.turn <- struct{}{} }()
	if a.cl != nil {
		a.cl.Close()
	}
}
