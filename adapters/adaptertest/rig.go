package adaptertest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// rig is one check at work.
type rig struct {
	t       testing.TB
	h       *Harness
	bed     *Bed
	ctx     context.Context // ends with the check
	book    *book
	reading sync.WaitGroup // what listens to the members
	sinking ackwise.Sink   // once it was asked for
}

// topic is that of every message, for systems whose address names none.
const topic = "suite"

func newRig(t testing.TB, h *Harness, bed *Bed) *rig {
	r := &rig{t: t, h: h, bed: bed, ctx: t.Context(), book: newBook()}
	bed.Patience = cmp.Or(bed.Patience, 30*time.Second)
	t.Cleanup(r.reading.Wait) // after the members were ended: cleanups run backwards
	return r
}

// until waits for a condition of the book, which is looked at after each line of a member.
func (r *rig) until(what string, cond func() bool) {
	r.t.Helper()
	begun, came := time.Now(), false
	r.waits(r.bed.Patience, func() bool {
		came = cond()
		return came || r.book.broken
	})
	if !came {
		r.t.Fatalf("waited %s until %s, in vain%s", time.Since(begun).Round(time.Millisecond), what,
			r.book.tell())
	}
}

// waits reports whether the condition came true in time.
func (r *rig) waits(most time.Duration, cond func() bool) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	for {
		ok, changed := r.book.look(cond)
		if ok {
			return true
		}
		select {
		case <-timer.C:
			return false
		case <-r.ctx.Done():
			return false
		case <-changed:
		}
	}
}

// pause lets real time pass: what a foreign system does in it cannot be waited for.
func (r *rig) pause(d time.Duration) { r.waits(d, func() bool { return false }) }

// sink opens the sink, once.
func (r *rig) sink() ackwise.Sink {
	r.t.Helper()
	if r.sinking != nil {
		return r.sinking
	}
	s, err := r.h.OpenSink(r.ctx, r.bed.Sink)
	if err != nil {
		r.t.Fatalf("open the sink: %v", err)
	}
	r.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			r.t.Errorf("close the sink: %v", err)
		}
	})
	if got := s.Features(); got != *r.h.Sink {
		r.t.Errorf("the sink says of itself\n%+v, expected is\n%+v", got, *r.h.Sink)
	}
	r.sinking = s
	return s
}

// messages makes n messages from the number first on, spread over so many keys; of 0 keys none has
// one.
func messages(first, n, keys int) []ackwise.Message {
	ms := make([]ackwise.Message, n)
	for i := range ms {
		number := first + i
		m := &ms[i]
		m.ID, m.Topic = fmt.Sprintf("suite-%05d", number), topic
		if keys > 0 {
			m.Key = fmt.Sprintf("key-%02d", number%keys)
		}
		m.Body = fmt.Appendf(nil, `{"id":%q,"key":%q}`, m.ID, m.Key)
	}
	return ms
}

// publish publishes until all are accepted, as a producer has to.
func (r *rig) publish(ms []ackwise.Message) {
	r.t.Helper()
	if err := r.tryPublish(ms); err != nil {
		r.t.Fatal(err)
	}
}

// beside publishes beside the test, and returns what waits for its end.
func (r *rig) beside(ms []ackwise.Message) (wait func()) {
	if r.h.Sink != nil {
		r.sink() // not to be opened while the system is away
	}
	var err error
	done := make(chan struct{})
	r.reading.Go(func() { // ends within Patience
		defer close(done)
		err = r.tryPublish(ms)
	})
	return func() {
		r.t.Helper()
		if <-done; err != nil {
			r.t.Fatal(err)
		}
	}
}

func (r *rig) tryPublish(ms []ackwise.Message) error {
	r.book.send(ms)
	if r.h.Sink != nil {
		r.sink()
		for _, batch := range r.batches(ms) {
			if err := r.publishBatch(batch); err != nil {
				return err
			}
		}
		return nil
	}
	deadline := time.Now().Add(r.bed.Patience)
	for {
		err := r.bed.Write(r.ctx, ms)
		if err == nil {
			r.book.written(ms)
			return nil
		}
		if time.Now().After(deadline) || !r.book.is(func() bool { return r.book.disturbed }) {
			return fmt.Errorf("write: %w", err)
		}
		r.book.send(ms)
		r.pause(50 * time.Millisecond)
	}
}

// batches cuts messages into what one Publish may have.
func (r *rig) batches(ms []ackwise.Message) [][]ackwise.Message {
	most := cmp.Or(r.h.Sink.MaxBatch, 100)
	var out [][]ackwise.Message
	var batch []ackwise.Message
	for _, m := range ms {
		twice := m.Key != "" && !r.h.Sink.KeyRunSafe && slices.ContainsFunc(batch,
			func(o ackwise.Message) bool { return o.Key == m.Key })
		if len(batch) == most || twice {
			out, batch = append(out, batch), nil
		}
		batch = append(batch, m)
	}
	return append(out, batch)
}

func (r *rig) publishBatch(ms []ackwise.Message) error {
	deadline := time.Now().Add(r.bed.Patience)
	for try := 0; len(ms) > 0; try++ {
		if try > 0 {
			r.book.send(ms)
			r.pause(50 * time.Millisecond)
		}
		results := r.publishOnce(ms)
		left, err := unaccepted(ms, results)
		if err != nil {
			return err
		}
		if ms = left; len(ms) > 0 && time.Now().After(deadline) {
			return fmt.Errorf("%d messages were not accepted within %s; the last result is %+v",
				len(ms), r.bed.Patience, results[len(results)-1])
		}
	}
	return nil
}

// publishOnce publishes, and sees to it that there is one sound result for each message.
func (r *rig) publishOnce(ms []ackwise.Message) []ackwise.Result {
	ctx, cancel := context.WithTimeout(r.ctx, r.bed.Patience)
	defer cancel()
	return r.publishWith(ctx, ms)
}

func (r *rig) publishWith(ctx context.Context, ms []ackwise.Message) []ackwise.Result {
	results := r.sinking.Publish(ctx, ms)
	if len(results) != len(ms) {
		r.t.Errorf("%d messages got %d results", len(ms), len(results))
		return make([]ackwise.Result, len(ms))
	}
	for i, res := range results {
		if (res.Err == nil) != (res.Class == ackwise.ResultAccepted) {
			r.t.Errorf("%s: %s with the error %v", ms[i].ID, res.Class, res.Err)
		}
		if res.ID != ms[i].ID {
			r.t.Errorf("the result of %s is called %q", ms[i].ID, res.ID)
		}
	}
	r.book.results(ms, results)
	return results
}

// unaccepted returns what has to be published again.
func unaccepted(ms []ackwise.Message, results []ackwise.Result) ([]ackwise.Message, error) {
	var again []ackwise.Message
	for i, res := range results {
		switch res.Class {
		case ackwise.ResultAccepted:
		case ackwise.ResultRejected:
			return nil, fmt.Errorf("%s is rejected: %w", ms[i].ID, res.Err)
		case ackwise.ResultUnknown, ackwise.ResultRetryable, ackwise.ResultNotAttempted:
			again = append(again, ms[i])
		}
	}
	return again, nil
}

// arrive waits until all that was accepted has been acked, and judges what happened.
func (r *rig) arrive() {
	r.t.Helper()
	if r.h.Source == nil {
		r.readAll()
	} else {
		r.until("all that was accepted is acked", r.book.complete)
	}
	r.judge()
}

// events returns what has happened until now.
func (r *rig) events() (es []event) {
	r.book.locked(func() { es = slices.Clone(r.book.events) })
	return es
}

// done returns how many messages are acked.
func (r *rig) done() (n int) {
	r.book.locked(func() { n = len(r.book.done) })
	return n
}

// judge reports what was wrong until now.
func (r *rig) judge() {
	r.t.Helper()
	faults := r.book.judge(r.h)
	if n := len(faults); n > 20 {
		faults = append(faults[:20], fmt.Sprintf("and %d more", n-20))
	}
	for _, f := range faults {
		r.t.Error(f)
	}
}

// readAll waits until a sink's system holds all that was accepted.
func (r *rig) readAll() {
	r.t.Helper()
	if r.bed.Read == nil {
		r.t.Fatal("a sink without a source needs Bed.Read")
	}
	deadline := time.Now().Add(r.bed.Patience)
	for {
		ms, err := r.bed.Read(r.ctx)
		missing := r.book.missing(ms)
		if err == nil && len(missing) == 0 {
			for _, fault := range r.book.read(ms, r.h.Sink.Dedup) {
				r.t.Error(fault)
			}
			return
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("%d accepted messages did not arrive (%v): %s", len(missing),
				err, strings.Join(missing[:min(5, len(missing))], ", "))
		}
		r.pause(20 * time.Millisecond)
	}
}

// readInOrder sees to it that each key's messages came in the order in which they were sent, copies
// apart.
func (r *rig) readInOrder() {
	r.t.Helper()
	ms, err := r.bed.Read(r.ctx)
	if err != nil {
		r.t.Fatalf("read: %v", err)
	}
	last, seen := map[string]int{}, map[string]bool{}
	for i := range ms {
		id, key := ms[i].ID, ms[i].Key
		s := r.book.sent[id] // nobody publishes any more
		if s == nil || seen[id] {
			continue
		}
		seen[id] = true
		if s.place < last[key] {
			r.t.Errorf("%s of the key %q came behind one that was sent after it", id, key)
		}
		last[key] = s.place
	}
}
