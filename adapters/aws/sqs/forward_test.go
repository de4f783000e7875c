package sqs

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/relay"
)

func keep(t *testing.T, o ForwardOptions) ForwardReport {
	t.Helper()
	r, err := KeepForward(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeepForward(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"dlq", "dlq.fifo"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			src, snk := openBoth(t, f, name, "") // it keeps letters for 4 days
			f.mu.Lock()
			f.store(f.queues[name], &fakeEntry{MessageBody: "theirs", MessageGroupID: "g",
				MessageDeduplicationID: "d", MessageAttributes: map[string]fakeAttribute{
					"n": {DataType: "Number", StringValue: "1"}}})
			f.mu.Unlock()
			publish(t, snk, ackwise.Message{ID: "1", Key: "k", Body: []byte{0xff}},
				ackwise.Message{ID: "2", Key: "k"})
			f.age(name, 73*time.Hour)
			begin := f.stored(name)[0].sent.UTC()
			publish(t, snk, ackwise.Message{ID: "3", Key: "k"})
			o := ForwardOptions{From: src.o.Queue, Before: 24 * time.Hour}
			r := keep(t, o)
			due := 3
			if strings.HasSuffix(name, fifoEnd) {
				due = 4 // 3 goes with those before it
			}
			if r.Forwarded != due || r.Failed+r.Twice != 0 || r.Oldest < 73*time.Hour || r.Err != nil {
				t.Errorf("got %+v", r)
			}
			f.age(name, 48*time.Hour) // past the end of what was not copied
			if r := keep(t, o); r.Forwarded != 0 || r.Young != 4 {
				t.Errorf("the copies are not young: %+v", r)
			}
			seen, order := map[string]*ackwise.Delivery{}, ""
			for _, d := range take(t, src, 4) {
				seen[d.ID] = d
				if d.Key == "k" {
					order += d.ID
				}
				mustSettle(t, src, ackwise.OutcomeAck, 0, d)
			}
			theirs := seen["00000000-0000-0000-0000-000000000001"]
			if len(seen) != 4 || seen["1"] == nil || string(seen["1"].Body) != "\xff" || theirs == nil {
				t.Fatalf("got %v", seen)
			}
			if due == 4 && order != "123" {
				t.Errorf("the group is in the order %s", order)
			}
			for _, d := range []*ackwise.Delivery{theirs, seen["1"]} {
				text, _ := d.Header(ackwise.HeaderFirstSeen)
				at, err := time.Parse(time.RFC3339Nano, string(text))
				if err != nil || at.Sub(begin).Abs() > time.Minute {
					t.Errorf("%s was first seen at %q", d.ID, text)
				}
			}
		})
	}
}

// A number stays a number, and a letter that is copied often knows when it was first seen.
func TestKeepForwardAgainAndAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, _ := openBoth(t, f, "dlq", "")
	f.mu.Lock()
	f.store(f.queues["dlq"], &fakeEntry{MessageBody: "x", MessageAttributes: map[string]fakeAttribute{
		"n": {DataType: "Number.int", StringValue: "1"}, "b": {DataType: "Binary",
			BinaryValue: []byte("text")}}})
	f.mu.Unlock()
	begin := f.stored("dlq")[0].sent.Add(-73 * time.Hour)
	for range 3 {
		f.age("dlq", 73*time.Hour)
		if r := keep(t, ForwardOptions{From: src.o.Queue, Before: 24 * time.Hour}); r.Forwarded != 1 {
			t.Fatalf("got %+v", r)
		}
	}
	m := f.stored("dlq")[0]
	d := take(t, src, 1)[0]
	first, _ := d.Header(ackwise.HeaderFirstSeen)
	if m.attributes["n"].DataType != "Number.int" || string(m.attributes["b"].BinaryValue) != "text" ||
		!strings.HasPrefix(string(first), begin.UTC().Format("2006-01-02T15:04:05")) {
		t.Errorf("got %+v, first seen %s", m.attributes, first)
	}
}

// A letter in SNS's envelope stays in it, so that it can still be taken off.
func TestKeepForwardOfAnEnvelope(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, _ := openBoth(t, f, "dlq", "")
	wrapped := `{"Type":"Notification","MessageId":"of SNS","TopicArn":"a:t","Message":"text"}`
	f.mu.Lock()
	f.store(f.queues["dlq"], &fakeEntry{MessageBody: wrapped})
	f.mu.Unlock()
	f.age("dlq", 73*time.Hour)
	if r := keep(t, ForwardOptions{From: src.o.Queue, Before: 24 * time.Hour}); r.Forwarded != 1 {
		t.Fatalf("got %+v", r)
	}
	if d := take(t, src, 1)[0]; d.ID != "of SNS" || string(d.Body) != "text" {
		t.Errorf("got %+v", d.Message)
	}
}

// Sent first, deleted after: what fails between leaves a letter twice, never none.
func TestKeepForwardFailures(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "dlq", "")
	openTestSink(t, f, "other", "&create=true")
	publish(t, snk, keyed("", "1", "2")...)
	o := ForwardOptions{From: src.o.Queue, To: src.o.Queue, Before: 4*24*time.Hour - time.Hour}
	o.To.Name = "other"
	f.age("dlq", 2*time.Hour)
	f.fail(fakeFault{action: "SendMessageBatch", times: 1, entry: "InternalError", index: 0})
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 3, code: "InternalError"})
	r := keep(t, o)
	if r.Failed != 1 || r.Twice != 1 || r.Forwarded != 0 || r.Err == nil {
		t.Errorf("got %+v", r)
	}
	if a, b := len(f.stored("dlq")), len(f.stored("other")); a != 2 || b != 1 {
		t.Errorf("%d and %d letters", a, b)
	}
	f.advance(6 * time.Minute) // what could not be deleted is hidden until then
	if r := keep(t, o); r.Forwarded != 2 || len(f.stored("dlq")) != 0 {
		t.Errorf("got %+v", r)
	}
	for _, o := range []ForwardOptions{{From: o.From, Before: 5 * 24 * time.Hour}, {},
		{From: o.From, To: Queue{Region: "eu-central-1", Name: "a.fifo"}, Before: -1,
			Hold: time.Millisecond}} {
		if _, err := KeepForward(t.Context(), o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

func TestMoves(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	openBoth(t, f, "q", "")
	_, snk := openBoth(t, f, "dlq", "")
	moves(t, snk.o.Queue, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.queues["q"].attributes["RedrivePolicy"] = `{"deadLetterTargetArn":"` + arn("dlq") +
			`","maxReceiveCount":"3"}`
	})
	handle, err := StartMove(t.Context(), snk.o.Queue, "q", 600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = StartMove(t.Context(), snk.o.Queue, "", 0)
	if err == nil || !strings.Contains(err.Error(), "one move task at a time. One runs since") {
		t.Errorf("a second one: %v", err)
	}
	if list, err := ListMoves(t.Context(), snk.o.Queue); err != nil || len(list) != 1 ||
		list[0].Status != "RUNNING" || list[0].Total != 9 {
		t.Errorf("got %+v, %v", list, err)
	}
	if n, err := CancelMove(t.Context(), snk.o.Queue, handle); n != 3 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

// moves is what a fake and a real server have to show, before and after dead makes the queue a
// dead-letter queue.
func moves(t *testing.T, dlq Queue, dead func()) {
	t.Helper()
	var hint *ackwise.HintError
	_, err := StartMove(t.Context(), dlq, "", 0)
	if !errors.As(err, &hint) || !strings.Contains(hint.Hint, "RedrivePolicy") {
		t.Errorf("no dead-letter queue: %v", err)
	}
	if _, err = CancelMove(t.Context(), dlq, "nothing"); !errors.As(err, &hint) {
		t.Errorf("no such task: %v", err)
	}
	dead()
	var missing *ackwise.NotFoundError
	if _, err := StartMove(t.Context(), dlq, "nowhere", 0); !errors.As(err, &missing) {
		t.Errorf("no such target: %v", err)
	}
}

// A queue is the dead-letter store of any loop.
func TestDeadLetters(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	dead, dlq := openBoth(t, f, "dlq", "")
	publish(t, snk, ackwise.Message{ID: "1", Key: "k", Body: []byte("whole"),
		Headers: header("kind", "paid")})
	letters := relay.DeadLetters(dlq, "orders", relay.Options{})
	ctx, stop := contextThatEnds(t, func() bool {
		return len(f.stored("dlq")) == 1 &&
			len(f.stored("q")) == 0
	})
	defer stop()
	err := deliver.Run(ctx, src, ackwise.HandlerFunc(reject), deliver.Options{DeadLetters: letters})
	if err != nil {
		t.Fatal(err)
	}
	d := take(t, dead, 1)[0]
	why, _ := d.Header(ackwise.HeaderError)
	origin, _ := d.Header(ackwise.HeaderOrigin)
	if d.ID != "1" || d.Key != "k" || string(d.Body) != "whole" || string(why) != "poison" ||
		string(origin) != "q" || f.stored("dlq")[0].attributes["kind"].StringValue != "paid" {
		t.Errorf("got %+v", d.Message)
	}
}
