package lambda_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/lambda"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// plan is a handler that does what the test says by ID, and notes what it got.
type plan struct {
	mu   sync.Mutex // guards the fields below
	do   map[string]func(ctx context.Context) error
	got  []string
	took []*ackwise.Delivery
}

func (p *plan) Handle(ctx context.Context, d *ackwise.Delivery) error {
	p.mu.Lock()
	p.got = append(p.got, d.ID)
	p.took = append(p.took, &ackwise.Delivery{Message: d.Message, Attempt: d.Attempt,
		Counts: d.Counts, Cause: d.Cause, Epoch: d.Epoch, Partition: d.Partition, Position: d.Position})
	do := p.do[d.ID]
	p.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

func (p *plan) take() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got
	p.got = nil
	return got
}

var errBroken = errors.New("the target is broken")

func fail(context.Context) error   { return errBroken }
func reject(context.Context) error { return ackwise.Reject(errBroken) }

// letters are dead letters in memory.
type letters struct {
	mu  sync.Mutex // guards got
	got []string   // ID: reason
	err error
}

func (l *letters) Put(_ context.Context, d *ackwise.Delivery, reason string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.got = append(l.got, d.ID+": "+reason)
	}
	return l.err
}

func function(t *testing.T, o lambda.Options) *lambda.Function {
	t.Helper()
	if o.Deliver.Backoff.First == 0 {
		o.Deliver.Backoff = deliver.Backoff{First: time.Millisecond, Cap: 2 * time.Millisecond}
	}
	f, err := lambda.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// answer invokes the function and returns the identifiers in its answer.
func answer(t *testing.T, f *lambda.Function, event string) []string {
	t.Helper()
	out, err := f.Invoke(t.Context(), []byte(event))
	if err != nil {
		t.Fatal(err)
	}
	var a struct {
		BatchItemFailures []struct{ ItemIdentifier string }
	}
	if err := json.Unmarshal(out, &a); err != nil {
		t.Fatalf("the answer %s: %v", out, err)
	}
	ids := []string{}
	for _, f := range a.BatchItemFailures {
		ids = append(ids, f.ItemIdentifier)
	}
	return ids
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

func records(rs ...string) string { return `{"Records":[` + strings.Join(rs, ",") + `]}` }

func queued(id string, count int) string {
	return fmt.Sprintf(`{"messageId":%q,"receiptHandle":"r","body":"body of %s","attributes":{
		"ApproximateReceiveCount":"%d","SentTimestamp":"1523232000000"},"messageAttributes":{},
		"eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:eu-central-1:000000000000:orders"}`,
		id, id, count)
}

func fifo(id, group string) string {
	return fmt.Sprintf(`{"messageId":%q,"body":"b","attributes":{"ApproximateReceiveCount":"1",
		"MessageGroupId":%q,"SequenceNumber":"18849496460467696128"},
		"eventSource":"aws:sqs","eventSourceARN":"arn:aws:sqs:eu-central-1:000000000000:orders.fifo"}`,
		id, group)
}

func changed(sequence int, item string) string {
	return fmt.Sprintf(`{"eventID":"e%d","eventName":"MODIFY","eventVersion":"1.1",
		"eventSource":"aws:dynamodb","awsRegion":"eu-central-1","dynamodb":{"Keys":{"id":{"S":%q}},
		"NewImage":{"id":{"S":%q},"n":{"N":"%d"}},"ApproximateCreationDateTime":1.5e9,
		"SequenceNumber":"%d","SizeBytes":9,"StreamViewType":"NEW_AND_OLD_IMAGES"},
		"eventSourceARN":"arn:aws:dynamodb:eu-central-1:000000000000:table/orders/stream/2026"}`,
		sequence, item, item, sequence, sequence)
}

func pushed(id string) string {
	return fmt.Sprintf(`{"EventSource":"aws:sns","EventVersion":"1.0","EventSubscriptionArn":"arn:sub",
		"Sns":{"Type":"Notification","MessageId":%q,"Subject":null,"Message":"hello",
		"TopicArn":"arn:aws:sns:eu-central-1:000000000000:orders","Timestamp":"2026-01-01T00:00:00Z",
		"MessageAttributes":{"kind":{"Type":"String","Value":"paid"},
		"raw":{"Type":"Binary","Value":"AAE="}}}}`, id)
}

func TestStandardQueueNamesTheFailed(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"b": reject, "c": fail}}
	f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{MaxFailures: 2}})
	want(t, "answer", answer(t, f, records(queued("a", 1), queued("b", 1), queued("c", 1),
		queued("d", 1))), []string{"b", "c"})
	want(t, "an empty event", answer(t, f, records()), []string{})
}

// TestFIFOKeepsTheOrderOfAGroup shows the rule of AWS: "If you're using this feature with a FIFO
// queue, your function should stop processing messages after the first failure and return all
// failed and unprocessed messages in batchItemFailures. This helps preserve the ordering of
// messages in your queue." (lambda/latest/dg/services-sqs-errorhandling.html). Groups are
// independent of each other.
func TestFIFOKeepsTheOrderOfAGroup(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"a2": reject}}
	f := function(t, lambda.Options{Handler: p})
	want(t, "answer", answer(t, f, records(fifo("a1", "A"), fifo("b1", "B"), fifo("a2", "A"),
		fifo("b2", "B"), fifo("a3", "A"))), []string{"a2", "a3"})
	for _, id := range p.take() {
		if id == "a3" {
			t.Error("a3 was handled though a2 of its group has failed")
		}
	}
}

// TestStreamNamesTheLowest: "Lambda uses the record with the lowest sequence number as the
// checkpoint. Lambda then retries all records starting from that checkpoint."
// (lambda/latest/dg/services-ddb-batchfailurereporting.html)
func TestStreamNamesTheLowest(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"e2": reject}}
	f := function(t, lambda.Options{Handler: p})
	event := records(changed(1, "x"), changed(2, "y"), changed(3, "x"), changed(4, "y"),
		changed(5, "z"))
	want(t, "answer", answer(t, f, event), []string{"2"})
	got := strings.Join(p.take(), " ")
	if strings.Contains(got, "e4") || !strings.Contains(got, "e5") || !strings.Contains(got, "e3") {
		t.Errorf("handled %s: want e3 and e5, whose items are others, and not e4", got)
	}
}

// TestDedupRemembersWhatComesAgain: without a store what succeeded behind the checkpoint is made
// again, with one it is not.
func TestDedupRemembersWhatComesAgain(t *testing.T) {
	for _, with := range []bool{false, true} {
		p := &plan{do: map[string]func(context.Context) error{"e1": reject}}
		o := lambda.Options{Handler: p}
		if with {
			s, err := memstore.Open(memstore.Options{Name: "s"})
			if err != nil {
				t.Fatal(err)
			}
			o.Dedup = s
		}
		f := function(t, o)
		want(t, "answer", answer(t, f, records(changed(1, "x"), changed(2, "y"))), []string{"1"})
		p.take()
		p.do = nil
		want(t, "answer", answer(t, f, records(changed(1, "x"), changed(2, "y"))), []string{})
		if again := strings.Contains(strings.Join(p.take(), " "), "e2"); again == with {
			t.Errorf("with a store %t: e2 was made again %t", with, again)
		}
	}
}

func TestDeadLettersAreDurableBeforeTheAnswer(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"e1": fail, "e2": reject}}
	l := &letters{}
	f := function(t, lambda.Options{Handler: p,
		Deliver: deliver.Options{MaxFailures: 2, DeadLetters: l, Concurrency: 1}})
	event := records(changed(1, "x"), changed(2, "y"))
	want(t, "answer", answer(t, f, event), []string{})
	want(t, "dead letters", len(l.got), 2)

	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	l.err = errors.New("the queue is away")
	out, err := f.Invoke(ctx, []byte(event))
	if err != nil || string(out) != `{"batchItemFailures":[{"itemIdentifier":"1"}]}` {
		t.Errorf("without a place for dead letters: %s %v", out, err)
	}
}

func TestTopicAnswersAnError(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"n1": reject}}
	f := function(t, lambda.Options{Handler: p})
	if _, err := f.Invoke(t.Context(), []byte(records(pushed("n1")))); !errors.Is(err, err) ||
		err == nil || !strings.Contains(err.Error(), "n1") {
		t.Errorf("a failed notification is answered %v", err)
	}
	if out, err := f.Invoke(t.Context(), []byte(records(pushed("n2")))); err != nil ||
		string(out) != "null" {
		t.Errorf("a notification is answered %s %v", out, err)
	}
	d := p.took[len(p.took)-1]
	raw, _ := d.Header("raw")
	if d.Topic != "orders" || string(d.Body) != "hello" || !bytes.Equal(raw, []byte{0, 1}) ||
		d.Cause != ackwise.CauseUnknown {
		t.Errorf("the delivery is %+v", d)
	}
}

// TestTopicLosesNothingAtItsDeadline: Lambda would discard the notification after two repeats.
func TestTopicLosesNothingAtItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{do: map[string]func(context.Context) error{"n1": func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}}}
		l := &letters{}
		f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{DeadLetters: l}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if out, err := f.Invoke(ctx, []byte(records(pushed("n1")))); err != nil || ctx.Err() != nil {
			t.Errorf("answered %s %v, in time: %v", out, err, ctx.Err())
		}
		if len(l.got) != 1 || !strings.Contains(l.got[0], "not done within its invocation") {
			t.Errorf("dead letters: %q", l.got)
		}
		l.err = errors.New("the queue is away")
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := f.Invoke(ctx, []byte(records(pushed("n1")))); err == nil ||
			!strings.Contains(err.Error(), "the queue is away") {
			t.Errorf("without a place for dead letters it is answered %v", err)
		}
	})
}

// TestStopsBeforeTheDeadline: what is not done a margin before the end is answered as failed.
func TestStopsBeforeTheDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := func(ctx context.Context) error {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		p := &plan{do: map[string]func(context.Context) error{"b": slow, "c": fail}}
		f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{Margin: 3 * time.Second,
			MaxFailures: deliver.Unlimited,
			Backoff:     deliver.Backoff{First: 100 * time.Millisecond, Cap: time.Second}}})
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		began := time.Now()
		out, err := f.Invoke(ctx, []byte(records(queued("a", 1), queued("b", 1), queued("c", 1))))
		if err != nil || string(out) !=
			`{"batchItemFailures":[{"itemIdentifier":"b"},{"itemIdentifier":"c"}]}` {
			t.Errorf("answered %s %v", out, err)
		}
		if took := time.Since(began); took != 7*time.Second {
			t.Errorf("it took %s", took)
		}
		if n := strings.Count(strings.Join(p.take(), ""), "c"); n < 5 {
			t.Errorf("c was tried %d times within the invocation", n)
		}
		ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		if _, err := f.Invoke(ctx, []byte(records(queued("a", 1)))); err == nil ||
			!strings.Contains(err.Error(), "the margin at its end is 3s") {
			t.Errorf("a margin that leaves no time: %v", err)
		}
	})
}

func TestCausesAreKnownOrUnknown(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"b": reject}}
	f := function(t, lambda.Options{Handler: p})
	causes := func(event string) string {
		p.took = nil
		answer(t, f, event)
		var all []string
		for _, d := range p.took {
			all = append(all, fmt.Sprint(d.ID, " ", d.Attempt, " ", d.Cause))
		}
		return strings.Join(all, ", ")
	}
	f2 := records(queued("a", 1))
	want(t, "the first", causes(f2), "a 1 first")
	want(t, "after an ack", causes(records(queued("a", 2))), "a 2 ack-lost")
	want(t, "the first", causes(records(queued("b", 1))), "b 1 first")
	want(t, "after a failure", causes(records(queued("b", 2))), "b 2 failed")
	want(t, "somebody else had it", causes(records(queued("b", 4))), "b 4 unknown")
	want(t, "never seen", causes(records(queued("c", 7))), "c 7 unknown")
	want(t, "a stream", causes(records(changed(1, "x"))), "e1 1 unknown")
}

// TestFailuresAreCountedAcrossEvents: an invocation that ends before the budget is spent does not
// make it new.
func TestFailuresAreCountedAcrossEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &plan{do: map[string]func(context.Context) error{"e1": fail}}
		l := &letters{}
		var log bytes.Buffer
		f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{MaxFailures: 5,
			DeadLetters: l, Backoff: deliver.Backoff{First: 3 * time.Second, Factor: 1},
			Rand:   func() float64 { return 1 },
			Logger: slog.New(slog.NewTextHandler(&log, nil))}})
		events := 0
		for len(l.got) == 0 && events < 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if _, err := f.Invoke(ctx, []byte(records(changed(1, "x")))); err != nil {
				t.Fatal(err)
			}
			cancel()
			events++
		}
		want(t, "handled", len(p.take()), 5)
		want(t, "events", events, 2)
		if !strings.Contains(log.String(), "longer than an invocation") {
			t.Errorf("nothing says that the budget is too long:\n%s", &log)
		}
	})
}

func TestWholeBatchAnswersAnError(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"b": reject}}
	f := function(t, lambda.Options{Handler: p, WholeBatch: true})
	_, err := f.Invoke(t.Context(), []byte(records(queued("a", 1), queued("b", 1))))
	if err == nil || !strings.Contains(err.Error(), "1 of 2") {
		t.Errorf("answered %v", err)
	}
}

// TestTooManyHandOuts: a message that ends its process is never settled by it; the queue counts.
func TestTooManyHandOuts(t *testing.T) {
	p, l := &plan{}, &letters{}
	f := function(t, lambda.Options{Handler: p,
		Deliver: deliver.Options{DeadLetters: l, MaxHandOuts: 3}})
	want(t, "answer", answer(t, f, records(queued("a", 3), queued("b", 4))), []string{})
	want(t, "handled", p.take(), []string{"a"})
	want(t, "dead letters", l.got, []string{"b: it was handed out 3 times before and never settled"})
}

func TestBadEventsAreExplained(t *testing.T) {
	f := function(t, lambda.Options{Handler: &plan{}})
	for event, wants := range map[string]string{
		`{`:                            "no JSON object",
		`[]`:                           "no JSON object",
		`{"detail-type":"x","id":"1"}`: "its fields are detail-type, id; the known sources are",
		`{"Records":{}}`:               "no list Records",
		`{"Records":[{}]}`:             "it has no eventSource",
		`{"Records":[1]}`:              "record 0",
		records(`{"eventSource":"aws:kinesis"}`): `its eventSource is "aws:kinesis"; the known sources ` +
			`are aws:dynamodb, aws:sns, aws:sqs`,
		records(queued("a", 1), changed(1, "x")):  "an event has one source",
		records(`{"eventSource":"aws:sqs"}`):      "messageId",
		records(`{"eventSource":"aws:dynamodb"}`): "eventSourceARN",
		records(`{"EventSource":"aws:sns"}`):      "no notification",
	} {
		_, err := f.Invoke(t.Context(), []byte(event))
		if err == nil || !strings.Contains(err.Error(), wants) {
			t.Errorf("%.60s: %v, want %q", event, err, wants)
		}
	}
	if _, err := lambda.New(t.Context(), lambda.Options{}); err == nil {
		t.Error("a function without handler was made")
	}
	if _, err := lambda.New(t.Context(), lambda.Options{Handler: &plan{},
		Deliver: deliver.Options{Concurrency: -1}}); err == nil {
		t.Error("a function of concurrency -1 was made")
	}
}

// TestMemoryIsBounded forgets the oldest.
func TestMemoryIsBounded(t *testing.T) {
	p := &plan{}
	f := function(t, lambda.Options{Handler: p, MaxRemembered: 2})
	for _, id := range []string{"a", "b", "c"} {
		answer(t, f, records(queued(id, 1)))
	}
	p.took = nil
	answer(t, f, records(queued("c", 2)))
	answer(t, f, records(queued("a", 2)))
	want(t, "causes", fmt.Sprint(p.took[0].Cause, " ", p.took[1].Cause), "ack-lost unknown")
}

// TestEachEventHasItsBudget: without dead letters a spent budget begins anew with the next event.
func TestEachEventHasItsBudget(t *testing.T) {
	p := &plan{do: map[string]func(context.Context) error{"e1": fail}}
	var log bytes.Buffer
	f := function(t, lambda.Options{Handler: p, Deliver: deliver.Options{MaxFailures: 2,
		Logger: slog.New(slog.NewTextHandler(&log, nil))}})
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := f.Invoke(ctx, []byte(records(changed(1, "x")))); err != nil {
			t.Fatal(err)
		}
		cancel()
		want(t, "handled", len(p.take()), 2)
	}
	if strings.Contains(log.String(), "longer than an invocation") {
		t.Errorf("a budget that fits is warned of:\n%s", &log)
	}
}

// TestFIFOGroupOfOtherKeys: messages that carry keys of their own may share a group, and its order
// still holds in the queue.
func TestFIFOGroupOfOtherKeys(t *testing.T) {
	keyed := func(id, key string) string {
		return strings.Replace(fifo(id, "G"), `"body":"b",`, fmt.Sprintf(`"body":"b",
			"messageAttributes":{"ackwise-id":{"dataType":"String","stringValue":%q},
			"ackwise":{"dataType":"String","stringValue":"{\"key\":\"%s\"}"}},`, id, key), 1)
	}
	p := &plan{do: map[string]func(context.Context) error{"m1": reject}}
	f := function(t, lambda.Options{Handler: p})
	want(t, "answer", answer(t, f, records(keyed("m1", "x"), keyed("m2", "y"))),
		[]string{"m1", "m2"})
	want(t, "m2 has its own key", p.took[len(p.took)-1].Key != p.took[0].Key, true)
}
