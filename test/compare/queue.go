package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

const topic, subscription = "compare", "drain"

// queueStore is Ackwise with its defaults.
type queueStore struct {
	*queue.Store
	messages int
}

// openQueue fills a topic; keys = 0 is an unordered subscription, without keys.
func openQueue(keys int) func(context.Context, string, *backlog) (store, error) {
	return func(ctx context.Context, dir string, b *backlog) (store, error) {
		s, err := queue.Open(dir, queue.Options{})
		if err != nil {
			return nil, err
		}
		err = s.CreateTopic(ctx, topic, queue.TopicOptions{})
		if err == nil {
			err = s.CreateSubscription(ctx, topic, subscription,
				queue.SubscriptionOptions{Ordered: keys > 0})
		}
		msgs := make([]ackwise.Message, 0, batch)
		for i := 0; i < b.messages && err == nil; i++ {
			m := ackwise.Message{Topic: topic, Body: b.body(i)}
			if keys > 0 {
				m.Key = strconv.Itoa(i * 7919 % keys)
			}
			if msgs = append(msgs, m); len(msgs) < batch && i < b.messages-1 {
				continue
			}
			for _, r := range s.Publish(ctx, msgs) {
				err = errors.Join(err, r.Err)
			}
			msgs = msgs[:0]
		}
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return &queueStore{Store: s, messages: b.messages}, nil
	}
}

func (s *queueStore) drain(ctx context.Context, take func([]byte)) error {
	r, err := s.Receiver(ctx, topic, subscription, queue.ReceiverOptions{})
	if err != nil {
		return err
	}
	acks := make([]ackwise.Settlement, 0, batch)
	for drained := 0; drained < s.messages; drained += len(acks) {
		ds, err := r.Receive(ctx, batch)
		if err != nil {
			return fmt.Errorf("receive: %w", err)
		}
		acks = acks[:0]
		for _, d := range ds {
			take(d.Body)
			acks = append(acks, ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck})
		}
		for _, res := range r.Settle(ctx, acks) {
			if res.Err != nil {
				return fmt.Errorf("ack: %w", res.Err)
			}
		}
	}
	return r.Close()
}
