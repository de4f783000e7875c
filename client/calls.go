package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/queue"
)

// ask carries out a call that answers one value.
func ask[T any](ctx context.Context, c *Client, name wire.Call, req any) (T, error) {
	var v T
	_, err := c.call(ctx, name, req, &v)
	return v, err
}

// tell carries out a call that answers nothing.
func tell(ctx context.Context, c *Client, name wire.Call, req any) error {
	_, err := ask[struct{}](ctx, c, name, req)
	return err
}

// CreateTopic makes a topic. One that is there already is ErrExists, which can also mean that this
// very call had made it before a hand-over cut off its answer.
func (c *Client) CreateTopic(ctx context.Context, name string, o queue.TopicOptions) error {
	if err := ackwise.ValidateName("topic", name); err != nil {
		return err
	}
	return tell(ctx, c, wire.CreateTopic, wire.TopicRequest{Topic: name, Options: o})
}

// DeleteTopic deletes a topic with its messages, subscriptions and dead letters; the reason is
// recorded. Repeated after a hand-over it may not find what it had deleted.
func (c *Client) DeleteTopic(ctx context.Context, name, reason string) error {
	return tell(ctx, c, wire.DeleteTopic, wire.TopicRequest{Topic: name, Reason: reason})
}

// CreateSubscription makes a subscription to a topic. One that is there already is ErrExists, which
// can also mean that this very call had made it before a hand-over cut off its answer.
func (c *Client) CreateSubscription(ctx context.Context, topic, name string,
	o queue.SubscriptionOptions) error {
	if err := ackwise.ValidateName("subscription", name); err != nil {
		return err
	}
	return tell(ctx, c, wire.CreateSubscription,
		wire.SubscriptionRequest{Topic: topic, Subscription: name, Options: o})
}

// DeleteSubscription deletes a subscription; the reason is recorded. Repeated after a hand-over it
// may not find what it had deleted.
func (c *Client) DeleteSubscription(ctx context.Context, topic, name, reason string) error {
	return tell(ctx, c, wire.DeleteSubscription,
		wire.SubscriptionRequest{Topic: topic, Subscription: name, Reason: reason})
}

// Topics describes every topic, sorted by name.
func (c *Client) Topics(ctx context.Context) ([]queue.TopicInfo, error) {
	return ask[[]queue.TopicInfo](ctx, c, wire.Topics, struct{}{})
}

// Subscriptions describes the subscriptions of a topic ("" = of every topic), sorted by name.
func (c *Client) Subscriptions(ctx context.Context, topic string) (
	[]queue.SubscriptionInfo, error) {
	return ask[[]queue.SubscriptionInfo](ctx, c, wire.Subscriptions,
		wire.SubscriptionRequest{Topic: topic})
}

// Publish implements ackwise.Sink. Messages without an ID get one before they are first sent, so
// that a call that a hand-over cuts off is sent again safely and keeps its order; only a topic with
// queue.NoDedup may then hold a message twice.
func (c *Client) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	return c.publish(ctx, 0, msgs)
}

// Schedule is Publish for messages that take their place in the topic after delay. A call that is
// sent again after a hand-over counts the delay anew for what had not been accepted.
func (c *Client) Schedule(ctx context.Context, delay time.Duration,
	msgs []ackwise.Message) []ackwise.Result {
	return c.publish(ctx, delay, msgs)
}

func (c *Client) publish(ctx context.Context, delay time.Duration,
	msgs []ackwise.Message) []ackwise.Result {
	out := make([]ackwise.Result, len(msgs))
	send, place := make([]ackwise.Message, 0, len(msgs)), make([]int, 0, len(msgs))
	for i, m := range msgs {
		if err := sendable(m); err != nil {
			out[i] = ackwise.Result{Class: ackwise.ResultRejected, ID: m.ID, Err: err}
			continue
		}
		send, place = append(send, m), append(place, i)
	}
	if len(send) == 0 {
		return out
	}
	assigned := assignIDs(send)
	var got wire.Published
	tries, err := c.call(ctx, wire.Publish,
		wire.PublishRequest{Messages: send, Delay: delay}, &got)
	if err == nil && len(got.Results) != len(send) {
		err = fmt.Errorf("read answer: %d results for %d messages", len(got.Results), len(send))
	}
	rs := got.Values()
	for j, i := range place {
		if err != nil {
			out[i] = ackwise.Result{Class: classOf(tries, err), ID: send[j].ID,
				Err: fmt.Errorf("publish: %w", err)}
			continue
		}
		out[i] = rs[j]
		if assigned[j] && tries > 1 {
			out[i].Duplicate = false // only this call can have used the ID before
		}
	}
	return out
}

// classOf sorts a whole call that ended with err.
func classOf(tries int, err error) ackwise.ResultClass {
	switch {
	case errors.Is(err, ackwise.ErrTooLarge):
		return ackwise.ResultRejected // refused before it was read; as the store does
	case tries == 0 && (errors.Is(err, context.Canceled) ||
		errors.Is(err, context.DeadlineExceeded)):
		return ackwise.ResultNotAttempted
	case tries == 0:
		return ackwise.ResultRetryable // it was never sent
	}
	return ackwise.ResultUnknown
}

// sendable reports what is wrong with a message. It is asked here because JSON would silently
// replace the bytes of a name or an ID that are not UTF-8.
func sendable(m ackwise.Message) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if y := m.Time.UTC().Year(); y < 0 || y > 9999 {
		return &ackwise.InvalidError{Field: "time", Reason: "its year is not within 0 to 9999"}
	}
	return nil
}

// assignIDs gives an ID to each message that has none, and says which.
func assignIDs(msgs []ackwise.Message) []bool {
	assigned := make([]bool, len(msgs))
	now := time.Now()
	for i := range msgs {
		if msgs[i].ID == "" {
			msgs[i].ID, assigned[i] = ackwise.NewID(now), true
		}
	}
	return assigned
}

// Features implements ackwise.Sink: those of the last owner that answered.
func (c *Client) Features() ackwise.SinkFeatures {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.features
}

// Get reads a table's entry as of the last commit. An absent key has version 0.
func (c *Client) Get(ctx context.Context, table, key string) (queue.Entry, error) {
	return ask[queue.Entry](ctx, c, wire.Get,
		wire.TableRequest{Table: table, Key: wire.Bytes(key)})
}

// Keys lists the keys of a table that begin with prefix, sorted, at most max.
func (c *Client) Keys(ctx context.Context, table, prefix string, max int) ([]string, error) {
	bs, err := ask[[]wire.Bytes](ctx, c, wire.Keys,
		wire.TableRequest{Table: table, Key: wire.Bytes(prefix), Max: max})
	keys := make([]string, len(bs))
	for i, b := range bs {
		keys[i] = string(b)
	}
	return keys, err
}

// Commit carries out a transaction in one atomic record. The results are those of tx.Publish. It
// has an ID from its first sending on, so that it takes effect once also when it is sent again
// after a hand-over. A call that ctx ends may have taken effect.
func (c *Client) Commit(ctx context.Context, tx queue.Commit) ([]ackwise.Result, error) {
	for _, m := range tx.Publish {
		if err := sendable(m); err != nil {
			return nil, err
		}
	}
	tx.Publish = append([]ackwise.Message(nil), tx.Publish...)
	assignIDs(tx.Publish)
	if tx.ID == "" {
		tx.ID = ackwise.NewID(time.Now())
	}
	call := wire.Commit
	if len(tx.Once) > 0 { // an owner that knows no dedup sets refuses it all, and not only the keys
		call = wire.CommitOnce
	}
	got, err := ask[wire.Published](ctx, c, call, wire.TransactionOf(tx))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	rs := make([]*Receiver, 0, len(c.receivers))
	for r := range c.receivers {
		rs = append(rs, r)
	}
	c.mu.Unlock()
	for _, r := range rs {
		r.settled(tx.Settle, make([]ackwise.SettleResult, len(tx.Settle)))
	}
	return got.Values(), nil
}

// Peek shows messages of a subscription in the order of the log, without a hand-out.
func (c *Client) Peek(ctx context.Context, topic, sub string, o queue.PeekOptions) (
	[]queue.Peeked, error) {
	return ask[[]queue.Peeked](ctx, c, wire.Peek,
		wire.PeekRequest{Topic: topic, Subscription: sub, Options: o})
}

// Read returns kept messages of a topic by the positions that their publishes returned.
func (c *Client) Read(ctx context.Context, topic string, positions []ackwise.Position) (
	[]ackwise.Message, error) {
	return ask[[]ackwise.Message](ctx, c, wire.Read,
		wire.PeekRequest{Topic: topic, Positions: positions})
}

// Scan shows the kept messages of a topic behind a position, in the order of the log.
func (c *Client) Scan(ctx context.Context, topic string, after ackwise.Position, max int) (
	[]queue.Peeked, error) {
	return ask[[]queue.Peeked](ctx, c, wire.Scan,
		wire.PeekRequest{Topic: topic, Options: queue.PeekOptions{After: after, Max: max}})
}

// DeadLetters lists dead letters, oldest first.
func (c *Client) DeadLetters(ctx context.Context, topic, sub string, f queue.DeadFilter) (
	[]queue.DeadLetter, error) {
	return ask[[]queue.DeadLetter](ctx, c, wire.DeadLetters, deadRequest(topic, sub, f))
}

// Redrive brings the dead letters that f chooses back to the head of their keys and returns how
// many: where a hand-over cut the call off, how many its last sending found.
func (c *Client) Redrive(ctx context.Context, topic, sub string, f queue.DeadFilter,
	redo bool) (int, error) {
	q := deadRequest(topic, sub, f)
	q.Redo = redo
	return ask[int](ctx, c, wire.Redrive, q)
}

// DropDead drops the dead letters that f chooses, with a reason that is counted. It returns how
// many: where a hand-over cut the call off, how many its last sending found.
func (c *Client) DropDead(ctx context.Context, topic, sub string, f queue.DeadFilter,
	reason string) (int, error) {
	q := deadRequest(topic, sub, f)
	q.Reason = reason
	return ask[int](ctx, c, wire.DropDead, q)
}

// ParkedKeys lists the keys that are parked or draining, longest first, at most max.
func (c *Client) ParkedKeys(ctx context.Context, topic, sub string, max int) (
	[]queue.ParkedKey, error) {
	ws, err := ask[[]wire.ParkedKey](ctx, c, wire.ParkedKeys,
		deadRequest(topic, sub, queue.DeadFilter{Max: max}))
	keys := make([]queue.ParkedKey, len(ws))
	for i, w := range ws {
		keys[i] = w.ParkedKey
		keys[i].Key = string(w.Key)
	}
	return keys, err
}

func deadRequest(topic, sub string, f queue.DeadFilter) wire.DeadRequest {
	q := wire.DeadRequest{Topic: topic, Subscription: sub, Filter: f, Key: wire.Bytes(f.Key)}
	q.Filter.Key = ""
	return q
}

// Books returns the books of every subscription, at one log position.
func (c *Client) Books(ctx context.Context) ([]queue.Books, error) {
	return ask[[]queue.Books](ctx, c, wire.Books, struct{}{})
}

// Verify recomputes the state from the log, compares it with the live one, and reads every kept
// body. It does not stop the store.
func (c *Client) Verify(ctx context.Context) (queue.VerifyReport, error) {
	return ask[queue.VerifyReport](ctx, c, wire.Verify, struct{}{})
}
