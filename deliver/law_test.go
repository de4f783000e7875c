package deliver

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// books is the test's own list of why each message may have left: what its handler answered, and
// which dead letters were durable.
type books struct {
	mu        sync.Mutex // guards all below
	succeeded map[string]bool
	dropped   map[string]bool
	durable   map[string]bool
	calls     int
	putFaults int
}

func newBooks() *books {
	return &books{succeeded: make(map[string]bool), dropped: make(map[string]bool),
		durable: make(map[string]bool)}
}

// check compares what has left the source with the lists.
func (b *books) check(t *testing.T, src *fakeSource) {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	src.locked(func() {
		for _, m := range src.msgs {
			id, ok := m.m.ID, true
			switch m.out {
			case "ack":
				ok = b.succeeded[id] || b.durable[id]
			case "drop":
				ok = b.dropped[id]
			case "dead":
				ok = m.counts.Crashes >= 3 || m.counts.Failures >= 2 || b.durable[id]
			}
			if !ok {
				t.Errorf("%s left by %s without a reason of its own", id, m.out)
			}
		}
		if n := len(src.left); n != len(slices.Compact(slices.Sorted(slices.Values(src.left)))) {
			t.Errorf("a message left twice: %v", src.left)
		}
	})
}

// mixed is a handler that answers by chance with every outcome, and notes what it answered.
func (b *books) mixed(r *rand.Rand) ackwise.HandlerFunc {
	return func(ctx context.Context, d *ackwise.Delivery) error {
		b.mu.Lock()
		b.calls++
		n, pause := r.IntN(20), time.Duration(r.IntN(2000))*time.Millisecond
		b.mu.Unlock()
		if err := wait(ctx, pause); err != nil && n%2 == 0 {
			return fmt.Errorf("interrupted: %w", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		switch n {
		case 0, 1:
			return errors.New("fails")
		case 2:
			return ackwise.Snooze(3 * time.Second)
		case 3:
			b.dropped[d.ID] = true
			return ackwise.Drop("unwanted")
		case 4:
			b.durable[d.ID] = true // the source's own; ours are noted by put
			return ackwise.Reject(errors.New("poison"))
		case 5:
			return ackwise.RetryAfter(errors.New("busy"), time.Second)
		case 6:
			panic("breaks")
		}
		b.succeeded[d.ID] = true
		return nil
	}
}

// put is a dead letter store that fails every other time.
func (b *books) put(_ context.Context, d *ackwise.Delivery, reason string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.putFaults++; b.putFaults%2 == 1 {
		return errors.New("the store is down")
	}
	b.durable[d.ID] = true
	return nil
}

// TestL2AMessageLeavesOnlyWithAReason runs every outcome on every kind of source, with settlements
// that fail before or after they take effect, a dead letter store that fails, and a stop at any
// moment; then it goes on with a second consumer until all is gone. The books are the test's own.
func TestL2AMessageLeavesOnlyWithAReason(t *testing.T) {
	short := leases()
	short.Lease = 2 * time.Second
	own := leases()
	own.Dead, own.MaxNackDelay = false, 500*time.Millisecond
	noExtend := leases()
	noExtend.Extend = false
	none := ackwise.Features{Lease: 5 * time.Second, Extend: true, MaxNackDelay: time.Minute}
	for name, f := range map[string]ackwise.Features{"engine": leases(), "short leases": short,
		"own dead letters": own, "no heartbeats": noExtend, "log": logLike(), "bare": none} {
		t.Run(name, func(t *testing.T) {
			var faults, putFaults int
			for seed := range uint64(30) {
				synctest.Test(t, func(t *testing.T) {
					src, b := chaos(t, f, seed)
					faults += src.faults
					putFaults += b.putFaults
				})
			}
			if faults == 0 || putFaults == 0 && !f.Dead {
				t.Errorf("the faults never fired: %d settle, %d dead letter", faults, putFaults)
			}
		})
	}
}

// chaos is one round of the law's test.
func chaos(t *testing.T, f ackwise.Features, seed uint64) (*fakeSource, *books) {
	r := rand.New(rand.NewPCG(seed, 7))
	src, b := newFake(t, f), newBooks()
	const messages = 60
	for i := range messages {
		m := src.add(id(i), []string{"", "a", "b", "c"}[r.IntN(4)])
		m.suspect = r.IntN(20) == 0
		if f.Counts && r.IntN(20) == 0 {
			m.counts.Crashes = 3
		}
	}
	faults := rand.New(rand.NewPCG(seed, 8)) // used under the source's mutex, r under the books'
	src.settleErr = func(ackwise.Settlement) error {
		if faults.IntN(8) == 0 {
			return errors.New("connection refused")
		}
		return nil
	}
	src.applied = func(ackwise.Settlement) error {
		if faults.IntN(8) == 0 {
			return errors.New("connection reset after the request")
		}
		return nil
	}
	o := seeded(seed)
	o.MaxFailures, o.Concurrency, o.MaxInFlight = 3, 4, 12
	o.StopGrace, o.MaxHandle = time.Second, max(time.Minute, f.Lease)
	if f.Lease > 0 && !f.Extend {
		o.Backoff.Cap = 20 * time.Second
	}
	if !f.Dead {
		o.DeadLetters = DeadLetterFunc(b.put)
	}
	h := b.mixed(r)
	ctx, cancel := context.WithTimeout(t.Context(), time.Duration(r.IntN(8000))*time.Millisecond)
	defer cancel()
	if err := Run(ctx, src, h, o); err != nil {
		t.Fatalf("seed %d: Run = %v", seed, err)
	}
	b.check(t, src)
	src.locked(func() { // the first consumer's session ends: what it still holds goes back
		for _, m := range src.msgs {
			if m.token != "" {
				src.back(m, ackwise.CauseRebalanced)
			}
		}
		src.endWhen = messages
	})
	if err := Run(t.Context(), src, h, o); !errors.Is(err, errEnded) {
		t.Fatalf("seed %d: Run = %v", seed, err)
	}
	b.check(t, src)
	if len(src.left) != messages {
		t.Errorf("seed %d: %d of %d messages have left", seed, len(src.left), messages)
	}
	return src, b
}

// TestL2ADeadLetterIsDurableBeforeItsMessageLeaves holds the store back and looks meanwhile.
func TestL2ADeadLetterIsDurableBeforeItsMessageLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, logLike())
		src.add("a", "k")
		src.add("b", "k")
		src.endWhen = 2
		tries, durable := 0, false
		put := func(ctx context.Context, d *ackwise.Delivery, _ string) error {
			tries++
			wait(ctx, time.Minute)
			src.locked(func() {
				if len(src.left) > 0 {
					t.Error("it left before its dead letter was durable")
				}
			})
			if tries < 20 {
				return errors.New("full")
			}
			durable = true
			return nil
		}
		h := func(_ context.Context, d *ackwise.Delivery) error {
			if d.ID == "a" {
				return ackwise.Reject(errors.New("poison"))
			}
			if !durable {
				t.Error("its key went on before the dead letter was durable")
			}
			return nil
		}
		Run(t.Context(), src, ackwise.HandlerFunc(h), Options{DeadLetters: DeadLetterFunc(put)})
		if tries != 20 || !slices.Equal(src.left, []string{"a", "b"}) {
			t.Errorf("%d attempts, left %v", tries, src.left)
		}
	})
}

// TestL2AnAckThatFailsIsNotDone: what cannot be settled stays where it is.
func TestL2AnAckThatFailsIsNotDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := newFake(t, leases())
		src.add("a", "")
		src.settleErr = func(ackwise.Settlement) error { return errors.New("unreachable") }
		var w watcher
		start := time.Now()
		stop := runFor(t, src, ackwise.HandlerFunc(
			func(context.Context, *ackwise.Delivery) error { return nil }),
			Options{Observe: w.see, Concurrency: 1, MaxInFlight: 1})
		wait(t.Context(), 36*time.Second) // the lease has run out: given up, then handed out again
		src.locked(func() {
			if len(src.left) != 0 || src.msgs[0].counts.HandOuts != 2 {
				t.Errorf("left %v, handed out %d times; want none and 2",
					src.left, src.msgs[0].counts.HandOuts)
			}
			src.settleErr = nil
		})
		wait(t.Context(), 10*time.Second)
		synctest.Wait()
		if len(src.left) != 1 || w.count("settled") != 1 || w.count("settle-failed") < 6 {
			t.Errorf("left %v after %s, events: %d settled, %d failed", src.left,
				time.Since(start), w.count("settled"), w.count("settle-failed"))
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// TestL4AKeyIsHandledInOrder counts in the handler: for each key the first success of each message
// must come in the order of publishing, and no two of a key may run at once.
func TestL4AKeyIsHandledInOrder(t *testing.T) {
	single := leases()
	single.KeyRuns = false
	held := leases()
	held.MaxNackDelay = time.Second
	for name, f := range map[string]ackwise.Features{
		"runs": leases(), "single": single, "held": held, "log": logLike()} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := newFake(t, f)
				const keys, each = 20, 30
				for i := range keys * each {
					src.add(id(i), fmt.Sprint("k", i%keys))
				}
				src.endWhen = keys * each
				r := rand.New(rand.NewPCG(1, 2))
				var c calls
				last := make(map[string]string)
				failures, violations := 0, 0
				h := func(ctx context.Context, d *ackwise.Delivery) error {
					c.begin(d)
					defer c.finish(d)
					c.mu.Lock()
					fails, pause := r.IntN(5) == 0, time.Duration(r.IntN(100))*time.Millisecond
					c.mu.Unlock()
					wait(ctx, pause)
					c.mu.Lock()
					defer c.mu.Unlock()
					if fails {
						failures++
						return errors.New("for a while")
					}
					if d.ID <= last[d.Key] {
						violations++
					}
					last[d.Key] = d.ID
					return nil
				}
				o := seeded(3)
				o.MaxFailures = Unlimited
				o.NoDeadLetters = !f.Dead
				if err := Run(t.Context(), src, ackwise.HandlerFunc(h), o); !errors.Is(err, errEnded) {
					t.Fatal(err)
				}
				if violations != 0 || c.overlap != 0 || failures == 0 || c.most < 8 {
					t.Errorf("%d violations, %d overlaps, %d failures, %d at once; want 0, 0, some, many",
						violations, c.overlap, failures, c.most)
				}
			})
		})
	}
}

func TestPartitionsAreHandledInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := logLike()
		f.Order = ackwise.OrderPartition
		var ds []*ackwise.Delivery
		for i := range 100 {
			ds = append(ds, &ackwise.Delivery{Message: ackwise.Message{ID: id(i), Key: fmt.Sprint(i)},
				Partition: fmt.Sprint("p", i%2)})
		}
		src, err := newPushed(ds)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLoop(t.Context(), src, Options{NoDeadLetters: true}, false)
		if err != nil {
			t.Fatal(err)
		}
		l.f, l.settle = f, src.note
		var mu sync.Mutex
		order := make(map[string][]string)
		l.handle = single(ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
			wait(ctx, time.Second)
			mu.Lock()
			defer mu.Unlock()
			order[d.Partition] = append(order[d.Partition], d.ID)
			return nil
		}))
		start := time.Now()
		if err := l.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		for p, ids := range order {
			if !slices.IsSorted(ids) || len(ids) != 50 {
				t.Errorf("partition %s was handled as %v", p, ids)
			}
		}
		if got := time.Since(start); got != 50*time.Second {
			t.Errorf("took %s, want 50s: the two partitions beside each other", got)
		}
	})
}
