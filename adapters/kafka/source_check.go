package kafka

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/internal/pause"
)

// openTimeout bounds the checks at start where the caller's context does not.
const openTimeout = 30 * time.Second

// prepare checks what a source needs, creates what it may, and notes where a new group begins.
func prepare(ctx context.Context, o *SourceOptions, opts []kgo.Opt) error {
	ctx, cancel := context.WithTimeoutCause(ctx, openTimeout,
		fmt.Errorf(openLate+" of %s", openTimeout))
	defer cancel()
	if err := o.handshake(ctx); err != nil {
		return err
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("make client: %w", err)
	}
	defer cl.Close()
	if err := reach(ctx, cl); err != nil {
		return explainSource(unreached(err, o.Brokers...), o)
	}
	adm := kadm.NewClient(cl)
	for {
		err := prepareWith(ctx, cl, adm, o)
		// A cluster that is new or was just restarted has no coordinators for a moment.
		if err == nil || !kerr.IsRetriable(err) || !pause.For(ctx, prepareAgain) {
			return explainSource(err, o)
		}
	}
}

// prepareAgain is the pause after an answer that may be another one soon.
const prepareAgain = 100 * time.Millisecond

func prepareWith(ctx context.Context, cl *kgo.Client, adm *kadm.Client, o *SourceOptions) error {
	if err := checkRecords(ctx, cl); err != nil {
		return err
	}
	if err := checkProtocol(ctx, adm, o); err != nil {
		return err
	}
	if err := checkTopics(ctx, adm, o); err != nil {
		return err
	}
	if o.Share {
		return prepareShare(ctx, cl, adm, o)
	}
	if err := boundNotes(brokerConfigs(ctx, adm)[metadataLimit], o); err != nil {
		return err
	}
	return markStart(ctx, adm, o)
}

// metadataLimit is the brokers' setting of how much they keep beside a position.
const metadataLimit = "offset.metadata.max.bytes"

// boundNotes sees to it that the brokers keep the journal. They would refuse every commit of a note
// that is too long, and the source would stand still under load. Where the limit is hidden it is
// taken for the default.
func boundNotes(limit string, o *SourceOptions) error {
	most, err := strconv.Atoi(limit)
	fits := base64.StdEncoding.DecodedLen(most / 4 * 4)
	switch {
	case err != nil, o.Log.NoteBytes <= fits:
		return nil
	case fits < logsource.MinNoteBytes:
		return &ackwise.HintError{
			Err: fmt.Errorf("the brokers keep %d bytes beside a position (%s): the journal needs at "+
				"least %d", most, metadataLimit, base64.StdEncoding.EncodedLen(logsource.MinNoteBytes)),
			Hint: "set it to 4096, its default, or more"}
	case o.Log.NoteBytes == noteBytes: // the default
		o.Log.NoteBytes = fits
		return nil
	}
	return &ackwise.InvalidError{Field: "note-bytes", Value: strconv.Itoa(o.Log.NoteBytes),
		Reason: fmt.Sprintf("the brokers keep %d bytes beside a position (%s), which are %d in base64",
			most, metadataLimit, fits)}
}

// reach connects to a broker. It says why at the first refusal; the client would try on.
func reach(ctx context.Context, cl *kgo.Client) error {
	if err := cl.Ping(ctx); err != nil {
		return fmt.Errorf("reach a broker: %w", severed(orCause(ctx, err)))
	}
	return nil
}

// checkProtocol asks whether the brokers know the requests of the group's protocol.
func checkProtocol(ctx context.Context, adm *kadm.Client, o *SourceOptions) error {
	switch {
	case o.Share:
		return checkVersions(ctx, adm, need{kmsg.ShareFetch, 1, "share groups (mode=share)",
			"they need Apache Kafka 4.1 or later; use mode=group"})
	case o.Consumer:
		return checkVersions(ctx, adm, need{kmsg.ConsumerGroupHeartbeat, 1,
			"the group protocol of KIP-848 (protocol=consumer)",
			"it needs Apache Kafka 4.0 or later; use protocol=classic"})
	case o.Instance != "":
		return checkVersions(ctx, adm, need{kmsg.JoinGroup, 5, "static membership (instance)",
			"it needs Apache Kafka 2.3 or later; leave instance out"})
	}
	return nil
}

// checkTopics finds the topics, or makes them.
func checkTopics(ctx context.Context, adm *kadm.Client, o *SourceOptions) error {
	found, err := adm.ListTopics(ctx, o.Topics...)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	var missing []string
	for _, name := range o.Topics {
		t, ok := found[name]
		switch {
		case !ok || errors.Is(t.Err, kerr.UnknownTopicOrPartition):
			missing = append(missing, name)
		case t.Err != nil:
			return fmt.Errorf("find topic %s: %w", name, t.Err)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	if o.Create {
		return createTopics(ctx, adm, missing)
	}
	return &ackwise.HintError{Err: notFound(ctx, adm, missing[0]),
		Hint: "create=true makes it, with the broker's defaults"}
}

// notFound says that a topic is not there, and which one may have been meant. Who may not see the
// others gets no such help.
func notFound(ctx context.Context, adm *kadm.Client, topic string) error {
	e := &ackwise.NotFoundError{Kind: "topic", Name: topic}
	if all, err := adm.ListTopics(ctx); err == nil {
		e.Nearest = nearest.Of(topic, slices.Sorted(maps.Keys(all)))
	}
	return e
}

func createTopics(ctx context.Context, adm *kadm.Client, names []string) error {
	made, err := adm.CreateTopics(ctx, -1, -1, nil, names...)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for _, name := range names {
		if t := made[name]; t.Err != nil && !errors.Is(t.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", name, t.Err)
		}
	}
	return nil
}

// markStart commits where a group begins that is new to a topic, for all partitions at once, so
// that neither a message that comes before the first commit nor a partition that is added later is
// missed. Where the group has members already, they did it.
//
// Several members may do it at once, and nothing keeps the last one from overwriting the first. So
// the logs are looked at before the group is: who then finds no commit has a start that is not
// behind that of anybody who has committed since, and loses nothing of what came after.
func markStart(ctx context.Context, adm *kadm.Client, o *SourceOptions) error {
	fresh, err := freshTopics(ctx, adm, o, o.Topics)
	if err != nil || len(fresh) == 0 {
		return err
	}
	list := adm.ListStartOffsets
	if o.Latest {
		list = adm.ListEndOffsets
	}
	at, err := list(ctx, fresh...)
	if err == nil {
		err = at.Error()
	}
	if err != nil {
		return fmt.Errorf("ask where the logs begin and end: %w", err)
	}
	if fresh, err = freshTopics(ctx, adm, o, fresh); err != nil || len(fresh) == 0 {
		return err
	}
	marks := kadm.Offsets{}
	at.Offsets().Each(func(m kadm.Offset) {
		m.LeaderEpoch, m.Metadata = -1, startMark
		if slices.Contains(fresh, m.Topic) {
			marks.Add(m)
		}
	})
	answers, err := adm.CommitOffsets(ctx, o.Group, marks)
	if err == nil {
		err = answers.Error()
	}
	if errors.Is(err, kerr.UnknownMemberID) || errors.Is(err, kerr.IllegalGeneration) ||
		errors.Is(err, kerr.RebalanceInProgress) || errors.Is(err, kerr.StaleMemberEpoch) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("commit the start of group %s: %w", o.Group, err)
	}
	return nil
}

// freshTopics returns those of the topics of which the group has no position.
func freshTopics(ctx context.Context, adm *kadm.Client, o *SourceOptions, topics []string) (
	fresh []string, err error) {
	known, err := adm.FetchOffsetsForTopics(kadm.RequireStable(ctx), o.Group, topics...)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, fmt.Errorf("fetch the positions of group %s: %w", o.Group, err)
	}
	for _, topic := range topics {
		if !anyCommitted(known[topic]) {
			fresh = append(fresh, topic)
		}
	}
	return fresh, nil
}

func anyCommitted(partitions map[int32]kadm.OffsetResponse) bool {
	for _, p := range partitions {
		if p.At >= 0 {
			return true
		}
	}
	return false
}

// explainSource adds to an error of the brokers what to do about it.
func explainSource(err error, o *SourceOptions) error {
	if err == nil {
		return nil
	}
	err = severed(err)
	hint := ""
	switch {
	case errors.Is(err, kerr.TopicAuthorizationFailed):
		hint = "the user needs the permissions Read and Describe on the topics " +
			strings.Join(o.Topics, ", ")
	case errors.Is(err, kerr.GroupAuthorizationFailed):
		hint = "the user needs the permission Read on the group " + o.Group
	case errors.Is(err, kerr.ClusterAuthorizationFailed):
		hint = "the user needs the permission Create on the cluster, or leave create out"
	case isLogin(err):
		hint = "the user is " + o.User + ": " + loginHint
	case errors.Is(err, kerr.UnreleasedInstanceID):
		hint = fmt.Sprintf("another consumer of the group %s has instance=%s; if it has crashed, the "+
			"group forgets it when its session is over", o.Group, o.Instance)
	}
	if hint == "" {
		return explainConn(err, o.Brokers...)
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}
