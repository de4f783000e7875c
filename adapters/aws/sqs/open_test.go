package sqs

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ackwise/ackwise"
)

// unreached is a client whose server is not there.
func unreached(s *sink) *sqs.Client {
	o := s.q.api.Options()
	o.BaseEndpoint = aws.String("http://127.0.0.1:1")
	return sqs.New(o)
}

func TestParse(t *testing.T) {
	t.Parallel()
	got, err := ParseSource("sqs://eu-central-1/orders.fifo?endpoint=http://127.0.0.1:9324" +
		"&account=123456789012&lease=90s&wait=20s&polls=8&create=true&envelope=none")
	want := SourceOptions{Queue: Queue{Region: "eu-central-1", Name: "orders.fifo",
		Account: "123456789012", Endpoint: "http://127.0.0.1:9324", Create: true},
		Lease: 90 * time.Second, Wait: 20 * time.Second, Polls: 8, Envelope: EnvelopeNone}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	sink, err := ParseSink("sqs://us-gov-west-1/orders?calls=2&dead-letters=true")
	if err != nil || sink.Name != "orders" || sink.Calls != 2 || !sink.DeadLetters {
		t.Errorf("got %+v, %v", sink, err)
	}
	for text, wants := range map[string][]string{
		"sqs:orders":                             {"not a URL"},
		"sqs://eu-central1/orders":               {`did you mean "eu-central-1"?`},
		"sqs://eu-central-1":                     {"the name is missing", "it is sqs://REGION/QUEUE"},
		"sqs://eu-central-1/a/b":                 {"2 parts"},
		"sqs://eu-central-1/a.b":                 {`invalid queue "a.b"`},
		"sqs://eu-central-1/" + long(81):         {"81 bytes"},
		"sqs://eu-central-1/a?leese=1s&acount=1": {`did you mean "lease"?`, `did you mean "account"?`},
		"sqs://eu-central-1/a?lease=13h":         {"lease=13h"},
		"sqs://eu-central-1/a?lease=1500ms":      {"whole seconds"},
		"sqs://eu-central-1/a?wait=21s":          {"wait=21s"},
		"sqs://eu-central-1/a?envelope=nune":     {`did you mean "none"?`},
		"sqs://eu-central-1/a?account=me":        {"invalid account"},
		"sqs://eu-central-1/a?endpoint=x":        {"invalid endpoint"},
		"sns://eu-central-1/a":                   {`the scheme is "sns"`},
	} {
		_, err := ParseSource(text)
		for _, want := range wants {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want %s", text, err, want)
			}
		}
	}
	if _, err := ParseSink("sqs://eu-central-1/a?lease=1s"); err == nil ||
		!strings.Contains(err.Error(), `no option "lease"`) {
		t.Errorf("a sink has no lease: %v", err)
	}
}

func long(n int) string { return strings.Repeat("q", n) }

func TestOpen(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	openBoth(t, f, "orders", "")
	at := Queue{Region: "eu-central-1", Name: "oders", Endpoint: f.URL}
	_, err := OpenSource(t.Context(), SourceOptions{Queue: at})
	var missing *ackwise.NotFoundError
	var hint *ackwise.HintError
	if !errors.As(err, &missing) || missing.Nearest != "orders" || !errors.As(err, &hint) ||
		!strings.Contains(err.Error(), "region eu-central-1") {
		t.Errorf("a missing queue: %v", err)
	}
	f.fail(fakeFault{action: "ListQueues", times: 1, code: "AccessDenied"})
	if _, err := OpenSink(t.Context(), SinkOptions{Queue: at}); !errors.As(err, &missing) ||
		missing.Nearest != "" {
		t.Errorf("a missing queue, and the list is denied: %v", err)
	}
	at.Name = "orders"
	f.fail(fakeFault{action: "GetQueueUrl", times: 1, code: "AccessDenied"})
	if _, err := OpenSink(t.Context(), SinkOptions{Queue: at}); !errors.As(err, &hint) ||
		!strings.Contains(hint.Hint, "sqs:GetQueueUrl on the queue orders") {
		t.Errorf("denied: %v", err)
	}
	f.mu.Lock()
	f.queues["orders"].attributes["VisibilityTimeout"] = "0"
	f.mu.Unlock()
	if _, err := OpenSource(t.Context(), SourceOptions{Queue: at}); err == nil ||
		!strings.Contains(err.Error(), "visibility timeout is 0") {
		t.Errorf("no lease: %v", err)
	}
	if _, err := OpenSource(t.Context(), SourceOptions{Queue: at, Lease: time.Millisecond, Polls: -1,
		MaxHeld: -1}); err == nil || strings.Count(err.Error(), "invalid") != 3 {
		t.Errorf("three faults: %v", err)
	}
	if _, err := OpenSink(t.Context(), SinkOptions{Queue: at, Calls: -1}); err == nil {
		t.Error("no calls")
	}
}

func TestCreate(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src := openTestSource(t, f, "made.fifo", "&create=true&lease=77s")
	if q := f.queues["made.fifo"]; !q.fifo || q.attributes["VisibilityTimeout"] != "77" ||
		src.lease != 77*time.Second {
		t.Errorf("got %+v", q)
	}
	// Another process makes it meanwhile, with another lease.
	f.fail(fakeFault{action: "GetQueueUrl", times: 1, code: "QueueDoesNotExist"})
	openTestSource(t, f, "made.fifo", "&create=true&lease=55s")
}

// openLetters opens a queue as a store of dead letters, and returns what its logger was told.
func openLetters(t *testing.T, f *fake, name string, change func(*SinkOptions)) (*sink, string) {
	t.Helper()
	o, err := ParseSink(address(f.URL, name, "&dead-letters=true"))
	if err != nil {
		t.Fatal(err)
	}
	var told bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&told, nil))
	if change != nil {
		change(&o)
	}
	s, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*sink), told.String()
}

// A queue that is made for dead letters keeps them as long as the service can. One that is there is
// left as it is, and told where it keeps them for less.
func TestQueueOfDeadLetters(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	create := func(o *SinkOptions) { o.Create = true }
	for _, name := range []string{"dead", "dead.fifo"} {
		s, told := openLetters(t, f, name, create)
		if got := f.queues[name].attributes["MessageRetentionPeriod"]; got != "1209600" || told != "" ||
			s.q.retention != 14*24*time.Hour {
			t.Errorf("%s is made with the retention %q, and told is %q", name, got, told)
		}
		short := "short-" + name
		openTestSink(t, f, short, "&create=true") // for messages
		if got, ok := f.queues[short].attributes["MessageRetentionPeriod"]; ok {
			t.Errorf("%s is made with the retention %q", short, got)
		}
		_, told = openLetters(t, f, short, create)
		for _, want := range []string{"level=WARN", "queue=" + short, "after=96h0m0s", "1209600",
			"renew"} {
			if !strings.Contains(told, want) {
				t.Errorf("%s: told is %q, without %q", short, told, want)
			}
		}
		if strings.Count(told, "\n") != 1 || f.queues[short].attributes["MessageRetentionPeriod"] != "" {
			t.Errorf("%s: told is %q, and its attributes are %v", short, told, f.queues[short].attributes)
		}
		// It is no store of dead letters, or nobody listens.
		none := func(o *SinkOptions) { o.DeadLetters = false }
		if _, told := openLetters(t, f, short, none); told != "" {
			t.Errorf("a queue of messages: %s", told)
		}
		openLetters(t, f, short, func(o *SinkOptions) { o.Logger = nil })
	}
}

// Another process makes the queue meanwhile, and keeps letters for less: it is told all the same. A
// server that does not say how long it keeps them is not spoken for.
func TestQueueOfDeadLettersOfAnother(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	openTestSink(t, f, "dead", "&create=true")
	f.fail(fakeFault{action: "GetQueueUrl", times: 1, code: "QueueDoesNotExist"})
	_, told := openLetters(t, f, "dead", func(o *SinkOptions) { o.Create = true })
	if !strings.Contains(told, "after=96h0m0s") {
		t.Errorf("told is %q", told)
	}
	f.mu.Lock()
	f.queues["dead"].attributes["MessageRetentionPeriod"] = ""
	f.mu.Unlock()
	if s, told := openLetters(t, f, "dead", nil); told != "" || s.q.keeps() != 4*24*time.Hour {
		t.Errorf("told is %q", told)
	}
}

func TestOpenWithoutServer(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	_, snk := openBoth(t, f, "q", "")
	o := snk.o
	o.Endpoint = aws.ToString(unreached(snk).Options().BaseEndpoint)
	_, err := OpenSink(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "Nobody answers at the endpoint "+o.Endpoint) {
		t.Errorf("got %v", err)
	}
}

// What answers without being SQS is named with the endpoint, also where it says yes to everything.
func TestOpenAtAnotherServer(t *testing.T) {
	t.Parallel()
	for status, body := range map[int]string{200: `{"status":"ok"}`, 400: "", 404: "404 page not found\n"} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}))
		t.Cleanup(s.Close)
		at := Queue{Region: "eu-central-1", Name: "orders", Endpoint: s.URL}
		_, sink := OpenSink(t.Context(), SinkOptions{Queue: at})
		_, source := OpenSource(t.Context(), SourceOptions{Queue: at})
		for _, err := range []error{sink, source} {
			hint, ok := errors.AsType[*ackwise.HintError](err)
			if !ok || !strings.Contains(hint.Hint, s.URL+" does not speak SQS") {
				t.Errorf("%d: %v", status, err)
			}
		}
	}
}

// A redrive policy says after how many hand-outs the service itself gives a message up.
func TestRedrivePolicy(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	openBoth(t, f, "q", "")
	for policy, want := range map[string]int{
		`{"deadLetterTargetArn":"a","maxReceiveCount":5}`:      5,
		`{"deadLetterTargetArn":"a","maxReceiveCount":"1000"}`: 1000,
		"": 0, "{}": -1, `{"maxReceiveCount":0}`: -1, `{"maxReceiveCount":true}`: -1, "x": -1,
	} {
		f.mu.Lock()
		f.queues["q"].attributes["RedrivePolicy"] = policy
		f.mu.Unlock()
		o, err := ParseSource(address(f.URL, "q", ""))
		if err != nil {
			t.Fatal(err)
		}
		src, err := OpenSource(t.Context(), o)
		switch {
		case err != nil:
			if want >= 0 || !strings.Contains(err.Error(), "RedrivePolicy") {
				t.Errorf("%s: %v", policy, err)
			}
			continue
		case src.Features().MaxHandOuts != want:
			t.Errorf("%s: %d hand-outs, want %d", policy, src.Features().MaxHandOuts, want)
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}
