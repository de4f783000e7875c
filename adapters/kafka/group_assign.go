package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// startMark is the metadata of a position at which nobody has read yet.
const startMark = "ackwise-start"

// committed is what the group remembers of a partition.
type committed struct {
	offset   int64 // -1: nothing
	metadata string
	id       [16]byte
}

// note returns the journal's note, or whatever another program has left in its place.
func (c *committed) note() []byte {
	if note, err := base64.StdEncoding.DecodeString(c.metadata); err == nil {
		return note
	}
	return []byte(c.metadata)
}

// fetched keeps the metadata that stands beside the offsets, which adjust is not given.
func (g *group) fetched(_ context.Context, _ *kgo.Client, r *kmsg.OffsetFetchResponse) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	clear(g.noted)
	for i := range r.Groups {
		for _, t := range r.Groups[i].Topics {
			for _, p := range t.Partitions {
				c := committed{offset: p.Offset, id: t.TopicID}
				if p.Metadata != nil {
					c.metadata = *p.Metadata
				}
				g.noted[partitionName(t.Topic, p.Partition)] = c
			}
		}
	}
	return nil
}

// adjust is called with the offsets of partitions that were added, before they are fetched.
func (g *group) adjust(ctx context.Context, offsets map[string]map[int32]kgo.Offset) (
	map[string]map[int32]kgo.Offset, error) {
	<-g.ready
	var fresh []*part
	g.mu.Lock()
	for topic, ps := range offsets {
		for n := range ps {
			name := partitionName(topic, n)
			if g.parts[name] == nil {
				fresh = append(fresh, g.newPart(topic, n))
			}
		}
	}
	g.mu.Unlock()
	changes, err := g.bound(ctx, fresh)
	if err != nil {
		return nil, err
	}
	if err := g.enter(ctx); err != nil {
		return nil, err
	}
	defer g.exit()
	g.admit(fresh, changes)
	g.mu.Lock()
	defer g.mu.Unlock()
	for topic, ps := range offsets {
		for n := range ps {
			if p := g.parts[partitionName(topic, n)]; p != nil {
				ps[n] = kgo.NewOffset().At(p.next)
			}
		}
	}
	return offsets, nil
}

func (g *group) newPart(topic string, n int32) *part {
	return &part{name: partitionName(topic, n), topic: topic, partition: n,
		released: make(chan struct{})}
}

// readmit makes partitions that the client has kept begin anew, from what the group remembers.
func (g *group) readmit(ctx context.Context, kept []*part) error {
	answers, err := g.adm.FetchOffsetsForTopics(kadm.RequireStable(ctx), g.opts.Group,
		g.opts.Topics...)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return err
	}
	var fresh []*part
	g.mu.Lock()
	for _, old := range kept {
		c := committed{offset: -1, id: old.id}
		if a, ok := answers.Lookup(old.topic, old.partition); ok {
			if a.Err != nil {
				g.mu.Unlock()
				return fmt.Errorf("fetch position of %s: %w", old.name, a.Err)
			}
			c.offset, c.metadata = a.At, a.Metadata
		}
		g.noted[old.name] = c
		fresh = append(fresh, g.newPart(old.topic, old.partition))
	}
	g.mu.Unlock()
	changes, err := g.bound(ctx, fresh)
	if err != nil {
		return err
	}
	if err := g.enter(ctx); err != nil {
		return err
	}
	defer g.exit()
	gone, seek := map[string][]int32{}, map[string]map[int32]kgo.EpochOffset{}
	for _, p := range fresh {
		gone[p.topic] = append(gone[p.topic], p.partition)
		if seek[p.topic] == nil {
			seek[p.topic] = map[int32]kgo.EpochOffset{}
		}
		seek[p.topic][p.partition] = kgo.EpochOffset{Epoch: -1, Offset: p.next}
	}
	g.drop(gone, false)
	g.admit(fresh, changes)
	g.cl.SetOffsets(seek)
	return nil
}

// enter waits until no poll is under way, and keeps the next one out.
func (g *group) enter(ctx context.Context) error {
	g.mu.Lock()
	g.wanted++
	g.wake()
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.wanted--
	}()
	select {
	case g.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (g *group) exit() { <-g.gate }

// admit takes partitions in.
func (g *group) admit(fresh []*part, changes []logsource.Change) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range fresh {
		delete(g.kicked, p.name)
		delete(g.awaited, p.name)
		_, before := g.stays[p.name]
		p.known = !before
		g.parts[p.name] = p
	}
	g.queue = append(g.queue, changes...)
}

// bound asks where the logs of partitions begin and end, and says where they are read from.
func (g *group) bound(ctx context.Context, fresh []*part) ([]logsource.Change, error) {
	if len(fresh) == 0 {
		return nil, nil
	}
	starts, err := g.adm.ListStartOffsets(ctx, g.opts.Topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the logs' starts: %w", err)
	}
	ends, err := g.adm.ListEndOffsets(ctx, g.opts.Topics...)
	if err != nil {
		return nil, fmt.Errorf("ask for the logs' ends: %w", err)
	}
	var changes []logsource.Change
	for _, p := range fresh {
		start, _ := starts.Lookup(p.topic, p.partition)
		end, _ := ends.Lookup(p.topic, p.partition)
		if start.Err != nil || end.Err != nil {
			return nil, fmt.Errorf("ask for the log of %s: %w", p.name, cmpErr(start.Err, end.Err))
		}
		g.mu.Lock()
		c, ok := g.noted[p.name]
		g.mu.Unlock()
		if !ok {
			c.offset = -1
		}
		changes = append(changes, g.begin(p, &c, start.Offset, end.Offset))
	}
	return changes, nil
}

func cmpErr(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// begin says where a partition is read from, given what the group remembers and its log's bounds.
func (g *group) begin(p *part, c *committed, start, end int64) logsource.Change {
	p.id = c.id
	ch := logsource.Change{Kind: logsource.Assigned, Partition: p.name, End: position(end - 1)}
	from := c.offset
	switch {
	case c.offset < 0:
		from = start
	case c.offset < start:
		from = start
		g.trimmed(&TrimmedError{Topic: p.topic, Partition: p.partition, From: c.offset, To: start})
	case c.offset > end:
		from = end
		g.trimmed(&TrimmedError{Topic: p.topic, Partition: p.partition, From: end, To: c.offset,
			Truncated: true})
	}
	p.base, p.next = from, from
	if c.offset >= 0 && c.metadata != startMark {
		ch.Position, ch.Note = position(from-1), c.note()
	}
	return ch
}

// trimmed reports a named loss, and ends the source where the options do not say to go on.
func (g *group) trimmed(err *TrimmedError) {
	g.observe(ackwise.Event{Kind: "trimmed", Time: time.Now(), Pipeline: g.opts.Log.Pipeline,
		ID: partitionName(err.Topic, err.Partition), Err: err})
	if !g.opts.SkipTrimmed {
		g.fail(&ackwise.HintError{Err: err, Hint: "on-trimmed=skip goes on where the log begins " +
			"(ends, if it was truncated); a longer retention keeps it from happening again"})
	}
}

// outOfRange finds out what happened to a log in which the next record is not.
func (g *group) outOfRange(ctx context.Context, p *part) {
	ctx = context.WithoutCancel(ctx) // the poll's own ends when somebody wants the gate
	ctx, cancel := context.WithTimeout(ctx, g.opts.SessionTimeout)
	defer cancel()
	starts, err := g.adm.ListStartOffsets(ctx, p.topic)
	start, ok := starts.Lookup(p.topic, p.partition)
	if err != nil || !ok || start.Err != nil {
		return // the fetch says it again
	}
	g.mu.Lock()
	next, held := p.next, g.parts[p.name] == p
	if held && start.Offset > next {
		p.next = start.Offset
	}
	g.mu.Unlock()
	switch {
	case !held:
	case start.Offset > next:
		g.trimmed(&TrimmedError{Topic: p.topic, Partition: p.partition, From: next,
			To: start.Offset})
		g.cl.SetOffsets(map[string]map[int32]kgo.EpochOffset{
			p.topic: {p.partition: {Epoch: -1, Offset: start.Offset}}})
	default:
		g.truncated(ctx, p, next)
	}
}

// truncated ends the source where a log ends before what was read: the offsets are used again for
// other records, which cannot be told from those that were read.
func (g *group) truncated(ctx context.Context, p *part, next int64) {
	ends, err := g.adm.ListEndOffsets(ctx, p.topic)
	end, ok := ends.Lookup(p.topic, p.partition)
	if err != nil || !ok || end.Err != nil || end.Offset >= next {
		return
	}
	g.fail(&TrimmedError{Topic: p.topic, Partition: p.partition, From: end.Offset, To: next,
		Truncated: true})
}
