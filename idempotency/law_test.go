package idempotency_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
)

// long reports whether the long fault tests were asked for.
func long() bool { return os.Getenv("ACKWISE_FAULTS") == "long" }

// A handler that looks, on a takeover, whether its effect was made makes each effect exactly once,
// and nothing is acked before: through handlers that fail, stand still and die at any point,
// processes that forget everything, and a store that is away before and after each of its calls.
func TestEveryEffectIsMadeOnceThroughAllFaults(t *testing.T) {
	runs := 20
	if long() {
		runs = 1000
	}
	fired := make(map[string]int)
	for range runs {
		seed := rand.Uint64()
		ok := t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { faultyRun(t, seed, fired) })
		})
		if !ok {
			return
		}
	}
	for _, fault := range []string{"before claim", "after claim", "before settle", "after settle",
		"outage", "fails", "fails after a look", "stands still", "dies before the effect",
		"dies after the effect"} {
		if fired[fault] == 0 {
			t.Errorf("the fault %q never fired", fault)
		}
	}
}

// dice draws for several goroutines, and counts what it drew.
type dice struct {
	mu    sync.Mutex // guards the fields below
	r     *rand.Rand
	fired map[string]int
}

// one reports whether a fault happens now: once in n times.
func (d *dice) one(n int, fault string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	hit := d.r.IntN(n) == 0
	if hit {
		d.fired[fault]++
	}
	return hit
}

func (d *dice) under(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// faultyStore fails its calls before and after they are carried out, alone and for minutes.
type faultyStore struct {
	idempotency.Store
	d     *dice
	mu    sync.Mutex // guards until
	until time.Time  // of an outage
}

func (f *faultyStore) away(when string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if time.Now().Before(f.until) {
		return errDown
	}
	if f.d.one(60, "outage") {
		f.until = time.Now().Add(time.Duration(f.d.under(180)) * time.Second)
		return errDown
	}
	if f.d.one(12, when) {
		return errDown
	}
	return nil
}

func (f *faultyStore) Claim(ctx context.Context, asks []idempotency.Ask) (
	[]idempotency.Answer, error) {
	if err := f.away("before claim"); err != nil {
		return nil, err
	}
	answers, err := f.Store.Claim(ctx, asks)
	return answers, errors.Join(err, f.away("after claim"))
}

func (f *faultyStore) Settle(ctx context.Context, ss []idempotency.Settlement) ([]error, error) {
	if err := f.away("before settle"); err != nil {
		return nil, err
	}
	results, err := f.Store.Settle(ctx, ss)
	return results, errors.Join(err, f.away("after settle"))
}

// faultyHandler makes the effect of each message, and looks first where it may be made already.
func faultyHandler(w *world, d *dice) ackwise.HandlerFunc {
	return func(ctx context.Context, m *ackwise.Delivery) error {
		if idempotency.FromContext(ctx)[0].Takeover && w.count(m.ID) > 0 {
			if d.one(3, "fails after a look") {
				return errors.New("fails")
			}
			return nil
		}
		if d.one(5, "dies before the effect") {
			panic("before")
		}
		if d.one(5, "stands still") {
			time.Sleep(time.Duration(d.under(300)) * time.Second) // virtual
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
		}
		if d.one(3, "fails") {
			return errors.New("fails")
		}
		w.add(m.ID)
		if d.one(5, "dies after the effect") {
			panic("after")
		}
		return nil
	}
}

func faultyRun(t *testing.T, seed uint64, all map[string]int) {
	const messages, consumers, wanted = 12, 3, 3
	w, acked := &world{}, &world{}
	d := &dice{r: rand.New(rand.NewPCG(seed, 0)), fired: make(map[string]int)}
	s := &faultyStore{Store: openMemory(t, memstore.Options{Window: 1000 * time.Hour}), d: d}
	o := idempotency.Options{Again: 1000 * time.Hour, Lease: time.Minute}
	start := func() ackwise.Handler {
		h, err := idempotency.Dedup(t.Context(), s, faultyHandler(w, d), o)
		if err != nil {
			t.Error(err)
		}
		return h
	}
	handle := func(h ackwise.Handler, id string) (err error, died bool) {
		defer func() { died = recover() != nil }()
		return h.Handle(t.Context(), delivery(id)), false
	}
	var wg sync.WaitGroup
	for range consumers {
		wg.Go(func() {
			h := start()
			for n := range messages {
				id := fmt.Sprint((n + d.under(3)) % messages)
				for acked.count(id) < wanted {
					err, died := handle(h, id)
					if died {
						h = start() // another process
					} else if err == nil {
						if w.count(id) == 0 {
							t.Errorf("%s is acked and its effect was not made", id)
						}
						acked.add(id)
					}
					time.Sleep(time.Duration(d.under(20)) * time.Second) // virtual
				}
			}
		})
	}
	wg.Wait()
	for n := range messages {
		if id := fmt.Sprint(n); acked.count(id) > 0 {
			w.want(t, id, 1)
		}
	}
	for fault, n := range d.fired {
		all[fault] += n
	}
}
