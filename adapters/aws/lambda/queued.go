package lambda

import (
	"cmp"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
)

// queued is a record of SQS.
type queued struct {
	MessageID      string
	Body           string
	EventSourceARN string
	Attributes     struct {
		ApproximateReceiveCount string
		MessageGroupID          string
		SequenceNumber          string
		SentTimestamp           string
	}
	MessageAttributes map[string]struct {
		DataType    string
		StringValue string
		BinaryValue []byte
	}
}

// readQueued reads a message of a queue. What SNS wrapped is unwrapped.
func readQueued(b *batch, record []byte) error {
	var r queued
	if err := json.Unmarshal(record, &r); err != nil {
		return err
	}
	if r.MessageID == "" {
		return &ackwise.InvalidError{Field: "messageId", Reason: "it is empty"}
	}
	attributes := make([]attr.Attribute, 0, len(r.MessageAttributes))
	for name, a := range r.MessageAttributes {
		attributes = append(attributes, attr.Attribute{Name: name, Type: a.DataType,
			Text: a.StringValue, Data: a.BinaryValue})
	}
	body, id := r.Body, r.MessageID
	if n, ok := envelope.Unwrap(r.Body, attributes); ok {
		body, attributes, id = n.Body, n.Attributes, n.ID
	}
	d, foreign := delivery(body, attributes, id)
	d.Topic = r.EventSourceARN[strings.LastIndexByte(r.EventSourceARN, ':')+1:]
	d.Token = ackwise.LeaseToken(r.MessageID)
	d.Partition = d.Topic
	d.Position = ackwise.Position(cmp.Or(r.Attributes.SequenceNumber, r.MessageID))
	group := ""
	if strings.HasSuffix(d.Topic, ".fifo") {
		group = r.Attributes.MessageGroupID
	}
	if foreign {
		// A stranger's message has no key but its group's, and the group's order has to hold.
		d.Key = cmp.Or(d.Key, group)
		ms, err := strconv.ParseInt(r.Attributes.SentTimestamp, 10, 64)
		if err == nil && d.Time.IsZero() {
			d.Time = time.UnixMilli(ms).UTC()
		}
	}
	count, err := strconv.Atoi(r.Attributes.ApproximateReceiveCount)
	if err != nil || count < 0 {
		count = 0 // not said: the cause is unknown then
	}
	b.add(d, r.MessageID, count, group)
	return nil
}

// delivery is what was carried by a body and attributes.
func delivery(body string, attributes []attr.Attribute, id string) (
	_ *ackwise.Delivery, foreign bool) {
	carried := attr.Decode(body, attributes, id)
	return &ackwise.Delivery{Message: carried.Message, Epoch: carried.Epoch}, carried.Foreign
}
