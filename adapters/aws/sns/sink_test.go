package sns_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/sns"
)

func open(t *testing.T, text string) ackwise.Sink {
	t.Helper()
	s, err := tryOpen(t.Context(), text)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func tryOpen(ctx context.Context, text string) (ackwise.Sink, error) {
	o, err := sns.ParseSink(text)
	if err != nil {
		return nil, err
	}
	return sns.OpenSink(ctx, o)
}

func (f *fake) address(topic string, more ...string) string {
	text := "sns://eu-central-1/" + topic + "?endpoint=" + f.url
	for _, m := range more {
		text += "&" + m
	}
	return text
}

func bodies(n int) []ackwise.Message {
	var ms []ackwise.Message
	for i := range n {
		ms = append(ms, ackwise.Message{ID: fmt.Sprintf("id-%02d", i), Topic: "orders",
			Key: fmt.Sprintf("k%d", i%3), Body: fmt.Appendf(nil, "b%02d", i)})
	}
	return ms
}

func classes(rs []ackwise.Result) string {
	var all []string
	for _, r := range rs {
		all = append(all, r.Class.String())
	}
	return strings.Join(all, " ")
}

func TestPublishInBatches(t *testing.T) {
	f := newFake(t, "orders")
	s := open(t, f.address("orders"))
	f.calls = nil
	results := s.Publish(t.Context(), bodies(23))
	for i, r := range results {
		if r.Class != ackwise.ResultAccepted || r.Position == "" || r.ID != fmt.Sprintf("id-%02d", i) {
			t.Errorf("result %d: %+v", i, r)
		}
	}
	got := f.bodies("orders")
	if len(got) != 23 || !slices.IsSorted(got) {
		t.Errorf("published %v", got)
	}
	if want := []string{"PublishBatch", "PublishBatch", "PublishBatch"}; !slices.Equal(f.calls, want) {
		t.Errorf("the calls are %v", f.calls)
	}
}

// TestAllComesBack reads back what raw delivery would give.
func TestAllComesBack(t *testing.T) {
	f := newFake(t, "orders", "orders.fifo")
	every := make([]byte, 256)
	for i := range every {
		every[i] = byte(i)
	}
	messages := []ackwise.Message{
		{ID: "1", Key: "a\x00\xff", Body: every, Time: time.Unix(5, 7).UTC(), Headers: []ackwise.Header{
			{Name: "z", Value: every}, {Name: "a", Value: []byte("1")}, {Name: "a", Value: nil}}},
		{ID: "2"},
		{ID: "3", Body: []byte{}},
		{ID: "\U0001f600", Body: []byte("text")},
	}
	for _, topic := range []string{"orders", "orders.fifo"} {
		s := open(t, f.address(topic))
		for _, n := range []int{1, len(messages)} { // Publish, and PublishBatch
			f.topics[arnBase+topic].got, f.topics[arnBase+topic].dedup = nil, map[string]bool{}
			for at := 0; at < len(messages); at += n {
				got := classes(s.Publish(t.Context(), messages[at:at+n]))
				if strings.Count(got, "accepted") != n {
					t.Fatalf("%s: %s", topic, got)
				}
			}
			for i, p := range f.topics[arnBase+topic].got {
				m := attr.Decode(p.Body, p.Attributes, "").Message
				want := messages[i]
				for j := range want.Headers {
					want.Headers[j].Value = append([]byte{}, want.Headers[j].Value...)
				}
				if !reflect.DeepEqual(m, want) {
					t.Errorf("%s: %+v, want %+v", topic, m, want)
				}
			}
		}
	}
}

func TestFIFO(t *testing.T) {
	f := newFake(t, "orders.fifo")
	s := open(t, f.address("orders.fifo"))
	if !s.Features().Dedup || s.Features().KeyRunSafe {
		t.Errorf("the features are %+v", s.Features())
	}
	m := ackwise.Message{ID: "1", Key: "k", Body: []byte("x")}
	redone := m
	redone.Headers = []ackwise.Header{{Name: ackwise.HeaderEpoch, Value: []byte("1")}}
	for range 2 { // the second is the first once more
		s.Publish(t.Context(), []ackwise.Message{m})
	}
	r := s.Publish(t.Context(), []ackwise.Message{redone})
	got := f.topics[arnBase+"orders.fifo"].got
	if len(got) != 2 || got[0].group != "k" || got[0].dedup != "1" || got[1].dedup == "1" {
		t.Errorf("published %+v", got)
	}
	if r[0].Position != "00000000000000000003" {
		t.Errorf("the position is %s, want the sequence number", r[0].Position)
	}
}

// TestPartialFailure classifies each entry of one answer.
func TestPartialFailure(t *testing.T) {
	f := newFake(t, "orders")
	s := open(t, f.address("orders"))
	for _, o := range []fault{
		{entry: "b01", code: "InternalError", status: 500},
		{entry: "b02", code: "Throttled", status: 400},
		{entry: "b03", code: "InvalidParameter", text: "Invalid parameter: Message", status: 400},
		{entry: "b04", code: "AuthorizationError", status: 403},
		{entry: "b05", code: "KMSDisabled", status: 400},
		{entry: "b06", code: "SomethingNew", status: 400},
		{entry: "b07"}, // the answer does not name it
	} {
		o.action = "PublishBatch"
		f.inject(o)
	}
	got := classes(s.Publish(t.Context(), bodies(9)))
	want := "accepted unknown retryable rejected retryable retryable unknown unknown accepted"
	if got != want || f.hits() != 7 {
		t.Errorf("%s, want %s; %d faults fired", got, want, f.hits())
	}
}

// TestWholeCallFails classifies the errors of calls.
func TestWholeCallFails(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault fault
		class string
		kept  int
		says  string
	}{
		{"cut before", fault{}, "unknown", 0, ""},
		{"cut after", fault{done: true}, "unknown", 1, ""},
		{"internal error", fault{status: 500, code: "InternalError", done: true}, "unknown", 1, ""},
		{"throttled", fault{status: 400, code: "Throttled"}, "retryable", 0, ""},
		{"not found", fault{status: 404, code: "NotFound"}, "retryable", 0, "The topic was deleted"},
		{"denied", fault{status: 403, code: "AuthorizationError"}, "retryable", 0, "sns:Publish"},
		{"expired", fault{status: 403, code: "ExpiredToken"}, "retryable", 0, "credentials"},
		{"invalid", fault{status: 400, code: "InvalidParameter", text: "Invalid parameter: Message"},
			"rejected", 0, ""},
		{"topic invalid", fault{status: 400, code: "InvalidParameter",
			text: "Invalid parameter: TopicArn"}, "retryable", 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, "orders")
			s := open(t, f.address("orders"))
			c.fault.action = "Publish"
			f.inject(c.fault)
			r := s.Publish(t.Context(), bodies(1))
			if classes(r) != c.class || f.hits() != 1 || len(f.bodies("orders")) != c.kept {
				t.Errorf("%s (%v), want %s; kept %d", classes(r), r[0].Err, c.class, len(f.bodies("orders")))
			}
			if text := said(r[0].Err); !strings.Contains(text, c.says) {
				t.Errorf("it says %s, want %q", text, c.says)
			}
		})
	}
}

// said is an error with its hints.
func said(err error) string { return fmt.Sprint(err) }

// TestPoisonInABatch: a call that is refused for one message is sent one by one.
func TestPoisonInABatch(t *testing.T) {
	f := newFake(t, "orders")
	s := open(t, f.address("orders"))
	f.inject(fault{action: "PublishBatch", status: 400, code: "InvalidParameter", text: "Message"})
	if got := classes(s.Publish(t.Context(), bodies(3))); got != "accepted accepted accepted" {
		t.Error(got)
	}
	if n := len(f.bodies("orders")); n != 3 || f.hits() != 1 {
		t.Errorf("published %d", n)
	}
	f.inject(fault{action: "PublishBatch"})
	if got := classes(s.Publish(t.Context(), bodies(2))); got != "unknown unknown" {
		t.Error("a cut call of two: " + got)
	}
}

func TestLimits(t *testing.T) {
	f := newFake(t, "orders", "large")
	f.topics[arnBase+"large"].max = 1 << 20
	s := open(t, f.address("orders"))
	big := make([]byte, 150<<10)
	for i := range big {
		big[i] = 'x'
	}
	var many []ackwise.Header
	for i := range 12 {
		many = append(many, ackwise.Header{Name: fmt.Sprintf("h%02d", i), Value: []byte("v")})
	}
	ms := []ackwise.Message{{ID: "1", Body: big}, {ID: "2", Body: big},
		{ID: "3", Body: append(big, big...)}, {ID: "4", Headers: many, Body: []byte("b")}}
	rs := s.Publish(t.Context(), ms)
	if classes(rs) != "accepted accepted rejected accepted" {
		t.Error(classes(rs))
	}
	if !errors.Is(rs[2].Err, ackwise.ErrTooLarge) {
		t.Error(rs[2].Err)
	}
	large := open(t, f.address("large"))
	if got := classes(large.Publish(t.Context(), ms[2:3])); got != "accepted" ||
		large.Features().MaxBodyBytes != 1<<20 {
		t.Errorf("a topic of 1 MiB: %s", got)
	}
}

func TestEachMessagesOwnTopic(t *testing.T) {
	f := newFake(t, "a", "b")
	s := open(t, "sns://eu-central-1?endpoint="+f.url)
	rs := s.Publish(t.Context(), []ackwise.Message{{ID: "1", Topic: "a", Body: []byte("1")},
		{ID: "2", Topic: "b", Body: []byte("2")}, {ID: "3", Topic: "a", Body: []byte("3")},
		{ID: "4", Topic: "c", Body: []byte("4")}, {ID: "5", Topic: "no name", Body: []byte("5")}})
	if classes(rs) != "accepted accepted accepted retryable rejected" {
		t.Error(classes(rs), rs[3].Err, rs[4].Err)
	}
	if a, b := f.bodies("a"), f.bodies("b"); fmt.Sprint(a, b) != "[1 3] [2]" {
		t.Errorf("published %v %v", a, b)
	}
	if !strings.Contains(fmt.Sprint(rs[3].Err), `topic "c"`) {
		t.Errorf("%v", rs[3].Err)
	}
}

func TestOpening(t *testing.T) {
	f := newFake(t, "orders", "payments.fifo")
	ctx := t.Context()
	for text, wants := range map[string]string{
		f.address("order"):                                      `did you mean "orders"?`,
		f.address("gone"):                                       "create=true",
		f.address("gone", "account=000000000000"):               "account 000000000000",
		f.address("arn:aws:sns:eu-central-1:000000000000:x"):    "no topic",
		f.address("arn:aws:sns:us-east-1:000000000000:x"):       "it is in the region us-east-1",
		"sns://eu-central/orders":                               `did you mean "eu-central-1"?`,
		"sns://eu-central-1/a/b":                                "a topic has one name",
		"sns://eu-central-1/a b":                                "letters, digits",
		"sqs://eu-central-1/orders":                             "that of a topic is sns",
		f.address("orders", "acount=000000000000"):              `did you mean "account"?`,
		f.address("orders", "account=1"):                        "12 digits",
		"sns://eu-central-1/orders?endpoint=http://127.0.0.1:1": "Nobody answers at the endpoint",
	} {
		_, err := tryOpen(ctx, text)
		if err == nil || !strings.Contains(said(err), wants) {
			t.Errorf("%s: %s, want %q", text, said(err), wants)
		}
	}
	for _, text := range []string{f.address("payments.fifo"), f.address("new", "create=true"),
		f.address("new.fifo", "create=true"), f.address("orders", "account=000000000000"),
		f.address("also", "create=true", "account=000000000000"),
		f.address("arn:aws:sns:eu-central-1:000000000000:orders")} {
		open(t, text)
	}
	f.inject(fault{action: "ListTopics", status: http.StatusForbidden, code: "AuthorizationError"})
	if _, err := tryOpen(ctx, f.address("orders")); !strings.Contains(said(err), "account=") {
		t.Errorf("without sns:ListTopics: %s", said(err))
	}
	f.inject(fault{action: "GetTopicAttributes", status: 403, code: "AuthorizationError"})
	if _, err := tryOpen(ctx, f.address("orders")); !strings.Contains(said(err),
		"sns:GetTopicAttributes") {
		t.Errorf("without sns:GetTopicAttributes: %s", said(err))
	}
	if f.hits() != 2 {
		t.Errorf("%d faults fired", f.hits())
	}
}

func TestClosed(t *testing.T) {
	f := newFake(t, "orders")
	s := open(t, f.address("orders"))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if r := s.Publish(t.Context(), bodies(1)); !errors.Is(r[0].Err, ackwise.ErrClosed) ||
		r[0].Class != ackwise.ResultRetryable {
		t.Errorf("%+v", r)
	}
}

func TestSubscribe(t *testing.T) {
	f := newFake(t, "orders")
	o, err := sns.ParseSink(f.address("orders"))
	if err != nil {
		t.Fatal(err)
	}
	queue := "arn:aws:sqs:eu-central-1:000000000000:billing"
	want := sns.Subscription{Queue: queue, Raw: true, FilterPolicy: `{"kind": ["paid"]}`,
		DeadLetters: "arn:aws:sqs:eu-central-1:000000000000:undelivered"}
	subscribe := func(s sns.Subscription) error {
		_, err := sns.Subscribe(t.Context(), o, s)
		return err
	}
	if err := subscribe(want); !strings.Contains(said(err), "set Create") {
		t.Errorf("a missing subscription: %s", said(err))
	}
	want.Create = true
	if err := subscribe(want); err != nil {
		t.Fatal(err)
	}
	got := f.subs[0].attributes
	if got["RawMessageDelivery"] != "true" || got["FilterPolicy"] != want.FilterPolicy ||
		got["RedrivePolicy"] != `{"deadLetterTargetArn":"arn:aws:sqs:eu-central-1:000000000000:`+
			`undelivered"}` {
		t.Errorf("the attributes are %v", got)
	}
	want.FilterPolicy = `{"kind":["paid"]}` // the same
	if err := subscribe(want); err != nil || len(f.subs) != 1 {
		t.Errorf("the same once more: %v, %d subscriptions", err, len(f.subs))
	}
	want.Raw = false
	if err := subscribe(want); !strings.Contains(said(err), "RawMessageDelivery") || len(f.subs) != 1 {
		t.Errorf("another one: %s", said(err))
	}
	bad := sns.Subscription{Queue: "billing", FilterPolicy: "{", FilterScope: "Body", DeadLetters: "x"}
	for _, field := range []string{"Queue", "FilterPolicy", "FilterScope", "DeadLetters"} {
		if err := subscribe(bad); !strings.Contains(said(err), field) {
			t.Errorf("%s is not named: %s", field, said(err))
		}
	}
}
