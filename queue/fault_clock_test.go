package queue

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// age is where the wall clock stands before it jumps, counted from the bubble's own beginning: each
// bubble begins at the same moment, so that a later one can stand before an earlier one.
const age = 20 * 365 * 24 * time.Hour

// jumps are what a wall clock does while no store is open.
var jumps = []time.Duration{0, time.Second, -time.Second, time.Hour, -time.Hour,
	365 * 24 * time.Hour, -365 * 24 * time.Hour, age / 2, -age / 2}

// steps are what the client of the clock test does, one after another. Each may be the last one
// before the clock jumps.
var steps = []func(t *testing.T, c *clockClient){
	func(t *testing.T, c *clockClient) { c.publish(t, 0, "a1", "a2", "a3", "b1", "b2") },
	func(t *testing.T, c *clockClient) { c.publish(t, time.Minute, "s1") },
	func(t *testing.T, c *clockClient) { c.receive(t) },
	func(t *testing.T, c *clockClient) { c.settle(t, ackwise.OutcomeAck, 0) },
	func(t *testing.T, c *clockClient) { c.settle(t, ackwise.OutcomeNack, 30*time.Second) },
	func(t *testing.T, c *clockClient) { c.receive(t) },
	func(t *testing.T, c *clockClient) { c.settle(t, ackwise.OutcomeSnooze, 40*time.Second) },
	func(t *testing.T, c *clockClient) { time.Sleep(20 * time.Second) }, // virtual
	func(t *testing.T, c *clockClient) { c.receive(t) },
}

// clockClient is a producer and a foreign consumer, whose leases outlive the store's owner.
type clockClient struct {
	s     *Store
	r     *Receiver
	held  []*ackwise.Delivery
	acked map[string]bool
	sent  []string
}

func (c *clockClient) open(t *testing.T, disk *vfs.Mem) {
	t.Helper()
	c.s = openMem(t, disk, Options{Process: "1"})
	if c.s.st.Topic("orders") == nil {
		create(t, c.s, "orders", "billing", SubscriptionOptions{Ordered: true})
	}
	c.r = receiver(t, c.s, "orders", "billing", ReceiverOptions{Session: "far", Foreign: true,
		SyncAcks: true, Lease: 30 * time.Second})
}

func (c *clockClient) publish(t *testing.T, delay time.Duration, ids ...string) {
	t.Helper()
	for _, id := range ids {
		res := c.s.Schedule(t.Context(), delay, []ackwise.Message{{Topic: "orders", ID: id,
			Key: id[:1]}})
		if res[0].Class != ackwise.ResultAccepted {
			t.Fatal(res[0].Err)
		}
		c.sent = append(c.sent, id)
	}
}

func (c *clockClient) receive(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if ds, err := c.r.Receive(ctx, 1); err == nil {
		c.held = append(c.held, ds...)
	}
}

func (c *clockClient) settle(t *testing.T, o ackwise.Outcome, delay time.Duration) {
	t.Helper()
	if len(c.held) == 0 { // what was to come is held by its delay, or was held over the jump
		return
	}
	d := c.held[0]
	c.held = c.held[1:]
	st := ackwise.Settlement{Token: d.Token, Outcome: o, Delay: delay}
	err := c.r.Settle(t.Context(), []ackwise.Settlement{st})[0].Err
	if err != nil && !errors.Is(err, ackwise.ErrLeaseLost) {
		t.Fatal(err)
	}
	if err == nil && o == ackwise.OutcomeAck {
		c.acked[d.ID] = true
	}
}

// drain consumes with another consumer until nothing waits, in bounded time.
func (c *clockClient) drain(t *testing.T) {
	t.Helper()
	r := receiver(t, c.s, "orders", "billing", ReceiverOptions{})
	begin, last := time.Now(), map[string]string{}
	got := map[string]bool{}
	for len(got)+len(c.acked) < len(c.sent) {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		ds, err := r.Receive(ctx, 10)
		cancel()
		if err != nil {
			books, _ := c.s.Books(t.Context())
			t.Fatalf("stuck with %v got: %v, %+v", got, err, books)
		}
		for _, d := range ds {
			if got[d.ID] || c.acked[d.ID] || d.ID < last[d.Key] {
				t.Errorf("%s came again, or after %s", d.ID, last[d.Key])
			}
			got[d.ID], last[d.Key] = true, d.ID
			settle(t, r, d, ackwise.OutcomeAck)
		}
	}
	if took := time.Since(begin); took > 90*time.Second {
		t.Errorf("it took %v, no lease and no delay is that long", took)
	}
}

// Row: the wall clock jumps, up to ten years back and forth, at every step of a client's work,
// while the owner changes: nothing is stuck, nothing is lost, and no key is out of order.
func TestFaultWallClockJumpsAtEveryStep(t *testing.T) {
	tried := 0
	for at := range len(steps) + 1 {
		for _, jump := range jumps {
			for _, killed := range []bool{true, false} {
				var disk *vfs.Mem
				c := &clockClient{acked: map[string]bool{}}
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(age) // virtual
					mem := vfs.NewMem()
					c.open(t, mem)
					for _, step := range steps[:at] {
						step(t, c)
					}
					synctest.Wait()
					disk = mem.Clone()
					if err := c.s.Close(); err != nil {
						t.Fatal(err)
					}
					if !killed {
						disk = mem.Clone()
					}
				})
				synctest.Test(t, func(t *testing.T) {
					time.Sleep(age + jump) // virtual
					c.open(t, disk)
					for _, step := range steps[at:] {
						step(t, c)
					}
					c.drain(t)
					verify(t, c.s)
					if err := c.s.Close(); err != nil {
						t.Error(err)
					}
				})
				if tried++; t.Failed() {
					t.Fatalf("the clock jumped by %v before step %d, killed %t", jump, at, killed)
				}
			}
		}
	}
	t.Logf("%d jumps", tried)
	if tried != (len(steps)+1)*len(jumps)*2 {
		t.Errorf("only %d jumps", tried)
	}
}
