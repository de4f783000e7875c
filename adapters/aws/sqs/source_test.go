package sqs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// credentials lets the tests sign: neither the fake nor the stand-ins look at who does.
func credentials() {
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": "test",
		"AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"} {
		if os.Getenv(name) == "" {
			_ = os.Setenv(name, value)
		}
	}
}

func address(endpoint, name, more string) string {
	return "sqs://eu-central-1/" + name + "?endpoint=" + endpoint + more
}

func openBoth(t *testing.T, f *fake, name, more string) (*source, *sink) {
	t.Helper()
	return openTestSource(t, f, name, more+"&create=true"), openTestSink(t, f, name, "")
}

func openTestSource(t *testing.T, f *fake, name, more string) *source {
	t.Helper()
	o, err := ParseSource(address(f.URL, name, "&wait=1s"+more))
	if err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := src.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return src.(*source)
}

func openTestSink(t *testing.T, f *fake, name, more string) *sink {
	t.Helper()
	o, err := ParseSink(address(f.URL, name, more))
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s.(*sink)
}

// publish sends messages, all of which have to be accepted.
func publish(t *testing.T, s ackwise.Sink, ms ...ackwise.Message) {
	t.Helper()
	for i, r := range s.Publish(t.Context(), ms) {
		if r.Class != ackwise.ResultAccepted || r.Err != nil || r.ID == "" {
			t.Fatalf("message %d: %+v", i, r)
		}
	}
}

func keyed(key string, ids ...string) []ackwise.Message {
	var ms []ackwise.Message
	for _, id := range ids {
		ms = append(ms, ackwise.Message{ID: id, Key: key, Body: []byte(id)})
	}
	return ms
}

// take receives n messages.
func take(t *testing.T, s ackwise.Source, n int) []*ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var ds []*ackwise.Delivery
	for len(ds) < n {
		more, err := s.Receive(ctx, n-len(ds))
		if err != nil {
			t.Fatalf("%d of %d received: %v", len(ds), n, err)
		}
		ds = append(ds, more...)
	}
	return ds
}

// none asserts that nothing is handed out within a poll.
func none(t *testing.T, s ackwise.Source) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	ds, err := s.Receive(ctx, 10)
	if len(ds) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %d deliveries, %v; want none", len(ds), err)
	}
}

func settle(s ackwise.Source, o ackwise.Outcome, delay time.Duration,
	ds ...*ackwise.Delivery) []ackwise.SettleResult {
	var list []ackwise.Settlement
	for _, d := range ds {
		list = append(list, ackwise.Settlement{Token: d.Token, Outcome: o, Delay: delay, Reason: "why"})
	}
	return s.Settle(context.Background(), list)
}

func mustSettle(t *testing.T, s ackwise.Source, o ackwise.Outcome, delay time.Duration,
	ds ...*ackwise.Delivery) {
	t.Helper()
	for i, r := range settle(s, o, delay, ds...) {
		if r.Err != nil {
			t.Fatalf("%s of %s: %v", o, ds[i].ID, r.Err)
		}
	}
}

func wantErr(t *testing.T, r ackwise.SettleResult, want error) {
	t.Helper()
	if !errors.Is(r.Err, want) {
		t.Errorf("got %v, want %v", r.Err, want)
	}
}

func TestCauses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		outcome ackwise.Outcome
		want    ackwise.Cause
	}{
		"nack":    {ackwise.OutcomeNack, ackwise.CauseFailed},
		"snooze":  {ackwise.OutcomeSnooze, ackwise.CauseSnoozed},
		"release": {ackwise.OutcomeRelease, ackwise.CauseReleased},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			src, snk := openBoth(t, f, "q", "")
			publish(t, snk, ackwise.Message{ID: "1"})
			first := take(t, src, 1)[0]
			if first.Cause != ackwise.CauseFirst || first.Attempt != 1 || first.Counts.HandOuts != 1 ||
				first.Topic != "q" {
				t.Errorf("first: %+v", first)
			}
			mustSettle(t, src, c.outcome, 0, first)
			second := take(t, src, 1)[0]
			if second.Cause != c.want || second.Counts.HandOuts != 2 || second.ID != "1" {
				t.Errorf("second: %s, %+v", second.Cause, second.Counts)
			}
			mustSettle(t, src, ackwise.OutcomeAck, 0, second)
			if left := f.stored("q"); len(left) > 0 {
				t.Errorf("%d messages left", len(left))
			}
		})
	}
}

// A hand-out of another process in between, or a lease that ran out, leaves the cause unknown.
func TestCauseUnknown(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	other := openTestSource(t, f, "q", "")
	publish(t, snk, ackwise.Message{ID: "1"})
	mustSettle(t, src, ackwise.OutcomeNack, 0, take(t, src, 1)...)
	d := take(t, other, 1)[0]
	if d.Cause != ackwise.CauseUnknown {
		t.Errorf("another's nack: %s", d.Cause)
	}
	mustSettle(t, other, ackwise.OutcomeRelease, 0, d)
	d = take(t, src, 1)[0]
	if d.Cause != ackwise.CauseUnknown || d.Attempt != 3 {
		t.Errorf("a hand-out between: %s, attempt %d", d.Cause, d.Attempt)
	}
	f.advance(31 * time.Second)
	again := take(t, src, 1)[0]
	if again.Cause != ackwise.CauseUnknown || again.Attempt != 4 {
		t.Errorf("after the lease: %s, attempt %d", again.Cause, again.Attempt)
	}
	select {
	case <-d.Lost():
	default:
		t.Error("the delivery before is not marked as lost")
	}
	wantErr(t, settle(src, ackwise.OutcomeNack, 0, d)[0], ackwise.ErrLeaseLost)
	wantErr(t, settle(src, ackwise.OutcomeAck, 0, d)[0], ackwise.ErrLeaseLost)
	mustSettle(t, src, ackwise.OutcomeAck, 0, again)
}

// What was acked and is handed out all the same is known to be only the ack's fault.
func TestCauseAckLost(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, ackwise.Message{ID: "1"})
	d := take(t, src, 1)[0]
	kept := f.queues["q"].messages[0]
	mustSettle(t, src, ackwise.OutcomeAck, 0, d)
	f.mu.Lock() // one of the service's machines did not hear of the deletion
	kept.hidden, kept.gone = time.Time{}, false
	f.queues["q"].messages = append(f.queues["q"].messages, kept)
	f.mu.Unlock()
	again := take(t, src, 1)[0]
	if again.Cause != ackwise.CauseAckLost {
		t.Errorf("got %s", again.Cause)
	}
	mustSettle(t, src, ackwise.OutcomeAck, 0, again)
}

func TestNackWithDelay(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, ackwise.Message{ID: "1"})
	mustSettle(t, src, ackwise.OutcomeNack, 90*time.Second+time.Millisecond, take(t, src, 1)...)
	f.advance(80 * time.Second)
	none(t, src)
	f.advance(11 * time.Second)
	take(t, src, 1)
	if n := seconds(90*time.Second + time.Millisecond); n != 91 {
		t.Errorf("%d seconds, which is too early", n)
	}
	if d := src.Features().MaxNackDelay; d != 11*time.Hour {
		t.Errorf("MaxNackDelay is %s", d)
	}
}

func TestCancelledReceiveStrandsNothing(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "&lease=43200s")
	src.o.Wait = 5 * time.Second // the poll outlives what comes
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := src.Receive(ctx, 10)
		done <- err
	}()
	for f.count("ReceiveMessage") == 0 {
		pause.For(t.Context(), time.Millisecond)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	publish(t, snk, ackwise.Message{ID: "1"}) // the poll is still there and gets it
	for end := time.Now().Add(time.Minute); f.stored("q")[0].receives == 0; {
		if pause.For(t.Context(), time.Millisecond); time.Now().After(end) {
			t.Fatal("nobody polls")
		}
	}
	if d := take(t, src, 1)[0]; d.ID != "1" || d.Attempt != 1 {
		t.Errorf("got %s, attempt %d", d.ID, d.Attempt)
	}
	if _, err := src.Receive(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("a Receive that is over: %v", err)
	}
}

func TestSettleTwice(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, keyed("", "1", "2")...)
	ds := take(t, src, 2)
	one := func(o ackwise.Outcome) ackwise.Settlement {
		return ackwise.Settlement{Token: ds[0].Token, Outcome: o, Reason: "r"}
	}
	results := src.Settle(t.Context(), []ackwise.Settlement{one(ackwise.OutcomeExtend),
		one(ackwise.OutcomeAck), one(ackwise.OutcomeAck), one(ackwise.OutcomeNack),
		{Token: "x"}, {Token: ds[1].Token, Outcome: ackwise.OutcomeDrop},
		{Token: ds[1].Token, Outcome: ackwise.OutcomeDead}, {Token: ds[1].Token, Outcome: 99}})
	if results[0].Err != nil || results[0].Deadline.IsZero() || results[1].Err != nil ||
		results[1].Already || results[2].Err != nil || !results[2].Already {
		t.Errorf("got %+v", results[:3])
	}
	wantErr(t, results[3], ackwise.ErrSettled)
	wantErr(t, results[4], ackwise.ErrBadToken)
	for i := 5; i < 8; i++ {
		if _, ok := errors.AsType[*ackwise.InvalidError](results[i].Err); !ok {
			t.Errorf("settlement %d: %v", i, results[i].Err)
		}
	}
	other := openTestSource(t, f, "q", "")
	wantErr(t, settle(other, ackwise.OutcomeAck, 0, ds[1])[0], ackwise.ErrBadToken)
	mustSettle(t, src, ackwise.OutcomeDrop, 0, ds[1])
}

func TestPartialFailures(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, keyed("", "1", "2", "3", "4", "5")...)
	ds := take(t, src, 5)
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 1, entry: "InternalError", index: 1})
	mustSettle(t, src, ackwise.OutcomeAck, 0, ds[0], ds[1]) // repeated for the one that failed
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 1, entry: "ReceiptHandleIsInvalid",
		index: 0})
	r := settle(src, ackwise.OutcomeAck, 0, ds[2], ds[3])
	wantErr(t, r[0], ackwise.ErrLeaseLost)
	if r[1].Err != nil {
		t.Error(r[1].Err)
	}
	f.fail(fakeFault{action: "ChangeMessageVisibilityBatch", times: 3, code: "RequestThrottled"})
	r = settle(src, ackwise.OutcomeNack, 0, ds[4])
	if r[0].Err == nil || errors.Is(r[0].Err, ackwise.ErrLeaseLost) {
		t.Errorf("throttled: %v", r[0].Err)
	}
	mustSettle(t, src, ackwise.OutcomeNack, 0, ds[4])
	take(t, src, 1)
}

// A settlement whose answer was lost is carried out once, and repeated safely.
func TestLostAnswers(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, keyed("", "1", "2")...)
	ds := take(t, src, 2)
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 1, cut: true})
	mustSettle(t, src, ackwise.OutcomeAck, 0, ds[0])
	f.fail(fakeFault{action: "ChangeMessageVisibilityBatch", times: 1, cut: true})
	r := settle(src, ackwise.OutcomeNack, 0, ds[1])
	if r[0].Err != nil || !r[0].Already {
		t.Errorf("got %+v", r[0])
	}
	again := take(t, src, 1)[0]
	if again.ID != ds[1].ID || again.Cause != ackwise.CauseUnknown {
		t.Errorf("got %s, %s: the lease may have run out before", again.ID, again.Cause)
	}
}

func TestExtend(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "&lease=60s")
	publish(t, snk, ackwise.Message{ID: "1"})
	d := take(t, src, 1)[0]
	r := settle(src, ackwise.OutcomeExtend, time.Hour, d)[0]
	if r.Err != nil || time.Until(r.Deadline) < 59*time.Minute {
		t.Fatalf("got %+v", r)
	}
	f.advance(59 * time.Minute)
	none(t, src)
	// The service lets nobody hold a message for longer than 12 hours.
	e := src.book.latest[f.stored("q")[0].id]
	e.since = e.since.Add(-11*time.Hour - 59*time.Minute - 30*time.Second)
	r = settle(src, ackwise.OutcomeExtend, 0, d)[0]
	if left := time.Until(r.Deadline); r.Err != nil || left > 30*time.Second {
		t.Errorf("got %v, %s left", r.Err, left)
	}
	e.since = e.since.Add(-time.Minute)
	r = settle(src, ackwise.OutcomeExtend, 0, d)[0]
	var invalid *ackwise.InvalidError
	if !errors.As(r.Err, &invalid) || !strings.Contains(invalid.Reason, "12h") {
		t.Errorf("got %v", r.Err)
	}
}

// What waited here is handed out with a lease of its own, or not at all.
func TestReadyMessagesKeepTheirLease(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "&lease=60s")
	publish(t, snk, keyed("", "1", "2", "3")...)
	mustSettle(t, src, ackwise.OutcomeAck, 0, take(t, src, 1)...)
	if got := len(src.book.held); got > 0 {
		t.Fatalf("%d held", got) // one was asked for, and one was received
	}
	src.startTestPoll(2)
	for _, e := range src.ready {
		e.deadline = e.deadline.Add(-40 * time.Second)
	}
	ds := take(t, src, 2)
	if f.count("ChangeMessageVisibilityBatch") != 1 {
		t.Error("the leases were not renewed")
	}
	mustSettle(t, src, ackwise.OutcomeRelease, 0, ds...)
	src.startTestPoll(2)
	for _, e := range src.ready {
		e.deadline = time.Now()
	}
	f.advance(61 * time.Second)
	for _, d := range take(t, src, 2) {
		if d.Attempt != 3 {
			t.Errorf("%s, attempt %d", d.ID, d.Attempt)
		}
	}
}

// startTestPoll polls once, as Receive does, and waits.
func (s *source) startTestPoll(n int) {
	s.mu.Lock()
	s.running++
	s.asked += n
	s.mu.Unlock()
	s.poll(n)
}

func TestCloseGivesBack(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"q", "q.fifo"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			src, snk := openBoth(t, f, name, "&lease=43200s")
			publish(t, snk, keyed("k", "1", "2", "3", "4")...)
			ds := take(t, src, 2)
			src.startTestPoll(2) // of a FIFO queue it brings nothing: the group is in flight
			if err := src.Close(); err != nil {
				t.Fatal(err)
			}
			wantErr(t, settle(src, ackwise.OutcomeAck, 0, ds[0])[0], ackwise.ErrLeaseLost)
			if _, err := src.Receive(t.Context(), 1); !errors.Is(err, ackwise.ErrClosed) {
				t.Errorf("got %v", err)
			}
			other := openTestSource(t, f, name, "")
			for i, d := range take(t, other, 4) {
				if name == "q.fifo" && d.ID != fmt.Sprint(i+1) {
					t.Errorf("message %d is %s", i, d.ID)
				}
			}
		})
	}
}

func TestBackPressure(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	src.o.MaxHeld = 2
	publish(t, snk, keyed("", "1", "2", "3")...)
	ds := take(t, src, 2)
	if _, err := src.Receive(t.Context(), 1); !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("got %v", err)
	}
	mustSettle(t, src, ackwise.OutcomeAck, 0, ds...)
	take(t, src, 1)
	f.fail(fakeFault{action: "ReceiveMessage", times: 1, code: "OverLimit"})
	_, err := src.Receive(t.Context(), 1)
	var hint *ackwise.HintError
	if !errors.Is(err, ackwise.ErrFull) || !errors.As(err, &hint) {
		t.Errorf("got %v", err)
	}
}

func TestReceiveErrors(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, _ := openBoth(t, f, "q", "")
	f.fail(fakeFault{action: "ReceiveMessage", times: 1, code: "AccessDeniedException"})
	_, err := src.Receive(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "permission sqs:ReceiveMessage on the queue q") {
		t.Errorf("got %v", err)
	}
	f.mu.Lock()
	delete(f.queues, "q")
	f.mu.Unlock()
	_, err = src.Receive(t.Context(), 1)
	if err == nil || !strings.Contains(err.Error(), "the queue q is gone") {
		t.Errorf("got %v", err)
	}
}

func TestLag(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q", "")
	publish(t, snk, keyed("", "1", "2", "3")...)
	take(t, src, 1)
	if n, _, err := src.Lag(t.Context()); n != 3 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func reject(context.Context,
	*ackwise.Delivery) error {
	return ackwise.Reject(errors.New("poison"))
}

// contextThatEnds ends when what a test waits for is there.
func contextThatEnds(t *testing.T, there func() bool) (context.Context, func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !there() {
			pause.For(ctx, 5*time.Millisecond)
		}
		cancel()
	}()
	return ctx, func() {
		cancel()
		<-done
		if !there() {
			t.Error("what the test waits for did not come")
		}
	}
}

// SNS's envelope is taken off where there is one, unless that is not wanted.
func TestEnvelope(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, _ := openBoth(t, f, "q", "")
	asItIs, _ := openBoth(t, f, "as-it-is", "&envelope=none")
	wrapped := `{"Type":"Notification","MessageId":"of SNS","TopicArn":"arn:aws:sns:r:1:t",` +
		`"Message":"text","MessageAttributes":{"kind":{"Type":"String","Value":"paid"}}}`
	f.mu.Lock()
	for _, name := range []string{"q", "as-it-is"} {
		f.store(f.queues[name], &fakeEntry{MessageBody: wrapped})
		f.store(f.queues[name], &fakeEntry{MessageBody: `{"Type":"Notification"}`})
	}
	f.mu.Unlock()
	got := take(t, src, 2)
	if kind, _ := got[0].Header("kind"); got[0].ID != "of SNS" || string(got[0].Body) != "text" ||
		string(kind) != "paid" || string(got[1].Body) != `{"Type":"Notification"}` {
		t.Errorf("got %+v and %+v", got[0].Message, got[1].Message)
	}
	if d := take(t, asItIs, 2)[0]; string(d.Body) != wrapped || len(d.Headers) != 0 {
		t.Errorf("envelope=none: got %+v", d.Message)
	}
}
