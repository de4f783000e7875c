package change

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"

	"github.com/ackwise/ackwise"
)

// Names of the headers of a change.
const (
	HeaderKind     = "dynamodb-change"   // INSERT, MODIFY or REMOVE
	HeaderSequence = "dynamodb-sequence" // the record's sequence number, decimal
	HeaderUser     = "dynamodb-user"     // who made the change, if it was no caller: TYPE/PRINCIPAL
)

// FromStream makes the message of a record that the streams' API returned. topic is the table's
// name.
func FromStream(topic string, r *types.Record) (ackwise.Message, error) {
	id := aws.ToString(r.EventID)
	if id == "" || r.Dynamodb == nil {
		return ackwise.Message{}, &ackwise.InvalidError{Field: "change record", Value: id,
			Reason: "it has no eventID or no content"}
	}
	d := r.Dynamodb
	sequence := aws.ToString(d.SequenceNumber)
	if sequence == "" || len(d.Keys) == 0 {
		return ackwise.Message{}, &ackwise.InvalidError{Field: "change record", Value: id,
			Reason: "it has no SequenceNumber or no Keys"}
	}
	m := ackwise.Message{ID: id, Topic: topic, Headers: []ackwise.Header{
		{Name: HeaderKind, Value: []byte(r.EventName)},
		{Name: HeaderSequence, Value: []byte(sequence)},
	}}
	if u := r.UserIdentity; u != nil {
		m.Headers = append(m.Headers, ackwise.Header{Name: HeaderUser,
			Value: []byte(aws.ToString(u.Type) + "/" + aws.ToString(u.PrincipalId))})
	}
	if t := d.ApproximateCreationDateTime; t != nil {
		m.Time = t.UTC().Round(time.Millisecond)
	}
	return m, fill(&m, d)
}

// fill sets key and body.
func fill(m *ackwise.Message, d *types.StreamRecord) error {
	body := []byte(`{"Keys":`)
	start := len(body)
	body, err := appendItem(body, d.Keys)
	if err != nil {
		return fmt.Errorf("read keys of change %s: %w", m.ID, err)
	}
	m.Key = keyOf(body[start:])
	for _, image := range []struct {
		name string
		item map[string]types.AttributeValue
	}{{"OldImage", d.OldImage}, {"NewImage", d.NewImage}} {
		if image.item == nil {
			continue
		}
		body = append(body, `,"`+image.name+`":`...)
		if body, err = appendItem(body, image.item); err != nil {
			return fmt.Errorf("read %s of change %s: %w", image.name, m.ID, err)
		}
	}
	m.Body = append(body, '}')
	return nil
}

// keyOf returns the message key for an item's key: itself, or its sum where it is too long.
func keyOf(key []byte) string {
	if len(key) <= ackwise.MaxKeyBytes {
		return string(key)
	}
	sum := sha256.Sum256(key)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// event is one of the Records of an event of Lambda.
type event struct {
	EventID        *string
	EventName      types.OperationType
	EventSource    string
	EventSourceARN string
	UserIdentity   *struct {
		Type        *string
		PrincipalID *string
	}
	DynamoDB *struct {
		ApproximateCreationDateTime *float64
		Keys, OldImage, NewImage    map[string]value
		SequenceNumber              *string
	}
}

// FromEvent makes the message of one of the Records of an event that Lambda got from a stream. An
// empty topic stands for the name of the table that the record names.
func FromEvent(topic string, record []byte) (ackwise.Message, error) {
	var e event
	if err := json.Unmarshal(record, &e); err != nil {
		return ackwise.Message{}, fmt.Errorf("read change record: %w", err)
	}
	if e.EventSource != "" && e.EventSource != "aws:dynamodb" {
		return ackwise.Message{}, &ackwise.InvalidError{Field: "change record",
			Value: e.EventSource, Reason: "its eventSource is not aws:dynamodb"}
	}
	if topic == "" {
		topic = tableOf(e.EventSourceARN)
	}
	if topic == "" {
		return ackwise.Message{}, &ackwise.InvalidError{Field: "change record",
			Value: aws.ToString(e.EventID), Reason: "its eventSourceARN names no table"}
	}
	r := types.Record{EventID: e.EventID, EventName: e.EventName}
	if u := e.UserIdentity; u != nil {
		r.UserIdentity = &types.Identity{Type: u.Type, PrincipalId: u.PrincipalID}
	}
	if d := e.DynamoDB; d != nil {
		r.Dynamodb = &types.StreamRecord{SequenceNumber: d.SequenceNumber, Keys: plain(d.Keys),
			OldImage: plain(d.OldImage), NewImage: plain(d.NewImage)}
		if s := d.ApproximateCreationDateTime; s != nil {
			t := time.UnixMilli(int64(math.Round(*s * 1000)))
			r.Dynamodb.ApproximateCreationDateTime = &t
		}
	}
	return FromStream(topic, &r)
}

// tableOf returns the table in arn:aws:dynamodb:REGION:ACCOUNT:table/NAME/stream/LABEL.
func tableOf(arn string) string {
	parts := strings.SplitN(arn, ":", 6)
	if len(parts) < 6 {
		return ""
	}
	rest, ok := strings.CutPrefix(parts[5], "table/")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, "/")
	return name
}
