package lambdatest_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	streams "github.com/aws/aws-sdk-go-v2/service/dynamodbstreams/types"
	sqs "github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise/adapters/aws/internal/change"
	"github.com/ackwise/ackwise/adapters/aws/lambda/lambdatest"
)

// TestChangeIsTheSame reads a record from a stream and by Lambda: one message.
func TestChangeIsTheSame(t *testing.T) {
	at := time.UnixMilli(1764320000123)
	r := &streams.Record{EventID: aws.String("e1"), EventName: streams.OperationTypeModify,
		UserIdentity: &streams.Identity{Type: aws.String("Service"), PrincipalId: aws.String("ttl")},
		Dynamodb: &streams.StreamRecord{SequenceNumber: aws.String("111"),
			ApproximateCreationDateTime: &at,
			Keys: map[string]streams.AttributeValue{
				"id": &streams.AttributeValueMemberS{Value: "N<1>"}},
			NewImage: map[string]streams.AttributeValue{
				"id":   &streams.AttributeValueMemberS{Value: "N<1>"},
				"n":    &streams.AttributeValueMemberN{Value: "1.5"},
				"b":    &streams.AttributeValueMemberB{Value: []byte{0, 255}},
				"t":    &streams.AttributeValueMemberBOOL{Value: true},
				"null": &streams.AttributeValueMemberNULL{Value: true},
				"ss":   &streams.AttributeValueMemberSS{Value: []string{"b", "a"}},
				"ns":   &streams.AttributeValueMemberNS{Value: []string{"2", "1"}},
				"bs":   &streams.AttributeValueMemberBS{Value: [][]byte{{2}, {1}}},
				"m": &streams.AttributeValueMemberM{Value: map[string]streams.AttributeValue{
					"l": &streams.AttributeValueMemberL{Value: []streams.AttributeValue{
						&streams.AttributeValueMemberS{Value: "x"}}}}}}}}
	raw, err := lambdatest.Changed(r,
		"arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/x")
	if err != nil {
		t.Fatal(err)
	}
	pushed, err := change.FromEvent("", raw)
	if err != nil {
		t.Fatal(err)
	}
	pulled, err := change.FromStream("orders", r)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(pushed, pulled) {
		t.Errorf("pushed %+v\npulled %+v", pushed, pulled)
	}
}

func ExampleQueued() {
	raw, err := lambdatest.Queued(&sqs.Message{MessageId: aws.String("1"), Body: aws.String("hello")},
		"arn:aws:sqs:eu-central-1:000000000000:orders")
	var record struct{ MessageID, Body, EventSource string }
	fmt.Println(err, json.Unmarshal(raw, &record))
	fmt.Printf("%+v\n", record)
	// Output:
	// <nil> <nil>
	// {MessageID:1 Body:hello EventSource:aws:sqs}
}
