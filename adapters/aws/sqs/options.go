package sqs

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// Queue says where a queue is.
type Queue struct {
	// Region is the region's name, such as eu-central-1. Required.
	Region string
	// Name is the queue's name; that of a FIFO queue ends in .fifo. Required.
	Name string
	// Account is the number of the account that the queue belongs to. Default: "", the caller's own.
	Account string
	// Endpoint is the address of a server that stands in for AWS, such as http://127.0.0.1:9324.
	// Default: "", the region's own.
	Endpoint string
	// Credentials are who signs. Default: the first that the default chain finds.
	Credentials aws.CredentialsProvider
	// Create makes the queue where it is missing, with the service's defaults unless an option says
	// otherwise. Default: false, a missing queue is an error.
	Create bool
}

// Limits of the service.
const (
	maxWait   = 20 * time.Second
	maxLease  = 12 * time.Hour // of one hand-out, all extensions included
	maxCall   = 10             // messages of one call
	maxName   = 80
	fifoEnd   = ".fifo"
	formOfURL = "sqs://REGION/QUEUE?endpoint=…&account=…&create=true"
)

// SourceOptions configure a source.
type SourceOptions struct {
	Queue
	// Lease is how long a hand-out is hidden from others, in whole seconds from 1 s to 12 h. Default:
	// the queue's own visibility timeout.
	Lease time.Duration
	// Wait is how long one poll waits for messages, in whole seconds from 1 s to 20 s. Closing the
	// source waits for the poll that is under way: what SQS gives to a poll that was cut off is
	// hidden from all until its lease ends. Default: 2 s.
	Wait time.Duration
	// Polls is how many polls may run at once; a second one starts when the first came back full.
	// Default: 4.
	Polls int
	// MaxHeld bounds the messages that are received and not settled. At it Receive answers
	// ackwise.ErrFull. Default: 10000.
	MaxHeld int
	// Envelope says what becomes of SNS's envelope, the JSON that a subscription without raw delivery
	// puts around a message: EnvelopeAuto takes it off where there is one, EnvelopeNone leaves every
	// body as it is. Default: EnvelopeAuto.
	Envelope string
	// MaxRemembered bounds the settlements that are remembered, to tell a repeated one and to know
	// the cause of a hand-out. Default: 10000.
	MaxRemembered int
}

// What SourceOptions.Envelope may be.
const (
	EnvelopeAuto = "auto"
	EnvelopeNone = "none"
)

// SinkOptions configure a sink.
type SinkOptions struct {
	Queue
	// Calls is how many calls of one Publish may run at once. Default: 4.
	Calls int
	// DeadLetters says that the queue keeps dead letters: one that Create makes keeps them for 14
	// days, the service's most, and Logger is told of one that keeps them for less. Default: false.
	DeadLetters bool
	// Logger is told, once at the opening, what of the queue a person should know. Default: none.
	Logger *slog.Logger
}

func (o SourceOptions) withDefaults() SourceOptions {
	o.Wait = cmp.Or(o.Wait, 2*time.Second)
	o.Polls = cmp.Or(o.Polls, 4)
	o.MaxHeld = cmp.Or(o.MaxHeld, 10_000)
	o.Envelope = cmp.Or(o.Envelope, EnvelopeAuto)
	o.MaxRemembered = cmp.Or(o.MaxRemembered, 10_000)
	return o
}

func (o SinkOptions) withDefaults() SinkOptions {
	o.Calls = cmp.Or(o.Calls, 4)
	return o
}

func (o SourceOptions) validate() error {
	return errors.Join(o.Queue.validate(), whole("Lease", o.Lease, maxLease),
		whole("Wait", o.Wait, maxWait), positive("Polls", o.Polls), positive("MaxHeld", o.MaxHeld),
		positive("MaxRemembered", o.MaxRemembered), o.knownEnvelope())
}

func (o SourceOptions) knownEnvelope() error {
	if o.Envelope == EnvelopeAuto || o.Envelope == EnvelopeNone {
		return nil
	}
	return &ackwise.InvalidError{Field: "Envelope", Value: o.Envelope, Reason: "it is auto or none"}
}

func (o SinkOptions) validate() error {
	return errors.Join(o.Queue.validate(), positive("Calls", o.Calls))
}

func (q Queue) conn() awsconn.Options {
	return awsconn.Options{Region: q.Region, Endpoint: q.Endpoint, Credentials: q.Credentials}
}

func (q Queue) fifo() bool { return strings.HasSuffix(q.Name, fifoEnd) }

func (q Queue) validate() error {
	faults := []error{q.conn().Validate()}
	bad := func(field, value, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Value: value, Reason: reason})
	}
	base := strings.TrimSuffix(q.Name, fifoEnd)
	switch {
	case q.Name == "":
		bad("queue", "", "the name is missing")
	case len(q.Name) > maxName:
		bad("queue", "", fmt.Sprintf("the name is %d bytes long, at most %d are allowed",
			len(q.Name), maxName))
	case base == "", strings.ContainsFunc(base, notInName):
		bad("queue", q.Name, "a name holds letters, digits, '-' and '_' only, and may end in .fifo")
	}
	if strings.ContainsFunc(q.Account, func(r rune) bool { return r < '0' || r > '9' }) {
		bad("account", q.Account, "it is a number of 12 digits")
	}
	return errors.Join(faults...)
}

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' ||
		r == '_')
}

func whole(field string, d, most time.Duration) error {
	if d == 0 || d >= time.Second && d <= most && d%time.Second == 0 {
		return nil
	}
	return &ackwise.InvalidError{Field: field, Value: d.String(),
		Reason: fmt.Sprintf("it is whole seconds from 1s to %s", most)}
}

func positive(field string, n int) error {
	if n > 0 {
		return nil
	}
	return &ackwise.InvalidError{Field: field, Value: fmt.Sprint(n), Reason: "it is at least 1"}
}

// ParseSource reads sqs://REGION/QUEUE and its options. It speaks to no server.
func ParseSource(text string) (SourceOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SourceOptions{}, fmt.Errorf("read the address of a queue: %w", err)
	}
	o := SourceOptions{Queue: parseQueue(e),
		Lease: e.Duration("lease", 0, time.Second, maxLease),
		Wait:  e.Duration("wait", 0, time.Second, maxWait),
		Polls: e.Int("polls", 0, 1, 100), Envelope: e.Word("envelope", "", EnvelopeAuto, EnvelopeNone)}
	for _, d := range []time.Duration{o.Lease, o.Wait} {
		if d%time.Second != 0 && d > time.Second {
			e.Fault("%s is not whole seconds, as the service counts", d)
		}
	}
	return o, finish(e, o.Queue, formOfURL+"&lease=…&wait=…&polls=…&envelope=…")
}

// ParseSink reads sqs://REGION/QUEUE and its options. It speaks to no server.
func ParseSink(text string) (SinkOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SinkOptions{}, fmt.Errorf("read the address of a queue: %w", err)
	}
	o := SinkOptions{Queue: parseQueue(e), Calls: e.Int("calls", 0, 1, 100),
		DeadLetters: e.Bool("dead-letters")}
	return o, finish(e, o.Queue, formOfURL+"&calls=…&dead-letters=true")
}

func parseQueue(e *endpoint.Endpoint) Queue {
	q := Queue{Region: e.Host, Endpoint: e.Text("endpoint", ""), Account: e.Text("account", ""),
		Create: e.Bool("create")}
	switch len(e.Path) {
	case 1:
		q.Name = e.Path[0]
	case 0:
	default:
		e.Fault("the path %s has %d parts, and a queue has one name", strings.Join(e.Path, "/"),
			len(e.Path))
		q.Name = e.Path[0]
	}
	if e.Scheme != "sqs" {
		e.Fault("the scheme is %.20q, that of a queue is sqs", e.Scheme)
	}
	return q
}

func finish(e *endpoint.Endpoint, q Queue, form string) error {
	if err := q.validate(); err != nil {
		e.Fault("%w", err)
	}
	if err := e.Done(form); err != nil {
		return fmt.Errorf("read the address of a queue: %w", err)
	}
	return nil
}
