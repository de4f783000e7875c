package queue

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue/internal/state"
	"github.com/ackwise/ackwise/queue/internal/wal"
)

// CreateTopic makes a topic. One that is there already is ErrExists.
func (s *Store) CreateTopic(ctx context.Context, name string, o TopicOptions) error {
	if err := ackwise.ValidateName("topic", name); err != nil {
		return err
	}
	config, err := o.config()
	if err != nil {
		return err
	}
	return s.change(func() (state.Record, error) {
		if s.st.Topic(name) != nil {
			return nil, fmt.Errorf("topic %s: %w", name, ackwise.ErrExists)
		}
		return &state.CreateTopic{Now: s.clock.now(), ID: s.st.NextID(), Name: name,
			Config: config}, nil
	})
}

// DeleteTopic deletes a topic with its messages, subscriptions and dead letters; the reason is
// recorded.
func (s *Store) DeleteTopic(ctx context.Context, name, reason string) error {
	if err := needReason(reason); err != nil {
		return err
	}
	return s.change(func() (state.Record, error) {
		t, err := s.topic(name)
		if err != nil {
			return nil, err
		}
		return &state.DeleteTopic{Now: s.clock.now(), ID: t.ID, Reason: reason}, nil
	})
}

// CreateSubscription makes a subscription to a topic. One that is there already is ErrExists. A
// start at what is no longer kept is refused.
func (s *Store) CreateSubscription(ctx context.Context, topic, name string,
	o SubscriptionOptions) error {
	if err := ackwise.ValidateName("subscription", name); err != nil {
		return err
	}
	config, err := o.config()
	if err != nil {
		return err
	}
	return s.change(func() (state.Record, error) {
		t, err := s.topic(topic)
		if err != nil {
			return nil, err
		}
		if t.Sub(name) != nil {
			return nil, fmt.Errorf("subscription %s/%s: %w", topic, name, ackwise.ErrExists)
		}
		start, err := s.startOf(t, o.Start)
		if err != nil {
			return nil, err
		}
		return &state.CreateSub{Now: s.clock.now(), ID: s.st.NextID(), Topic: t.ID, Name: name,
			Start: start, Rest: o.Start == Start{}, Config: config}, nil
	})
}

// startOf finds the sequence at which a new subscription begins. The caller holds mu.
func (s *Store) startOf(t *state.Topic, at Start) (uint64, error) {
	first, next := t.Line()
	switch {
	case at.Now:
		return next, nil
	case at.Position != "":
		pos, err := parsePosition(at.Position)
		if err != nil {
			return 0, err
		}
		oldest, kept := t.FirstPos()
		if first > 0 && (!kept || pos < oldest) {
			return 0, &ackwise.InvalidError{Field: "start", Value: string(at.Position),
				Reason: "messages from there on are no longer kept; start at the beginning, " +
					"or set RetainAge on the topic"}
		}
		return t.StartAt(0, pos), nil
	case !at.Time.IsZero():
		sec := at.Time.UnixMilli() / 1000
		seq := t.StartAt(sec, 0)
		if seq == first && first > 0 {
			return 0, &ackwise.InvalidError{Field: "start", Value: at.Time.Format(time.RFC3339),
				Reason: "messages of that time are no longer kept; start at the beginning, " +
					"or set RetainAge on the topic"}
		}
		return seq, nil
	}
	return first, nil
}

// DeleteSubscription deletes a subscription; the reason is recorded.
func (s *Store) DeleteSubscription(ctx context.Context, topic, name, reason string) error {
	if err := needReason(reason); err != nil {
		return err
	}
	return s.change(func() (state.Record, error) {
		q, err := s.subscription(topic, name)
		if err != nil {
			return nil, err
		}
		for _, w := range s.waiters[q] {
			close(w.ready)
		}
		delete(s.waiters, q)
		return &state.DeleteSub{Now: s.clock.now(), ID: q.ID, Reason: reason}, nil
	})
}

func needReason(reason string) error {
	if reason == "" || len(reason) > ackwise.MaxErrorBytes {
		return &ackwise.InvalidError{Field: "reason", Reason: fmt.Sprintf(
			"it is %d bytes long; 1 to %d are needed", len(reason), ackwise.MaxErrorBytes)}
	}
	return nil
}

// change makes one record, carries it out and waits until it is synced. No record means that it is
// so already: what made it so is waited for.
func (s *Store) change(make func() (state.Record, error)) error {
	s.mu.Lock()
	err := s.usable()
	var r state.Record
	if err == nil {
		r, err = make()
	}
	var group *wal.Group
	switch {
	case err != nil:
	case r == nil:
		group = s.append(nil, true)
	default:
		group, err = s.do(r, true)
	}
	s.unlock()
	if err != nil {
		return err
	}
	return wait(group, true)
}

// Topics describes every topic, sorted by name.
func (s *Store) Topics(ctx context.Context) ([]TopicInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	all := []TopicInfo{}
	for _, t := range s.st.Topics() {
		info := TopicInfo{Name: t.Name, Options: topicOptions(t.Config), Scheduled: t.Scheduled(),
			Published: t.Published, ProducedAgain: t.Again, DedupIDs: s.dedupIDs(t),
			Subscriptions: []string{}}
		info.Messages, info.Bytes = t.Kept()
		for _, q := range t.Subs {
			info.Subscriptions = append(info.Subscriptions, q.Name)
		}
		all = append(all, info)
	}
	return all, nil
}

// Subscriptions describes the subscriptions of a topic ("" = of every topic), sorted by topic.
func (s *Store) Subscriptions(ctx context.Context, topic string) ([]SubscriptionInfo, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	topics := s.st.Topics()
	if topic != "" {
		t, err := s.topic(topic)
		if err != nil {
			return nil, err
		}
		topics = []*state.Topic{t}
	}
	sessions := make(map[*state.Sub][]SessionInfo)
	for _, ss := range s.st.Sessions() {
		sessions[ss.Sub] = append(sessions[ss.Sub], SessionInfo{Session: ss.Word, Name: ss.Name,
			Connected: ss.Connected, InFlight: ss.InFlight})
	}
	all := []SubscriptionInfo{}
	for _, t := range topics {
		for _, q := range t.Subs {
			info := SubscriptionInfo{Topic: t.Name, Name: q.Name,
				Options: subscriptionOptions(q.Config), Sessions: sessions[q], Books: s.books(q)}
			if sec := q.OldestWaiting(); sec != 0 {
				info.OldestWaiting = s.clock.wall(sec * 1000)
			}
			all = append(all, info)
		}
	}
	return all, nil
}

// Books returns the books of every subscription, at one log position.
func (s *Store) Books(ctx context.Context) ([]Books, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.usable(); err != nil {
		return nil, err
	}
	all := []Books{}
	for _, t := range s.st.Topics() {
		for _, q := range t.Subs {
			all = append(all, s.books(q))
		}
	}
	return all, nil
}

// books copies a subscription's counters. The caller holds mu.
func (s *Store) books(q *state.Sub) Books {
	b := Books{Topic: q.Topic.Name, Subscription: q.Name, Position: position(s.log.End()),
		Accepted: q.Accepted, Acked: q.Acked, Ready: q.Count(state.Ready),
		Delayed: q.Count(state.Delayed), InFlight: q.Count(state.InFlight),
		Parked: q.Count(state.Parked), Dead: q.Count(state.Dead), Dropped: q.Dropped,
		DroppedFor: make(map[string]int64, len(q.DroppedFor)),
		Causes:     make(map[ackwise.Cause]int64),
		Failures:   q.Failures, Crashes: q.Crashes}
	maps.Copy(b.DroppedFor, q.DroppedFor)
	for _, c := range ackwise.Causes() {
		if n := q.Causes[c]; n != 0 {
			b.Causes[c] = n
		}
	}
	return b
}
