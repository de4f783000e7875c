package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// errPublishTimeout is the cause of a Publish that took too long.
var errPublishTimeout = errors.New("no answer within the publish time-out")

// errGone says that another producer has this one's transactional ID.
var errGone = fmt.Errorf("another producer has taken over the transactional ID, or a transaction "+
	"outlasted its time-out: %w", ackwise.ErrClosed)

// classify is the one place that says what an error of the producer means for a message. named says
// that the topic is the sink's own and not the message's.
func classify(err error, named bool) ackwise.ResultClass {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case err == nil:
		return ackwise.ResultAccepted

	// Whatever the coordinator said at last.
	case is(errUnknown):
		return ackwise.ResultUnknown

	// The brokers looked at it and will never take it.
	case refused(err):
		return ackwise.ResultRejected
	case is(kerr.InvalidTopicException):
		return ackwise.ResultRejected
	// A message's own topic that is missing is the message's fault; the sink's own topic that was
	// deleted is not: then all wait until somebody makes it again.
	case is(kerr.UnknownTopicOrPartition, kerr.UnknownTopicID):
		if named {
			return ackwise.ResultRetryable
		}
		return ackwise.ResultRejected

	// Refused before anything was written, for a reason that may pass: a permission that somebody
	// grants, replicas that come back, a quota.
	case is(kerr.TopicAuthorizationFailed, kerr.ClusterAuthorizationFailed,
		kerr.TransactionalIDAuthorizationFailed, kerr.SaslAuthenticationFailed,
		kerr.NotEnoughReplicas, kerr.LeaderNotAvailable, kerr.ThrottlingQuotaExceeded,
		kerr.InvalidRequiredAcks, kgo.ErrMaxBuffered):
		return ackwise.ResultRetryable
	// The producer was ended by a newer one. What it wrote is aborted with its transaction.
	case is(errGone, kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping):
		return ackwise.ResultRetryable

	// Time-outs, cut connections, a closed client, NOT_ENOUGH_REPLICAS_AFTER_APPEND,
	// REQUEST_TIMED_OUT, a leader that moved, and all that a newer broker may say: the leader may
	// have written it.
	default:
		return ackwise.ResultUnknown
	}
}

// refused reports whether a broker refused a record for what it is. It refuses all the records that
// came together, so the guilty one is to be found.
func refused(err error) bool {
	for _, t := range []error{kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidRecord,
		kerr.InvalidTimestamp, kerr.CorruptMessage, kerr.UnsupportedForMessageFormat,
		kerr.PolicyViolation} {
		if errors.Is(err, t) {
			return true
		}
	}
	return false
}

// explain adds what a person can do.
func explain(err error, topic string) error {
	hint := ""
	switch {
	case err == nil:
		return nil
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		hint = fmt.Sprintf("grant this user the operations Describe and Write on the topic %q", topic)
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		hint = "grant this user the operation IdempotentWrite on the cluster"
	case errors.Is(err, kerr.TransactionalIDAuthorizationFailed):
		hint = "grant this user the operations Describe and Write on the transactional ID"
	case errors.Is(err, kerr.SaslAuthenticationFailed):
		hint = "check the options sasl, user and password"
	case errors.Is(err, kerr.UnknownTopicOrPartition), errors.Is(err, kerr.UnknownTopicID):
		hint = fmt.Sprintf("make the topic %q, or set create=true", topic)
	case errors.Is(err, kerr.UnsupportedVersion):
		hint = "the brokers are too old: docs/systems/kafka.md says what needs which version"
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("publish to %s: %w", topic, err)
	}
	err = fmt.Errorf("publish to %s: %w", topic, err)
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}
