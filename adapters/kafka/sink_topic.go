package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/pause"
)

// hosts is where the brokers are, for an error.
func hosts(c *Conn) string { return strings.Join(c.Brokers, ",") }

// prepareTopic checks that the sink's topic is there, or makes it, and returns how long a batch it
// takes; 0 where this user may not see that.
func prepareTopic(ctx context.Context, adm *kadm.Client, o *SinkOptions) (limit int, err error) {
	found, err := adm.ListTopicsWithInternal(ctx, o.Topic)
	if err != nil {
		return 0, explain(orCause(ctx, err), o.Topic)
	}
	err = found[o.Topic].Err
	if errors.Is(err, kerr.UnknownTopicOrPartition) && o.Create {
		err = makeTopic(ctx, adm, o, o.Topic)
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return 0, &ackwise.HintError{Err: notFound(ctx, adm, o.Topic),
			Hint: fmt.Sprintf("make the topic %q, or set create=true", o.Topic)}
	}
	if err != nil {
		return 0, explain(err, o.Topic)
	}
	conf, err := topicConfig(ctx, adm, o.Topic)
	for o.Create && errors.Is(err, kerr.UnknownTopicOrPartition) && pause.For(ctx, prepareAgain) {
		conf, err = topicConfig(ctx, adm, o.Topic) // what was just made is seen a moment later
	}
	if o.DeadLetters && !o.AllowExpiry {
		if err != nil {
			return 0, &ackwise.HintError{Err: fmt.Errorf("read the retention of %s: %w", o.Topic, err),
				Hint: "Grant this user the operation DescribeConfigs on the topic, or set " +
					allowExpiry + " to go without the check."}
		}
		if err := keepsLetters(o.Topic, conf); err != nil {
			return 0, err
		}
	}
	if err != nil {
		return 0, nil // a missing permission to look is no reason not to write
	}
	limit, err = strconv.Atoi(conf["max.message.bytes"])
	if err != nil || limit < 1024 {
		return 0, nil
	}
	return min(limit, 100<<20), nil
}

// makeTopic makes a topic; another process may have been faster. One for dead letters keeps them.
func makeTopic(ctx context.Context, adm *kadm.Client, o *SinkOptions, topic string) error {
	configs := map[string]*string{}
	if o.DeadLetters {
		forever := "-1"
		configs["retention.ms"], configs["retention.bytes"] = &forever, &forever
	}
	made, err := adm.CreateTopic(ctx, int32(cmp.Or(o.Partitions, -1)),
		int16(cmp.Or(o.Replication, -1)), configs, topic)
	switch {
	case err == nil, errors.Is(err, kerr.TopicAlreadyExists):
		return nil
	case errors.Is(err, kerr.TopicAuthorizationFailed),
		errors.Is(err, kerr.ClusterAuthorizationFailed):
		return &ackwise.HintError{Err: fmt.Errorf("make the topic %s: %w", topic, err),
			Hint: "Grant this user the operation Create on the topic, or make it yourself."}
	}
	return fmt.Errorf("make the topic %s: %w %s", topic, orCause(ctx, err), made.ErrMessage)
}

// topicConfig reads a topic's settings.
func topicConfig(ctx context.Context, adm *kadm.Client, topic string) (map[string]string, error) {
	rs, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, orCause(ctx, err)
	}
	r, err := rs.On(topic, nil)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		return nil, err
	}
	conf := map[string]string{}
	for _, c := range r.Configs {
		conf[c.Key] = c.MaybeValue()
	}
	return conf, nil
}

// topics are those that are known to be there, for a sink that makes what is missing.
type topics struct {
	mu   sync.Mutex // guards made
	made map[string]bool
}

// missing returns which topics of a call are not known, each once.
func (t *topics) missing(c *call) []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var names []string
	asked := map[string]bool{}
	for i := range c.recs {
		name := c.msgs[i].Topic
		if c.recs[i].rec != nil && !t.made[name] && !asked[name] {
			asked[name] = true
			names = append(names, name)
		}
	}
	return names
}

// makeTopics makes the messages' own topics, each once, where the sink is told to. A failure shows
// when the message is published.
func (s *Sink) makeTopics(ctx context.Context, c *call) {
	if !s.o.Create || s.o.Topic != "" {
		return
	}
	for _, name := range s.known.missing(c) {
		if err := makeTopic(ctx, kadm.NewClient(s.cl), &s.o, name); err != nil {
			c.refuse(name, err)
			continue
		}
		s.known.mu.Lock()
		s.known.made[name] = true
		s.known.mu.Unlock()
	}
}

// refuse gives all records of a topic an error.
func (c *call) refuse(topic string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.recs {
		if r := &c.recs[i]; c.msgs[i].Topic == topic && !r.over {
			r.over, r.err = true, err
			c.fail(i)
		}
	}
}
