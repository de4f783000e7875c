package ddbstore

import (
	"context"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// counter bounds the keys of a name. One item holds how many there are, by bucket of the time at
// which each was claimed or completed last; a bucket counts until its last key is out of time.
//
// A handle adds to the item once it has slack to add, so that most calls cost nothing. What it has
// not added when it dies is not counted: a bound may be passed by slack for each handle and each of
// its deaths within a window. An addition whose answer is lost may have happened, so it is not
// repeated; one that DynamoDB refused, because it is asked too much, is, but not at once. The count
// is above what is there only by releases whose answer was lost, until their bucket goes. A
// completion whose answer was lost counts with its claim's bucket.
type counter struct {
	max, slack int
	width      time.Duration
	keep       time.Duration // how long after its end a bucket counts
	turn       chan struct{} // holds one while sync runs

	mu      sync.Mutex // guards the fields below; not held across I/O
	kept    int        // in the item when it was last seen
	seen    time.Time  // when that was
	refused time.Time  // when an addition was refused last
	pending map[int64]int
}

// refresh is how old the count may be when a new key is refused by it, and how long flush adds
// nothing after an addition was refused.
const refresh = time.Second

func newCounter(o Options) *counter {
	width := max(o.Window/8, time.Millisecond)
	return &counter{max: o.MaxKeys, slack: max(1, o.MaxKeys/1000), width: width,
		keep: o.Window + o.MaxSkew, pending: make(map[int64]int),
		turn: make(chan struct{}, 1)}
}

// bucket says in which one a time is.
func (c *counter) bucket(now time.Time) int64 { return now.UnixMilli() / c.width.Milliseconds() }

// counts reports whether a bucket counts.
func (c *counter) counts(b int64, now time.Time) bool {
	end := time.UnixMilli((b + 1) * c.width.Milliseconds()).Add(c.keep)
	return now.Before(end)
}

// total is the count with what is not added yet. The caller holds mu.
func (c *counter) total(now time.Time) int {
	n := c.kept
	for b, d := range c.pending {
		if c.counts(b, now) {
			n += d
		}
	}
	return n
}

// full reports whether there is no room for another key.
func (c *counter) full(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total(now) >= c.max
}

// move counts a key that is in the bucket of to now, and no more in that of from; 0 is none.
func (c *counter) move(from, to int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from == to {
		return
	}
	if from != 0 {
		c.pending[from]--
	}
	if to != 0 {
		c.pending[to]++
	}
}

// stale reports whether the item should be looked at before keys are refused.
func (c *counter) stale(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total(now) >= c.max && now.Sub(c.seen) >= refresh
}

// ripe reports whether there is enough to add, and DynamoDB may be asked to.
func (c *counter) ripe(now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.refused) < refresh {
		return false
	}
	n := 0
	for _, d := range c.pending {
		n += max(d, -d)
	}
	return n >= c.slack
}

// load notes what the item holds.
func (c *counter) load(attributes item, now time.Time) (old []string) {
	kept := 0
	for name := range attributes {
		digits, ok := strings.CutPrefix(name, "b")
		b, err := strconv.ParseInt(digits, 10, 64)
		switch {
		case !ok || err != nil: // the key, the window
		case c.counts(b, now):
			kept += int(attributes.number(name))
		default:
			old = append(old, name)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept, c.seen = kept, now
	return old
}

// sync adds what is pending to the item, and reads it. One call of it runs at a time, so that no
// older answer comes after a newer one.
func (c *counter) sync(ctx context.Context, s *Store) error {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	now := s.now()
	adding := c.snapshot(now)
	if len(adding) == 0 {
		out, err := s.api.GetItem(ctx, &dynamodb.GetItemInput{TableName: &s.o.Table,
			Key: s.nameKey(), ConsistentRead: aws.Bool(true)})
		if err != nil {
			return cause(ctx, err)
		}
		c.load(out.Item, now)
		return nil
	}
	var add []string
	values := item{}
	for b, d := range adding {
		add = append(add, fmt.Sprintf("b%d :b%d", b, b))
		values[fmt.Sprintf(":b%d", b)] = number(int64(d))
	}
	out, err := s.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.o.Table,
		Key:                       s.nameKey(),
		UpdateExpression:          aws.String("ADD " + strings.Join(add, ", ")),
		ExpressionAttributeValues: values,
		ReturnValues:              types.ReturnValueAllNew,
	}, once)
	if throttled(err) {
		c.wait(now)
		return cause(ctx, err)
	}
	c.added(adding)
	if err != nil {
		return cause(ctx, err)
	}
	if old := c.load(out.Attributes, now); len(old) > 0 {
		_, err = s.api.UpdateItem(ctx, &dynamodb.UpdateItemInput{TableName: &s.o.Table,
			Key: s.nameKey(), UpdateExpression: aws.String("REMOVE " + strings.Join(old, ", "))})
		if err != nil {
			return cause(ctx, err)
		}
	}
	return nil
}

// snapshot returns what is to be added, and drops what does not count any more.
func (c *counter) snapshot(now time.Time) map[int64]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, d := range c.pending {
		if d == 0 || !c.counts(b, now) {
			delete(c.pending, b)
		}
	}
	return maps.Clone(c.pending)
}

// wait notes that an addition was refused. What it would have added stays pending.
func (c *counter) wait(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.refused = now
}

// added takes away what was added, or may have been.
func (c *counter) added(adding map[int64]int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b, d := range adding {
		c.pending[b] -= d
	}
}
