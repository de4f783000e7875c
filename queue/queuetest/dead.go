package queuetest

import (
	"errors"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

func redrives(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a", "b")
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 2)
	b.do(r, ds[0], ackwise.Settlement{Outcome: ackwise.OutcomeNack, Reason: "first"})
	b.die(r, b.one(r, "a", ackwise.CauseFailed))
	b.die(r, ds[1])
	letters, err := b.DeadLetters(b.ctx, topic, sub, queue.DeadFilter{IDs: []string{"a"}})
	b.check(err)
	if len(letters) != 1 {
		b.Fatalf("letters %+v", letters)
	}
	l := letters[0]
	if l.Message.ID != "a" || string(l.Message.Body) != "body of a" || l.Error != "poison" ||
		l.Counts.HandOuts != 2 || l.Counts.Failures < 1 || len(l.History) != 2 ||
		l.History[0].Error != "first" || l.Cause != ackwise.CauseFailed || l.Time.IsZero() {
		b.Errorf("letter %+v", l)
	}
	n, err := b.Redrive(b.ctx, topic, sub, queue.DeadFilter{IDs: []string{"a"}}, false)
	if err != nil || n != 1 {
		b.Fatalf("redrive: %d, %v", n, err)
	}
	d := b.one(r, "a", ackwise.CauseRedriven)
	if d.Counts.Redrives != 1 || d.Epoch != 0 || d.DedupKey() != "a" {
		b.Errorf("redriven: counts %+v, epoch %d", d.Counts, d.Epoch)
	}
	b.ack(r, d)
	if k := b.books(); k.Dead != 1 || k.Acked != 1 {
		b.Errorf("books %+v", k)
	}
	n, err = b.Redrive(b.ctx, topic, sub, queue.DeadFilter{IDs: []string{"a"}}, false)
	if n != 0 {
		b.Errorf("redrive of what is not dead: %d, %v", n, err)
	}
}

func redoes(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	b.die(r, b.one(r, "a", ackwise.CauseFirst))
	n, err := b.Redrive(b.ctx, topic, sub, queue.DeadFilter{}, true)
	if err != nil || n != 1 {
		b.Fatalf("redo: %d, %v", n, err)
	}
	d := b.one(r, "a", ackwise.CauseRedone)
	if d.Epoch != 1 || d.DedupKey() != "a#1" {
		b.Errorf("redone: epoch %d, dedup key %s", d.Epoch, d.DedupKey())
	}
	b.ack(r, d)
}

func dropsDead(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a", "b")
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 2)
	b.die(r, ds[0])
	b.do(r, ds[1], ackwise.Settlement{Outcome: ackwise.OutcomeDrop, Reason: "test data"})
	n, err := b.DropDead(b.ctx, topic, sub, queue.DeadFilter{}, "looked at by Ada")
	if err != nil || n != 1 {
		b.Fatalf("drop: %d, %v", n, err)
	}
	if k := b.books(); k.Dead != 0 || k.Dropped != 2 || k.DroppedFor["looked at by Ada"] != 1 ||
		k.DroppedFor["test data"] != 1 {
		b.Errorf("books %+v", k)
	}
	var invalid *ackwise.InvalidError
	if _, err := b.DropDead(b.ctx, topic, sub, queue.DeadFilter{}, ""); !errors.As(err, &invalid) {
		b.Errorf("a drop without a reason: %v", err)
	}
}

func parks(b *bench) {
	b.setUp(queue.SubscriptionOptions{Ordered: true, OnDead: queue.Hold})
	key := "k\xff" // any bytes are a key
	ms := messages("k/1", "k/2", "k/3", "other/1")
	for i := range 3 {
		ms[i].Key = key
	}
	for _, r := range b.Publish(b.ctx, ms) {
		b.check(r.Err)
	}
	r := b.receiver(queue.ReceiverOptions{})
	b.die(r, b.one(r, "k/1", ackwise.CauseFirst))
	b.ack(r, b.one(r, "other/1", ackwise.CauseFirst))
	b.nothing(r)
	parked, err := b.ParkedKeys(b.ctx, topic, sub, 10)
	b.check(err)
	if len(parked) != 1 || parked[0].Key != key || parked[0].ID != "k/1" ||
		parked[0].Depth != 2 || parked[0].Error != "poison" || parked[0].State != "parked" {
		b.Fatalf("parked keys %+v", parked)
	}
	letters, err := b.DeadLetters(b.ctx, topic, sub, queue.DeadFilter{Key: key})
	if err != nil || len(letters) != 1 || letters[0].Parked != 2 {
		b.Errorf("letters of the key: %+v, %v", letters, err)
	}
	if k := b.books(); k.Parked != 2 || k.Dead != 1 {
		b.Errorf("books %+v", k)
	}
	if n, err := b.Redrive(b.ctx, topic, sub, queue.DeadFilter{Key: key}, false); n != 1 {
		b.Fatalf("redrive: %d, %v", n, err)
	}
	b.ack(r, b.one(r, "k/1", ackwise.CauseRedriven))
	b.ack(r, b.one(r, "k/2", ackwise.CauseFirst))
	b.ack(r, b.one(r, "k/3", ackwise.CauseFirst))
	if parked, err = b.ParkedKeys(b.ctx, topic, sub, 10); err != nil || len(parked) != 0 {
		b.Errorf("parked keys after the drain: %+v, %v", parked, err)
	}
}

func peeks(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("ready", "flying", "dead")
	if rs := b.Schedule(b.ctx, time.Hour, messages("delayed")); rs[0].Err != nil {
		b.Fatal(rs[0].Err)
	}
	r := b.receiver(queue.ReceiverOptions{Name: "worker-7"})
	ds := b.receive(r, 3)
	b.do(r, ds[0], ackwise.Settlement{Outcome: ackwise.OutcomeRelease})
	b.die(r, ds[2])
	for id, want := range map[string]queue.State{"ready": queue.StateReady,
		"flying": queue.StateInFlight, "dead": queue.StateDead, "delayed": queue.StateDelayed} {
		ps, err := b.Peek(b.ctx, topic, sub, queue.PeekOptions{ID: id})
		if err != nil || len(ps) != 1 || ps[0].State != want || ps[0].Message.ID != id ||
			string(ps[0].Message.Body) != "body of "+id {
			b.Errorf("peek %s: %+v, %v; want it %s", id, ps, err, want)
		}
	}
	ps, err := b.Peek(b.ctx, topic, sub, queue.PeekOptions{State: queue.StateInFlight})
	if err != nil || len(ps) != 1 || ps[0].Consumer != "worker-7" || ps[0].Due.IsZero() {
		b.Errorf("peek what is in flight: %+v, %v", ps, err)
	}
	subs, err := b.Subscriptions(b.ctx, topic)
	if err != nil || len(subs) != 1 || len(subs[0].Sessions) != 1 ||
		subs[0].Sessions[0].InFlight != 1 || subs[0].Sessions[0].Name != "worker-7" ||
		!subs[0].Sessions[0].Connected {
		b.Errorf("subscriptions %+v, %v", subs, err)
	}
}

func survivesClose(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("acked", "dead", "ready")
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 2)
	b.ack(r, ds[0])
	b.die(r, ds[1])
	_, err := b.Commit(b.ctx, queue.Commit{Writes: []queue.TableWrite{
		{Table: "t", Key: "k", Value: []byte("v")}}})
	b.check(err)
	b.check(r.Close())
	before := b.books()
	b.check(b.Close())
	b.wantErr("publish after Close", b.Publish(b.ctx, messages("x"))[0].Err, ackwise.ErrClosed)
	b.Opened = b.open(b.T, b.dir)
	after := b.books()
	if after.Acked != before.Acked || after.Dead != before.Dead || after.Ready != before.Ready {
		b.Errorf("before the close %+v, after %+v", before, after)
	}
	if e, err := b.Get(b.ctx, "t", "k"); err != nil || string(e.Value) != "v" {
		b.Errorf("the table holds %+v, %v", e, err)
	}
	if r := b.Publish(b.ctx, messages("acked"))[0]; !r.Duplicate {
		b.Errorf("a repeat after the close: %+v", r)
	}
	r = b.receiver(queue.ReceiverOptions{})
	b.ack(r, b.one(r, "ready", ackwise.CauseFirst))
	b.nothing(r)
}

func keepsBooks(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a", "b", "c", "d", "e")
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 4)
	b.ack(r, ds[0])
	b.do(r, ds[1], ackwise.Settlement{Outcome: ackwise.OutcomeNack, Delay: time.Hour})
	b.die(r, ds[2])
	k := b.books()
	if k.Accepted != 5 || k.Acked != 1 || k.Delayed != 1 || k.Dead != 1 || k.InFlight != 1 ||
		k.Ready != 1 || !k.Balanced() || k.Causes[ackwise.CauseFirst] != 4 || k.Failures < 1 {
		b.Errorf("books %+v", k)
	}
	b.check(r.Close())
	next := b.receiver(queue.ReceiverOptions{})
	left := b.receive(next, 2)
	b.ack(next, left...)
	if k = b.books(); k.Causes[ackwise.CauseRebalanced] != 1 || k.Causes[ackwise.CauseFirst] != 5 {
		b.Errorf("causes %v", k.Causes)
	}
}
