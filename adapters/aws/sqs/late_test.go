package sqs

import (
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// holdReceive makes the answer of the next poll wait until the test lets it go.
func (f *fake) holdReceive(t *testing.T) (release func()) {
	t.Helper()
	hold := make(chan struct{})
	f.fail(fakeFault{action: "ReceiveMessage", times: 1, hold: hold})
	release = sync.OnceFunc(func() { close(hold) })
	t.Cleanup(release) // before the server is closed, which waits for it
	return release
}

// handedOut waits until the fake has handed out the first message so often.
func (f *fake) handedOut(t *testing.T, name string, times int) {
	t.Helper()
	for f.stored(name)[0].receives < times {
		if !pause.For(t.Context(), time.Millisecond) {
			t.Fatal("the test is over")
		}
	}
}

// What arrives when its lease may be over is somebody else's: it is not handed out.
func TestAnswerThatIsLate(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"q", "q.fifo"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			src, snk := openBoth(t, f, name, "&lease=1s")
			other := openTestSource(t, f, name, "&lease=60s")
			publish(t, snk, keyed("k", "1")...)
			release := f.holdReceive(t)
			done := make(chan struct{})
			go func() { defer close(done); src.startTestPoll(1) }()
			f.handedOut(t, name, 1)
			d := take(t, other, 1)[0]
			release()
			<-done
			none(t, src)
			mustSettle(t, other, ackwise.OutcomeAck, 0, d)
			if left := f.stored(name); len(left) > 0 {
				t.Errorf("%d messages left", len(left))
			}
		})
	}
}

// An answer that is late takes nothing away from a later hand-out of the same source.
func TestLateAnswerDisplacesNothing(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"q", "q.fifo"} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			src, snk := openBoth(t, f, name, "&lease=5s")
			publish(t, snk, keyed("k", "1", "2")...)
			release := f.holdReceive(t)
			done := make(chan struct{})
			go func() { defer close(done); src.startTestPoll(2) }()
			f.handedOut(t, name, 1)
			f.advance(5 * time.Second) // the first lease is over
			src.startTestPoll(2)
			ds := take(t, src, 2)
			settle(src, ackwise.OutcomeExtend, time.Minute, ds...)
			release()
			<-done
			mustSettle(t, src, ackwise.OutcomeAck, 0, ds...)
			none(t, src)
		})
	}
}

// An ack whose answers were lost is answered when it is repeated, also where SQS has gone on to the
// next of the group meanwhile.
func TestFIFOAckInDoubtBesideTheNextRun(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "2")...)
	first := take(t, src, 1)[0]
	f.fail(fakeFault{action: "DeleteMessageBatch", times: settleTries, cut: true})
	if r := settle(src, ackwise.OutcomeAck, 0, first)[0]; r.Err == nil {
		t.Fatal("the answers were lost, and the ack says that it is done")
	}
	second := take(t, src, 1)[0]
	if second.ID != "2" {
		t.Fatalf("got %s", second.ID)
	}
	mustSettle(t, src, ackwise.OutcomeAck, 0, first)
	mustSettle(t, src, ackwise.OutcomeAck, 0, second)
}

// Where the service's clock says that a lease is over and ours does not, nothing is given back and
// nothing is held: whoever has the message now keeps it.
func TestLeaseThatIsOverThere(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"q", "q.fifo"} {
		for _, o := range []ackwise.Outcome{ackwise.OutcomeNack, ackwise.OutcomeSnooze,
			ackwise.OutcomeRelease, ackwise.OutcomeExtend} {
			t.Run(name+" "+o.String(), func(t *testing.T) {
				f := newFake(t)
				src, snk := openBoth(t, f, name, "")
				other := openTestSource(t, f, name, "")
				publish(t, snk, keyed("k", "1", "2")...)
				mine := take(t, src, 2)
				f.advance(31 * time.Second)
				theirs := take(t, other, 2)
				wantErr(t, settle(src, o, time.Minute, mine[0])[0], ackwise.ErrLeaseLost)
				none(t, src)
				mustSettle(t, other, ackwise.OutcomeNack, 0, theirs[0])
				if again := take(t, src, 1)[0]; again.Cause != ackwise.CauseUnknown ||
					again.Attempt != 3 {
					t.Errorf("%s, attempt %d", again.Cause, again.Attempt)
				}
			})
		}
	}
}
