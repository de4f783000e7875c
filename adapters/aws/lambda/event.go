package lambda

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/change"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
)

// source is one kind of event.
type source struct {
	name  string // as the records have it
	async bool   // no answer is read, an error is repeated by Lambda
	read  func(b *batch, record []byte) error
	// failures names what is to come again.
	failures func(b *batch, settled []settlement) []string
}

func sources() []source {
	return []source{
		{name: "aws:dynamodb", read: readChange, failures: lowest},
		{name: "aws:sns", async: true, read: readNotification, failures: failed},
		{name: "aws:sqs", read: readQueued, failures: failed},
	}
}

// batch is an event's deliveries.
type batch struct {
	source source
	ds     []*ackwise.Delivery
	ids    []string // by which an answer names them
	counts []int    // hand-outs as the queue counted them, 0 = it does not
	groups []string // of a FIFO queue
}

func (b *batch) add(d *ackwise.Delivery, id string, count int, group string) {
	b.ds, b.ids = append(b.ds, d), append(b.ids, id)
	b.counts, b.groups = append(b.counts, count), append(b.groups, group)
}

func (b *batch) failures(settled []settlement) []string {
	if b.source.failures == nil {
		return nil // an event without records
	}
	return b.source.failures(b, settled)
}

// failed names all that is not done and, of a FIFO queue, all of its group that stand behind it:
// the order of the group would be lost if they were deleted.
func failed(b *batch, settled []settlement) []string {
	var ids []string
	broken := map[string]bool{}
	for i, id := range b.ids {
		group := b.groups[i]
		if settled[i].done() && (group == "" || !broken[group]) {
			continue
		}
		ids = append(ids, id)
		broken[group] = true
	}
	return ids
}

// lowest names the first record that is not done: the checkpoint. Records stand in the order of
// their shard.
func lowest(b *batch, settled []settlement) []string {
	for i, id := range b.ids {
		if !settled[i].done() {
			return []string{id}
		}
	}
	return nil
}

// readEvent reads an event of one of the known sources.
func readEvent(event []byte) (*batch, error) {
	var e map[string]json.RawMessage
	if err := json.Unmarshal(event, &e); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	var records []json.RawMessage
	raw, ok := e["Records"]
	if !ok || json.Unmarshal(raw, &records) != nil {
		return nil, unknown(fmt.Sprintf("it has no list Records; its fields are %s",
			strings.Join(slices.Sorted(maps.Keys(e)), ", ")))
	}
	b := &batch{}
	for i, record := range records {
		var head struct{ EventSource string } // the case does not matter: SNS writes it large
		if err := json.Unmarshal(record, &head); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
		s, err := sourceOf(head.EventSource)
		switch {
		case err != nil:
			return nil, fmt.Errorf("record %d: %w", i, err)
		case i > 0 && s.name != b.source.name:
			return nil, fmt.Errorf("record %d is of %s and the first one of %s: an event has one source",
				i, s.name, b.source.name)
		}
		b.source = s
		if err := s.read(b, record); err != nil {
			return nil, fmt.Errorf("record %d of %s: %w", i, s.name, err)
		}
	}
	return b, nil
}

func sourceOf(name string) (source, error) {
	for _, s := range sources() {
		if s.name == name {
			return s, nil
		}
	}
	if name == "" {
		return source{}, unknown("it has no eventSource")
	}
	return source{}, unknown(fmt.Sprintf("its eventSource is %.60q", name))
}

// unknown says what was seen and what is known.
func unknown(saw string) error {
	var names []string
	for _, s := range sources() {
		names = append(names, s.name)
	}
	return &ackwise.HintError{
		Err: errors.New(saw + "; the known sources are " + strings.Join(names, ", ")),
		Hint: "Connect the function to an SQS queue or a DynamoDB stream by an event source mapping, " +
			"or to an SNS topic by a subscription.",
	}
}

// readChange reads a record of a DynamoDB stream.
func readChange(b *batch, record []byte) error {
	m, err := change.FromEvent("", record)
	if err != nil {
		return err
	}
	var at struct {
		EventSourceARN string
		DynamoDB       struct{ SequenceNumber string }
	}
	if err := json.Unmarshal(record, &at); err != nil {
		return err
	}
	sequence := at.DynamoDB.SequenceNumber
	b.add(&ackwise.Delivery{Message: m, Token: ackwise.LeaseToken(sequence),
		Partition: at.EventSourceARN, Position: position(sequence)}, sequence, 0, "")
	return nil
}

// position writes a sequence number so that positions are ordered as texts: they have at most 40
// digits.
func position(sequence string) ackwise.Position {
	return ackwise.Position(strings.Repeat("0", max(0, 40-len(sequence))) + sequence)
}

// readNotification reads what a topic pushed.
func readNotification(b *batch, record []byte) error {
	var r struct {
		EventSubscriptionARN string `json:"EventSubscriptionArn"`
		SNS                  envelope.Record
	}
	if err := json.Unmarshal(record, &r); err != nil {
		return err
	}
	n, ok := r.SNS.Notification()
	if !ok {
		return errors.New("it has no notification")
	}
	d, _ := delivery(n.Body, n.Attributes, n.ID)
	d.Topic = n.Topic()
	d.Token, d.Partition = ackwise.LeaseToken(n.ID), r.EventSubscriptionARN
	d.Position = ackwise.Position(n.ID)
	b.add(d, n.ID, 0, "")
	return nil
}
