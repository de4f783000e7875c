// Package lambdatest writes what a queue or a stream has given to a poller in the form that AWS
// Lambda gives to a function, for tests that take the poller's place (see test/lambdahost). It
// promises the fields that Lambda documents, with their names and types. It polls nothing itself.
// See ExampleQueued.
package lambdatest

import (
	"encoding/json"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	streams "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	sqs "github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

type object = map[string]any

// Queued is a received message of the queue with this ARN as an element of an event's Records.
func Queued(m *sqs.Message, queueARN string) (json.RawMessage, error) {
	attributes := object{}
	for name, a := range m.MessageAttributes {
		one := object{"dataType": aws.ToString(a.DataType), "stringListValues": []string{},
			"binaryListValues": []string{}}
		if a.StringValue != nil {
			one["stringValue"] = *a.StringValue
		}
		if a.BinaryValue != nil {
			one["binaryValue"] = a.BinaryValue
		}
		attributes[name] = one
	}
	return json.Marshal(object{
		"messageId": aws.ToString(m.MessageId), "receiptHandle": aws.ToString(m.ReceiptHandle),
		"body": aws.ToString(m.Body), "attributes": m.Attributes, "messageAttributes": attributes,
		"md5OfBody": aws.ToString(m.MD5OfBody), "eventSource": "aws:sqs", "eventSourceARN": queueARN,
		"awsRegion": "eu-central-1",
	})
}

// Changed is a record of the stream with this ARN as an element of an event's Records.
func Changed(r *streams.Record, streamARN string) (json.RawMessage, error) {
	d := r.Dynamodb
	change := object{"SequenceNumber": aws.ToString(d.SequenceNumber),
		"SizeBytes": aws.ToInt64(d.SizeBytes), "StreamViewType": string(d.StreamViewType)}
	if t := d.ApproximateCreationDateTime; t != nil {
		change["ApproximateCreationDateTime"] = float64(t.UnixMilli()) / 1000
	}
	for name, item := range map[string]map[string]streams.AttributeValue{"Keys": d.Keys,
		"OldImage": d.OldImage, "NewImage": d.NewImage} {
		if item == nil {
			continue
		}
		written, err := writeItem(item)
		if err != nil {
			return nil, err
		}
		change[name] = written
	}
	record := object{"eventID": aws.ToString(r.EventID), "eventName": string(r.EventName),
		"eventVersion": aws.ToString(r.EventVersion), "eventSource": "aws:dynamodb",
		"awsRegion": "eu-central-1", "dynamodb": change, "eventSourceARN": streamARN}
	if u := r.UserIdentity; u != nil {
		record["userIdentity"] = object{"type": aws.ToString(u.Type),
			"principalId": aws.ToString(u.PrincipalId)}
	}
	return json.Marshal(record)
}

func writeItem(item map[string]streams.AttributeValue) (object, error) {
	all := object{}
	for name, v := range item {
		written, err := writeValue(v)
		if err != nil {
			return nil, fmt.Errorf("attribute %s: %w", name, err)
		}
		all[name] = written
	}
	return all, nil
}

func writeValue(v streams.AttributeValue) (object, error) {
	switch v := v.(type) {
	case *streams.AttributeValueMemberS:
		return object{"S": v.Value}, nil
	case *streams.AttributeValueMemberN:
		return object{"N": v.Value}, nil
	case *streams.AttributeValueMemberB:
		return object{"B": v.Value}, nil
	case *streams.AttributeValueMemberBOOL:
		return object{"BOOL": v.Value}, nil
	case *streams.AttributeValueMemberNULL:
		return object{"NULL": v.Value}, nil
	case *streams.AttributeValueMemberSS:
		return object{"SS": v.Value}, nil
	case *streams.AttributeValueMemberNS:
		return object{"NS": v.Value}, nil
	case *streams.AttributeValueMemberBS:
		return object{"BS": v.Value}, nil
	case *streams.AttributeValueMemberM:
		item, err := writeItem(v.Value)
		return object{"M": item}, err
	case *streams.AttributeValueMemberL:
		list := make([]object, len(v.Value))
		for i, e := range v.Value {
			written, err := writeValue(e)
			if err != nil {
				return nil, err
			}
			list[i] = written
		}
		return object{"L": list}, nil
	}
	return nil, fmt.Errorf("a value of the unknown type %T", v)
}
