package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// recordRoom is what a record takes beside key, value and headers, at most: the head of its batch,
// and its own lengths.
const recordRoom = 128

// bodyRoom is what a message takes beside its body, its headers aside, at most: also the longest
// key, and the ID and the time as headers.
const bodyRoom = recordRoom + ackwise.MaxKeyBytes + ackwise.MaxIDBytes + 128

// headerRoom is what a header takes beside its name and value, at most.
const headerRoom = 10

var (
	errBehind = errors.New("an earlier message of its key was not accepted: " +
		"it has to be published behind that one")
	errNotTried = errors.New("not attempted: an earlier message of its key was not accepted")
)

// call is one Publish. What the producer answers comes from its goroutine, also after Publish has
// returned.
type call struct {
	s    *Sink
	msgs []ackwise.Message

	mu    sync.Mutex // guards all below
	recs  []sent
	left  int            // records without an answer
	all   chan struct{}  // closed when left is 0
	stuck map[string]int // keys of which a record failed, and the first one's index
}

// sent is what became of one message.
type sent struct {
	rec         *kgo.Record // nil = refused here, err says why
	tried, over bool
	alone       bool // err is about this one and no other
	err         error
	skip        error // why it was not attempted; nil = errNotTried
}

// newCall makes the records, and refuses what no broker would take.
func newCall(s *Sink, msgs []ackwise.Message) *call {
	c := &call{s: s, msgs: slices.Clone(msgs), recs: make([]sent, len(msgs))}
	now := time.Now()
	made := newRecords(msgs)
	for i := range c.msgs {
		m := &c.msgs[i]
		if m.ID == "" {
			m.ID = ackwise.NewID(now)
		}
		if s.o.Topic != "" {
			m.Topic = s.o.Topic
		}
		if err := s.check(m); err != nil {
			c.recs[i] = sent{over: true, err: err}
			continue
		}
		c.recs[i].rec = made.record(m)
		if err := s.fits(c.recs[i].rec, m.ID); err != nil {
			c.recs[i] = sent{over: true, err: err}
		}
	}
	return c
}

// check reports what is wrong with a message whatever the broker.
func (s *Sink) check(m *ackwise.Message) error {
	if m.Topic == "" {
		return &ackwise.InvalidError{Field: "topic", Reason: "the message names none, nor does the sink"}
	}
	if s.o.Topic == "" { // else it was looked at when the sink was opened
		if err := topicFault(m.Topic); err != nil {
			return err
		}
	}
	plain := *m
	plain.Topic = "t" // Kafka's rule is another one
	return plain.Validate()
}

// maxBody is the longest body that surely fits, whatever stands beside it; 0 = not known.
func (s *Sink) maxBody() int { return max(0, s.limit-bodyRoom) }

// fits reports whether a record is too long for its topic, as far as that is known here.
func (s *Sink) fits(r *kgo.Record, id string) error {
	if most := s.maxBody(); most > 0 && len(r.Value) > most {
		return &ackwise.InvalidError{Field: "body", Reason: fmt.Sprintf(
			"the body of the message %.80q has %d bytes, and one for the topic %s has at most %d "+
				"(its max.message.bytes, %d, less %d for key, ID and time)",
			id, len(r.Value), r.Topic, most, s.limit, bodyRoom)}
	}
	if n := size(r); s.limit > 0 && n > s.limit {
		return &ackwise.InvalidError{Field: "body", Reason: fmt.Sprintf(
			"the message %.80q takes %d bytes with its key and headers, and the topic %s takes at most "+
				"%d (max.message.bytes)", id, n, r.Topic, s.limit)}
	}
	return nil
}

// size is how long a record is in a batch of its own, uncompressed, at most.
func size(r *kgo.Record) int {
	n := recordRoom + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += headerRoom + len(h.Key) + len(h.Value)
	}
	return n
}

// produce publishes what is not over and waits for the answers, or for ctx.
func (c *call) produce(ctx context.Context, cl *kgo.Client) {
	c.mu.Lock()
	c.all, c.left = make(chan struct{}), 1 // one for this function
	all := c.all
	c.mu.Unlock()
	for i := range c.recs {
		if !c.next(i) {
			continue
		}
		cl.Produce(ctx, c.recs[i].rec, func(_ *kgo.Record, err error) { c.answer(i, err) })
	}
	c.mu.Lock()
	c.done()
	c.mu.Unlock()
	select {
	case <-all:
	case <-ctx.Done():
		c.abandon(ctx)
	}
}

// next counts a record in, unless one of its key has failed already.
func (c *call) next(i int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.recs[i].over {
		return false
	}
	if _, stuck := c.stuck[c.msgs[i].Key]; stuck {
		return false
	}
	c.recs[i].tried = true
	c.left++
	return true
}

// done counts an answer. mu is held.
func (c *call) done() {
	if c.left--; c.left == 0 {
		close(c.all)
	}
}

// answer takes what the producer says of a record.
func (c *call) answer(i int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := &c.recs[i]; !r.over {
		r.over, r.err = true, err
		if err != nil {
			c.fail(i)
		}
	}
	c.done()
}

// fail notes that nothing more of the key is to be produced. mu is held.
func (c *call) fail(i int) {
	if c.stuck == nil {
		c.stuck = map[string]int{}
	}
	if key := c.msgs[i].Key; key != "" {
		c.stuck[key] = i
	}
}

// abandon waits no longer: what has no answer is unknown.
func (c *call) abandon(ctx context.Context) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		if r := &c.recs[i]; r.tried && !r.over {
			r.over, r.err = true, context.Cause(ctx)
			c.fail(i)
		}
	}
}

// results fills in what became of each message.
func (c *call) results(out []ackwise.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var places places
	for i := range c.recs {
		out[i] = c.result(i)
		if out[i].Class == ackwise.ResultAccepted {
			out[i].Position = places.of(c.recs[i].rec)
		}
	}
	if len(c.stuck) > 0 {
		c.order(out)
	}
}

func (c *call) result(i int) ackwise.Result {
	r, m := &c.recs[i], &c.msgs[i]
	res := ackwise.Result{ID: m.ID}
	switch {
	case r.over && r.err == nil:
		res.Class = ackwise.ResultAccepted
	case r.rec == nil:
		res.Class, res.Err = ackwise.ResultRejected, fmt.Errorf("publish to %s: %w", m.Topic, r.err)
	case !r.over:
		res.Class, res.Err = ackwise.ResultNotAttempted, cmp.Or(r.skip, errNotTried)
	case refused(r.err) && !r.alone: // no time was left to find the guilty one
		res.Class, res.Err = ackwise.ResultNotAttempted, explain(r.err, m.Topic)
	default:
		res.Class = classify(r.err, c.s.o.Topic != "")
		res.Err = explain(r.err, m.Topic)
	}
	return res
}

// places writes where records were accepted: TOPIC/NUMBER/OFFSET. Neighbours are mostly of one
// partition.
type places struct {
	texts texts.Pages
	last  *kgo.Record
	text  []byte
	head  int // how much of text is the last one's partition
}

func (p *places) of(r *kgo.Record) ackwise.Position {
	if p.last == nil || p.last.Topic != r.Topic || p.last.Partition != r.Partition {
		p.text = append(append(p.text[:0], partitionName(r.Topic, r.Partition)...), '/')
		p.head, p.last = len(p.text), r
	}
	p.text = appendPosition(p.text[:p.head], r.Offset)
	return ackwise.Position(p.texts.Add(p.text))
}

// order makes unknown what was written of a key ahead of an earlier message of it that is to be
// published again, or was: the producer drops all of a partition's records at a failure, but takes
// what comes after.
func (c *call) order(out []ackwise.Result) {
	type seen struct {
		open bool
		last int64
	}
	keys := map[string]seen{}
	for i := range out {
		key := c.msgs[i].Key
		if key == "" || out[i].Class == ackwise.ResultRejected {
			continue
		}
		k := keys[key]
		switch {
		case out[i].Class != ackwise.ResultAccepted:
			k.open = true
		case k.open || c.recs[i].rec.Offset < k.last:
			out[i].Class, out[i].Position, out[i].Err = ackwise.ResultUnknown, "", errBehind
			k.open = true
		default:
			k.last = c.recs[i].rec.Offset
		}
		keys[key] = k
	}
}
