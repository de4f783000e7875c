package queuetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// short is a lease that a test waits for.
const short = 60 * time.Millisecond

func startsAtBeginning(b *bench) {
	b.check(b.CreateTopic(b.ctx, topic, queue.TopicOptions{}))
	b.publish("a", "b")
	b.check(b.CreateSubscription(b.ctx, topic, sub, queue.SubscriptionOptions{}))
	b.check(b.CreateSubscription(b.ctx, topic, "late",
		queue.SubscriptionOptions{Start: queue.Start{Now: true}}))
	b.publish("c")
	if got := ids(b.receive(b.receiver(queue.ReceiverOptions{}), 3)); got != "[a b c]" {
		b.Errorf("from the beginning: %s", got)
	}
	r, err := b.Receiver(b.ctx, topic, "late", queue.ReceiverOptions{})
	b.check(err)
	if got := ids(b.receive(r, 1)); got != "[c]" {
		b.Errorf("from now: %s", got)
	}
}

func keepsKeyOrder(b *bench) {
	b.setUp(queue.SubscriptionOptions{Ordered: true})
	b.publish("x/1", "y/1", "x/2", "y/2")
	first, second := b.receiver(queue.ReceiverOptions{}), b.receiver(queue.ReceiverOptions{})
	x1 := b.one(first, "x/1", ackwise.CauseFirst)
	y1 := b.one(second, "y/1", ackwise.CauseFirst)
	b.nothing(second) // both keys have a live lease
	b.ack(second, y1)
	y2 := b.one(second, "y/2", ackwise.CauseFirst)
	b.do(first, x1, ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: short})
	b.ack(second, y2)
	again := b.one(second, "x/1", ackwise.CauseFailed) // not x/2, which waits behind it
	b.ack(second, again)
	b.ack(second, b.one(second, "x/2", ackwise.CauseFirst))
	if f := first.Features(); f.Order != ackwise.OrderKey || !f.KeyRuns || !f.Causes || !f.Dead {
		b.Errorf("features %+v of an ordered subscription", f)
	}
}

func settlesRunsInOrder(b *bench) {
	b.setUp(queue.SubscriptionOptions{Ordered: true})
	b.publish("k/1", "k/2", "k/3", "k/4")
	r := b.receiver(queue.ReceiverOptions{})
	run := b.receive(r, 4)
	if got := ids(run); got != "[k/1 k/2 k/3 k/4]" {
		b.Fatalf("the run is %s", got)
	}
	b.wantErr("ack of the second first", b.settle(r, run[1], ackwise.Settlement{}).Err,
		ackwise.ErrRunOrder)
	b.ack(r, run[0])
	b.do(r, run[1], ackwise.Settlement{Outcome: ackwise.OutcomeNack, Reason: "not yet"})
	b.wantErr("ack behind a failure", b.settle(r, run[2], ackwise.Settlement{}).Err,
		ackwise.ErrRunOrder)
	for _, d := range run[2:] {
		b.do(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeRelease})
	}
	again := b.receive(r, 3)
	if got := ids(again); got != "[k/2 k/3 k/4]" {
		b.Fatalf("after the failure the run is %s", got)
	}
	b.ack(r, again...)
}

func nacks(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{Name: "worker-7"})
	d := b.one(r, "a", ackwise.CauseFirst)
	began := time.Now()
	b.do(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: short, Reason: "no route"})
	d = b.one(r, "a", ackwise.CauseFailed)
	if waited := time.Since(began); waited < short-time.Millisecond {
		b.Errorf("a nack of %s came back after %s", short, waited)
	}
	if d.Attempt != 2 || d.Counts.Failures != 1 || d.Counts.HandOuts != 2 || !d.Redelivered() {
		b.Errorf("attempt %d, counts %+v, want the second after one failure", d.Attempt, d.Counts)
	}
	if len(d.History) != 1 || d.History[0].Error != "no route" ||
		d.History[0].Consumer != "worker-7" || d.History[0].Cause != ackwise.CauseFirst ||
		d.History[0].Outcome != "nack" {
		b.Errorf("history %+v", d.History)
	}
	b.ack(r, d)
}

func putsOff(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	began := time.Now()
	b.do(r, b.one(r, "a", ackwise.CauseFirst),
		ackwise.Settlement{Outcome: ackwise.OutcomeSnooze, Delay: short})
	d := b.one(r, "a", ackwise.CauseSnoozed)
	if waited := time.Since(began); waited < short-time.Millisecond {
		b.Errorf("a snooze of %s ended after %s", short, waited)
	}
	b.do(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeRelease})
	d = b.one(r, "a", ackwise.CauseReleased)
	if d.Counts.Failures != 0 || d.Counts.Crashes != 0 || d.Counts.HandOuts != 3 {
		b.Errorf("counts %+v, want three hand-outs and nothing spent", d.Counts)
	}
	b.ack(r, d)
}

func extends(b *bench) {
	b.setUp(queue.SubscriptionOptions{Lease: time.Minute})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	d := b.one(r, "a", ackwise.CauseFirst)
	if left := time.Until(d.Deadline); left > time.Minute || left < 0 {
		b.Errorf("the deadline is %s away, the lease is a minute", left)
	}
	res := b.settle(r, d,
		ackwise.Settlement{Outcome: ackwise.OutcomeExtend, Delay: 10 * time.Minute})
	if left := time.Until(res.Deadline); res.Err != nil || left < 5*time.Minute {
		b.Errorf("extended by ten minutes: %+v", res)
	}
	res = b.settle(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeExtend, Delay: short})
	if left := time.Until(res.Deadline); res.Err != nil || left > 2*short {
		b.Errorf("cut short: %+v", res)
	}
	b.one(r, "a", ackwise.CauseLeaseExpired)
}

func expires(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	slow := b.receiver(queue.ReceiverOptions{Lease: short})
	quick := b.receiver(queue.ReceiverOptions{})
	d := b.one(slow, "a", ackwise.CauseFirst)
	again := b.one(quick, "a", ackwise.CauseLeaseExpired)
	if again.Counts.Crashes != 1 || again.Counts.Failures != 0 {
		b.Errorf("counts %+v, want one crash", again.Counts)
	}
	b.wantErr("the late ack", b.settle(slow, d, ackwise.Settlement{}).Err, ackwise.ErrLeaseLost)
	if c := b.books().Causes; c[ackwise.CauseAckLost] != 1 || c[ackwise.CauseLeaseExpired] != 0 {
		b.Errorf("causes %v, want lease-expired amended to ack-lost by the late ack", c)
	}
	b.ack(quick, again)
}

func settlesOnce(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	d := b.one(r, "a", ackwise.CauseFirst)
	b.ack(r, d)
	if res := b.settle(r, d, ackwise.Settlement{}); res.Err != nil || !res.Already {
		b.Errorf("the same ack again: %+v, want Already", res)
	}
	b.wantErr("a nack after the ack",
		b.settle(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeNack}).Err, ackwise.ErrSettled)
	if k := b.books(); k.Acked != 1 {
		b.Errorf("%d acked", k.Acked)
	}
}

func refusesTokens(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	d := b.one(r, "a", ackwise.CauseFirst)
	rs := r.Settle(b.ctx, []ackwise.Settlement{{Token: "nonsense"}, {Token: d.Token},
		{Token: ""}, {Token: d.Token[:len(d.Token)-1]}})
	if len(rs) != 4 || rs[1].Err != nil {
		b.Fatalf("one good token among bad ones: %+v", rs)
	}
	for _, i := range []int{0, 2, 3} {
		b.wantErr(fmt.Sprintf("bad token %d", i), rs[i].Err, ackwise.ErrBadToken)
	}
	var invalid *ackwise.InvalidError
	res := b.settle(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeDrop})
	if !errors.As(res.Err, &invalid) || invalid.Field != "reason" {
		b.Errorf("a drop without a reason: %+v", res)
	}
}

func rebalances(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a", "b")
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 2)
	b.ack(r, ds[0])
	b.check(r.Close())
	if _, err := r.Receive(b.ctx, 1); !errors.Is(err, ackwise.ErrClosed) {
		b.Errorf("receive after Close: %v, want ErrClosed", err)
	}
	b.check(r.Close())
	next := b.receiver(queue.ReceiverOptions{})
	d := b.one(next, "b", ackwise.CauseRebalanced)
	if d.Counts.Crashes != 0 {
		b.Errorf("a clean close was charged as a crash: %+v", d.Counts)
	}
	b.ack(next, d)
	b.nothing(next)
}

func losesConsumers(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	b.one(r, "a", ackwise.CauseFirst)
	next := b.receiver(queue.ReceiverOptions{})
	b.check(r.Lost())
	d := b.one(next, "a", ackwise.CauseConsumerLost)
	if d.Counts.Crashes != 1 {
		b.Errorf("the sole delivery of a dead consumer has counts %+v", d.Counts)
	}
	b.ack(next, d)
}

func cancelsReceive(b *bench) {
	b.setUp(queue.SubscriptionOptions{Lease: time.Hour})
	r := b.receiver(queue.ReceiverOptions{})
	const n = 200
	seen := map[string]bool{}
	cancelled := 0
	for i := range n {
		ctx, cancel := context.WithCancel(b.ctx)
		name := fmt.Sprint("m", i)
		var publisher sync.WaitGroup
		publisher.Go(func() { // ends with its publish
			if i%4 == 0 { // surely before there is anything to receive
				cancel()
			}
			b.Publish(b.ctx, messages(name))
			cancel()
		})
		ds, err := r.Receive(ctx, 10)
		if errors.Is(err, context.Canceled) {
			cancelled++
		} else if err != nil {
			b.Fatal(err)
		}
		for _, d := range ds {
			seen[d.ID] = true
			b.ack(r, d)
		}
		publisher.Wait()
	}
	for len(seen) < n {
		for _, d := range b.receive(r, 1) {
			seen[d.ID] = true
			b.ack(r, d)
		}
	}
	if cancelled == 0 {
		b.Error("no receive was cancelled: the test shows nothing")
	}
	b.nothing(r)
	if k := b.books(); k.InFlight != 0 || k.Acked != n {
		b.Errorf("%d in flight and %d acked of %d", k.InFlight, k.Acked, n)
	}
}
