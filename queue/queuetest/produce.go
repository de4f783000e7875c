package queuetest

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

func passesThrough(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	at := time.Date(2026, 2, 3, 4, 5, 6, 789000000, time.UTC)
	in := []ackwise.Message{
		{ID: "full", Topic: topic, Key: "k\xff\x00", Body: []byte("\x00\xfe <&> \u2028"), Time: at,
			Headers: []ackwise.Header{{Name: "n", Value: []byte("1")}, {Name: "n", Value: []byte{0xff}},
				{Name: "nil"}}},
		{ID: "tombstone", Topic: topic},
		{ID: "empty", Topic: topic, Body: []byte{}},
	}
	for _, r := range b.Publish(b.ctx, in) {
		if r.Class != ackwise.ResultAccepted || r.Position == "" {
			b.Fatalf("publish: %+v", r)
		}
	}
	r := b.receiver(queue.ReceiverOptions{})
	out := b.receive(r, len(in))
	for i, d := range out {
		want := in[i]
		if d.ID != want.ID || d.Topic != topic || d.Key != want.Key ||
			!bytes.Equal(d.Body, want.Body) || (d.Body == nil) != (want.Body == nil) ||
			!d.Time.Equal(want.Time) || len(d.Headers) != len(want.Headers) {
			b.Errorf("published %+v, received %+v", want, d.Message)
			continue
		}
		for j, h := range want.Headers {
			if d.Headers[j].Name != h.Name || !bytes.Equal(d.Headers[j].Value, h.Value) {
				b.Errorf("header %d is %+v, want %+v", j, d.Headers[j], h)
			}
		}
		if d.Attempt != 1 || d.Cause != ackwise.CauseFirst || d.Redelivered() || d.Token == "" {
			b.Errorf("first hand-out: attempt %d, cause %s", d.Attempt, d.Cause)
		}
	}
	b.ack(r, out...)
	b.nothing(r)
}

func assignsIDs(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	ms := []ackwise.Message{{Topic: topic, Body: []byte("1")}, {Topic: topic, Body: []byte("2")}}
	rs := b.Publish(b.ctx, ms)
	if rs[0].ID == "" || rs[0].ID == rs[1].ID || rs[0].Position >= rs[1].Position {
		b.Fatalf("receipts %+v", rs)
	}
	if ms[0].ID != "" {
		b.Errorf("the caller's message was changed")
	}
	ds := b.receive(b.receiver(queue.ReceiverOptions{}), 2)
	if ds[0].ID != rs[0].ID || ds[1].ID != rs[1].ID || ds[0].Position != rs[0].Position {
		b.Errorf("receipts %+v, received %s", rs, ids(ds))
	}
}

func schedules(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	began := time.Now()
	rs := b.Schedule(b.ctx, short, messages("later"))
	if rs[0].Class != ackwise.ResultAccepted {
		b.Fatalf("schedule: %+v", rs[0])
	}
	b.publish("now")
	r := b.receiver(queue.ReceiverOptions{})
	b.ack(r, b.one(r, "now", ackwise.CauseFirst), b.one(r, "later", ackwise.CauseFirst))
	if waited := time.Since(began); waited < short-time.Millisecond {
		b.Errorf("a message scheduled in %s came after %s", short, waited)
	}
}

func deduplicates(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	first := b.publish("a", "b")
	again := b.Publish(b.ctx, messages("b", "c", "a"))
	for i, want := range []bool{true, false, true} {
		if r := again[i]; r.Class != ackwise.ResultAccepted || r.Duplicate != want {
			b.Errorf("repeat %d: %+v, want Duplicate %t", i, r, want)
		}
	}
	if again[0].Position != first[1].Position || again[2].Position != first[0].Position {
		b.Errorf("a repeat's receipt is not the first copy's: %+v, %+v", again, first)
	}
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 3)
	if got := ids(ds); got != "[a b c]" {
		b.Errorf("received %s", got)
	}
	b.ack(r, ds...)
	b.nothing(r)
	ts, err := b.Topics(b.ctx)
	b.check(err)
	if len(ts) != 1 || ts[0].ProducedAgain != 2 || ts[0].Published != 3 {
		b.Errorf("topic %+v, want 3 published and 2 produced again", ts)
	}
}

func refusesOtherBody(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	other := messages("a", "b")
	other[0].Body = []byte("another")
	rs := b.Publish(b.ctx, other)
	if rs[0].Class != ackwise.ResultRejected || !errors.Is(rs[0].Err, ackwise.ErrIDConflict) {
		b.Errorf("the same ID with another body: %+v", rs[0])
	}
	if rs[1].Class != ackwise.ResultAccepted {
		b.Errorf("beside it: %+v", rs[1])
	}
}

func limits(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	long := strings.Repeat("x", ackwise.MaxKeyBytes+1)
	for _, c := range []struct {
		field string
		m     ackwise.Message
	}{
		{"topic", ackwise.Message{}},
		{"topic", ackwise.Message{Topic: "a/b"}},
		{"topic", ackwise.Message{Topic: long}},
		{"id", ackwise.Message{Topic: topic, ID: "a\nb"}},
		{"id", ackwise.Message{Topic: topic, ID: "\xff"}},
		{"id", ackwise.Message{Topic: topic, ID: long}},
		{"key", ackwise.Message{Topic: topic, Key: long}},
		{"header", ackwise.Message{Topic: topic, Headers: []ackwise.Header{{}}}},
	} {
		rs := b.Publish(b.ctx, []ackwise.Message{c.m, {Topic: topic, Body: []byte("good")}})
		var invalid *ackwise.InvalidError
		if !errors.As(rs[0].Err, &invalid) || invalid.Field != c.field ||
			rs[0].Class != ackwise.ResultRejected {
			b.Errorf("a bad %s: %+v", c.field, rs[0])
		}
		if rs[1].Class != ackwise.ResultAccepted {
			b.Errorf("beside a bad %s: %+v", c.field, rs[1])
		}
	}
	big := messages("big")
	big[0].Body = make([]byte, MaxBodyBytes+1)
	if r := b.Publish(b.ctx, big)[0]; r.Class != ackwise.ResultRejected ||
		!errors.Is(r.Err, ackwise.ErrTooLarge) {
		b.Errorf("a body over its limit: %+v", r)
	}
	big[0].Body = big[0].Body[1:]
	if r := b.Publish(b.ctx, big)[0]; r.Class != ackwise.ResultAccepted {
		b.Errorf("a body at its limit: %+v", r)
	}
	many := make([]ackwise.Message, MaxBatch+1)
	for i, r := range b.Publish(b.ctx, many) {
		if r.Class == ackwise.ResultAccepted || r.Err == nil {
			b.Fatalf("message %d of a batch over its limit: %+v", i, r)
		}
	}
	if f := b.Features(); f.MaxBatch != MaxBatch || f.MaxBodyBytes != MaxBodyBytes || !f.Dedup {
		b.Errorf("features %+v", f)
	}
	r := b.receiver(queue.ReceiverOptions{})
	var invalid *ackwise.InvalidError
	if _, err := r.Receive(b.ctx, 0); !errors.As(err, &invalid) {
		b.Errorf("receive at most 0: %v", err)
	}
}

func fills(b *bench) {
	b.check(b.CreateTopic(b.ctx, topic, queue.TopicOptions{MaxMessages: 2}))
	b.check(b.CreateSubscription(b.ctx, topic, sub, queue.SubscriptionOptions{}))
	rs := b.Publish(b.ctx, messages("a", "b", "c"))
	if rs[1].Class != ackwise.ResultAccepted || rs[2].Class != ackwise.ResultRetryable ||
		!errors.Is(rs[2].Err, ackwise.ErrFull) {
		b.Errorf("at the bound of two: %+v", rs)
	}
	r := b.receiver(queue.ReceiverOptions{})
	b.ack(r, b.receive(r, 2)...)
	b.publish("c")
}

func namesNearest(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	var nf *ackwise.NotFoundError
	r := b.Publish(b.ctx, []ackwise.Message{{ID: "a", Topic: "order"}})[0]
	if !errors.As(r.Err, &nf) || nf.Kind != "topic" || nf.Nearest != topic ||
		r.Class != ackwise.ResultRejected {
		b.Errorf("publish to an unknown topic: %+v", r)
	}
	_, err := b.Receiver(b.ctx, topic, "biling", queue.ReceiverOptions{})
	if !errors.As(err, &nf) || nf.Kind != "subscription" || nf.Nearest != sub {
		b.Errorf("receive from an unknown subscription: %v", err)
	}
	_, err = b.Peek(b.ctx, "ordrs", sub, queue.PeekOptions{})
	if !errors.As(err, &nf) || nf.Nearest != topic {
		b.Errorf("peek into an unknown topic: %v", err)
	}
}

func refusesExisting(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.wantErr("the same topic", b.CreateTopic(b.ctx, topic, queue.TopicOptions{}),
		ackwise.ErrExists)
	b.wantErr("the same subscription",
		b.CreateSubscription(b.ctx, topic, sub, queue.SubscriptionOptions{}), ackwise.ErrExists)
	var invalid *ackwise.InvalidError
	err := b.CreateTopic(b.ctx, "no way\xff", queue.TopicOptions{})
	if !errors.As(err, &invalid) || invalid.Field != "topic" {
		b.Errorf("a topic with an illegal name: %v", err)
	}
}

func deletes(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	b.check(b.DeleteSubscription(b.ctx, topic, sub, "no longer needed"))
	var nf *ackwise.NotFoundError
	if _, err := b.Receiver(b.ctx, topic, sub, queue.ReceiverOptions{}); !errors.As(err, &nf) {
		b.Errorf("a deleted subscription: %v", err)
	}
	b.check(b.DeleteTopic(b.ctx, topic, "no longer needed"))
	if r := b.Publish(b.ctx, messages("b"))[0]; !errors.As(r.Err, &nf) {
		b.Errorf("publish to a deleted topic: %+v", r)
	}
	if ts, err := b.Topics(b.ctx); err != nil || len(ts) != 0 {
		b.Errorf("topics %+v, %v", ts, err)
	}
}

func commits(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	b.publish("a")
	r := b.receiver(queue.ReceiverOptions{})
	d := b.one(r, "a", ackwise.CauseFirst)
	key := "sum\xff"
	e, err := b.Get(b.ctx, "totals", key)
	b.check(err)
	if e.Version != 0 || e.Value != nil {
		b.Errorf("an absent entry is %+v", e)
	}
	tx := queue.Commit{Publish: messages("out"), Settle: []ackwise.Settlement{{Token: d.Token}},
		Reads:  []queue.TableRead{{Table: "totals", Key: key}},
		Writes: []queue.TableWrite{{Table: "totals", Key: key, Value: []byte{}}}}
	rs, err := b.Commit(b.ctx, tx)
	b.check(err)
	if len(rs) != 1 || rs[0].Class != ackwise.ResultAccepted || rs[0].ID != "out" {
		b.Errorf("the commit's results are %+v", rs)
	}
	e, err = b.Get(b.ctx, "totals", key)
	b.check(err)
	if e.Version == 0 || e.Value == nil || len(e.Value) != 0 {
		b.Errorf("an empty value came out as %+v", e)
	}
	stale := queue.Commit{Publish: messages("never"), Reads: tx.Reads,
		Writes: []queue.TableWrite{{Table: "totals", Key: key, Value: []byte("2")}}}
	_, err = b.Commit(b.ctx, stale)
	b.wantErr("a stale read", err, queue.ErrConflict)
	if got, err := b.Get(b.ctx, "totals", key); err != nil || got.Version != e.Version {
		b.Errorf("a refused commit wrote %+v, %v", got, err)
	}
	keys, err := b.Keys(b.ctx, "totals", "su", 10)
	if err != nil || !slices.Equal(keys, []string{key}) {
		b.Errorf("keys %q, %v", keys, err)
	}
	b.ack(r, b.one(r, "out", ackwise.CauseFirst))
	b.nothing(r)
	if k := b.books(); k.Acked != 2 {
		b.Errorf("%d acked, want both", k.Acked)
	}
}

func commitsOnce(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	tx := queue.Commit{ID: "tx-1", Publish: messages("out"), Reads: []queue.TableRead{
		{Table: "totals", Key: "n"}},
		Writes: []queue.TableWrite{{Table: "totals", Key: "n", Value: []byte("1")}}}
	_, err := b.Commit(b.ctx, tx)
	b.check(err)
	before, err := b.Get(b.ctx, "totals", "n")
	b.check(err)
	if _, err = b.Commit(b.ctx, tx); err != nil {
		b.Errorf("the same transaction again: %v", err)
	}
	if after, err := b.Get(b.ctx, "totals", "n"); err != nil || after.Version != before.Version {
		b.Errorf("the repeat wrote %+v, %v", after, err)
	}
	r := b.receiver(queue.ReceiverOptions{})
	b.ack(r, b.one(r, "out", ackwise.CauseFirst))
	b.nothing(r)
}

func transacts(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	r := b.receiver(queue.ReceiverOptions{})
	h := queue.Transact(func(ctx context.Context, tx *queue.Tx, d *ackwise.Delivery) error {
		sum, err := tx.Get(ctx, "totals", "sum")
		if err != nil {
			return err
		}
		tx.Put("totals", "sum", append(sum, d.Body...))
		if d.ID == "bad" {
			return errors.New("no")
		}
		return nil
	})
	b.check(h.Bind(r))
	for _, name := range []string{"a", "bad", "b"} {
		b.publish(name)
		d := b.one(r, name, ackwise.CauseFirst)
		if err := h.Handle(b.ctx, d); (err != nil) != (name == "bad") {
			b.Fatalf("handle %s: %v", name, err)
		}
		if name == "bad" {
			b.do(r, d, ackwise.Settlement{Outcome: ackwise.OutcomeDrop, Reason: "bad"})
		}
	}
	e, err := b.Get(b.ctx, "totals", "sum")
	b.check(err)
	if string(e.Value) != "body of abody of b" {
		b.Errorf("the table holds %q", e.Value)
	}
	if k := b.books(); k.Acked != 2 || k.Dropped != 1 || k.InFlight != 0 {
		b.Errorf("books %+v", k)
	}
}
