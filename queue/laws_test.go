package queue

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
	"github.com/ackwise/ackwise/queue/internal/reserve"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// long reports whether the long fault runs were asked for.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

func openMem(t *testing.T, fs vfs.FS, o Options) *Store {
	t.Helper()
	if err := fs.MkdirAll("/store"); err != nil {
		t.Fatal(err)
	}
	if err := o.fill(); err != nil {
		t.Fatal(err)
	}
	s, err := openOn(fs, "/store", o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// L1: a publish returns success only when the message is durable.
func TestL1PublishReturnsOnlyAfterTheSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := vfs.NewFaults(vfs.NewMem())
		s := openMem(t, faults, Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		hold := make(chan struct{})
		blocked := &vfs.Fault{Op: vfs.OpSync, N: 1, Block: hold}
		faults.Set(blocked)
		done := make(chan []ackwise.Result, 1)
		go func() { // ends when the sync is let go
			done <- s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "a"}})
		}()
		synctest.Wait()
		if faults.Fired(blocked) == 0 {
			t.Fatal("no sync was blocked")
		}
		select {
		case r := <-done:
			t.Fatalf("publish returned %v before its sync", r)
		default:
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if ds, err := r.Receive(ctx, 1); err == nil {
			t.Errorf("%s was handed out before its sync", ds[0].ID)
		}
		close(hold)
		if r := <-done; r[0].Class != ackwise.ResultAccepted {
			t.Errorf("after the sync: %v", r)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// client is a producer and a consumer with lists of their own: what was acknowledged to them.
type client struct {
	published map[string]bool // Publish returned accepted
	acked     map[string]bool // Settle returned, with SyncAcks
	dead      map[string]bool
	dropped   map[string]bool
	tried     map[string]bool // asked for, with an unknown outcome
}

func newClient() *client {
	return &client{published: map[string]bool{}, acked: map[string]bool{}, dead: map[string]bool{},
		dropped: map[string]bool{}, tried: map[string]bool{}}
}

// work does random things until the store fails or the rounds are over.
func (c *client) work(t *testing.T, s *Store, rng *rand.Rand, rounds int) {
	r, err := s.Receiver(t.Context(), "orders", "billing", ReceiverOptions{SyncAcks: true})
	if err != nil {
		return
	}
	for range rounds {
		id := fmt.Sprintf("m%08x", rng.Uint32())
		msgs := []ackwise.Message{{Topic: "orders", ID: id, Body: make([]byte, rng.IntN(900))}}
		c.tried[id] = true
		if res := s.Publish(t.Context(), msgs); res[0].Class == ackwise.ResultAccepted {
			c.published[id] = true
		}
		if rng.IntN(3) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		ds, err := r.Receive(ctx, 1+rng.IntN(3))
		cancel()
		if err != nil {
			continue
		}
		for _, d := range ds {
			o := []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeAck, ackwise.OutcomeNack,
				ackwise.OutcomeDead, ackwise.OutcomeDrop}[rng.IntN(5)]
			res := r.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token, Outcome: o,
				Reason: "r"}})
			if res[0].Err != nil {
				c.tried[d.ID+"/settle"] = true
				continue
			}
			switch o {
			case ackwise.OutcomeAck:
				c.acked[d.ID] = true
			case ackwise.OutcomeDead:
				c.dead[d.ID] = true
			case ackwise.OutcomeDrop:
				c.dropped[d.ID] = true
			case ackwise.OutcomeNack, ackwise.OutcomeSnooze, ackwise.OutcomeRelease,
				ackwise.OutcomeExtend:
			}
		}
	}
}

// check holds a reopened store against the lists: nothing published is missing, nothing acked or
// dropped comes back, every dead letter is one.
func (c *client) check(t *testing.T, s *Store) {
	t.Helper()
	verify(t, s)
	there, err := s.Peek(t.Context(), "orders", "billing", PeekOptions{Max: maxListed})
	if err != nil {
		t.Fatal(err)
	}
	at := make(map[string]State)
	for _, m := range there {
		at[m.Message.ID] = m.State
		if !c.tried[m.Message.ID] {
			t.Errorf("%s was never published", m.Message.ID)
		}
	}
	for id := range c.published {
		state, present := at[id]
		gone := c.acked[id] || c.dropped[id]
		switch {
		case gone && present:
			t.Errorf("%s came back (%s) after its settlement had returned", id, state)
		case !gone && !present && !c.tried[id+"/settle"]:
			t.Errorf("%s is lost", id)
		case c.dead[id] && state != StateDead:
			t.Errorf("%s is %q and no dead letter any more", id, state)
		}
	}
}

// crash runs a client against a store whose disk fails at the n-th call that changes it, then cuts
// the power and opens what is left.
func crash(t *testing.T, seed uint64, n int) (fired bool) {
	rng := rand.New(rand.NewPCG(seed, uint64(n)))
	mem := vfs.NewMem()
	faults := vfs.NewFaults(mem)
	s := openMem(t, faults, Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16})
	create(t, s, "orders", "billing", SubscriptionOptions{})
	fault := &vfs.Fault{Op: vfs.OpAny, Changes: true, N: n, Onward: true, Err: syscall.EIO,
		Short: rng.IntN(600)}
	faults.Set(fault)
	c := newClient()
	c.work(t, s, rng, 60)
	fired = faults.Fired(fault) > 0
	after := mem.CrashClone(rng)
	_ = s.Close() // the disk is gone; the store says so, and nobody is told more
	again := openMem(t, after, Options{SegmentBytes: 1 << 16})
	c.check(t, again)
	twice := after.CrashClone(rng) // a second power cut, right after recovery
	_ = again.Close()
	last := openMem(t, twice, Options{SegmentBytes: 1 << 16})
	c.check(t, last)
	if err := last.Close(); err != nil {
		t.Error(err)
	}
	return fired
}

// L1 and L2 over power cuts: what was acknowledged to a client holds, whichever call to the disk is
// the last one.
func TestL1L2AcknowledgedSurvivesPowerCuts(t *testing.T) {
	seeds := 3
	if long() {
		seeds = 100
	}
	cuts := 0
	for seed := range uint64(seeds) {
		for n := 1; n < 200; n += 3 {
			synctest.Test(t, func(t *testing.T) {
				if crash(t, seed, n) {
					cuts++
				}
			})
			if t.Failed() {
				t.Fatalf("seed %d, call %d", seed, n)
			}
		}
	}
	if cuts < seeds*20 {
		t.Errorf("only %d faults fired", cuts)
	}
}

// L1 and L2 between any two calls: the power goes while the store is at work.
func TestL1L2AcknowledgedSurvivesPowerCutsAtAnyMoment(t *testing.T) {
	seeds := 10
	if long() {
		seeds = 500
	}
	for seed := range uint64(seeds) {
		synctest.Test(t, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 3))
			mem := vfs.NewMem()
			s := openMem(t, mem, Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16})
			create(t, s, "orders", "billing", SubscriptionOptions{})
			c := newClient()
			for range 30 {
				c.work(t, s, rng, 1+rng.IntN(5))
				after := openMem(t, mem.CrashClone(rng), Options{SegmentBytes: 1 << 16})
				c.check(t, after)
				_ = after.Close()
			}
			if len(c.acked) == 0 || len(c.dead) == 0 || len(c.dropped) == 0 {
				t.Errorf("the client did too little: %d acked", len(c.acked))
			}
			_ = s.Close()
		})
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// L2: a message leaves a subscription only after its handler succeeded, its dead letter is durable,
// or it was dropped with a reason.
func TestL2OnlySuccessDeadLetterOrDropRemoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Second})
		publish(t, s, ackwise.Message{Topic: "orders", ID: "a"})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		for _, o := range []ackwise.Outcome{ackwise.OutcomeNack, ackwise.OutcomeSnooze,
			ackwise.OutcomeRelease} {
			settle(t, r, receive(t, r, 1)[0], o)
		}
		receive(t, r, 1)
		time.Sleep(2 * time.Second) // virtual: the lease runs out, in virtual time
		receive(t, r, 1)
		if err := r.Lost(); err != nil {
			t.Fatal(err)
		}
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		receive(t, r, 1)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		d := receive(t, r, 1)[0]
		if d.Attempt != 7 || d.Counts.Failures != 1 || d.Counts.Crashes != 2 {
			t.Errorf("attempt %d, counts %+v", d.Attempt, d.Counts)
		}
		res := r.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token,
			Outcome: ackwise.OutcomeDrop}})
		if res[0].Err == nil {
			t.Error("a drop without a reason was accepted")
		}
		settle(t, r, d, ackwise.OutcomeAck)
		verify(t, s)
		if books, _ := s.Books(t.Context()); books[0].Acked != 1 || books[0].Waiting() != 0 {
			t.Errorf("books: %+v", books[0])
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// L3: a dead letter leaves its store only when it is redriven and accepted, or dropped by a person
// with a reason; time and restarts do not remove it.
func TestL3DeadLettersStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{SegmentBytes: 1 << 16, CheckpointBytes: 1 << 16})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		publish(t, s, ackwise.Message{Topic: "orders", ID: "a"},
			ackwise.Message{Topic: "orders", ID: "b"})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		for _, d := range receive(t, r, 2) {
			settle(t, r, d, ackwise.OutcomeDead)
		}
		time.Sleep(365 * 24 * time.Hour) // virtual
		for i := range 200 {             // segments and checkpoints come and go
			publish(t, s, ackwise.Message{Topic: "orders", ID: fmt.Sprint(i), Body: make([]byte, 4000)})
			settle(t, r, receive(t, r, 1)[0], ackwise.OutcomeAck)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{})
		letters, err := s.DeadLetters(t.Context(), "orders", "billing", DeadFilter{})
		if err != nil || len(letters) != 2 || letters[0].Error != "because" ||
			len(letters[0].History) != 1 {
			t.Fatalf("dead letters: %+v, %v", letters, err)
		}
		if _, err := s.DropDead(t.Context(), "orders", "billing", DeadFilter{}, ""); err == nil {
			t.Error("dropped without a reason")
		}
		if n, err := s.Redrive(t.Context(), "orders", "billing", DeadFilter{IDs: []string{"a"}},
			false); n != 1 || err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		d := receive(t, r, 1)[0]
		if d.ID != "a" || d.Cause != ackwise.CauseRedriven || len(d.History) != 1 {
			t.Errorf("redriven: %s %s %v", d.ID, d.Cause, d.History)
		}
		if n, err := s.DropDead(t.Context(), "orders", "billing", DeadFilter{IDs: []string{"b"}},
			"obsolete"); n != 1 || err != nil {
			t.Fatalf("drop: %d, %v", n, err)
		}
		books, _ := s.Books(t.Context())
		if books[0].DroppedFor["obsolete"] != 1 || books[0].Dead != 0 {
			t.Errorf("books: %+v", books[0])
		}
		verify(t, s)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// L5: a message keeps its ID on every copy, hop and redrive.
func TestL5TheIDStays(t *testing.T) {
	dir := t.TempDir()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	create(t, s, "orders", "billing", SubscriptionOptions{})
	create(t, s, "orders", "stock", SubscriptionOptions{})
	given := publish(t, s, ackwise.Message{Topic: "orders", ID: "order-7"})[0].ID
	made := publish(t, s, ackwise.Message{Topic: "orders"})[0].ID
	if given != "order-7" || made == "" {
		t.Fatalf("IDs %q and %q", given, made)
	}
	want := []string{given, made}
	hop := func(cause ackwise.Cause, o ackwise.Outcome) {
		t.Helper()
		for _, sub := range []string{"billing", "stock"} {
			r := receiver(t, s, "orders", sub, ReceiverOptions{})
			for i, d := range receive(t, r, 2) {
				if d.ID != want[i] || d.Cause != cause {
					t.Errorf("%s: %s (%s), want %s (%s)", sub, d.ID, d.Cause, want[i], cause)
				}
				settle(t, r, d, o)
			}
			if o == ackwise.OutcomeDead {
				if _, err := s.Redrive(t.Context(), "orders", sub, DeadFilter{}, false); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	hop(ackwise.CauseFirst, ackwise.OutcomeNack)
	hop(ackwise.CauseFailed, ackwise.OutcomeDead)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	hop(ackwise.CauseRedriven, ackwise.OutcomeAck)
}

// L6: a full bound pushes back with an error that says so, and nothing is dropped.
func TestL6BoundsPushBack(t *testing.T) {
	s := open(t, t.TempDir(), Options{MaxBodyBytes: 1000, MaxBatch: 4, MaxBatchBytes: 3000,
		MaxTableBytes: 100})
	for name, o := range map[string]TopicOptions{"few": {MaxMessages: 2}, "small": {MaxBytes: 200},
		"ids": {MaxDedupIDs: 2}} {
		if err := s.CreateTopic(t.Context(), name, o); err != nil {
			t.Fatal(err)
		}
		create(t, s, name, "sub", SubscriptionOptions{Ordered: true, OnDead: Hold, MaxParked: 1})
	}
	body := make([]byte, 80)
	for _, c := range []struct {
		topic string
		body  []byte
		batch int
		class ackwise.ResultClass
		want  error
	}{
		{"few", nil, 1, ackwise.ResultRetryable, ackwise.ErrFull},
		{"small", body, 1, ackwise.ResultRetryable, ackwise.ErrFull},
		{"ids", nil, 1, ackwise.ResultRetryable, ackwise.ErrFull},
		{"few", make([]byte, 1001), 1, ackwise.ResultRejected, ackwise.ErrTooLarge},
		{"few", nil, 5, ackwise.ResultRejected, ackwise.ErrTooLarge},
		{"few", make([]byte, 999), 4, ackwise.ResultRejected, ackwise.ErrTooLarge},
	} {
		accepted := 0
		var last ackwise.Result
		for i := range 4 {
			msgs := make([]ackwise.Message, c.batch)
			for j := range msgs {
				msgs[j] = ackwise.Message{Topic: c.topic, ID: fmt.Sprint(c.topic, i, j, len(c.body)),
					Body: c.body}
			}
			last = s.Publish(t.Context(), msgs)[0]
			if last.Class == ackwise.ResultAccepted {
				accepted++
			}
		}
		if last.Class != c.class || !errors.Is(last.Err, c.want) || accepted > 2 {
			t.Errorf("%s, %d bytes × %d: %v %v after %d accepted", c.topic, len(c.body), c.batch,
				last.Class, last.Err, accepted)
		}
	}
	_, err := s.Commit(t.Context(), Commit{Writes: []TableWrite{{Table: "t", Key: "k",
		Value: make([]byte, 101)}}})
	if !errors.Is(err, ackwise.ErrFull) {
		t.Errorf("table over its bound: %v", err)
	}
	r := receiver(t, s, "few", "sub", ReceiverOptions{MaxInFlight: 1})
	if ds := receive(t, r, 2); len(ds) != 1 {
		t.Errorf("%d in flight, at most 1 was asked for", len(ds))
	}
	verify(t, s)
}

// L6: at the quota of parked messages, publish is refused for parked keys only; dead letters alone
// at the quota pause the hand-outs.
func TestL6TheParkedQuota(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	create(t, s, "orders", "billing", SubscriptionOptions{Ordered: true, OnDead: Hold, MaxParked: 2})
	publish(t, s, ackwise.Message{Topic: "orders", ID: "a1", Key: "a"})
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	settle(t, r, receive(t, r, 1)[0], ackwise.OutcomeDead)
	publish(t, s, ackwise.Message{Topic: "orders", ID: "a2", Key: "a"},
		ackwise.Message{Topic: "orders", ID: "b1", Key: "b"})
	settle(t, r, receive(t, r, 1)[0], ackwise.OutcomeAck) // pulls a2 into its parked key
	res := s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "a3", Key: "a"},
		{Topic: "orders", ID: "c1", Key: "c"}, {Topic: "orders", ID: "d1", Key: "d"}})
	if res[0].Class != ackwise.ResultRetryable || !errors.Is(res[0].Err, ackwise.ErrFull) {
		t.Errorf("parked key at its quota: %v %v", res[0].Class, res[0].Err)
	}
	if res[1].Class != ackwise.ResultAccepted {
		t.Errorf("another key: %v %v", res[1].Class, res[1].Err)
	}
	settle(t, r, receive(t, r, 1)[0], ackwise.OutcomeDead)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if ds, err := r.Receive(ctx, 1); err == nil {
		t.Errorf("%s was handed out though dead letters fill the quota", ds[0].ID)
	}
	if _, err := s.Redrive(t.Context(), "orders", "billing", DeadFilter{}, false); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < 4; {
		for _, d := range receive(t, r, 10) {
			settle(t, r, d, ackwise.OutcomeAck)
			got++
		}
	}
	verify(t, s)
}

// L7: every hand-out has its cause, counted as the consumer saw it; a late ack amends the cause of
// the hand-out that followed, and both counters move.
func TestL7CausesAreKnownAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{Process: "1"})
		create(t, s, "orders", "billing", SubscriptionOptions{Lease: time.Second})
		publish(t, s, ackwise.Message{Topic: "orders", ID: "a"})
		saw := make(map[ackwise.Cause]int64)
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		next := func(want ackwise.Cause) *ackwise.Delivery {
			t.Helper()
			d := receive(t, r, 1)[0]
			if d.Cause != want {
				t.Errorf("attempt %d: cause %s, want %s", d.Attempt, d.Cause, want)
			}
			saw[d.Cause]++
			return d
		}
		settle(t, r, next(ackwise.CauseFirst), ackwise.OutcomeNack)
		settle(t, r, next(ackwise.CauseFailed), ackwise.OutcomeSnooze)
		settle(t, r, next(ackwise.CauseSnoozed), ackwise.OutcomeRelease)
		late := next(ackwise.CauseReleased)
		time.Sleep(2 * time.Second) // virtual
		held := next(ackwise.CauseLeaseExpired)
		for range 2 { // the second one changes nothing more
			res := r.Settle(t.Context(), []ackwise.Settlement{{Token: late.Token}})
			if !errors.Is(res[0].Err, ackwise.ErrLeaseLost) {
				t.Errorf("late ack: %v", res[0].Err)
			}
		}
		saw[ackwise.CauseLeaseExpired]--
		saw[ackwise.CauseAckLost]++
		settle(t, r, held, ackwise.OutcomeDead)
		redrive := func(redo bool) {
			if _, err := s.Redrive(t.Context(), "orders", "billing", DeadFilter{}, redo); err != nil {
				t.Fatal(err)
			}
		}
		redrive(false)
		settle(t, r, next(ackwise.CauseRedriven), ackwise.OutcomeDead)
		redrive(true)
		d := next(ackwise.CauseRedone)
		if d.DedupKey() != "a#1" {
			t.Errorf("dedup key %q after a redo", d.DedupKey())
		}
		_ = r.Lost()
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		next(ackwise.CauseConsumerLost)
		_ = r.Close()
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		next(ackwise.CauseRebalanced)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = openMem(t, mem, Options{Process: "2"})
		r = receiver(t, s, "orders", "billing", ReceiverOptions{})
		d = next(ackwise.CauseRestarted)
		if got := len(d.History); got != d.Attempt-1 {
			t.Errorf("%d attempts in the history of attempt %d", got, d.Attempt)
		}
		sawAll(t, s, saw)
		verify(t, s)
		_ = s.Close()
	})
}

// sawAll compares the books with what the consumer saw, and repeats a publish.
func sawAll(t *testing.T, s *Store, saw map[ackwise.Cause]int64) {
	t.Helper()
	again := s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "a"}})
	if !again[0].Duplicate {
		t.Errorf("the producer's repeat: %+v", again[0])
	}
	books, _ := s.Books(t.Context())
	maps.DeleteFunc(saw, func(_ ackwise.Cause, n int64) bool { return n == 0 })
	if !maps.Equal(books[0].Causes, saw) {
		t.Errorf("causes %v, the consumer saw %v", books[0].Causes, saw)
	}
	if topics, _ := s.Topics(t.Context()); topics[0].ProducedAgain != 1 {
		t.Errorf("produced again: %d", topics[0].ProducedAgain)
	}
}

// L8: a failed sync is fatal to the store: it says so, acknowledges nothing more, and is opened
// again from the disk.
func TestL8AFailedSyncIsFatal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		faults := vfs.NewFaults(mem)
		s := openMem(t, faults, Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		publish(t, s, ackwise.Message{Topic: "orders", ID: "before"})
		fault := &vfs.Fault{Op: vfs.OpSync, N: 1, Err: syscall.EIO}
		faults.Set(fault)
		res := s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "during"}})
		if faults.Fired(fault) == 0 {
			t.Fatal("no sync failed")
		}
		if res[0].Class != ackwise.ResultUnknown || !errors.Is(res[0].Err, syscall.EIO) {
			t.Errorf("publish over a failed sync: %v %v", res[0].Class, res[0].Err)
		}
		<-s.Done()
		res = s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "after"}})
		if res[0].Class != ackwise.ResultRetryable || !errors.Is(res[0].Err, ErrFatal) {
			t.Errorf("publish after it: %v %v", res[0].Class, res[0].Err)
		}
		if !errors.Is(s.Err(), ErrFatal) {
			t.Errorf("Err() = %v", s.Err())
		}
		_ = s.Close()
		s = openMem(t, mem.CrashClone(rand.New(rand.NewPCG(1, 1))), Options{})
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		if d := receive(t, r, 1)[0]; d.ID != "before" {
			t.Errorf("got %s", d.ID)
		}
		verify(t, s)
		_ = s.Close()
	})
}

// L8: damage of what was durable is refused with file and offset, and nothing is changed.
func TestL8DamageIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{SegmentBytes: 1 << 16})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		for i := range 20 {
			publish(t, s, ackwise.Message{Topic: "orders", ID: fmt.Sprint(i), Body: bytes.Repeat([]byte{7}, 10_000)})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		names, err := mem.ReadDir("/store")
		if err != nil {
			t.Fatal(err)
		}
		later := 0
		for _, name := range names {
			if name == reserve.Name { // its content means nothing
				continue
			}
			whole, err := mem.ReadFile("/store/" + name)
			if err != nil || len(whole) == 0 {
				t.Fatalf("%s: %d bytes, %v", name, len(whole), err)
			}
			damaged := mem.Clone()
			bad := slices.Clone(whole)
			at := len(bad) / 3
			for bad[at] == 0 { // not the padding
				at++
			}
			bad[at] ^= 4
			if err := damaged.WriteFile("/store/"+name, bad); err != nil {
				t.Fatal(err)
			}
			o := Options{}
			_ = o.fill()
			again, err := openOn(damaged, "/store", o)
			if err == nil { // it lies before the checkpoint, and is found where it is read
				// Behind the older checkpoint, which a busy machine may have taken early, the log
				// cannot be replayed: that is the answer then, and no list of findings.
				report, err := again.Verify(t.Context())
				at, damaged := errors.AsType[*CorruptionError](err)
				if damaged && (at.Segment != name || len(report.Findings) > 0) ||
					!damaged && (err != nil || len(report.Findings) != 1) {
					t.Errorf("%s: verify found %q, %v", name, report.Findings, err)
				}
				later++
				if strings.HasPrefix(name, checkpointPrefix) { // the older one: nobody needs it to open
					_ = again.Close()
					continue
				}
				checkBuried(t, again)
				continue
			}
			var corrupt *CorruptionError
			if !errors.As(err, &corrupt) || corrupt.Segment != name {
				t.Errorf("%s: %v", name, err)
			}
			if after, _ := damaged.ReadFile("/store/" + name); !slices.Equal(after, bad) {
				t.Errorf("%s was changed", name)
			}
		}
		if later == 0 || later == len(names) {
			t.Errorf("of %d damaged files, %d were noticed only when read", len(names), later)
		}
	})
}

// checkBuried consumes a store with one unreadable message: the others come, and it is a dead
// letter whose reason says what is wrong.
func checkBuried(t *testing.T, s *Store) {
	t.Helper()
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	for got := 0; got < 19; {
		for _, d := range receive(t, r, 100) {
			settle(t, r, d, ackwise.OutcomeAck)
			got++
		}
	}
	books, _ := s.Books(t.Context())
	letters, err := s.DeadLetters(t.Context(), "orders", "billing", DeadFilter{})
	if err != nil || books[0].Acked != 19 || len(letters) != 1 || letters[0].Error == "" {
		t.Errorf("books %+v, dead letters %+v, %v", books[0], letters, err)
	}
	_ = s.Close()
}

// L9: the books balance at every log position, for every subscription.
func TestL9TheBooksBalanceAtEveryPosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		create(t, s, "orders", "stock", SubscriptionOptions{Ordered: true, OnDead: Hold})
		c := newClient()
		c.work(t, s, rand.New(rand.NewPCG(9, 9)), 200)
		s.Schedule(t.Context(), time.Hour, []ackwise.Message{{Topic: "orders", ID: "later"}})
		replayed, positions := state.New(), 0
		err := s.log.Replay(0, 0, func(r wal.Record) error {
			if err := replayed.Apply(r.Pos, r.Type, r.Payload); err != nil {
				return err
			}
			for _, q := range replayed.Topics() {
				for _, sub := range q.Subs {
					positions++
					sum := sub.Acked + sub.Dropped
					for _, p := range []state.Place{state.Ready, state.Delayed, state.InFlight,
						state.Parked, state.Dead} {
						sum += sub.Count(p)
					}
					if sub.Accepted != sum {
						t.Fatalf("at %d, %s: accepted %d, the rest is %d", r.Pos, sub.Name,
							sub.Accepted, sum)
					}
				}
			}
			return nil
		})
		if err != nil || positions < 400 {
			t.Fatalf("%d positions, %v", positions, err)
		}
		verify(t, s)
		_ = s.Close()
	})
}
