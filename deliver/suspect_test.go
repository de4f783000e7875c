package deliver

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
)

// handOuts are the features of a source that counts hand-outs, and does not know why.
func handOuts() ackwise.Features {
	f := leases()
	f.Order, f.KeyRuns, f.Counts, f.Causes, f.HandOuts = ackwise.OrderNone, false, false, false, true
	return f
}

// mortal is a process's way to a source: once it is dead nothing more reaches it, and what it held
// is nobody's until its lease ends.
type mortal struct {
	*fakeSource
	dead atomic.Bool
}

func (m *mortal) Receive(ctx context.Context, most int) ([]*ackwise.Delivery, error) {
	if m.dead.Load() {
		return nil, ackwise.ErrClosed
	}
	return m.fakeSource.Receive(ctx, most)
}

func (m *mortal) Settle(ctx context.Context, ss []ackwise.Settlement) []ackwise.SettleResult {
	if !m.dead.Load() {
		return m.fakeSource.Settle(ctx, ss)
	}
	rs := make([]ackwise.SettleResult, len(ss))
	for i := range rs {
		rs[i].Err = ackwise.ErrClosed
	}
	return rs
}

// TestAPoisonTakesNoInnocentWithIt kills the process whenever the poison is handled, while
// everything that was received with it is still at work.
func TestAPoisonTakesNoInnocentWithIt(t *testing.T) {
	for _, tc := range []struct {
		name  string
		own   int // the source's own budget
		o     Options
		kills int
	}{
		{"the default budget", 0, Options{}, 30},
		{"a small budget", 0, Options{MaxHandOuts: 5}, 5},
		{"no budget but the source's", 6, Options{MaxHandOuts: Unlimited}, 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := handOuts()
				f.MaxHandOuts = tc.own
				src := newFake(t, f)
				for i := range 20 {
					src.add(id(i), "")
				}
				src.endWhen = 20
				kills := 0
				for ; len(src.left) < src.endWhen && kills < 100; kills++ {
					live(t, &mortal{fakeSource: src}, id(7), tc.o)
				}
				if kills--; kills != tc.kills { // the last life ends in good order
					t.Errorf("the poison ended %d processes, want %d", kills, tc.kills)
				}
				for _, m := range src.msgs {
					want := "ack"
					if m.m.ID == id(7) {
						want = "dead"
					}
					if m.out != want {
						t.Errorf("%s: %q after %d hand-outs, want %q", m.m.ID, m.out,
							m.counts.HandOuts, want)
					}
				}
			})
		})
	}
}

// live is the life of one process. A handler takes a second, and the poison half of one.
func live(t *testing.T, src *mortal, poison string, o Options) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	o.StopGrace = NoGrace
	Run(ctx, src, ackwise.HandlerFunc(func(ctx context.Context, d *ackwise.Delivery) error {
		if d.ID != poison {
			return wait(ctx, time.Second)
		}
		wait(ctx, time.Second/2)
		src.dead.Store(true)
		cancel()
		return errors.New("killed")
	}), o)
}

// TestASuspectByItsHandOutsRunsAlone hands suspects out among others: nothing else is in flight
// while one is at work, none is given back again and again, and once it has an outcome the others
// go on beside its retry.
func TestASuspectByItsHandOutsRunsAlone(t *testing.T) {
	for _, own := range []int{0, 40} {
		synctest.Test(t, func(t *testing.T) {
			f := handOuts()
			f.MaxHandOuts, f.MaxNackDelay = own, 0 // a retry is held in the loop
			src := newFake(t, f)
			suspects := []string{id(3), id(4), id(9)}
			for i := range 40 {
				if m := src.add(id(i), ""); slices.Contains(suspects, id(i)) {
					m.counts.HandOuts = 10
				}
			}
			src.endWhen = 40
			var c calls
			var mu sync.Mutex // guards alone
			var alone []string
			Run(t.Context(), src, ackwise.HandlerFunc(
				func(ctx context.Context, d *ackwise.Delivery) error {
					c.begin(d)
					defer c.finish(d)
					mu.Lock()
					first := slices.Contains(suspects, d.ID) && !slices.Contains(alone, d.ID)
					if first {
						alone = append(alone, d.ID)
					}
					mu.Unlock()
					if !first {
						return wait(ctx, time.Second)
					}
					wait(ctx, time.Second)
					c.mu.Lock()
					defer c.mu.Unlock()
					src.mu.Lock()
					defer src.mu.Unlock()
					if c.running > 1 || own == 0 && len(src.tokens) > len(alone) {
						t.Errorf("%s runs beside %d, and %d are in flight", d.ID, c.running-1,
							len(src.tokens))
					}
					return ackwise.RetryAfter(errors.New("not yet"), 5*time.Second)
				}), Options{})
			runs := slices.DeleteFunc(c.seen(), func(id string) bool {
				return !slices.Contains(suspects, id)
			})
			if len(alone) != len(suspects) || !slices.Equal(runs[:len(alone)], alone) {
				t.Errorf("the suspects ran in the order %v", runs)
			}
			for _, m := range src.msgs {
				released := 0
				for _, o := range src.outcomes[m.m.ID] {
					if o == ackwise.OutcomeRelease {
						released++
					}
				}
				most := 0
				if slices.Contains(suspects, m.m.ID) && own == 0 {
					most = 2
				}
				if m.out != "ack" || released > most {
					t.Errorf("%s: %q, released %d times", m.m.ID, m.out, released)
				}
			}
		})
	}
}
