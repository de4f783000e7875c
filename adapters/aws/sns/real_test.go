package sns_test

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	awssqs "github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/envelope"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/test/servers"
)

// moto is the server of the tests; it needs no right credentials.
func moto(t testing.TB) string { return servers.Address(t, "ACKWISE_TEST_MOTO") }

func static() aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider("test", "test", "")
}

// realQueue is a queue of the server, as a consumer reads it.
type realQueue struct {
	api      *awssqs.Client
	url, arn string
}

func newQueue(t testing.TB, server, name string, attributes map[string]string) *realQueue {
	t.Helper()
	ctx := t.Context()
	q := &realQueue{api: awssqs.New(awssqs.Options{Region: "eu-central-1", BaseEndpoint: &server,
		Credentials: static()})}
	if strings.HasSuffix(name, ".fifo") {
		attributes = maps.Clone(attributes)
		if attributes == nil {
			attributes = map[string]string{}
		}
		attributes["FifoQueue"] = "true"
	}
	out, err := q.api.CreateQueue(ctx, &awssqs.CreateQueueInput{QueueName: &name,
		Attributes: attributes})
	if err != nil {
		t.Fatal(err)
	}
	q.url = *out.QueueUrl
	look, err := q.api.GetQueueAttributes(ctx, &awssqs.GetQueueAttributesInput{QueueUrl: &q.url,
		AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameQueueArn}})
	if err != nil {
		t.Fatal(err)
	}
	q.arn = look.Attributes["QueueArn"]
	return q
}

// receive takes what there is, as messages; it leaves them in flight.
func (q *realQueue) receive(ctx context.Context) ([]ackwise.Message, []types.Message, error) {
	out, err := q.api.ReceiveMessage(ctx, &awssqs.ReceiveMessageInput{QueueUrl: &q.url,
		MaxNumberOfMessages: 10, MessageAttributeNames: []string{"All"}})
	if err != nil {
		return nil, nil, err
	}
	var ms []ackwise.Message
	for _, m := range out.Messages {
		var list []attr.Attribute
		for name, v := range m.MessageAttributes {
			list = append(list, attr.Attribute{Name: name, Type: aws.ToString(v.DataType),
				Text: aws.ToString(v.StringValue), Data: v.BinaryValue})
		}
		body := *m.Body
		if n, ok := envelope.Unwrap(body, list); ok {
			body, list = n.Body, n.Attributes
		}
		ms = append(ms, attr.Decode(body, list, *m.MessageId).Message)
	}
	return ms, out.Messages, nil
}

// take receives and deletes until n messages came, by ID.
func (q *realQueue) take(t *testing.T, n int) map[string]ackwise.Message {
	t.Helper()
	all := map[string]ackwise.Message{}
	for end := time.Now().Add(30 * time.Second); len(all) < n && time.Now().Before(end); {
		ms, raw, err := q.receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i, m := range ms {
			all[m.ID] = m
			if _, err := q.api.DeleteMessage(t.Context(), &awssqs.DeleteMessageInput{QueueUrl: &q.url,
				ReceiptHandle: raw[i].ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all
}

func openReal(t *testing.T, server, topic string) (ackwise.Sink, sns.SinkOptions) {
	t.Helper()
	o, err := sns.ParseSink("sns://eu-central-1/" + topic + "?create=true&endpoint=" + server)
	if err != nil {
		t.Fatal(err)
	}
	o.Credentials = static()
	s, err := sns.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

func subscribe(t *testing.T, o sns.SinkOptions, s sns.Subscription) {
	t.Helper()
	s.Create = true
	if _, err := sns.Subscribe(t.Context(), o, s); err != nil {
		t.Fatal(err)
	}
}

func accepted(t *testing.T, rs []ackwise.Result) {
	t.Helper()
	for _, r := range rs {
		if r.Class != ackwise.ResultAccepted {
			t.Fatalf("publish %s: %s: %v", r.ID, r.Class, r.Err)
		}
	}
}

// TestRealFanOut publishes to a topic with three queues: raw, in the envelope, and filtered. Each
// gets every message that it asked for, exactly as it was published. Header values are text here:
// this server answers 500 where a binary attribute was delivered raw. TestAllComesBack has all
// bytes.
func TestRealFanOut(t *testing.T) {
	server := moto(t)
	for _, end := range []string{"", ".fifo"} {
		t.Run("topic"+end, func(t *testing.T) {
			t.Parallel()
			s, o := openReal(t, server, "fan"+end)
			queues := map[string]*realQueue{}
			for _, name := range []string{"raw", "wrapped", "filtered"} {
				queues[name] = newQueue(t, server, "fan-"+name+end, nil)
				sub := sns.Subscription{Queue: queues[name].arn, Raw: name != "wrapped"}
				if name == "filtered" {
					sub.FilterPolicy = `{"kind":["paid"]}`
				}
				subscribe(t, o, sub)
				subscribe(t, o, sub) // the same once more changes nothing
			}
			every := make([]byte, 256)
			for i := range every {
				every[i] = byte(i)
			}
			want := map[string]ackwise.Message{}
			var ms []ackwise.Message
			for i := range 25 {
				kind := []string{"paid", "sent"}[i%2]
				m := ackwise.Message{ID: fmt.Sprintf("id-%02d", i), Key: fmt.Sprintf("key %d", i%3),
					Body: fmt.Appendf(nil, `{"n":%d}`, i), Time: time.Unix(int64(i)+1, 5).UTC(),
					Headers: []ackwise.Header{{Name: "kind", Value: []byte(kind)},
						{Name: "more", Value: []byte("<&>\t\"ü\U0001f600")},
						{Name: "more", Value: every}, {Name: "a space", Value: every}}}
				switch i {
				case 3:
					m.Body = nil
				case 5:
					m.Body = []byte{}
				case 7:
					m.Body = every
				}
				ms, want[m.ID] = append(ms, m), m
			}
			accepted(t, s.Publish(t.Context(), ms))
			for name, q := range queues {
				expected := maps.Clone(want)
				maps.DeleteFunc(expected, func(_ string, m ackwise.Message) bool {
					return name == "filtered" && string(m.Headers[0].Value) != "paid"
				})
				got := q.take(t, len(expected))
				for id, m := range expected {
					if !reflect.DeepEqual(got[id], m) {
						t.Errorf("%s: %s is not as it was published: %.200v", name, id, got[id])
					}
				}
				if more, _, err := q.receive(t.Context()); err != nil || len(more) > 0 {
					t.Errorf("%s: it got more: %v %v", name, more, err)
				}
			}
		})
	}
}

// TestRealOnlyTheFailedSubscriberIsRedriven: two queues get a message, one consumer fails at it,
// and its dead letter goes back to that queue alone.
func TestRealOnlyTheFailedSubscriberIsRedriven(t *testing.T) {
	server := moto(t)
	s, o := openReal(t, server, "redriven")
	dead := newQueue(t, server, "redriven-dead", nil)
	good := newQueue(t, server, "redriven-good", nil)
	bad := newQueue(t, server, "redriven-bad", map[string]string{"VisibilityTimeout": "0",
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":"2"}`, dead.arn)})
	for _, q := range []*realQueue{good, bad} {
		subscribe(t, o, sns.Subscription{Queue: q.arn, Raw: q == bad})
	}
	accepted(t, s.Publish(t.Context(), []ackwise.Message{{ID: "1", Key: "k", Body: []byte("body")}}))
	if got := good.take(t, 1); string(got["1"].Body) != "body" {
		t.Fatalf("the good consumer got %v", got)
	}
	fails := 0
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); { // it never deletes
		got, _, err := bad.receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if len(got) == 0 {
			break
		}
		fails += len(got)
	}
	letters := dead.take(t, 1)
	if fails != 2 || letters["1"].Key != "k" {
		t.Fatalf("it failed %d times, the dead letters are %v", fails, letters)
	}
	// The redrive sends to the queue, not to the topic.
	e, err := attr.Encode(new(letters["1"]), attr.SQSBytes)
	if err != nil {
		t.Fatal(err)
	}
	in := &awssqs.SendMessageInput{QueueUrl: &bad.url, MessageBody: &e.Body,
		MessageAttributes: map[string]types.MessageAttributeValue{}}
	for _, a := range e.Attributes {
		in.MessageAttributes[a.Name] = types.MessageAttributeValue{DataType: aws.String(a.Type),
			StringValue: aws.String(a.Text)}
	}
	if _, err := bad.api.SendMessage(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	if got := bad.take(t, 1); string(got["1"].Body) != "body" {
		t.Errorf("the redriven message is %v", got)
	}
	if got, _, err := good.receive(t.Context()); err != nil || len(got) > 0 {
		t.Errorf("the good consumer got it again: %v %v", got, err)
	}
}

// TestRealMissingTopic: it is named, with the nearest, and nothing is made.
func TestRealMissingTopic(t *testing.T) {
	server := moto(t)
	openReal(t, server, "payments")
	for _, more := range []string{"", "&account=123456789012"} {
		o, err := sns.ParseSink("sns://eu-central-1/paymens?endpoint=" + server + more)
		if err != nil {
			t.Fatal(err)
		}
		o.Credentials = static()
		_, err = sns.OpenSink(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), `"paymens"`) ||
			more == "" && !strings.Contains(err.Error(), `did you mean "payments"?`) {
			t.Errorf("%v", err)
		}
	}
	o := sns.SinkOptions{Region: "eu-central-1", Endpoint: server, Credentials: static()}
	s, err := sns.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r := s.Publish(t.Context(), []ackwise.Message{{ID: "1", Topic: "gone", Body: []byte("x")}})
	if r[0].Class != ackwise.ResultRetryable {
		t.Errorf("a message of a topic that is not there: %+v", r)
	}
}

// TestRealOrderOfAKey: on a FIFO topic a key's messages arrive in order.
func TestRealOrderOfAKey(t *testing.T) {
	server := moto(t)
	s, o := openReal(t, server, "ordered.fifo")
	q := newQueue(t, server, "ordered.fifo", nil)
	subscribe(t, o, sns.Subscription{Queue: q.arn, Raw: true})
	for i := range 10 {
		accepted(t, s.Publish(t.Context(), []ackwise.Message{{ID: fmt.Sprint(i), Key: "k",
			Body: []byte("x")}}))
	}
	var got []string
	for len(got) < 10 {
		ms, raw, err := q.receive(t.Context())
		if err != nil || len(ms) == 0 {
			t.Fatalf("after %v: %v", got, err)
		}
		for i, m := range ms {
			got = append(got, m.ID)
			if _, err := q.api.DeleteMessage(t.Context(), &awssqs.DeleteMessageInput{QueueUrl: &q.url,
				ReceiptHandle: raw[i].ReceiptHandle}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !slices.IsSorted(got) {
		t.Errorf("the order is %v", got)
	}
}
