package queueorder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/ordering"
	"github.com/ackwise/ackwise/queue"
)

// Store is what a resequencer works on: a queue.Store, or a client of one.
type Store interface {
	queue.Transactor
	kept
	admin
	Peek(ctx context.Context, topic, sub string, o queue.PeekOptions) ([]queue.Peeked, error)
}

type kept interface {
	Read(ctx context.Context, topic string, positions []ackwise.Position) ([]ackwise.Message, error)
	Scan(ctx context.Context, topic string, after ackwise.Position, max int) ([]queue.Peeked, error)
}

type admin interface {
	CreateTopic(ctx context.Context, name string, o queue.TopicOptions) error
	CreateSubscription(ctx context.Context, topic, name string, o queue.SubscriptionOptions) error
	Subscriptions(ctx context.Context, topic string) ([]queue.SubscriptionInfo, error)
	Features() ackwise.SinkFeatures
}

var _ Store = (*queue.Store)(nil)

// Options configure a Resequencer. Topic, Subscription and Out are required.
type Options struct {
	// Topic and Subscription are where messages come from. The subscription is there already and
	// not ordered: one that waited for its turn would keep back what it waits for. Required.
	Topic, Subscription string
	// Out is the topic where they go, made where it is missing. Required.
	Out string
	// Held is the topic that keeps what is early, made where it is missing. It is the
	// resequencer's own, but for dead letters of its subscription "resequencer": messages that Out
	// did not take, to be redriven or dropped by a person. Where it is full, what is early is put
	// off in the source. Default: Out and ".held".
	Held string
	// Table keeps a row for each key, for good: the store's MaxTableBytes bounds how many. It is
	// the resequencer's own. Default: Out and ".order".
	Table string
	// Order says how the order is repaired, and what a gap does. At its MaxHeld and MaxKeys, what
	// is early is put off in the source, where it counts for the subscription's MaxWaiting. A
	// missing number is taken past it, so MaxWaiting may be reached; what is behind then waits.
	Order ordering.ResequencerOptions
	// Finder is asked where missing numbers are, up to 65,536 at a time. Default: the dead letters
	// and the books of the source subscription, and the dead letters of Held.
	Finder ordering.Finder
	// Receiver opens a consumer's session. Required where the store is a client. Default: the
	// store's own.
	Receiver func(ctx context.Context, topic, sub string, o queue.ReceiverOptions) (
		ackwise.Source, error)
	// Batch is how many messages are taken and how many are let go at a time. Default: 512, or
	// half of the store's MaxBatch where that is less.
	Batch int
	// Logger gets what an operator should see: that there is no room, that a message cannot be let
	// go, that a key went on without numbers. Default: nothing is logged.
	Logger *slog.Logger
	// Observe is told of single messages and gaps, see ackwise.Event. Its kinds are "late",
	// "refused", "gave-up" (a number, by policy or order). Default: nil.
	Observe func(ackwise.Event)
}

const (
	heldSub    = "resequencer"
	maxBatch   = 512
	heldSuffix = ".held"
	rowsSuffix = ".order"
)

func (o *Options) fill(s Store) error {
	if o.Held == "" {
		o.Held = o.Out + heldSuffix
	}
	if o.Table == "" {
		o.Table = o.Out + rowsSuffix
	}
	most := maxBatch
	if limit := s.Features().MaxBatch; limit > 0 {
		most = max(1, min(most, limit/2))
	}
	if o.Batch == 0 {
		o.Batch = most
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	own, ok := s.(*queue.Store)
	if ok && o.Receiver == nil {
		o.Receiver = func(ctx context.Context, topic, sub string, ro queue.ReceiverOptions) (
			ackwise.Source, error) {
			return own.Receiver(ctx, topic, sub, ro)
		}
	}
	_, err := ordering.NewResequencer(o.Order)
	return errors.Join(err, ackwise.ValidateName("topic", o.Topic),
		ackwise.ValidateName("subscription", o.Subscription), ackwise.ValidateName("topic", o.Out),
		ackwise.ValidateName("topic", o.Held), ackwise.ValidateName("table", o.Table),
		refuse(o.Topic == o.Out || o.Topic == o.Held || o.Out == o.Held, "Out",
			"Topic, Out and Held must be three"),
		refuse(o.Batch < 1 || o.Batch > most, "Batch", "it must be between 1 and %d", most),
		refuse(o.Receiver == nil, "Receiver", "it is needed where the store is a %T", s))
}

func refuse(bad bool, field, reason string, args ...any) error {
	if !bad {
		return nil
	}
	return &ackwise.InvalidError{Field: field, Reason: fmt.Sprintf(reason, args...)}
}

// setUp makes what is missing and refuses what cannot work.
func setUp(ctx context.Context, s Store, o *Options) error {
	subs, err := s.Subscriptions(ctx, o.Topic)
	if err != nil {
		return err
	}
	found := false
	for _, sub := range subs {
		if sub.Name != o.Subscription {
			continue
		}
		if found = true; sub.Options.Ordered {
			return &ackwise.HintError{Err: fmt.Errorf("the subscription %s/%s is ordered: it keeps "+
				"back what the resequencer waits for", o.Topic, o.Subscription),
				Hint: "resequence an unordered subscription, and order the one to " + o.Out}
		}
	}
	if !found {
		return &ackwise.NotFoundError{Kind: "subscription", Name: o.Topic + "/" + o.Subscription}
	}
	// The held messages' commits say by themselves whether they were carried out.
	err = s.CreateTopic(ctx, o.Held, queue.TopicOptions{DedupWindow: queue.NoDedup})
	if err == nil || errors.Is(err, ackwise.ErrExists) {
		err = s.CreateSubscription(ctx, o.Held, heldSub, queue.SubscriptionOptions{})
	}
	if err == nil || errors.Is(err, ackwise.ErrExists) {
		err = s.CreateTopic(ctx, o.Out, queue.TopicOptions{})
	}
	if errors.Is(err, ackwise.ErrExists) {
		return nil
	}
	return err
}
