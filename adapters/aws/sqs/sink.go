package sqs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

// sink is a queue as a sink.
type sink struct {
	q *queue
	o SinkOptions

	mu   sync.Mutex // guards seen; held for a few instructions
	seen ring[string, bool]
}

// maxSeen is how many receipts a sink of a FIFO queue remembers, to tell a duplicate: the service
// answers a repeated ID with the receipt of the first.
const maxSeen = 10_000

// OpenSink opens a queue as a sink. It finds the credentials and the queue, and reads how long a
// message of the queue may be.
func OpenSink(ctx context.Context, o SinkOptions) (ackwise.Sink, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open sink: %w", err)
	}
	var made settings
	if o.DeadLetters {
		made.retention = maxRetention
	}
	q, err := openQueue(ctx, o.Queue, made)
	if err != nil {
		return nil, fmt.Errorf("open sink: %w", err)
	}
	if o.DeadLetters && o.Logger != nil && q.retention > 0 && q.retention < maxRetention {
		o.Logger.WarnContext(ctx, "a queue deletes dead letters sooner than it could",
			"queue", q.Name, "after", q.retention.String(), "could", maxRetention.String(),
			"advice", fmt.Sprintf("set its MessageRetentionPeriod to %d, or copy letters forward in time "+
				"with renew in a redrive", seconds(maxRetention)))
	}
	return newSink(q, o), nil
}

func newSink(q *queue, o SinkOptions) *sink {
	return &sink{q: q, o: o, seen: newRing[string, bool](maxSeen)}
}

// again notes a receipt of a FIFO queue and reports whether it was given before.
func (s *sink) again(receipt string) bool {
	if !s.q.fifo() {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, before := s.seen.get(receipt)
	s.seen.put(receipt, true)
	return before
}

// Features says that a FIFO queue keeps the order of each key in one Publish and accepts an ID once
// in 5 minutes, and that a standard queue does neither.
func (s *sink) Features() ackwise.SinkFeatures {
	return ackwise.SinkFeatures{KeyRunSafe: s.q.fifo(), Dedup: s.q.fifo(), MaxBodyBytes: s.q.maxBytes}
}

// Close ends nothing: every call of Publish ends by itself.
func (s *sink) Close() error { return nil }

// parcel is one message on its way.
type parcel struct {
	entry  types.SendMessageBatchRequestEntry
	group  string
	size   int
	result *ackwise.Result
}

// Publish sends the messages in calls of at most ten and 1 MiB. Of a group of a FIFO queue one call
// has one message, and nothing is sent behind one that was not accepted: the service may accept the
// second of a call and not the first.
func (s *sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	parcels := make([]*parcel, 0, len(msgs))
	for i := range msgs {
		m := msgs[i]
		m.ID = cmp.Or(m.ID, ackwise.NewID(time.Now()))
		results[i] = ackwise.Result{ID: m.ID}
		p, err := s.parcel(&m)
		if err != nil {
			results[i].Class, results[i].Err = ackwise.ResultRejected, err
		}
		p.result = &results[i]
		parcels = append(parcels, p)
	}
	s.deliver(ctx, parcels)
	return results
}

// deliver sends parcels, wave after wave.
func (s *sink) deliver(ctx context.Context, parcels []*parcel) {
	stuck := map[string]bool{} // groups with a message that was not accepted
	for len(parcels) > 0 {
		var wave []*parcel
		wave, parcels = s.wave(parcels, stuck)
		batches := split(wave)
		together(len(batches), s.o.Calls, func(i int) { s.send(ctx, batches[i]) })
		for _, p := range wave {
			stuck[p.group] = s.q.fifo() && p.result.Class != ackwise.ResultAccepted
		}
	}
}

// parcel makes the entry of a message.
func (s *sink) parcel(m *ackwise.Message) (*parcel, error) {
	p := &parcel{}
	if s.q.fifo() {
		p.group = attr.Group(m)
		p.entry.MessageGroupId, p.entry.MessageDeduplicationId = &p.group, aws.String(attr.DedupID(m))
	}
	e, err := attr.Encode(m, s.q.maxBytes)
	if err != nil {
		return p, fmt.Errorf("put the message into attributes: %w", err)
	}
	p.size = e.Size()
	p.entry.MessageBody, p.entry.MessageAttributes = &e.Body, attributes(e.Attributes)
	return p, nil
}

func attributes(list []attr.Attribute) map[string]types.MessageAttributeValue {
	values := make(map[string]types.MessageAttributeValue, len(list))
	for _, a := range list {
		v := types.MessageAttributeValue{DataType: aws.String(a.Type)}
		if a.Data != nil {
			v.BinaryValue = a.Data
		} else {
			v.StringValue = aws.String(a.Text)
		}
		values[a.Name] = v
	}
	return values
}

// wave takes what may be sent now: of a FIFO queue one message of each group. What stands behind a
// message that was not accepted, in this wave or an earlier one, is not attempted.
func (s *sink) wave(parcels []*parcel, stuck map[string]bool) (now, later []*parcel) {
	taken := map[string]bool{}
	for _, p := range parcels {
		switch {
		case p.result.Err != nil: // rejected before it was sent
			stuck[p.group] = s.q.fifo()
		case stuck[p.group]:
			p.result.Class, p.result.Err = ackwise.ResultNotAttempted, errBehind
		case taken[p.group] && s.q.fifo():
			later = append(later, p)
		default:
			taken[p.group] = true
			now = append(now, p)
		}
	}
	return now, later
}

// split gathers parcels to calls.
func split(parcels []*parcel) [][]*parcel {
	var batches [][]*parcel
	size := 0
	for _, p := range parcels {
		if n := len(batches); n == 0 || len(batches[n-1]) == maxCall || size+p.size > attr.SQSBytes {
			batches, size = append(batches, nil), 0
		}
		last := &batches[len(batches)-1]
		*last = append(*last, p)
		size += p.size
	}
	return batches
}

var errBehind = errors.New("an earlier message of the same group was not accepted")

// send makes one call. Where it is refused as a whole because of one of its messages, each goes
// alone.
func (s *sink) send(ctx context.Context, batch []*parcel) {
	if err := context.Cause(ctx); err != nil {
		for _, p := range batch {
			p.result.Class, p.result.Err = ackwise.ResultNotAttempted, fmt.Errorf("not sent: %w", err)
		}
		return
	}
	in := &sqs.SendMessageBatchInput{QueueUrl: &s.q.url}
	for i, p := range batch {
		p.entry.Id = aws.String(strconv.Itoa(i))
		in.Entries = append(in.Entries, p.entry)
		p.result.Class, p.result.Err = ackwise.ResultUnknown, errNoResult
	}
	call, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	out, err := s.q.api.SendMessageBatch(call, in)
	if err != nil {
		if len(batch) > 1 && aloneHelps(err) {
			for i := range batch {
				s.send(ctx, batch[i:i+1])
			}
			return
		}
		for _, p := range batch {
			p.result.Class, p.result.Err = classOf(err), s.q.explain("SendMessage", err)
		}
		return
	}
	for i := range out.Failed {
		if p := at(batch, out.Failed[i].Id); p != nil {
			err := entryError(&out.Failed[i])
			p.result.Class, p.result.Err = classOf(err), s.q.explain("SendMessage", err)
		}
	}
	for i := range out.Successful {
		e := &out.Successful[i]
		if p := at(batch, e.Id); p != nil {
			p.result.Class, p.result.Err = ackwise.ResultAccepted, nil
			p.result.Duplicate = s.again(aws.ToString(e.MessageId))
			p.result.Position = ackwise.Position(cmp.Or(aws.ToString(e.SequenceNumber),
				aws.ToString(e.MessageId)))
		}
	}
}

func at(batch []*parcel, id *string) *parcel {
	i, err := strconv.Atoi(aws.ToString(id))
	if err != nil || i < 0 || i >= len(batch) {
		return nil
	}
	return batch[i]
}
