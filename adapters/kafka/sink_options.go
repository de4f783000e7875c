package kafka

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// SinkOptions configure a sink. Required is Conn.Brokers alone.
type SinkOptions struct {
	Conn
	// Topic is where all messages go. Default: "", each one's own topic.
	Topic string
	// Create makes a topic that is missing. Default: false, a missing Topic is an error when the
	// sink is opened, and a message's own topic that is missing a rejection.
	Create bool
	// Partitions and Replication are those of a topic that is made. Need Create. Default: 0, the
	// brokers' own.
	Partitions, Replication int
	// Linger is how long a message waits for more to go with it. Default: 0, none: the messages of
	// one Publish go together all the same.
	Linger time.Duration
	// BatchBytes bounds what goes together, per partition. Default: what the topic takes
	// (max.message.bytes), at most 1,000,012 where the topic is each message's own.
	BatchBytes int
	// Compression is "none", "gzip", "snappy", "lz4" or "zstd". Default: "snappy".
	Compression string
	// MaxBuffered and MaxBufferedBytes bound the messages on their way to the brokers; at the bound
	// Publish waits. Default: 50,000 and 64 MiB.
	MaxBuffered, MaxBufferedBytes int
	// PublishTimeout bounds one Publish. What has no answer by then is unknown. Default: 30 s.
	PublishTimeout time.Duration
	// OpenTimeout bounds opening the sink. Default: 15 s.
	OpenTimeout time.Duration
	// TransactionalID makes each Publish one transaction, under this name: all of its messages are
	// accepted together or none. A sink that is opened under the same name ends the older one.
	// Default: "", no transactions.
	TransactionalID string
	// TransactionTimeout is after what time the brokers abort a transaction that was begun and not
	// ended; longer than PublishTimeout. Needs TransactionalID. Default: 60 s.
	TransactionTimeout time.Duration
	// DeadLetters says that the topic keeps dead letters: it must not delete them by itself. A
	// topic whose retention is finite is refused unless AllowExpiry is set. Needs Topic.
	// Default: false.
	DeadLetters bool
	// AllowExpiry takes a finite retention of a topic of dead letters. Default: false.
	AllowExpiry bool
}

// sinkForm is what the URL of a sink looks like.
const sinkForm = "kafka://HOST[:PORT][,HOST…][/TOPIC][?NAME=VALUE&…]"

// ParseSink reads the URL of a sink. It touches no network; all faults are told at once.
func ParseSink(text string) (SinkOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SinkOptions{}, fmt.Errorf("read the sink's URL: %w; it is %s", err, sinkForm)
	}
	o := SinkOptions{
		Conn:             parseConn(e),
		Create:           e.Bool("create"),
		Partitions:       e.Int("partitions", 0, 1, 100_000),
		Replication:      e.Int("replication", 0, 1, 100),
		Linger:           e.Duration("linger", 0, 0, time.Minute),
		BatchBytes:       e.Int("batch-bytes", 0, 1024, 100<<20),
		Compression:      e.Word("compression", "", compressions()...),
		MaxBuffered:      e.Int("max-buffered", 0, 1, 10_000_000),
		MaxBufferedBytes: e.Int("max-buffered-bytes", 0, 1024, 1<<40),
		PublishTimeout:   e.Duration("publish-timeout", 0, time.Millisecond, time.Hour),
		OpenTimeout:      e.Duration("open-timeout", 0, time.Millisecond, time.Hour),
		TransactionalID:  e.Text("transactional", ""),
		TransactionTimeout: e.Duration(
			"transaction-timeout", 0, time.Second, 24*time.Hour),
		DeadLetters: e.Bool("dead-letters"),
		AllowExpiry: e.Bool("allow-expiry"),
	}
	switch len(e.Path) {
	case 0:
	case 1:
		o.Topic = e.Path[0]
	default:
		e.Fault("the path has %d parts: it is one topic, or none", len(e.Path))
	}
	if err := o.check(); err != nil {
		e.Fault("%w", err)
	}
	if err := e.Done(sinkForm); err != nil {
		return SinkOptions{}, fmt.Errorf("read the sink's URL: %w", err)
	}
	return o, nil
}

func compressions() []string { return []string{"none", "gzip", "snappy", "lz4", "zstd"} }

// check returns all that is wrong with the options, the connection's aside.
func (o *SinkOptions) check() error {
	var faults []error
	bad := func(wrong bool, field, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Reason: reason})
		}
	}
	if o.Topic != "" {
		if err := topicFault(o.Topic); err != nil {
			faults = append(faults, err)
		}
	}
	f := o.withDefaults()
	bad(!o.Create && o.Partitions+o.Replication != 0, "create",
		"partitions and replication are for a topic that is made: set create=true")
	bad(o.Partitions < 0 || o.Replication < 0, "partitions", "a number is negative")
	bad(o.Linger < 0, "linger", "it is negative")
	bad(o.BatchBytes < 0 || o.BatchBytes > 0 && o.BatchBytes < 1024, "batch-bytes",
		"it is less than 1024")
	bad(!slices.Contains(compressions(), f.Compression), "compression",
		"it is none, gzip, snappy, lz4 or zstd")
	bad(f.MaxBuffered < 1 || f.MaxBufferedBytes < 1, "max-buffered", "it is less than 1")
	bad(f.PublishTimeout < 0 || f.OpenTimeout < 0, "publish-timeout", "it is negative")
	bad(o.TransactionalID == "" && o.TransactionTimeout != 0, "transactional",
		"transaction-timeout needs transactional=NAME")
	bad(o.TransactionalID != "" && f.TransactionTimeout <= f.PublishTimeout, "transaction-timeout",
		fmt.Sprintf("%s is not longer than publish-timeout (%s): the brokers would abort what is "+
			"still being published", f.TransactionTimeout, f.PublishTimeout))
	bad(o.DeadLetters && o.Topic == "", "dead-letters", "it needs the topic, to check its retention")
	bad(o.AllowExpiry && !o.DeadLetters, "allow-expiry", "it goes with dead-letters=true")
	return errors.Join(faults...)
}

func (o SinkOptions) withDefaults() SinkOptions {
	o.Compression = cmp.Or(o.Compression, "snappy")
	o.MaxBuffered = cmp.Or(o.MaxBuffered, 50_000)
	o.MaxBufferedBytes = cmp.Or(o.MaxBufferedBytes, 64<<20)
	o.PublishTimeout = cmp.Or(o.PublishTimeout, 30*time.Second)
	o.OpenTimeout = cmp.Or(o.OpenTimeout, 15*time.Second)
	o.TransactionTimeout = cmp.Or(o.TransactionTimeout, time.Minute)
	return o
}

// topicFault reports what is wrong with a topic's name: Kafka's own rule.
func topicFault(name string) error {
	if validTopic(name) {
		return nil
	}
	return &ackwise.InvalidError{Field: "topic", Value: fmt.Sprintf("%.60s", name),
		Reason: "it is no topic's name: 1 to 249 letters, digits, '.', '_' and '-'"}
}

// codec is the compression's codec. Where a broker is too old for it, nothing is compressed.
func (o *SinkOptions) codec() []kgo.CompressionCodec {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression()}
	return []kgo.CompressionCodec{codecs[o.Compression], kgo.NoCompression()}
}
