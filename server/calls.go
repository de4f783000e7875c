package server

import (
	"context"
	"errors"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/client/wire/claims"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
)

// done is the answer of a call that has no value.
type done struct{}

// routeStore routes topics, subscriptions, publishing, tables and the books.
func (h *handler) routeStore() {
	s := h.store
	route(h, wire.CreateTopic, func(ctx context.Context, q wire.TopicRequest) (done, error) {
		return done{}, s.CreateTopic(ctx, q.Topic, q.Options)
	})
	route(h, wire.DeleteTopic, func(ctx context.Context, q wire.TopicRequest) (done, error) {
		return done{}, s.DeleteTopic(ctx, q.Topic, q.Reason)
	})
	route(h, wire.Topics, func(ctx context.Context, _ done) ([]queue.TopicInfo, error) {
		return s.Topics(ctx)
	})
	route(h, wire.CreateSubscription,
		func(ctx context.Context, q wire.SubscriptionRequest) (done, error) {
			return done{}, s.CreateSubscription(ctx, q.Topic, q.Subscription, q.Options)
		})
	route(h, wire.DeleteSubscription,
		func(ctx context.Context, q wire.SubscriptionRequest) (done, error) {
			return done{}, s.DeleteSubscription(ctx, q.Topic, q.Subscription, q.Reason)
		})
	route(h, wire.Subscriptions,
		func(ctx context.Context, q wire.SubscriptionRequest) ([]queue.SubscriptionInfo, error) {
			return s.Subscriptions(ctx, q.Topic)
		})
	route(h, wire.Publish, h.publish)
	route(h, wire.Commit, h.commit)
	route(h, wire.CommitOnce, h.commit)
	route(h, wire.Get, func(ctx context.Context, q wire.TableRequest) (queue.Entry, error) {
		return s.Get(ctx, q.Table, string(q.Key))
	})
	route(h, wire.Keys, func(ctx context.Context, q wire.TableRequest) ([]wire.Bytes, error) {
		keys, err := s.Keys(ctx, q.Table, string(q.Key), q.Max)
		bs := make([]wire.Bytes, len(keys))
		for i, k := range keys {
			bs[i] = wire.Bytes(k)
		}
		return bs, err
	})
	route(h, wire.OpenSet, func(ctx context.Context, q claims.SetRequest) (done, error) {
		return done{}, s.OpenSet(ctx, q.Set, q.Window, q.MaxKeys)
	})
	route(h, wire.BindSet, func(ctx context.Context, q claims.SetRequest) (done, error) {
		return done{}, s.BindSet(ctx, q.Set, string(q.Rule))
	})
	route(h, wire.Claim, func(ctx context.Context, q claims.Asks) (claims.Answers, error) {
		answers, err := s.ClaimCall(ctx, q.Set, q.Call, q.Values())
		return claims.AnswersOf(answers), err
	})
	route(h, wire.Look, func(ctx context.Context, q claims.Asks) (claims.Answers, error) {
		asks := q.Values()
		if len(asks) != 1 {
			return claims.Answers{}, &ackwise.InvalidError{Field: "asks",
				Reason: "one is needed"}
		}
		answer, err := s.Look(ctx, q.Set, asks[0])
		return claims.AnswersOf([]idempotency.Answer{answer}), err
	})
	route(h, wire.SettleClaims,
		func(ctx context.Context, q claims.Settlements) (claims.Settled, error) {
			errs, err := s.SettleClaims(ctx, q.Set, q.Values())
			return claims.SettledOf(errs), err
		})
	route(h, wire.Books, func(ctx context.Context, _ done) ([]queue.Books, error) {
		return s.Books(ctx)
	})
	route(h, wire.Verify, func(ctx context.Context, _ done) (queue.VerifyReport, error) {
		return s.Verify(ctx)
	})
}

// routeDead routes what looks at single messages, and dead letters.
func (h *handler) routeDead() {
	s := h.store
	route(h, wire.Peek, func(ctx context.Context, q wire.PeekRequest) ([]queue.Peeked, error) {
		return s.Peek(ctx, q.Topic, q.Subscription, q.Options)
	})
	route(h, wire.Read, func(ctx context.Context, q wire.PeekRequest) ([]ackwise.Message, error) {
		return s.Read(ctx, q.Topic, q.Positions)
	})
	route(h, wire.Scan, func(ctx context.Context, q wire.PeekRequest) ([]queue.Peeked, error) {
		return s.Scan(ctx, q.Topic, q.Options.After, q.Options.Max)
	})
	route(h, wire.DeadLetters,
		func(ctx context.Context, q wire.DeadRequest) ([]queue.DeadLetter, error) {
			return s.DeadLetters(ctx, q.Topic, q.Subscription, filter(q))
		})
	route(h, wire.Redrive, func(ctx context.Context, q wire.DeadRequest) (int, error) {
		return s.Redrive(ctx, q.Topic, q.Subscription, filter(q), q.Redo)
	})
	route(h, wire.DropDead, func(ctx context.Context, q wire.DeadRequest) (int, error) {
		return s.DropDead(ctx, q.Topic, q.Subscription, filter(q), q.Reason)
	})
	route(h, wire.ParkedKeys,
		func(ctx context.Context, q wire.DeadRequest) ([]wire.ParkedKey, error) {
			keys, err := s.ParkedKeys(ctx, q.Topic, q.Subscription, q.Filter.Max)
			ws := make([]wire.ParkedKey, len(keys))
			for i, k := range keys {
				ws[i] = wire.ParkedKey{ParkedKey: k, Key: wire.Bytes(k.Key)}
			}
			return ws, err
		})
}

func filter(q wire.DeadRequest) queue.DeadFilter {
	q.Filter.Key = string(q.Key)
	return q.Filter
}

func (h *handler) publish(ctx context.Context, q wire.PublishRequest) (wire.Published, error) {
	var rs []ackwise.Result
	if q.Delay != 0 {
		rs = h.store.Schedule(ctx, q.Delay, q.Messages)
	} else {
		rs = h.store.Publish(ctx, q.Messages)
	}
	for _, r := range rs {
		if errors.Is(h.handOver(r.Err), wire.ErrHandingOver) {
			return wire.Published{}, wire.ErrHandingOver // those accepted answer as duplicates
		}
	}
	return wire.PublishedOf(rs), nil
}

func (h *handler) commit(ctx context.Context, t wire.Transaction) (wire.Published, error) {
	c, err := t.Commit()
	if err != nil {
		return wire.Published{}, err
	}
	rs, err := h.store.Commit(ctx, c)
	return wire.PublishedOf(rs), err
}
