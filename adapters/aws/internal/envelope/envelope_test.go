package envelope_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
)

// wrap writes a notification as SNS does.
func wrap(t *testing.T, e attr.Encoded) string {
	t.Helper()
	attributes := map[string]any{}
	for _, a := range e.Attributes {
		var v any = a.Text
		if a.Type == attr.Binary {
			v = a.Data // JSON writes it in base64
		}
		attributes[a.Name] = map[string]any{"Type": a.Type, "Value": v}
	}
	text, err := json.Marshal(map[string]any{"Type": "Notification", "MessageId": "sns-1",
		"TopicArn": "arn:aws:sns:eu-central-1:000000000000:orders", "Message": e.Body,
		"Timestamp": "2026-11-28T09:00:00.000Z", "MessageAttributes": attributes})
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestBothWaysAreTheSame sends messages of all kinds through an envelope and without.
func TestBothWaysAreTheSame(t *testing.T) {
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	for name, m := range map[string]ackwise.Message{
		"plain":    {ID: "1", Body: []byte("body")},
		"keyed":    {ID: "2", Key: "k\x00\xff", Body: []byte{}, Time: time.Unix(9, 9).UTC()},
		"nil body": {ID: "3", Headers: []ackwise.Header{{Name: "a", Value: every}}},
		"headers": {ID: "4", Body: every, Headers: []ackwise.Header{
			{Name: "z", Value: []byte("1")}, {Name: "a", Value: []byte("2")},
			{Name: "z", Value: []byte("3")}, {Name: "with space", Value: nil}}},
		"a notification inside": {ID: "5", Body: []byte(wrap(t, attr.Encoded{Body: "inner"}))},
	} {
		e, err := attr.Encode(&m, attr.SNSBytes)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := envelope.Unwrap(e.Body, e.Attributes); ok {
			t.Errorf("%s: unwrapped though it came without envelope", name)
		}
		n, ok := envelope.Unwrap(wrap(t, e), nil)
		if !ok {
			t.Errorf("%s: the envelope was not seen", name)
			continue
		}
		raw, wrapped := attr.Decode(e.Body, e.Attributes, ""), attr.Decode(n.Body, n.Attributes, n.ID)
		if !reflect.DeepEqual(raw, wrapped) || !bytes.Equal(raw.Message.Body, m.Body) {
			t.Errorf("%s:\nraw     %+v\nwrapped %+v", name, raw, wrapped)
		}
		if n.Topic() != "orders" {
			t.Errorf("the topic is %q", n.Topic())
		}
	}
}

func TestOtherBodiesAreLeftAlone(t *testing.T) {
	for _, body := range []string{"", "{", "text", `{"Type":"Notification"}`, `[]`, `null`,
		`{"Type":"SubscriptionConfirmation","MessageId":"1","TopicArn":"a","Message":"m"}`,
		`{"Type":"Notification","MessageId":"1","TopicArn":"a"}`,
		`{"Type":"Notification","MessageId":"1","TopicArn":"a","Message":"m",
			"MessageAttributes":{"b":{"Type":"Binary","Value":"%"}}}`} {
		if n, ok := envelope.Unwrap(body, nil); ok {
			t.Errorf("%q was taken for %+v", body, n)
		}
	}
}

func FuzzUnwrap(f *testing.F) {
	f.Add(`{"Type":"Notification","MessageId":"1","TopicArn":"a:b","Message":"m",` +
		`"MessageAttributes":{"b":{"Type":"Binary","Value":"AA=="}}}`)
	f.Fuzz(func(t *testing.T, body string) {
		if n, ok := envelope.Unwrap(body, nil); ok {
			attr.Decode(n.Body, n.Attributes, n.ID)
			_ = n.Topic()
		}
	})
}

func ExampleUnwrap() {
	n, ok := envelope.Unwrap(`{"Type":"Notification","MessageId":"n-1",
		"TopicArn":"arn:aws:sns:eu-central-1:000000000000:orders","Message":"paid",
		"MessageAttributes":{"ackwise-id":{"Type":"String","Value":"o-1"}}}`, nil)
	d := attr.Decode(n.Body, n.Attributes, n.ID)
	fmt.Println(ok, n.Topic(), d.Message.ID, string(d.Message.Body))
	// Output: true orders o-1 paid
}
