package queuetest

import (
	"errors"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// readsKept reads messages back by position and in order, while a subscription needs them.
func readsKept(b *bench) {
	b.setUp(queue.SubscriptionOptions{})
	rs := b.publish("k/1", "k/2", "k/3", "j/4")
	at := []ackwise.Position{rs[3].Position, rs[0].Position, rs[2].Position}
	ms, err := b.Read(b.ctx, topic, at)
	b.check(err)
	var got []string
	for _, m := range ms {
		got = append(got, m.ID)
		if m.Topic != topic {
			b.Errorf("%s is read with the topic %q", m.ID, m.Topic)
		}
	}
	want := []string{rs[3].ID, rs[0].ID, rs[2].ID}
	if !slices.Equal(got, want) || ms[0].Key != "j" {
		b.Errorf("read %q with key %q, want %q", got, ms[0].Key, want)
	}
	var all []string
	after := ackwise.Position("")
	for range len(rs) {
		page, err := b.Scan(b.ctx, topic, after, 2)
		b.check(err)
		for _, p := range page {
			all = append(all, p.Message.ID)
			after = p.Position
			if p.Accepted.IsZero() {
				b.Errorf("%s has no time", p.Message.ID)
			}
		}
	}
	if want := []string{rs[0].ID, rs[1].ID, rs[2].ID, rs[3].ID}; !slices.Equal(all, want) {
		b.Errorf("scanned %q, want %q", all, want)
	}
	// What a consumer holds, or put off, is kept as well; what it acked behind it is not needed.
	r := b.receiver(queue.ReceiverOptions{})
	ds := b.receive(r, 3)
	b.check(r.Settle(b.ctx, []ackwise.Settlement{{Token: ds[1].Token,
		Outcome: ackwise.OutcomeSnooze, Delay: time.Hour}})[0].Err)
	page, err := b.Scan(b.ctx, topic, "", 10)
	b.check(err)
	if len(page) != len(rs) {
		b.Errorf("scanned %d messages, some of them in flight or delayed, want %d", len(page), len(rs))
	}
	for name, at := range map[string]ackwise.Position{"nonsense": "x", "nowhere": "00000000000000ff"} {
		if _, err := b.Read(b.ctx, topic, []ackwise.Position{at}); err == nil {
			b.Errorf("%s was read", name)
		}
	}
	b.check(b.CreateTopic(b.ctx, "other", queue.TopicOptions{}))
	var gone *ackwise.NotFoundError
	if _, err := b.Read(b.ctx, "other", at[:1]); !errors.As(err, &gone) {
		b.Errorf("another topic's message: %v", err)
	}
	_, err = b.Read(b.ctx, topic, make([]ackwise.Position, MaxBatch+1))
	b.wantErr("too many at a time", err, ackwise.ErrTooLarge)
}
