package sqs

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
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
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
)

// source is a queue as a source.
type source struct {
	q      *queue
	o      SourceOptions
	lease  time.Duration
	cancel context.CancelFunc // ends the polls
	base   context.Context    //nolint:containedctx // of the polls, which outlive a Receive
	polls  sync.WaitGroup

	mu      sync.Mutex // guards all below; never held during I/O
	book    *book
	ready   []*entry // received, and not handed out yet, in order
	running int      // polls
	asked   int      // messages that they may bring
	width   int      // how many polls may run: grows with full ones, ends with an empty one
	pollErr error    // what the last poll said
	changed chan struct{}
	closed  bool
}

// OpenSource opens a queue as a source. It finds the credentials and the queue, and reads the
// queue's visibility timeout; it receives nothing yet.
func OpenSource(ctx context.Context, o SourceOptions) (ackwise.Source, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	q, err := openQueue(ctx, o.Queue, settings{lease: o.Lease})
	if err != nil {
		return nil, fmt.Errorf("open source: %w", err)
	}
	lease := cmp.Or(o.Lease, q.lease)
	if lease == 0 {
		return nil, fmt.Errorf("open source: %w", &ackwise.InvalidError{Field: "Lease",
			Reason: "the queue's visibility timeout is 0, so that a hand-out would be nobody's: set one"})
	}
	var id [8]byte
	rand.Read(id[:]) // never fails, see crypto/rand
	base, cancel := context.WithCancel(context.WithoutCancel(ctx))
	return &source{q: q, o: o, lease: lease, base: base, cancel: cancel, width: 1,
		book:    newBook(binary.BigEndian.Uint64(id[:]), q.fifo(), o.MaxRemembered),
		changed: make(chan struct{})}, nil
}

// maxNackDelay leaves an hour of the 12 to the handler.
const maxNackDelay = 11 * time.Hour

// Features says that a standard queue keeps no order, and that a FIFO queue keeps that of each
// group. The latter delays no nack: the loop holds the failed message, so that those behind it in
// its run are not handed out, and counted, again and again for nothing. A redrive policy of the
// queue bounds the hand-outs: the loop writes the dead letter before SQS moves the message.
func (s *source) Features() ackwise.Features {
	f := ackwise.Features{Lease: s.lease, Extend: true, MaxNackDelay: maxNackDelay, HandOuts: true,
		MaxHandOuts: s.q.maxReceives}
	if s.q.fifo() {
		f.Order, f.KeyRuns, f.MaxNackDelay = ackwise.OrderKey, true, 0
	}
	return f
}

// Receive hands out up to most messages. Polls go on where ctx ends: what they bring is for a
// later call.
func (s *source) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		fresh, old, wait, err := s.take(max(1, most))
		if err != nil {
			return nil, err
		}
		fresh = append(fresh, s.renew(ctx, old)...)
		if len(fresh) > 0 {
			ds := make([]*ackwise.Delivery, len(fresh))
			for i, e := range fresh {
				ds[i] = e.delivery
			}
			return ds, nil
		}
		if len(old) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-wait:
		}
	}
}

// take claims what is ready: fresh, or so old that its lease has to be renewed first. Where nothing
// is, it starts polls.
func (s *source) take(most int) (fresh, old []*entry, wait <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.closed {
		return nil, nil, nil, ackwise.ErrClosed
	}
	ready := s.ready
	s.ready = nil
	for i, e := range ready {
		switch {
		case s.book.held[e.serial] != e: // received again meanwhile, or lost with its run
		case !now.Before(e.came.Add(s.lease)):
			s.book.loseRun(e)
		case len(fresh)+len(old) == most:
			s.ready = append(s.ready, ready[i])
		case e.deadline.Sub(now) < s.lease/2: // or over, where the answer took long
			old = append(old, e)
		default:
			fresh = append(fresh, e)
		}
	}
	if len(fresh)+len(old) > 0 {
		return fresh, old, nil, nil
	}
	if err := s.pollErr; err != nil {
		s.pollErr = nil
		return nil, nil, nil, err
	}
	if len(s.book.held)+s.asked >= s.o.MaxHeld {
		if s.running > 0 {
			return nil, nil, s.changed, nil
		}
		return nil, nil, nil, &ackwise.HintError{Err: fmt.Errorf("%d messages are received and not "+
			"settled: %w", len(s.book.held), ackwise.ErrFull), Hint: "Settle some, or raise " +
			"SourceOptions.MaxHeld."}
	}
	s.startPolls(most)
	return nil, nil, s.changed, nil
}

// startPolls starts as many polls as are asked for and allowed. mu is held.
func (s *source) startPolls(most int) {
	for s.running < s.width && (s.running == 0 || s.asked < most) {
		n := min(maxCall, max(1, most-s.asked))
		s.running++
		s.asked += n
		s.polls.Go(func() { s.poll(n) }) // until its one call returns
	}
}

// renew extends leases of messages that waited here, and returns those that are still ours. Of a
// run none behind a lost one is.
func (s *source) renew(ctx context.Context, old []*entry) []*entry {
	if len(old) == 0 {
		return nil
	}
	ops := make([]*op, len(old))
	for i, e := range old {
		ops[i] = &op{e: e, outcome: ackwise.OutcomeExtend, seconds: seconds(s.lease)}
	}
	s.carryOut(ctx, ops)
	s.mu.Lock()
	defer s.mu.Unlock()
	var kept []*entry
	var back []*entry
	for _, o := range ops {
		switch {
		case s.book.held[o.e.serial] != o.e:
		case o.err != nil && ctx.Err() != nil: // for a later call
			back = append(back, o.e)
		case o.err != nil:
			s.book.loseRun(o.e)
		default:
			s.extended(o)
			o.e.delivery.Deadline = o.e.deadline // nobody has it yet
			kept = append(kept, o.e)
		}
	}
	s.ready = append(back, s.ready...)
	return kept
}

// wake makes waiting Receives look again. mu is held.
func (s *source) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// pollGrace is how long an answer may take beyond the wait of a poll.
const pollGrace = 10 * time.Second

// pollTries bounds how often a poll of a FIFO queue is repeated whose answer did not come.
const pollTries = 3

// poll makes one call and puts what it brought where Receive finds it.
func (s *source) poll(n int) {
	asked := time.Now()
	messages, err := s.receive(n)
	now := time.Now()
	entries := make([]*entry, 0, len(messages))
	for i := range messages {
		entries = append(entries, s.entry(&messages[i], asked, now))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.book.open(entries) {
		concluded := s.changed
		s.mu.Unlock()
		<-concluded // the calls that are under way end
		s.mu.Lock()
	}
	s.running--
	s.asked -= n
	s.book.add(entries, now)
	s.ready = append(s.ready, entries...)
	switch {
	case err != nil:
		s.pollErr, s.width = err, 1
	case len(messages) == 0:
		s.width = 1
	case len(messages) == n:
		s.pollErr, s.width = nil, min(s.width+1, s.o.Polls)
	default:
		s.pollErr = nil
	}
	s.wake()
}

// receive polls once. Where the answer is lost, a FIFO queue gives the same messages to the same
// attempt ID again; those of a standard queue come again when their leases end.
func (s *source) receive(n int) ([]types.Message, error) {
	in := &sqs.ReceiveMessageInput{QueueUrl: &s.q.url, MaxNumberOfMessages: int32(n),
		WaitTimeSeconds: seconds(s.o.Wait), VisibilityTimeout: seconds(s.lease),
		MessageAttributeNames:       []string{"All"},
		MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}}
	if s.q.fifo() {
		in.ReceiveRequestAttemptId = aws.String(ackwise.NewID(time.Now()))
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(s.base, s.o.Wait+pollGrace)
		out, err := s.q.api.ReceiveMessage(ctx, in)
		cancel()
		switch {
		case err == nil:
			return out.Messages, nil
		case s.base.Err() != nil:
			return nil, ackwise.ErrClosed
		case try == pollTries, !s.q.fifo(), awsconn.KindOf(err) != awsconn.Interrupted:
			return nil, s.q.explain("ReceiveMessage", err)
		}
	}
}

// entry makes a hand-out of a message.
func (s *source) entry(m *types.Message, asked, now time.Time) *entry {
	system := func(name types.MessageSystemAttributeName) string { return m.Attributes[string(name)] }
	d := decode(m, s.o.Envelope == EnvelopeAuto)
	d.Message.Topic = s.q.Name
	group := system(types.MessageSystemAttributeNameMessageGroupId)
	if d.Foreign {
		if s.q.fifo() && d.Message.Key == "" {
			d.Message.Key = group
		}
		if ms, err := strconv.ParseInt(system("SentTimestamp"), 10, 64); err == nil &&
			d.Message.Time.IsZero() {
			d.Message.Time = time.UnixMilli(ms).UTC()
		}
	}
	count, err := strconv.Atoi(system(types.MessageSystemAttributeNameApproximateReceiveCount))
	attempt := max(1, count)
	if err != nil {
		count = 0 // it was not told: nothing is known of the cause
	}
	e := &entry{id: aws.ToString(m.MessageId), receipt: aws.ToString(m.ReceiptHandle), group: group,
		count: count, since: asked, came: now, deadline: asked.Add(s.lease)}
	position := system(types.MessageSystemAttributeNameSequenceNumber)
	e.delivery = &ackwise.Delivery{Message: d.Message, Attempt: attempt, Epoch: d.Epoch,
		Counts: ackwise.Counts{HandOuts: attempt}, Deadline: e.deadline,
		Position: ackwise.Position(cmp.Or(position, e.id))}
	return e
}

// decode reads a message of the service. unwrap takes SNS's envelope off, where there is one: then
// the message is what raw delivery would have given.
func decode(m *types.Message, unwrap bool) attr.Decoded {
	body, list, id := aws.ToString(m.Body), listOf(m.MessageAttributes), aws.ToString(m.MessageId)
	if n, ok := envelope.Unwrap(body, list); ok && unwrap {
		body, list, id = n.Body, n.Attributes, n.ID
	}
	return attr.Decode(body, list, id)
}

func listOf(values map[string]types.MessageAttributeValue) []attr.Attribute {
	list := make([]attr.Attribute, 0, len(values))
	for name, v := range values {
		list = append(list, attr.Attribute{Name: name, Type: aws.ToString(v.DataType),
			Text: aws.ToString(v.StringValue), Data: v.BinaryValue})
	}
	return list
}

// Lag tells how many messages the queue holds, about, those in flight included. It does not know
// how old the oldest one is.
func (s *source) Lag(ctx context.Context) (records int64, oldest time.Time, err error) {
	names := []types.QueueAttributeName{types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed}
	all, err := s.q.attributes(ctx, names...)
	if err != nil {
		return -1, time.Time{}, err
	}
	for _, name := range names {
		n, _ := strconv.ParseInt(all[string(name)], 10, 64) // what is not told counts as none
		records += n
	}
	return records, time.Time{}, nil
}

// closePatience is how long giving back may take.
const closePatience = 5 * time.Second

// Close waits for the poll under way, which Wait bounds, and gives back all that is held.
func (s *source) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.wake()
	s.mu.Unlock()
	stop := time.AfterFunc(s.o.Wait+time.Second, s.cancel) // a server that does not answer
	s.polls.Wait()
	stop.Stop()
	s.cancel()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(s.base), closePatience)
	defer cancel()
	var errs []error
	first, later := s.leftovers()
	ops := s.carryOut(ctx, later)
	for _, o := range append(ops, s.carryOut(ctx, first)...) {
		if o.err != nil && fateOf(o.err) != lost {
			errs = append(errs, o.err)
		}
	}
	if err := errors.Join(errs[:min(1, len(errs))]...); err != nil {
		return fmt.Errorf("close source: give back %d of the messages: %w", len(errs),
			s.q.explain("ChangeMessageVisibility", err))
	}
	return nil
}

// leftovers takes all that is held off the books. What is first in its run goes back last.
func (s *source) leftovers() (first, later []*op) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for _, e := range s.book.held {
		run := s.book.groups[e.group]
		o := &op{e: e, outcome: ackwise.OutcomeRelease}
		switch {
		case !now.Before(e.deadline):
		case s.book.fifo && len(run) > 0 && run[0] != e:
			later = append(later, o)
		default:
			first = append(first, o)
		}
	}
	for _, e := range s.book.held {
		s.book.lose(e)
	}
	return first, later
}
