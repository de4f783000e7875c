package bench

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// order is what a child is started for.
type order struct {
	Dir      string `json:"dir"`
	Kind     Kind   `json:"kind"`
	Phase    string `json:"phase"`
	Messages int    `json:"messages"`
	Size     int    `json:"size"`
	Keys     int    `json:"keys"`
	Seed     uint64 `json:"seed"`
}

const (
	phaseFill  = "fill"  // make the store and fill it, then wait to be killed
	phaseDrain = "drain" // open the store, receive a message; when told to, the others; and close
)

// said is what a child says: how far it is, or that it is ready and waits to be told to go on.
type said struct {
	Ready      bool                    `json:"ready,omitempty"`
	Done       int64                   `json:"done,omitempty"`
	PerSecond  float64                 `json:"per_s,omitempty"`
	Sent       int64                   `json:"sent,omitempty"`
	Received   int64                   `json:"received,omitempty"`
	Nacked     int64                   `json:"nacked,omitempty"`
	Released   int64                   `json:"released,omitempty"`
	HandOuts   map[ackwise.Cause]int64 `json:"hand_outs,omitempty"`
	Delayed    int64                   `json:"delayed,omitempty"`
	Suppressed int64                   `json:"suppressed,omitempty"`
	Dropped    int64                   `json:"dropped,omitempty"`
	DropSecs   float64                 `json:"drop_s,omitempty"`
}

const (
	fillers     = 4
	fillBatch   = 512
	numberBytes = 8 // a body begins with its message's number
	dedupWindow = time.Hour
	dueIn       = 24 * time.Hour // of scheduled messages: the first; the last is due an hour later
	saidParts   = 200            // how often a child says how far it is
	knownSample = 1000           // IDs published again
)

// Child is the whole of a process that RunBacklog has started.
func Child(ctx context.Context, in io.Reader, out io.Writer) error {
	c := &child{in: bufio.NewReader(in), out: json.NewEncoder(out)}
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	if err := json.Unmarshal(line, &c.order); err != nil {
		return fmt.Errorf("read the order: %w", err)
	}
	c.body = make([]byte, c.Size)
	random := rand.New(rand.NewPCG(c.Seed, 0))
	for i := range c.body {
		c.body[i] = byte(random.Uint32())
	}
	if c.store, err = queue.Open(c.Dir, queue.Options{}); err != nil {
		return fmt.Errorf("open the store: %w", err)
	}
	switch {
	case c.Kind == KindKeys && c.Phase == phaseFill:
		err = c.fillKeys(ctx)
	case c.Kind == KindKeys:
		err = c.askKeys(ctx)
	case c.Phase == phaseFill:
		err = c.fill(ctx)
	default:
		err = c.drain(ctx)
	}
	return errors.Join(err, c.store.Close())
}

type child struct {
	order
	store *queue.Store
	body  []byte
	done  atomic.Int64
	in    *bufio.Reader

	saying sync.Mutex // guards out, also while it writes: nothing else waits for it
	out    *json.Encoder
}

func (c *child) say(s said) error {
	c.saying.Lock()
	defer c.saying.Unlock()
	if err := c.out.Encode(s); err != nil {
		return fmt.Errorf("tell the parent: %w", err)
	}
	return nil
}

// ready says so, and waits until the parent wants to go on.
func (c *child) ready(s said) error {
	s.Ready = true
	if err := c.say(s); err != nil {
		return err
	}
	if _, err := c.in.ReadByte(); err != nil {
		return fmt.Errorf("wait for the parent: %w", err)
	}
	return nil
}

// progress counts messages, and says so from time to time.
func (c *child) progress(n int) error {
	part := max(int64(c.Messages)/saidParts, 1)
	done := c.done.Add(int64(n))
	if done/part == (done-int64(n))/part {
		return nil
	}
	return c.say(said{Done: done})
}

func (c *child) fill(ctx context.Context) error {
	err := c.store.CreateTopic(ctx, topic, queue.TopicOptions{DedupWindow: dedupWindow,
		MaxDedupIDs: c.Messages + fillBatch, MaxMessages: c.Messages + fillBatch})
	if err == nil {
		err = c.store.CreateSubscription(ctx, topic, subscription,
			queue.SubscriptionOptions{Ordered: true})
	}
	if err != nil {
		return fmt.Errorf("make topic and subscription: %w", err)
	}
	begin := time.Now()
	s := said{}
	var wg sync.WaitGroup
	var drainErr error
	if c.Kind == KindIDs {
		wg.Go(func() { // ends when as many are acked as are published, or with an error
			var t tally
			drainErr = c.drainAll(ctx, &t)
			s.Received = t.acked
		})
	}
	batches := (c.Messages + fillBatch - 1) / fillBatch
	err = inParallel(batches, fillers, func(batch int) error { return c.publishBatch(ctx, batch) })
	if err != nil {
		return err // the process ends, and its consumer with it
	}
	wg.Wait()
	if drainErr != nil {
		return drainErr
	}
	s.Sent, s.PerSecond = c.done.Load(), float64(c.Messages)/time.Since(begin).Seconds()
	return c.ready(s)
}

func (c *child) publishBatch(ctx context.Context, batch int) error {
	from, to := batch*fillBatch, min((batch+1)*fillBatch, c.Messages)
	msgs := make([]ackwise.Message, 0, fillBatch)
	for n := from; n < to; n++ {
		msgs = append(msgs, c.message(n))
	}
	delay := time.Duration(0)
	if c.Kind == KindScheduled {
		seconds := int64(from) * 3600 / int64(c.Messages)
		delay = dueIn + time.Duration(seconds)*time.Second
	}
	for _, r := range c.store.Schedule(ctx, delay, msgs) {
		if r.Class != ackwise.ResultAccepted || r.Duplicate {
			return fmt.Errorf("publish %s: %s, duplicate %t: %w", r.ID, r.Class, r.Duplicate, r.Err)
		}
	}
	return c.progress(len(msgs))
}

const idPrefix = "message-"

// message is number n: its ID and its body say so.
func (c *child) message(n int) ackwise.Message {
	body := append(make([]byte, 0, c.Size), c.body...)
	binary.LittleEndian.PutUint64(body, uint64(n))
	key := uint64(n) * 0x9E3779B97F4A7C15 >> 32 % uint64(c.Keys) // spread, and the same each time
	return ackwise.Message{Topic: topic, ID: idPrefix + strconv.Itoa(n),
		Key: "key-" + strconv.FormatUint(key, 10), Body: body}
}

// numberOf reads a message's number from its ID and its body.
func (c *child) numberOf(m *ackwise.Message) (int, error) {
	text, ok := strings.CutPrefix(m.ID, idPrefix)
	n, err := strconv.Atoi(text)
	if !ok || err != nil || n < 0 || n > c.Messages {
		return 0, fmt.Errorf("received %q, which was never sent", m.ID)
	}
	if len(m.Body) != c.Size || binary.LittleEndian.Uint64(m.Body) != uint64(n) {
		return 0, fmt.Errorf("received %q with another body", m.ID)
	}
	return n, nil
}
