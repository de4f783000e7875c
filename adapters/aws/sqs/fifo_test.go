package sqs

import (
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func ids(ds []*ackwise.Delivery) string {
	var all []string
	for _, d := range ds {
		all = append(all, d.ID)
	}
	return strings.Join(all, " ")
}

// A failed message of a group holds the rest of the group, also for others, and the rest goes back
// before it.
func TestFIFOHoldsTheGroup(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	holdsTheGroup(t, src, openTestSource(t, f, "q.fifo", ""), snk)
}

// holdsTheGroup is what a fake and the real servers have to show.
func holdsTheGroup(t *testing.T, src, other ackwise.Source, snk ackwise.Sink) {
	t.Helper()
	publish(t, snk, keyed("k", "1", "2", "3", "4")...)
	run := take(t, src, 4)
	if ids(run) != "1 2 3 4" || run[3].Key != "k" {
		t.Fatalf("got %s", ids(run))
	}
	wantErr(t, settle(src, ackwise.OutcomeAck, 0, run[1])[0], ackwise.ErrRunOrder)
	wantErr(t, settle(src, ackwise.OutcomeNack, 0, run[1])[0], ackwise.ErrRunOrder)
	mustSettle(t, src, ackwise.OutcomeAck, 0, run[0])
	nacked := time.Now()
	mustSettle(t, src, ackwise.OutcomeNack, 6*time.Second, run[1])
	for _, d := range run[2:] {
		select {
		case <-d.Revoked():
		default:
			t.Errorf("%s is not called back", d.ID)
		}
		wantErr(t, settle(src, ackwise.OutcomeAck, 0, d)[0], ackwise.ErrRunOrder)
		if r := settle(src, ackwise.OutcomeRelease, 0, d)[0]; r.Err != nil || !r.Already {
			t.Errorf("release of %s: %+v", d.ID, r)
		}
	}
	publish(t, snk, keyed("l", "5")...)
	if got := ids(take(t, other, 1)); got != "5" {
		t.Errorf("another group: got %s", got)
	}
	got := take(t, other, 3)
	if ids(got) != "2 3 4" || time.Since(nacked) < 5500*time.Millisecond {
		t.Errorf("got %s after %s, want the failed one and the rest behind it", ids(got),
			time.Since(nacked))
	}
	if got[0].Attempt != 2 || got[1].Attempt != 2 {
		t.Errorf("attempts %d and %d", got[0].Attempt, got[1].Attempt)
	}
	mustSettle(t, other, ackwise.OutcomeAck, 0, got...)
}

// Of a run that is released the first goes back last.
func TestFIFOReleaseOrder(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "2", "3")...)
	run := take(t, src, 3)
	f.fail(fakeFault{action: "ChangeMessageVisibilityBatch", times: 1, entry: "InternalError",
		index: 1})
	mustSettle(t, src, ackwise.OutcomeRelease, 0, run...)
	if got := f.count("ChangeMessageVisibilityBatch"); got != 3 { // the tail, its rest, the first
		t.Errorf("%d calls", got)
	}
	again := take(t, src, 3)
	if ids(again) != "1 2 3" || again[0].Cause != ackwise.CauseReleased ||
		again[2].Cause != ackwise.CauseReleased {
		t.Errorf("got %s, %s", ids(again), again[0].Cause)
	}
	// Where the tail cannot be given back, it waits for its lease, and the group with it.
	f.fail(fakeFault{action: "ChangeMessageVisibilityBatch", times: 3, code: "InternalError"})
	mustSettle(t, src, ackwise.OutcomeNack, 0, again[0])
	none(t, src)
	f.advance(31 * time.Second)
	again = take(t, src, 3)
	if ids(again) != "1 2 3" || again[0].Cause != ackwise.CauseFailed ||
		again[1].Cause != ackwise.CauseUnknown {
		t.Errorf("got %s, %s, %s", ids(again), again[0].Cause, again[1].Cause)
	}
}

// The acks of a run are sent one after the other, and nothing behind one that failed.
func TestFIFOAcksInOrder(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "2", "3")...)
	publish(t, snk, keyed("l", "4")...)
	run := take(t, src, 4)
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 3, code: "InternalError"})
	r := settle(src, ackwise.OutcomeAck, 0, run...)
	if r[0].Err == nil || r[3].Err != nil {
		t.Errorf("got %v and %v", r[0].Err, r[3].Err)
	}
	wantErr(t, r[1], ackwise.ErrRunOrder)
	wantErr(t, r[2], ackwise.ErrRunOrder)
	mustSettle(t, src, ackwise.OutcomeAck, 0, run[:3]...)
	if left := f.stored("q.fifo"); len(left) > 0 {
		t.Errorf("%d left", len(left))
	}
}

// A group that comes again, after its leases, comes as a new run.
func TestFIFONewRun(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "2", "3")...)
	old := take(t, src, 3)
	f.advance(31 * time.Second)
	again := take(t, src, 1)
	wantErr(t, settle(src, ackwise.OutcomeAck, 0, old[0])[0], ackwise.ErrLeaseLost)
	wantErr(t, settle(src, ackwise.OutcomeAck, 0, old[2])[0], ackwise.ErrLeaseLost)
	mustSettle(t, src, ackwise.OutcomeAck, 0, again...)
	mustSettle(t, src, ackwise.OutcomeAck, 0, take(t, src, 2)...)
}

// An answer that is lost does not block the group for a lease: the attempt is repeated.
func TestFIFOLostReceive(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "&lease=43200s")
	publish(t, snk, keyed("k", "1", "2")...)
	f.fail(fakeFault{action: "ReceiveMessage", times: 1, cut: true})
	if got := take(t, src, 2); ids(got) != "1 2" || got[0].Attempt != 1 {
		t.Errorf("got %s, attempt %d", ids(got), got[0].Attempt)
	}
}

func TestFIFOFeatures(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	if got, want := src.Features(), (ackwise.Features{Order: ackwise.OrderKey, Lease: 30 * time.Second,
		Extend: true, HandOuts: true, KeyRuns: true}); got != want {
		t.Errorf("got %+v", got)
	}
	if got, want := snk.Features(), (ackwise.SinkFeatures{KeyRunSafe: true, Dedup: true,
		MaxBodyBytes: 1 << 20}); got != want {
		t.Errorf("got %+v", got)
	}
}

func TestFIFOStrangersKeyIsTheirGroup(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, ackwise.Message{ID: "ours"}, ackwise.Message{ID: "b", Key: "\xff"})
	f.mu.Lock()
	q := f.queues["q.fifo"]
	f.store(q, &fakeEntry{MessageBody: "x", MessageGroupID: "g", MessageDeduplicationID: "d"})
	f.mu.Unlock()
	ds := take(t, src, 3)
	if ds[0].Key != "" || ds[1].Key != "\xff" || ds[2].Key != "g" || ds[2].Time.IsZero() ||
		ds[2].ID != f.stored("q.fifo")[2].id {
		t.Errorf("keys %q %q %q, %s", ds[0].Key, ds[1].Key, ds[2].Key, ds[2].ID)
	}
	mustSettle(t, src, ackwise.OutcomeAck, 0, ds[2], ds[0], ds[1]) // three groups, in no order
}

// Where the first of a run is lost, nothing behind it may be acked.
func TestFIFOLostRun(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	src, snk := openBoth(t, f, "q.fifo", "")
	publish(t, snk, keyed("k", "1", "2", "3")...)
	run := take(t, src, 3)
	f.fail(fakeFault{action: "DeleteMessageBatch", times: 1, entry: "ReceiptHandleIsInvalid",
		index: 0})
	for _, r := range settle(src, ackwise.OutcomeAck, 0, run...) {
		wantErr(t, r, ackwise.ErrLeaseLost)
	}
	if left := f.stored("q.fifo"); len(left) != 3 {
		t.Errorf("%d left", len(left))
	}
}
