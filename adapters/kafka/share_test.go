package kafka_test

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/deliver"
)

// shareTests run on the fake and on the real broker. The lease is at most 5 s.
var shareTests = []struct {
	name string
	run  func(t *testing.T, p *place)
}{
	{"settled", testShareSettled},
	{"again", testShareAgain},
	{"expired", testShareExpired},
	{"extended", testShareExtended},
	{"crash", testShareCrash},
	{"not set up", testShareNotSetUp},
	{"limit", testShareLimit},
	{"given up", testShareGivenUp},
}

func runShareTests(t *testing.T, start func(t *testing.T) *place) {
	for _, test := range shareTests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.run(t, start(t))
		})
	}
}

func TestShare(t *testing.T) {
	runShareTests(t, func(t *testing.T) *place {
		return fakePlace(t, 2, "share", kfake.BrokerConfigs(map[string]string{
			"group.share.record.lock.duration.ms": "5000",
			"share.record.lock.sweep.interval.ms": "100",
			"group.share.heartbeat.interval.ms":   "100",
			"group.share.session.timeout.ms":      "2000",
		}))
	})
}

func (p *place) share(options string) string {
	return "kafka://" + p.brokers + "/" + p.topic + "?group=s-" + p.topic + "&mode=share" + options
}

// gather receives until every wanted message has come, and settles each as told. It returns the
// deliveries by ID.
func gather(t testing.TB, s ackwise.Source, o ackwise.Outcome, n int) map[string]*ackwise.Delivery {
	t.Helper()
	got := map[string]*ackwise.Delivery{}
	for _, d := range receive(t, s, n) {
		if got[d.ID] != nil {
			t.Errorf("%s came twice", d.ID)
		}
		got[d.ID] = d
		settle(t, s, o, d)
	}
	return got
}

// What is acked, dropped or dead does not come again; what is held at the end does.
func testShareSettled(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	p.put(t, 0, 0, 3)
	p.put(t, 1, 3, 3)
	ds := receive(t, s, 6)
	for i, o := range []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeDrop, ackwise.OutcomeDead} {
		l := []ackwise.Settlement{{Token: ds[i].Token, Outcome: o, Reason: "test"}}
		for again := range 2 {
			if r := s.Settle(t.Context(), l)[0]; r.Err != nil || r.Already != (again == 1) {
				t.Errorf("%s: %+v", o, r)
			}
		}
		l[0].Outcome = ackwise.OutcomeNack
		if r := s.Settle(t.Context(), l)[0]; !errors.Is(r.Err, ackwise.ErrSettled) {
			t.Errorf("nack after %s: %+v", o, r)
		}
	}
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %s", time.Since(began))
	s = open(t, p.share(""))
	got := gather(t, s, ackwise.OutcomeAck, 3)
	for _, d := range ds[3:] {
		if again := got[d.ID]; again == nil || again.Counts.HandOuts != 2 ||
			again.Cause != ackwise.CauseUnknown {
			t.Errorf("%s: %+v", d.ID, again)
		}
	}
}

// What this process gave back itself comes again with its cause.
func testShareAgain(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	p.put(t, 0, 0, 1)
	for i, step := range []struct {
		outcome ackwise.Outcome
		cause   ackwise.Cause
	}{
		{ackwise.OutcomeNack, ackwise.CauseFirst}, {ackwise.OutcomeSnooze, ackwise.CauseFailed},
		{ackwise.OutcomeRelease, ackwise.CauseSnoozed}, {ackwise.OutcomeAck, ackwise.CauseReleased},
	} {
		d := receive(t, s, 1)[0]
		if d.Cause != step.cause || d.Counts.HandOuts != i+1 || d.ID != "m0" {
			t.Errorf("hand-out %d: %s, %s, want %s", d.Counts.HandOuts, d.ID, d.Cause, step.cause)
		}
		settle(t, s, step.outcome, d)
	}
}

// A lease that runs out takes the message away.
func testShareExpired(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	p.put(t, 0, 0, 1)
	d := receive(t, s, 1)[0]
	select {
	case <-d.Lost():
	case <-late(t):
		t.Fatal("the lease did not run out")
	}
	r := s.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}})
	if !errors.Is(r[0].Err, ackwise.ErrLeaseLost) {
		t.Errorf("late ack: %v", r[0].Err)
	}
	again := receive(t, s, 1)[0]
	if again.ID != d.ID || again.Cause != ackwise.CauseLeaseExpired || again.Counts.HandOuts != 2 {
		t.Errorf("%s, %s, hand-out %d", again.ID, again.Cause, again.Counts.HandOuts)
	}
	ack(t, s, again)
}

// A lease that is extended is nobody else's, and other messages come meanwhile.
func testShareExtended(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	if !s.Features().Extend {
		t.Fatal("the broker cannot extend leases")
	}
	p.put(t, 0, 0, 1)
	slow := receive(t, s, 1)[0]
	until := time.Now().Add(2 * s.Features().Lease)
	for n := 1; time.Now().Before(until); n++ {
		r := s.Settle(t.Context(), []ackwise.Settlement{
			{Token: slow.Token, Outcome: ackwise.OutcomeExtend}})[0]
		if r.Err != nil || !r.Deadline.After(time.Now()) {
			t.Fatalf("extend: %+v", r)
		}
		p.put(t, 0, n, 1)
		d := receive(t, s, 1)[0]
		if d.ID == slow.ID || d.Cause != ackwise.CauseFirst {
			t.Fatalf("%s came, %s", d.ID, d.Cause)
		}
		ack(t, s, d)
		ctx, cancel := context.WithTimeout(t.Context(), s.Features().Lease/4)
		if ds, err := s.Receive(ctx, 1); err == nil {
			t.Fatalf("%s came", ds[0].ID)
		}
		cancel()
	}
	// The client would have accepted it at the next poll: it was not, and comes again.
	settle(t, s, ackwise.OutcomeRelease, slow)
	again := receive(t, s, 1)[0]
	if again.ID != slow.ID || again.Cause != ackwise.CauseReleased || again.Counts.HandOuts != 2 {
		t.Errorf("%s, %s, hand-out %d", again.ID, again.Cause, again.Counts.HandOuts)
	}
	ack(t, s, again)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.put(t, 1, 1000, 1)
	expect(t, open(t, p.share("")), map[string]ackwise.Cause{"m1000": ackwise.CauseFirst})
}

// A member ends without a word: another process gets what it had, and does not know why.
func testShareCrash(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	p.put(t, 0, 0, 2)
	ds := receive(t, s, 2)
	kafka.KillShare(s)
	got := gather(t, open(t, p.share("")), ackwise.OutcomeAck, 2)
	for _, d := range ds {
		if again := got[d.ID]; again == nil || again.Cause != ackwise.CauseUnknown ||
			again.Counts.HandOuts != 2 {
			t.Errorf("%s: %+v of %v", d.ID, again, maps.Keys(got))
		}
	}
}

// A group that would begin at the end is refused, as the messages before would be missed.
func testShareNotSetUp(t *testing.T, p *place) {
	o, err := kafka.ParseSource(p.share(""))
	if err != nil {
		t.Fatal(err)
	}
	s, err := kafka.OpenSource(t.Context(), o)
	if hint, ok := errors.AsType[*ackwise.HintError](err); !ok {
		t.Errorf("got %v, %v", s, hint)
	}
}

// A message that always fails becomes a dead letter, though the brokers give it up after fewer
// hand-outs than it has failures.
func testShareLimit(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	p.put(t, 0, 0, 2)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var mu sync.Mutex // guards the counts
	calls, dead, acked := 0, 0, 0
	o := deliver.Options{Backoff: deliver.Backoff{First: time.Millisecond, Cap: 10 * time.Millisecond},
		DeadLetters: deliver.DeadLetterFunc(func(context.Context, *ackwise.Delivery, string) error {
			mu.Lock()
			defer mu.Unlock()
			dead++
			return nil
		}),
		Observe: func(e ackwise.Event) {
			if e.Kind == "settled" && e.Outcome == ackwise.OutcomeAck {
				mu.Lock()
				defer mu.Unlock()
				if acked++; acked == 2 {
					cancel()
				}
			}
		}}
	err := deliver.Run(ctx, s, ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		if d.ID == "m0" {
			calls++
			return ackwise.RetryAfter(errors.New("asked for"), 0)
		}
		return nil
	}), o)
	if err != nil || calls != 10 || dead != 1 || acked != 2 {
		t.Errorf("%d calls, %d dead letters, %d acked, %v", calls, dead, acked, err)
	}
}

// Whoever gives a message back after its last hand-out is told that nobody will get it.
func testShareGivenUp(t *testing.T, p *place) {
	s := open(t, p.share("&create=true"))
	if got := s.Features().MaxHandOuts; got != 5 {
		t.Fatalf("the brokers give up after %d hand-outs, want 5", got)
	}
	p.put(t, 0, 0, 1)
	for n := range 5 {
		d := receive(t, s, 1)[0]
		if d.ID != "m0" || d.Counts.HandOuts != n+1 {
			t.Fatalf("%s, hand-out %d", d.ID, d.Counts.HandOuts)
		}
		settle(t, s, ackwise.OutcomeNack, d)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ds, err := s.Receive(ctx, 1)
	if len(ds) > 0 || err == nil || !strings.Contains(err.Error(), "m0") ||
		!strings.Contains(err.Error(), "5 hand-outs") {
		t.Errorf("got %v, %v", ds, err)
	}
	p.put(t, 0, 1, 1)
	for n := range 5 {
		d := receive(t, s, 1)[0]
		if n < 4 {
			settle(t, s, ackwise.OutcomeNack, d)
		}
	}
	if err := s.Close(); err == nil || !strings.Contains(err.Error(), "m1") {
		t.Errorf("close: %v", err)
	}
}
