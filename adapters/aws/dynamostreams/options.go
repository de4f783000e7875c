package dynamostreams

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// Start says where a new group begins.
type Start uint8

const (
	// StartOldest begins with the oldest change that the stream has. The default.
	StartOldest Start = iota
	// StartNewest begins with what is written after the group's first OpenSource has returned; up to
	// a minute of changes before that may come too.
	StartNewest
)

// OnTrimmed says what happens when the stream does not have changes any more that were not read.
type OnTrimmed uint8

const (
	// TrimmedStop stops the shard, and what came out of it: Receive answers a *TrimmedError, again
	// every minute, while the other shards go on. The default.
	TrimmedStop OnTrimmed = iota
	// TrimmedSkip goes on with what is left; Observe and Logger are told the *TrimmedError.
	TrimmedSkip
)

// SourceOptions configure a source. Region, Table and Group are required.
type SourceOptions struct {
	// Region is AWS' name of the region, such as eu-central-1.
	Region string
	// Table is the table whose changes are read.
	Table string
	// Group names the consumers that share the changes: each change goes to one of them.
	Group string
	// Endpoint is the address of a server that stands in for AWS. Default: "", the region's own.
	Endpoint string
	// Credentials are who signs. Default: the first that the default chain finds.
	Credentials aws.CredentialsProvider
	// Leases is the table that holds the leases, positions and journals of any number of groups; its
	// partition key is the text "reader", its sort key the text "shard". Default: "ackwise-leases".
	Leases string
	// Start says where a group begins that has never read the stream. Default: StartOldest.
	Start Start
	// Stream is the ARN of the stream to read, for one that is disabled and has a remainder.
	// Default: "", the table's latest.
	Stream string
	// Topic is the messages' topic. Default: the table's name.
	Topic string
	// Create makes the table of the leases where it is missing, and enables the table's stream, with
	// both images, where it is not. Default: false.
	Create bool
	// KeysOnly accepts a stream that has no images, only keys. Default: false.
	KeysOnly bool
	// OnTrimmed says what happens when changes are gone. Default: TrimmedStop.
	OnTrimmed OnTrimmed
	// MaxAge is how old the oldest unsettled change of a shard may become before Observe ("age") and
	// Logger are told, every minute. Default: 20 h; the stream keeps changes for 24 h.
	MaxAge time.Duration

	// Lease is how long a member may be silent before another takes its shards. Shorter finds a dead
	// one sooner, and costs more writes: five a lease and shard. Default: 20 s.
	Lease time.Duration
	// Drain is how long handlers have to finish when a shard goes to another member. Default: 30 s.
	Drain time.Duration
	// List is how often the stream's shards are listed, beside when one ends. Default: 30 s.
	List time.Duration
	// Idle is the longest pause after an answer that had no changes; it begins at 250 ms.
	// Default: 1 s.
	Idle time.Duration
	// ReadRecords bounds the changes of one read, at most 1000. Each shard that is held keeps one
	// read in memory, at most 1 MB, beside the window of Log. Default: 256.
	ReadRecords int
	// MaxShards bounds the leases of one member. What is above waits for another member, and Observe
	// is told ("shards-full"). Default: 512.
	MaxShards int

	// Log configures the windows, the journal and the events of package logsource. Its Consumer is
	// this member's name in the leases' table. Default: NoteBytes 16 KiB, a Consumer of its own.
	Log logsource.Options
	// Logger is told of losses and alarms. Default: none.
	Logger *slog.Logger
	// Observe is told what Log.Observe is told, and of "iterator-expired", "throttled", "trimmed",
	// "start-unchecked", "age" and "shards-full"; ID is the shard's. Default: nil.
	Observe func(ackwise.Event)
}

func (o SourceOptions) withDefaults() SourceOptions {
	o.Leases = cmp.Or(o.Leases, "ackwise-leases")
	o.Topic = cmp.Or(o.Topic, o.Table)
	o.MaxAge = cmp.Or(o.MaxAge, 20*time.Hour)
	o.Lease = cmp.Or(o.Lease, 20*time.Second)
	o.Drain = cmp.Or(o.Drain, 30*time.Second)
	o.List = cmp.Or(o.List, 30*time.Second)
	o.Idle = cmp.Or(o.Idle, time.Second)
	o.ReadRecords = cmp.Or(o.ReadRecords, 256)
	o.MaxShards = cmp.Or(o.MaxShards, 512)
	o.Log.NoteBytes = cmp.Or(o.Log.NoteBytes, 16<<10)
	if o.Log.Observe == nil {
		o.Log.Observe = o.Observe
	}
	return o
}

func (o SourceOptions) validate() error {
	var faults []error
	fault := func(field, value, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Value: value, Reason: reason})
	}
	faults = append(faults, awsconn.Options{Region: o.Region, Endpoint: o.Endpoint}.Validate())
	if o.Table == "" {
		fault("table", "", "it is missing")
	} else if err := ackwise.ValidateName("topic", o.Topic); err != nil {
		faults = append(faults, fmt.Errorf("%w: choose another with topic", err))
	}
	if o.Group == "" {
		fault("group", "", "it is missing: members of one group share the changes, other groups get "+
			"all of them too")
	}
	if o.Table != "" && o.Table == o.Leases {
		fault("leases", o.Leases, "it is the table that is read")
	}
	for name, d := range map[string][3]time.Duration{
		"Lease": {o.Lease, time.Second, time.Hour}, "Drain": {o.Drain, time.Millisecond, time.Hour},
		"List": {o.List, time.Second, time.Hour}, "Idle": {o.Idle, idleFirst, time.Minute},
		"MaxAge": {o.MaxAge, time.Second, 24 * time.Hour},
	} {
		if d[0] < d[1] || d[0] > d[2] {
			fault(name, d[0].String(), fmt.Sprintf("it is from %s to %s", d[1], d[2]))
		}
	}
	if o.ReadRecords < 1 || o.ReadRecords > 1000 {
		fault("ReadRecords", fmt.Sprint(o.ReadRecords), "it is from 1 to 1000")
	}
	if o.MaxShards < 1 {
		fault("MaxShards", fmt.Sprint(o.MaxShards), "it is less than 1")
	}
	return errors.Join(faults...)
}

// form is what the URL of a source looks like.
const form = "dynamodb-streams://REGION/TABLE?group=NAME"

// ParseSource reads a source's URL. It touches no network.
func ParseSource(text string) (SourceOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SourceOptions{}, fmt.Errorf("read URL: %w; it is %s", err, form)
	}
	if e.Scheme != "dynamodb-streams" {
		e.Fault("the scheme is %.40q, not dynamodb-streams", e.Scheme)
	}
	o := SourceOptions{Region: e.Host, Endpoint: e.Text("endpoint", ""),
		Group: e.Text("group", ""), Leases: e.Text("leases", ""), Stream: e.Text("stream", ""),
		Topic: e.Text("topic", ""), Create: e.Bool("create"), KeysOnly: e.Bool("keys_only"),
		MaxAge:      e.Duration("max_age", 0, time.Second, 24*time.Hour),
		Lease:       e.Duration("lease", 0, time.Second, time.Hour),
		Drain:       e.Duration("drain", 0, time.Millisecond, time.Hour),
		List:        e.Duration("list", 0, time.Second, time.Hour),
		Idle:        e.Duration("idle", 0, idleFirst, time.Minute),
		ReadRecords: e.Int("read", 0, 1, 1000),
		MaxShards:   e.Int("max_shards", 0, 1, 100_000),
	}
	if e.Word("start", "oldest", "oldest", "newest") == "newest" {
		o.Start = StartNewest
	}
	if e.Word("on_trimmed", "stop", "stop", "skip") == "skip" {
		o.OnTrimmed = TrimmedSkip
	}
	if len(e.Path) == 1 {
		o.Table = e.Path[0]
	} else {
		e.Fault("the path is not one table's name")
	}
	check := o.withDefaults()
	check.MaxAge, check.Lease, check.Drain, check.List, check.Idle, check.ReadRecords =
		20*time.Hour, time.Second, time.Second, time.Second, time.Second, 1 // said above
	if len(e.Path) != 1 {
		check.Table, check.Topic = "t", "t"
	}
	if err := check.validate(); err != nil {
		e.Fault("%w", err)
	}
	if err := e.Done(form); err != nil {
		return SourceOptions{}, fmt.Errorf("read URL: %w", err)
	}
	return o, nil
}
