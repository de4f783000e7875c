package kafka

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/texts"
)

// fill publishes n messages of some keys and returns their IDs.
func (b *sinkBed) fill(topic string, n, keys int) []string {
	b.t.Helper()
	s := b.open(topic)
	var ids []string
	var msgs []ackwise.Message
	for i := range n {
		id := fmt.Sprintf("m%04d", i)
		ids = append(ids, id)
		msgs = append(msgs, ackwise.Message{ID: id, Key: fmt.Sprint("k", i%keys), Body: []byte(id)})
	}
	for _, r := range s.Publish(b.t.Context(), msgs) {
		if r.Class != ackwise.ResultAccepted {
			b.t.Fatal(r.Err)
		}
	}
	return ids
}

// echo publishes what a batch holds, under IDs that name their origin.
func echo(_ context.Context, tx *Tx, ds []*ackwise.Delivery) error {
	for _, d := range ds {
		tx.Publish(ackwise.Message{ID: "copy-" + d.ID, Key: d.Key, Body: d.Body})
	}
	return nil
}

// transactRun is a loop that runs until it is stopped.
type transactRun struct {
	stop context.CancelFunc
	done chan error
}

func (r *transactRun) end(t testing.TB) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Error(err)
	}
}

// runTransact consumes "in" and transacts into "out".
func runTransact(t testing.TB, address string, fn TransactFunc, o SinkOptions) *transactRun {
	t.Helper()
	so, err := ParseSource(address)
	if err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(t.Context(), so)
	if err != nil {
		t.Fatal(err)
	}
	o.Topic = "out"
	h := Transact(fn, o)
	ctx, stop := context.WithCancel(t.Context())
	r := &transactRun{stop: stop, done: make(chan error, 1)}
	go func() {
		err := deliver.RunBatch(ctx, src, h, deliver.Options{Guarantee: deliver.ExactlyOnce,
			Concurrency: 2, BatchSize: 50, NoDeadLetters: true,
			Backoff: deliver.Backoff{First: 10 * time.Millisecond, Cap: 50 * time.Millisecond}})
		r.done <- errors.Join(err, src.Close(), h.Close())
	}()
	return r
}

// checkCopies holds what a reader of committed records sees against what was put in: each once, and
// the keys in their order.
func checkCopies(t testing.TB, records []*kgo.Record, ids []string, keys int) {
	t.Helper()
	seen, last := map[string]int{}, map[string]string{}
	for _, r := range records {
		m, _ := message(r, "", &texts.Pages{})
		seen[m.ID]++
		if m.ID <= last[m.Key] {
			t.Errorf("key %s: %s comes behind %s", m.Key, m.ID, last[m.Key])
		}
		last[m.Key] = m.ID
	}
	for _, id := range ids {
		if n := seen["copy-"+id]; n != 1 {
			t.Errorf("the effect of %s is seen %d times", id, n)
		}
	}
	if len(seen) != len(ids) {
		t.Errorf("%d effects of %d messages", len(seen), len(ids))
	}
}

// TestTransactExactly runs through faults of each step: whoever reads committed records sees each
// effect once, and there are aborted ones.
func TestTransactExactly(t *testing.T) {
	b := newSinkBed(t, 3, "in", "out")
	ids := b.fill("in", 600, 20)
	faults := map[string]*kfake.FaultHandle{
		"produce": b.produceFault("out", "m0100", kerr.TopicAuthorizationFailed, 1),
		"commit of positions": b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit},
			Topic: "in", Err: kerr.IllegalGeneration, Count: 2}),
		"end": b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.EndTxn}, TopLevel: true,
			Err: kerr.UnknownServerError, Count: 2}),
	}
	var mu sync.Mutex // guards failures
	failures := map[string]int{}
	r := runTransact(t, b.url("in?group=g"), func(ctx context.Context, tx *Tx,
		ds []*ackwise.Delivery) error {
		for _, d := range ds {
			mu.Lock()
			again := failures[d.ID]
			if failures[d.ID]++; again == 0 && strings.HasSuffix(d.ID, "77") {
				mu.Unlock()
				return errors.New("not yet")
			}
			mu.Unlock()
		}
		return echo(ctx, tx, ds)
	}, SinkOptions{Compression: "none"}) // the fault looks for a text
	records := b.read("out", len(ids), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	r.end(t)
	all := b.read("out", len(ids)) // with the aborted ones
	for name, f := range faults {
		if f.Hits() == 0 {
			t.Errorf("the fault of the %s never fired", name)
		}
	}
	checkCopies(t, records, ids, 20)
	t.Logf("%d records at least, %d committed", len(all), len(records))
}

// TestTransactUnknownCommit: the connection is cut at the commit, before the broker acts on it.
func TestTransactUnknownCommit(t *testing.T) {
	b := newSinkBed(t, 1, "in", "out")
	ids := b.fill("in", 100, 5)
	lost := 0
	b.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		if lost++; lost > 3 {
			return nil, nil, false
		}
		return nil, errors.New("the connection is cut"), true
	})
	r := runTransact(t, b.url("in?group=g"), echo, SinkOptions{})
	records := b.read("out", len(ids), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	r.end(t)
	if lost == 0 {
		t.Error("no answer was lost")
	}
	checkCopies(t, records, ids, 5)
}

// TestTransactCommittedAndNobodyHeard: the broker carries the commit out and its answer is lost;
// the client's own repeat of it is refused, as that of a fenced producer.
func TestTransactCommittedAndNobodyHeard(t *testing.T) {
	b := newSinkBed(t, 1, "in", "out")
	ids := b.fill("in", 100, 5)
	beside, err := kgo.NewClient(kgo.SeedBrokers(b.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(beside.Close)
	var calls, passed, refused atomic.Int32
	b.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		switch calls.Add(1) {
		case 1:
			b.SleepControl(func() {
				again := *r.(*kmsg.EndTxnRequest)
				resp, err := again.RequestWith(t.Context(), beside)
				if err == nil && resp.ErrorCode == 0 {
					passed.Add(1)
				}
			})
			return nil, errors.New("the connection is cut"), true
		case 3: // the second is the one above
			refused.Add(1)
			resp := r.ResponseKind().(*kmsg.EndTxnResponse)
			resp.ErrorCode = kerr.ProducerFenced.Code
			return resp, nil, true
		}
		return nil, nil, false
	})
	r := runTransact(t, b.url("in?group=g"), echo, SinkOptions{})
	records := b.read("out", len(ids), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	r.end(t)
	if passed.Load() != 1 || refused.Load() != 1 {
		t.Errorf("%d commits carried out unheard, %d repeats refused", passed.Load(), refused.Load())
	}
	checkCopies(t, records, ids, 5)
}

// TestTransactFindsThePoison: the rest of the batch goes on.
func TestTransactFindsThePoison(t *testing.T) {
	b := newSinkBed(t, 1, "in", "out")
	b.fill("in", 40, 40)
	src := b.source("in?group=g")
	h := Transact(func(ctx context.Context, tx *Tx, ds []*ackwise.Delivery) error {
		for _, d := range ds {
			switch d.ID {
			case "m0013":
				return errors.New("unlucky")
			case "m0020":
				tx.Publish(ackwise.Message{ID: "bad\n"})
			}
		}
		return echo(ctx, tx, ds)
	}, SinkOptions{Topic: "out"})
	if err := h.Bind(src); err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	var ds []*ackwise.Delivery
	for len(ds) < 40 {
		more, err := src.Receive(t.Context(), 40)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, more...)
	}
	for i, err := range h.HandleBatch(t.Context(), ds) {
		want := ackwise.OutcomeAck
		switch ds[i].ID {
		case "m0013":
			want = ackwise.OutcomeNack
		case "m0020":
			want = ackwise.OutcomeDead
		}
		if got := ackwise.OutcomeOf(err).Outcome; got != want {
			t.Errorf("%s: %s (%v), want %s", ds[i].ID, got, err, want)
		}
	}
	if n := len(b.read("out", 38, kgo.FetchIsolationLevel(kgo.ReadCommitted()))); n != 38 {
		t.Errorf("%d effects, want 38", n)
	}
}

func (b *sinkBed) source(rest string) ackwise.Source {
	b.t.Helper()
	o, err := ParseSource(b.url(rest))
	if err != nil {
		b.t.Fatal(err)
	}
	src, err := OpenSource(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { src.Close() })
	return src
}

type strange struct{ ackwise.Source }

func TestTransactRefuses(t *testing.T) {
	b := newSinkBed(t, 1, "in", "out")
	err := Transact(echo, SinkOptions{Topic: "out"}).Bind(strange{})
	if err == nil || !strings.Contains(err.Error(), "kafka.strange") {
		t.Errorf("a foreign source: %v", err)
	}
	src := b.source("in?group=g")
	h := Transact(echo, SinkOptions{Topic: "nowhere"})
	if err := h.Bind(src); err == nil || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a missing topic: %v", err)
	}
	err = deliver.RunBatch(t.Context(), src, Transact(echo, SinkOptions{Topic: "out"}),
		deliver.Options{NoDeadLetters: true})
	if err == nil || !strings.Contains(err.Error(), "ExactlyOnce") {
		t.Errorf("at least once: %v", err)
	}
}
