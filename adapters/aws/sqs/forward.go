package sqs

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
)

// ForwardOptions configure KeepForward.
type ForwardOptions struct {
	// From is the queue whose letters expire. Required.
	From Queue
	// To is the queue that the copies go to, of the same kind, FIFO or not. Default: From.
	To Queue
	// Before is how long before its end a letter is copied. It has to be longer than the time between
	// two runs. Default: half of what From keeps messages for.
	Before time.Duration
	// Hold is how long the letters that were looked at are hidden from others, in whole seconds; a run
	// ends before it is over. Default: 5 min.
	Hold time.Duration
	// Max bounds the letters that one run looks at. Default: 10000.
	Max int
}

// ForwardReport says what a run of KeepForward did.
type ForwardReport struct {
	Seen      int           // letters that were looked at
	Forwarded int           // copied, and the old one deleted
	Twice     int           // copied, but the old one could not be deleted: it is there twice
	Young     int           // not due yet
	Failed    int           // due, and not copied: they stay, and are due at the next run
	Oldest    time.Duration // the age of the oldest that was seen
	Err       error         // why the first of Failed or Twice was
}

func (o ForwardOptions) withDefaults() ForwardOptions {
	if o.To.Name == "" {
		o.To = o.From
	}
	o.Hold = cmp.Or(o.Hold, 5*time.Minute)
	o.Max = cmp.Or(o.Max, 10_000)
	return o
}

func (o ForwardOptions) validate() error {
	faults := []error{o.From.validate(), o.To.validate(), whole("Hold", o.Hold, maxLease),
		positive("Max", o.Max)}
	if o.From.fifo() != o.To.fifo() {
		faults = append(faults, &ackwise.InvalidError{Field: "To", Value: o.To.Name,
			Reason: "one of the two queues is a FIFO queue and the other is not"})
	}
	if o.Before < 0 {
		faults = append(faults, &ackwise.InvalidError{Field: "Before", Reason: "it is negative"})
	}
	return errors.Join(faults...)
}

// KeepForward copies the letters of a queue that expire soon, and then deletes the old ones: sent
// first, deleted after, so that a crash leaves a letter twice and never none. A copy keeps the ID,
// the body, the attributes and the group, and has ackwise-first-seen, the time when the first of
// its copies was sent. In a FIFO queue those behind it in its group go with it, so that they stay
// in order. It is run again and again, more often than Before.
//
// The service deletes a letter when it is older than the queue keeps messages for, 14 days at most.
// Of a standard queue the time in the queue that it came from counts; of a FIFO queue it does not.
// The error is what kept the run from working at all; what failed for one letter is in the report.
func KeepForward(ctx context.Context, o ForwardOptions) (ForwardReport, error) {
	o = o.withDefaults()
	if err := o.validate(); err != nil {
		return ForwardReport{}, fmt.Errorf("keep letters: %w", err)
	}
	from, err := openQueue(ctx, o.From, settings{})
	if err != nil {
		return ForwardReport{}, fmt.Errorf("keep letters: %w", err)
	}
	to, err := openQueue(ctx, o.To, settings{})
	if err != nil {
		return ForwardReport{}, fmt.Errorf("keep letters: %w", err)
	}
	before := cmp.Or(o.Before, from.keeps()/2)
	if before >= from.keeps() {
		return ForwardReport{}, fmt.Errorf("keep letters: %w", &ackwise.InvalidError{Field: "Before",
			Value: before.String(), Reason: fmt.Sprintf("the queue keeps letters for %s: each would be "+
				"copied again at once", from.keeps())})
	}
	f := &forward{from: from, to: to, o: o, age: from.keeps() - before,
		settle: &source{q: from, lease: o.Hold}, groups: map[string]bool{}, copies: map[string]bool{}}
	err = f.run(ctx)
	f.giveBack()
	if err != nil {
		return f.report, fmt.Errorf("keep letters: %w", err)
	}
	return f.report, nil
}

// forward is one run.
type forward struct {
	from, to *queue
	o        ForwardOptions
	age      time.Duration // from which on a letter is copied
	settle   *source       // makes the calls; it receives nothing
	held     []*op         // young and failed ones
	report   ForwardReport
	// Of a FIFO queue: the groups of which a letter was copied, and the copies that come again.
	groups, copies map[string]bool
}

// run looks at letters until none comes, the bound is reached or they could come again.
func (f *forward) run(ctx context.Context) error {
	end := time.Now().Add(f.o.Hold / 2)
	for f.report.Seen < f.o.Max && time.Now().Before(end) {
		call, cancel := context.WithTimeout(ctx, callPatience)
		out, err := f.from.api.ReceiveMessage(call, &sqs.ReceiveMessageInput{QueueUrl: &f.from.url,
			MaxNumberOfMessages: int32(min(maxCall, f.o.Max-f.report.Seen)), WaitTimeSeconds: 1,
			VisibilityTimeout: seconds(f.o.Hold), MessageAttributeNames: []string{"All"},
			MessageSystemAttributeNames: []types.MessageSystemAttributeName{"All"}})
		cancel()
		if err != nil {
			return f.from.explain("ReceiveMessage", err)
		}
		if len(out.Messages) == 0 {
			return nil
		}
		f.look(ctx, out.Messages, time.Now())
	}
	return nil
}

// look copies the letters that are due and deletes what was copied.
func (f *forward) look(ctx context.Context, messages []types.Message, now time.Time) {
	var batch []*parcel
	var letters []*op
	for i := range messages {
		m := &messages[i]
		f.report.Seen++
		l := &op{e: &entry{receipt: aws.ToString(m.ReceiptHandle)}, outcome: ackwise.OutcomeAck}
		sent, err := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64)
		age := now.Sub(time.UnixMilli(sent))
		if err == nil && age < f.age && !f.follows(m) {
			f.report.Young++
			f.report.Oldest = max(f.report.Oldest, age)
			f.held = append(f.held, l)
			continue
		}
		if err == nil { // else its age is not known, and it is copied
			f.report.Oldest = max(f.report.Oldest, age)
		}
		f.groups[m.Attributes["MessageGroupId"]] = true
		p := f.copyOf(m)
		p.result = &ackwise.Result{}
		batch, letters = append(batch, p), append(letters, l)
	}
	if len(batch) == 0 {
		return
	}
	s := newSink(f.to, SinkOptions{Calls: 1})
	s.deliver(ctx, batch)
	var copied []*op
	for i, p := range batch {
		if p.result.Class == ackwise.ResultAccepted {
			copied = append(copied, letters[i])
			f.copies[string(p.result.Position)] = f.to.url == f.from.url
			continue
		}
		f.fail(&f.report.Failed, p.result.Err)
		f.held = append(f.held, letters[i])
	}
	for _, l := range f.settle.carryOut(ctx, copied) {
		if l.err == nil {
			f.report.Forwarded++
		} else {
			f.fail(&f.report.Twice, f.from.explain("DeleteMessage", l.err))
		}
	}
}

// follows reports whether a letter stands behind one of its group that was copied: it goes with it,
// else it would be before it.
func (f *forward) follows(m *types.Message) bool {
	copied := f.copies[m.Attributes["SequenceNumber"]] || f.copies[aws.ToString(m.MessageId)]
	return f.from.fifo() && f.groups[m.Attributes["MessageGroupId"]] && !copied
}

func (f *forward) fail(count *int, err error) {
	*count++
	if f.report.Err == nil {
		f.report.Err = err
	}
}

// giveBack lets others see the letters that stay.
func (f *forward) giveBack() {
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	for _, l := range f.held {
		l.outcome, l.seconds = ackwise.OutcomeRelease, 0
	}
	f.settle.carryOut(ctx, f.held) // what cannot be given back is hidden until Hold is over
}

// copyOf makes the entry of a copy. The service swallows a second copy of the same letter within
// five minutes, and no other.
func (f *forward) copyOf(m *types.Message) *parcel {
	p := &parcel{}
	p.entry.MessageBody, p.entry.MessageAttributes = m.Body, m.MessageAttributes
	p.size = f.to.maxBytes // unknown where it is taken over as it is: it goes alone
	d := decode(m, false)
	// In SNS's envelope there is no room for ours, and beside it nobody would take it off.
	_, wrapped := envelope.Unwrap(aws.ToString(m.Body), listOf(m.MessageAttributes))
	_, told := d.Message.Header(ackwise.HeaderFirstSeen)
	if !wrapped && (!told || d.Foreign) {
		if e, err := attr.Encode(seenFirst(m, &d), attr.SQSBytes); err == nil {
			p.entry.MessageBody, p.entry.MessageAttributes = &e.Body, attributes(e.Attributes)
			p.size = e.Size()
			for name := range p.entry.MessageAttributes { // a number stays one
				old, ok := m.MessageAttributes[name]
				if ok && name != attr.Name && name != ackwise.HeaderID {
					p.entry.MessageAttributes[name] = old
				}
			}
		} // else there is no room: a letter with a new ID is better than none
	}
	if f.to.fifo() {
		group := m.Attributes["MessageGroupId"]
		p.group = cmp.Or(group, attr.Group(&d.Message))
		p.entry.MessageGroupId = &p.group
		p.entry.MessageDeduplicationId = aws.String(attr.DedupID(&ackwise.Message{
			ID: "copy of " + aws.ToString(m.MessageId)}))
	}
	return p
}

// seenFirst is the message with the time when it was first seen.
func seenFirst(m *types.Message, d *attr.Decoded) *ackwise.Message {
	first := d.Message
	if d.Epoch > 0 {
		first.Headers = append(first.Headers, ackwise.Header{Name: ackwise.HeaderEpoch,
			Value: []byte(strconv.Itoa(d.Epoch))})
	}
	_, told := first.Header(ackwise.HeaderFirstSeen)
	if ms, err := strconv.ParseInt(m.Attributes["SentTimestamp"], 10, 64); err == nil && !told {
		first.Headers = append(first.Headers, ackwise.Header{Name: ackwise.HeaderFirstSeen,
			Value: []byte(time.UnixMilli(ms).UTC().Format(time.RFC3339Nano))})
	}
	return &first
}
