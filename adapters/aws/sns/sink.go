package sns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"
	"github.com/aws/aws-sdk-go-v2/service/sns/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
)

// maxTopics bounds the topics that a sink without one of its own remembers.
const maxTopics = 1000

// sink publishes to one topic, or to each message's own.
type sink struct {
	*account
	only   *topic // nil = each message's own
	closed atomic.Bool

	mu     sync.Mutex // guards topics
	topics map[string]*topic
}

// OpenSink opens a topic, which has to be there unless Create says that it may be made. Without a
// topic in the options only the credentials are checked, and each message's topic is looked for
// when it is first published to.
func OpenSink(ctx context.Context, o SinkOptions) (ackwise.Sink, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open a topic: %w", err)
	}
	a, err := connect(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open a topic: %w", err)
	}
	s := &sink{account: a, topics: map[string]*topic{}}
	if o.Topic != "" {
		ctx, cancel := s.bound(ctx)
		defer cancel()
		if s.only, err = a.find(ctx, o.Topic); err != nil {
			return nil, fmt.Errorf("open a topic: %w", err)
		}
	}
	return s, nil
}

func (s *sink) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, s.o.Timeout, fmt.Errorf("no answer within %s", s.o.Timeout))
}

// Features says what the topic does; of topics that each message names, what all of them do.
func (s *sink) Features() ackwise.SinkFeatures {
	f := ackwise.SinkFeatures{MaxBatch: maxCall, MaxBodyBytes: attr.SNSBytes}
	if s.only != nil {
		f.Dedup, f.MaxBodyBytes = s.only.fifo, s.only.maxBytes
	}
	return f
}

// Close refuses further messages. Calls under way end by themselves.
func (s *sink) Close() error {
	s.closed.Store(true)
	return nil
}

// entry is one message on its way.
type entry struct {
	topic   *topic
	body    string
	attrs   map[string]types.MessageAttributeValue
	group   *string // FIFO
	dedup   *string // FIFO
	size    int
	result  *ackwise.Result
	ordinal string // names it in its batch
}

// Publish publishes the messages in calls of up to ten, in their order.
func (s *sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	entries := make([]*entry, 0, len(msgs))
	for i := range msgs {
		e, err := s.entry(ctx, &msgs[i], &results[i])
		if err != nil {
			results[i].Err = err
			continue
		}
		e.ordinal = strconv.Itoa(i)
		entries = append(entries, e)
	}
	// The order between topics does not matter; within one it stays.
	slices.SortStableFunc(entries, func(a, b *entry) int {
		return cmp.Compare(a.topic.arn, b.topic.arn)
	})
	for len(entries) > 0 {
		n := together(entries)
		s.send(ctx, entries[:n])
		entries = entries[n:]
	}
	return results
}

// together returns how many of the first entries fit into one call.
func together(entries []*entry) int {
	n, size := 0, 0
	for n < min(len(entries), maxCall) {
		e := entries[n]
		size += e.size
		if n > 0 && (e.topic != entries[0].topic || size > e.topic.maxBytes) {
			break
		}
		n++
	}
	return n
}

// entry encodes a message. Where it cannot be sent, the result has its class.
func (s *sink) entry(ctx context.Context, m *ackwise.Message, r *ackwise.Result) (*entry, error) {
	named := *m
	if named.ID == "" {
		named.ID = ackwise.NewID(time.Now())
	}
	r.ID, r.Class = named.ID, ackwise.ResultRetryable
	if s.closed.Load() {
		return nil, fmt.Errorf("publish to SNS: %w", ackwise.ErrClosed)
	}
	t, err := s.topicOf(ctx, m.Topic)
	if err != nil {
		if _, ok := errors.AsType[*ackwise.InvalidError](err); ok {
			r.Class = ackwise.ResultRejected
		}
		return nil, fmt.Errorf("publish to SNS: %w", err)
	}
	coded, err := attr.Encode(&named, t.maxBytes)
	if err != nil {
		r.Class = ackwise.ResultRejected
		return nil, fmt.Errorf("publish to SNS: %w", err)
	}
	e := &entry{topic: t, body: coded.Body, size: coded.Size(), result: r,
		attrs: make(map[string]types.MessageAttributeValue, len(coded.Attributes))}
	for _, a := range coded.Attributes {
		v := types.MessageAttributeValue{DataType: aws.String(a.Type)}
		if a.Type == attr.Binary {
			v.BinaryValue = a.Data
		} else {
			v.StringValue = aws.String(a.Text)
		}
		e.attrs[a.Name] = v
	}
	if t.fifo {
		e.group, e.dedup = aws.String(attr.Group(&named)), aws.String(attr.DedupID(&named))
	}
	return e, nil
}

func (s *sink) topicOf(ctx context.Context, name string) (*topic, error) {
	if s.only != nil {
		return s.only, nil
	}
	s.mu.Lock()
	t := s.topics[name]
	s.mu.Unlock()
	if t != nil {
		return t, nil
	}
	ctx, cancel := s.bound(ctx)
	defer cancel()
	t, err := s.find(ctx, name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.topics) >= maxTopics {
		clear(s.topics)
	}
	s.topics[name] = t
	return t, nil
}

// send publishes entries of one topic in one call, or one by one where the call was refused
// because of one of them.
func (s *sink) send(ctx context.Context, entries []*entry) {
	if len(entries) == 1 {
		s.sendOne(ctx, entries[0])
		return
	}
	err := s.sendBatch(ctx, entries)
	switch {
	case err == nil:
	case aloneHelps(err):
		for _, e := range entries {
			s.sendOne(ctx, e)
		}
	default:
		for _, e := range entries {
			s.failed(e, "PublishBatch", err)
		}
	}
}

func (s *sink) sendOne(ctx context.Context, e *entry) {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	out, err := s.api.Publish(ctx, &sns.PublishInput{TopicArn: &e.topic.arn, Message: &e.body,
		MessageAttributes: e.attrs, MessageGroupId: e.group, MessageDeduplicationId: e.dedup})
	if err != nil {
		s.failed(e, "Publish", err)
		return
	}
	e.accepted(out.MessageId, out.SequenceNumber)
}

func (s *sink) sendBatch(ctx context.Context, entries []*entry) error {
	ctx, cancel := s.bound(ctx)
	defer cancel()
	in := &sns.PublishBatchInput{TopicArn: &entries[0].topic.arn}
	byID := make(map[string]*entry, len(entries))
	for _, e := range entries {
		byID[e.ordinal] = e
		in.PublishBatchRequestEntries = append(in.PublishBatchRequestEntries,
			types.PublishBatchRequestEntry{Id: &e.ordinal, Message: &e.body, MessageAttributes: e.attrs,
				MessageGroupId: e.group, MessageDeduplicationId: e.dedup})
	}
	out, err := s.api.PublishBatch(ctx, in)
	if err != nil {
		return err
	}
	for i := range out.Successful {
		ok := &out.Successful[i]
		if e := byID[aws.ToString(ok.Id)]; e != nil {
			e.accepted(ok.MessageId, ok.SequenceNumber)
			delete(byID, e.ordinal)
		}
	}
	for i := range out.Failed {
		if e := byID[aws.ToString(out.Failed[i].Id)]; e != nil {
			s.failed(e, "PublishBatch", entryError(&out.Failed[i]))
			delete(byID, e.ordinal)
		}
	}
	for _, e := range byID {
		e.result.Class = ackwise.ResultUnknown
		e.result.Err = fmt.Errorf("publish to SNS: %w", errNoResult)
	}
	return nil
}

func (e *entry) accepted(id, sequence *string) {
	e.result.Class, e.result.Err = ackwise.ResultAccepted, nil
	e.result.Position = ackwise.Position(aws.ToString(id))
	if n := aws.ToString(sequence); n != "" {
		e.result.Position = ackwise.Position(n)
	}
}

func (s *sink) failed(e *entry, action string, err error) {
	e.result.Class = classOf(err)
	err = s.explain(action, e.topic.arn, err)
	if missing(err) {
		err = &ackwise.HintError{Err: err, Hint: "The topic was deleted. Make it again, or stop this " +
			"pipeline."}
	}
	e.result.Err = fmt.Errorf("publish to SNS: %w", err)
}
