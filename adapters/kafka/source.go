package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
)

// SourceOptions configure a source. Topics, Group and Conn.Brokers are required.
type SourceOptions struct {
	Conn

	// Topics are read together by one group. Required.
	Topics []string
	// Group is the consumer group, or the share group, that remembers what is settled. Required.
	Group string
	// Share reads by a share group: without order and without a journal, but with more consumers
	// than partitions. Default: false, a consumer group.
	Share bool
	// Consumer uses the group protocol of KIP-848, where the broker assigns. It needs Kafka 4.0 or
	// later. Default: false, the classic protocol with cooperative-sticky assignment.
	Consumer bool
	// Latest begins a group that is new to a topic at the topic's present end. Partitions that are
	// added later are read from their start. Default: false, at the oldest record kept.
	Latest bool
	// SkipTrimmed goes on where the log begins when records were dropped before they were settled,
	// and tells Observe. Default: false, the source ends with a *TrimmedError.
	SkipTrimmed bool
	// Instance is this member's name for static membership: it may restart within SessionTimeout
	// without a rebalance. Two live members must not share one. Default: "", none.
	Instance string
	// Uncommitted reads records of open and aborted transactions too. Default: false.
	Uncommitted bool
	// SessionTimeout is how long a member may be silent before its partitions go to others. With
	// Consumer and Share the broker's group settings say that. Default: 45 s.
	SessionTimeout time.Duration
	// RebalanceTimeout is how long the group waits for a member that has to give partitions up.
	// Default: 60 s.
	RebalanceTimeout time.Duration
	// Drain is how long what is in flight of a revoked partition may take. What lasts longer is
	// given to the next owner as in flight. It is shorter than RebalanceTimeout, by what the last
	// commit takes. Default: RebalanceTimeout less a quarter of it, at most 5 s less.
	Drain time.Duration
	// IDHeader names a header of other producers that holds the message's ID. Our own goes first.
	// Default: "", the ID of a message without ours is topic/partition/offset.
	IDHeader string
	// Dead reads the headers of dead letters that others wrote: "connect", "share", "spring", or
	// "auto" for any of them. Default: "", none.
	Dead string
	// Create makes missing topics, with the broker's defaults, and sets a share group's start.
	// Default: false.
	Create bool

	// Records bounds what a member of a share group holds unsettled. Default: 500. Unused without
	// Share.
	Records int

	// Log configures the positions and the journal of a consumer group. NoteBytes is bounded by the
	// broker's offset.metadata.max.bytes, in base64. Default of NoteBytes: 3072, for 4096 there.
	Log logsource.Options

	lease    time.Duration // of a record, in a share group
	handOuts int           // after so many the brokers give a record up
	renews   bool          // the brokers extend leases
}

// Bounds of the times of a group.
const (
	defaultSession   = 45 * time.Second
	defaultRebalance = time.Minute
	maxDrainMargin   = 5 * time.Second
	// notesBytes in base64 are 4096, the default of offset.metadata.max.bytes.
	noteBytes = 3072
	// leaveTimeout bounds how long Close waits until the group was told. A group that was not waits
	// for the session to end, which is longer.
	leaveTimeout = 5 * time.Second
	// fetchWait is how long a broker holds an empty answer back; Close may wait for one.
	fetchWait = 500 * time.Millisecond
)

func (o SourceOptions) withDefaults() SourceOptions {
	o.SessionTimeout = cmp.Or(o.SessionTimeout, defaultSession)
	o.RebalanceTimeout = cmp.Or(o.RebalanceTimeout, defaultRebalance)
	o.Drain = cmp.Or(o.Drain,
		o.RebalanceTimeout-min(o.RebalanceTimeout/4, maxDrainMargin))
	o.Records = cmp.Or(o.Records, 500)
	o.Log.NoteBytes = cmp.Or(o.Log.NoteBytes, noteBytes)
	return o
}

func (o *SourceOptions) validate() error {
	faults := []error{o.check()}
	bad := func(wrong bool, field, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
		}
	}
	bad(len(o.Topics) == 0, "topic", "none is named")
	for _, t := range o.Topics {
		bad(!validTopic(t), "topic", fmt.Sprintf(
			"%.60q is no topic's name: 1 to 249 letters, digits, '.', '_' and '-'", t))
	}
	bad(o.Group == "", "group", "a source needs one: it remembers what is settled")
	bad(o.Share && (o.Consumer || o.Instance != ""), "mode",
		"protocol and instance are for mode=group")
	bad(o.Share && o.SkipTrimmed, "on-trimmed",
		"a share group does not tell what was trimmed: leave it out with mode=share")
	bad(!o.Share && o.Records != 0, "records", "it is for mode=share")
	bad(o.Records < 0, "records", "it is negative")
	bad(o.SessionTimeout < 0, "session-timeout", "it is negative")
	bad(o.RebalanceTimeout < 0, "rebalance-timeout", "it is negative")
	bad(o.Drain < 0, "drain", "it is negative")
	bad(o.Drain >= cmp.Or(o.RebalanceTimeout, defaultRebalance), "drain",
		"it is not shorter than rebalance-timeout: the group would not wait for it")
	bad(o.Dead != "" && !slices.Contains(deadFormats, o.Dead), "dead", "no such form")
	return errors.Join(faults...)
}

func validTopic(name string) bool {
	if name == "" || len(name) > 249 || name == "." || name == ".." {
		return false
	}
	for _, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// TrimmedError reports records that are gone from the log though nobody had settled them here, or
// a log that ends before what was settled.
type TrimmedError struct {
	Topic     string
	Partition int32
	// From and To are the offsets of the first record that is gone and of the first that is there.
	// With Truncated, of where the log ends now and of where it had been settled up to.
	From, To int64
	// Truncated: the log lost its end (an unclean election, a topic that was made anew).
	Truncated bool
}

// Error names the partition and what is gone.
func (e *TrimmedError) Error() string {
	place := partitionName(e.Topic, e.Partition)
	if e.Truncated {
		return fmt.Sprintf("the log of %s was truncated: it ends at offset %d, "+
			"and had been read up to %d", place, e.From, e.To)
	}
	return fmt.Sprintf("%s was trimmed before it was settled: "+
		"the records of offsets %d to %d are gone", place, e.From, e.To-1)
}

// Final says that no other attempt will help.
func (e *TrimmedError) Final() bool { return true }

// Source is what OpenSource returns. Transact needs one of a consumer group.
type Source struct {
	ackwise.Source

	logs  *logsource.Source // nil in a share group
	group *group            // nil in a share group
	opts  SourceOptions
}

// OpenSource joins a group and reads. It checks that the brokers can be reached, that the topics
// are there and that the brokers know the group's protocol.
func OpenSource(ctx context.Context, o SourceOptions) (ackwise.Source, error) {
	s, err := openSource(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open Kafka source %.80q: %w", o.Topics, err)
	}
	return s, nil
}

func openSource(ctx context.Context, o SourceOptions) (ackwise.Source, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	o = o.withDefaults()
	opts, err := o.opts()
	if err != nil {
		return nil, err
	}
	if err := prepare(ctx, &o, opts); err != nil {
		return nil, err
	}
	if o.Share {
		return openShare(&o, opts)
	}
	g, err := openGroup(&o, opts)
	if err != nil {
		return nil, err
	}
	o.Log.Observe = g.observe
	logs, err := logsource.New(g, o.Log)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return &Source{Source: logs, logs: logs, group: g, opts: o}, nil
}

// isolation is what a fetch sees of transactions.
func (o *SourceOptions) isolation() kgo.IsolationLevel {
	if o.Uncommitted {
		return kgo.ReadUncommitted()
	}
	return kgo.ReadCommitted()
}
