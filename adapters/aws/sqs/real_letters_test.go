package sqs

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/test/servers"
)

// redriveTo gives a queue a redrive policy.
func redriveTo(t *testing.T, q *queue, dead string, count int) {
	t.Helper()
	in := &sqs.SetQueueAttributesInput{QueueUrl: &q.url, Attributes: map[string]string{
		"RedrivePolicy": fmt.Sprintf(`{"deadLetterTargetArn":%q,"maxReceiveCount":%d}`, dead, count)}}
	if _, err := q.asks.SetQueueAttributes(t.Context(), in); err != nil {
		t.Fatal(err)
	}
}

// The server itself moves a message that was received too often: the loop knows after how many.
func TestRealRedrivePolicy(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		f := &fake{URL: endpoint}
		name := realQueue("q")
		_, snk := openBoth(t, f, name, "")
		dead, _ := openBoth(t, f, realQueue("dead"), "")
		redriveTo(t, snk.q, dead.q.arn, 3)
		src := openTestSource(t, f, name, "&lease=5s")
		if got := src.Features().MaxHandOuts; got != 3 {
			t.Errorf("got %d hand-outs", got)
		}
		publish(t, snk, keyed("k", "1")...)
		for i := range 3 {
			d := take(t, src, 1)[0]
			if d.Counts.HandOuts != i+1 {
				t.Errorf("hand-out %d: %+v", i+1, d.Counts)
			}
			mustSettle(t, src, ackwise.OutcomeNack, 0, d)
		}
		none(t, src)
		if d := take(t, dead, 1)[0]; d.ID != "1" || d.Key != "k" {
			t.Errorf("the letter is %+v", d.Message)
		}
	})
}

// A queue that is made for dead letters keeps them for 14 days. ElasticMQ takes the attribute, and
// does not say it.
func TestRealQueueOfDeadLetters(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		for _, name := range []string{"dead", "dead.fifo"} {
			s, told := openLetters(t, &fake{URL: endpoint}, realQueue(name),
				func(o *SinkOptions) { o.Create = true })
			want := 14 * 24 * time.Hour
			if strings.HasSuffix(t.Name(), "elasticmq") {
				want = 0
			}
			if told != "" || s.q.retention != want {
				t.Errorf("%s: the server says %s, told is %q", name, s.q.retention, told)
			}
		}
	})
}

func TestRealKeepForward(t *testing.T) {
	t.Parallel()
	eachReal(t, func(t *testing.T, endpoint string) {
		for _, name := range []string{"dead", "dead.fifo"} {
			f := &fake{URL: endpoint}
			src, snk := openBoth(t, f, realQueue(name), "")
			m := ackwise.Message{ID: "1", Key: "k", Body: []byte{0xff}, Headers: header("kind", "paid")}
			publish(t, snk, m, ackwise.Message{ID: "2", Key: "k", Body: []byte("b")})
			// Every letter of a second is due.
			o := ForwardOptions{From: src.o.Queue, Before: snk.q.keeps() - time.Second}
			forwarded := 0
			for end := time.Now().Add(30 * time.Second); forwarded < 2 && time.Now().Before(end); {
				r := keep(t, o)
				if forwarded += r.Forwarded; r.Err != nil {
					t.Fatal(r.Err)
				}
			}
			got := take(t, src, 2)
			if name == "dead" && got[0].ID != "1" { // in no order
				got[0], got[1] = got[1], got[0]
			}
			d := got[0]
			first, _ := d.Header(ackwise.HeaderFirstSeen)
			_, err := time.Parse(time.RFC3339Nano, string(first))
			kind, _ := d.Header("kind")
			if ids(got) != "1 2" || d.Key != "k" || string(d.Body) != "\xff" || string(kind) != "paid" ||
				err != nil {
				t.Errorf("%s: got %+v, %v", name, d.Message, err)
			}
			mustSettle(t, src, ackwise.OutcomeAck, 0, got...)
			none(t, src)
		}
	})
}

// moto knows no move tasks, and ElasticMQ answers none without a target.
func TestRealMoves(t *testing.T) {
	f := &fake{URL: servers.Address(t, "ACKWISE_TEST_ELASTICMQ")}
	t.Parallel()
	_, snk := openBoth(t, f, realQueue("q"), "")
	_, dlq := openBoth(t, f, realQueue("dead"), "")
	other, _ := openBoth(t, f, realQueue("other"), "")
	var missing *ackwise.NotFoundError
	redriveTo(t, snk.q, dlq.q.arn, 1)
	if _, err := StartMove(t.Context(), dlq.o.Queue, "nowhere", 0); !errors.As(err, &missing) {
		t.Errorf("no such target: %v", err)
	}
	want := ackwise.Message{ID: "1", Key: "k", Body: []byte("b"), Topic: other.o.Name,
		Headers: header("kind", "paid")}
	publish(t, dlq, want)
	handle, err := StartMove(t.Context(), dlq.o.Queue, other.o.Name, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := take(t, other, 1)[0]
	if !reflect.DeepEqual(d.Message, want) {
		t.Errorf("got %+v", d.Message)
	}
	mustSettle(t, other, ackwise.OutcomeAck, 0, d)
	list, err := ListMoves(t.Context(), dlq.o.Queue)
	if err != nil || len(list) != 1 || list[0].To != other.q.arn {
		t.Errorf("the tasks are %+v, %v", list, err)
	}
	// The task is over a moment after its last message is there.
	servers.Until(t, "what is over cannot be cancelled", time.Minute, func() bool {
		var hint *ackwise.HintError
		_, err := CancelMove(t.Context(), dlq.o.Queue, handle)
		return errors.As(err, &hint)
	})
}

// A topic of SNS gives the same message with and without its envelope. Header values are text here:
// moto answers 500 where SNS delivered a binary attribute raw.
func TestRealFanOut(t *testing.T) {
	endpoint := servers.Address(t, "ACKWISE_TEST_MOTO")
	t.Parallel()
	for _, end := range []string{"", fifoEnd} {
		t.Run("topic"+end, func(t *testing.T) {
			t.Parallel()
			f := &fake{URL: endpoint}
			o, err := sns.ParseSink("sns://eu-central-1/" + realQueue("topic"+end) +
				"?create=true&endpoint=" + endpoint)
			if err != nil {
				t.Fatal(err)
			}
			topic, err := sns.OpenSink(t.Context(), o)
			if err != nil {
				t.Fatal(err)
			}
			raw, _ := openBoth(t, f, realQueue("raw"+end), "")
			wrapped, _ := openBoth(t, f, realQueue("wrapped"+end), "")
			asItIs, _ := openBoth(t, f, realQueue("as-it-is"+end), "&envelope=none")
			for _, src := range []*source{raw, wrapped, asItIs} {
				if _, err := sns.Subscribe(t.Context(), o, sns.Subscription{Queue: src.q.arn,
					Raw: src == raw, Create: true}); err != nil {
					t.Fatal(err)
				}
			}
			want := ackwise.Message{ID: "1 ü", Key: "a key", Body: []byte{0, 0xff},
				Time: time.Unix(7, 5).UTC(), Headers: []ackwise.Header{{Name: "kind", Value: []byte("paid")},
					{Name: "more", Value: []byte("<&>\t\"ü\U0001f600")}, {Name: "more", Value: []byte{}}}}
			publish(t, topic, want)
			for _, src := range []*source{raw, wrapped} {
				d := take(t, src, 1)[0]
				want.Topic = src.o.Name
				if !reflect.DeepEqual(d.Message, want) {
					t.Errorf("%s: got %+v\nwant %+v", src.o.Name, d.Message, want)
				}
				mustSettle(t, src, ackwise.OutcomeAck, 0, d)
			}
			d := take(t, asItIs, 1)[0]
			if !strings.Contains(string(d.Body), `"TopicArn"`) {
				t.Errorf("envelope=none: got %s", d.Body)
			}
		})
	}
}

// TestRealElasticMQForgetsGroups shows, without this package between, why FIFO queues on ElasticMQ
// cannot keep their order over a restart: what is hidden blocks its group no more. When it fails,
// take the Cannot out of the harness.
func TestRealElasticMQForgetsGroups(t *testing.T) {
	servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	t.Parallel()
	server, proxy := servers.StartBehindProxy(t, "elasticmq")
	snk := openTestSink(t, &fake{URL: "http://" + proxy.Address}, realQueue("q.fifo"), "&create=true")
	publish(t, snk, keyed("k", "1", "2")...)
	receive := func() []types.Message {
		for end := time.Now().Add(60 * time.Second); ; {
			out, err := snk.q.asks.ReceiveMessage(t.Context(), &sqs.ReceiveMessageInput{
				QueueUrl: &snk.q.url, MaxNumberOfMessages: 1, VisibilityTimeout: 600, WaitTimeSeconds: 4})
			switch {
			case err == nil: // what was received is on its disk by now
				return out.Messages
			case time.Now().After(end):
				t.Fatal(err)
			}
		}
	}
	first := receive()
	if more := receive(); len(first) != 1 || len(more) != 0 {
		t.Fatalf("%d, and then %d messages of a group of which one is hidden", len(first), len(more))
	}
	var second []types.Message
	for try := 0; len(second) == 0 && try < 5; try++ { // not each time
		server.Kill(t)
		server.Restart(t)
		second = receive()
	}
	if len(second) != 1 || *second[0].MessageId == *first[0].MessageId {
		t.Errorf("started again it hands out %+v", second)
	}
}
