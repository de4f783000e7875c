package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/queue"
)

// pipeline is TOPIC/SUBSCRIPTION on the command line.
type pipeline struct{ topic, sub string }

// UnmarshalText reads TOPIC/SUBSCRIPTION.
func (p *pipeline) UnmarshalText(text []byte) error {
	topic, sub, ok := strings.Cut(string(text), "/")
	if !ok {
		return fmt.Errorf("%.80q is not TOPIC/SUBSCRIPTION", text)
	}
	err := errors.Join(ackwise.ValidateName("topic", topic),
		ackwise.ValidateName("subscription", sub))
	*p = pipeline{topic, sub}
	return err
}

func (p pipeline) String() string { return p.topic + "/" + p.sub }

// topicName is TOPIC on the command line.
type topicName string

// UnmarshalText reads TOPIC.
func (t *topicName) UnmarshalText(text []byte) error {
	*t = topicName(text)
	return ackwise.ValidateName("topic", string(text))
}

// start is --from: where a new subscription begins.
type start struct{ queue.Start }

// UnmarshalText reads beginning, now or a time.
func (s *start) UnmarshalText(text []byte) error {
	switch string(text) {
	case "beginning":
		s.Start = queue.Start{}
	case "now":
		s.Start = queue.Start{Now: true}
	default:
		t, err := time.Parse(time.RFC3339, string(text))
		if err != nil {
			return fmt.Errorf("%.40q is not beginning, now or a time such as "+
				"2026-01-31T12:00:00Z", text)
		}
		s.Start = queue.Start{Time: t}
	}
	return nil
}

// places makes and finds topics and subscriptions.
type places interface {
	Topics(ctx context.Context) ([]queue.TopicInfo, error)
	CreateTopic(ctx context.Context, name string, o queue.TopicOptions) error
	Subscriptions(ctx context.Context, topic string) ([]queue.SubscriptionInfo, error)
	CreateSubscription(ctx context.Context, topic, sub string, o queue.SubscriptionOptions) error
}

// ensureTopic makes the topic where it is missing and may be made; else a missing one is an error
// that names the nearest.
func ensureTopic(ctx context.Context, d places, name string, create bool) error {
	if create {
		if err := d.CreateTopic(ctx, name, queue.TopicOptions{}); !errors.Is(err, ackwise.ErrExists) {
			return err
		}
		return nil
	}
	topics, err := d.Topics(ctx)
	if err != nil {
		return err
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Name
	}
	return find("topic", name, names)
}

// ensureSubscription makes the topic and the subscription where they are missing and may be made,
// and returns what there is.
func ensureSubscription(ctx context.Context, d places, p pipeline, create bool,
	o queue.SubscriptionOptions) (queue.SubscriptionInfo, error) {
	none := queue.SubscriptionInfo{}
	if err := ensureTopic(ctx, d, p.topic, create); err != nil {
		return none, err
	}
	if create {
		err := d.CreateSubscription(ctx, p.topic, p.sub, o)
		if err != nil && !errors.Is(err, ackwise.ErrExists) {
			return none, err
		}
	}
	subs, err := d.Subscriptions(ctx, p.topic)
	if err != nil {
		return none, err
	}
	names := make([]string, len(subs))
	for i, s := range subs {
		if s.Name == p.sub {
			return s, nil
		}
		names[i] = s.Name
	}
	return none, find("subscription", p.sub, names)
}

// find returns nil where name is among names, else an error that names the nearest.
func find(kind, name string, names []string) error {
	if slices.Contains(names, name) {
		return nil
	}
	return &ackwise.NotFoundError{Kind: kind, Name: name, Nearest: nearest.Of(name, names)}
}
