package nakadi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/internal/endpoint"
)

// Server says where Nakadi is and who asks. Host is required.
type Server struct {
	// Host is the server's name, with a port where it is not the usual one.
	Host string
	// Plain speaks HTTP instead of HTTPS; a token is then readable on the way. Default: false.
	Plain bool
	// Token returns the bearer token. It is asked for each request, since tokens expire. Default:
	// nil, none is sent.
	Token func(ctx context.Context) (string, error)
	// Timeout bounds one request. Default: 40 s. Nakadi gives its broker up to 35 s before it
	// answers; a client that waits less turns that verdict into an unknown, and so into copies.
	Timeout time.Duration
	// HTTP sends the requests. It must not have a Timeout, which would end streams. Default: a
	// client of its own, with the system's certificates.
	HTTP *http.Client
}

// Wrap says how a body becomes an event.
type Wrap string

// The forms of an event.
const (
	// WrapNone takes the body, which has to be a JSON object, as the event and adds metadata to it.
	// A metadata member that it has from Nakadi is replaced. The default.
	WrapNone Wrap = ""
	// WrapBody makes an event with the members "body", or "body64" for bytes that are no text, and
	// "key", for types that are partitioned by it. It carries any bytes.
	WrapBody Wrap = "body"
	// WrapData puts the body, which is any JSON, under "data" of an event of the category data.
	WrapData Wrap = "data"
)

// SinkOptions configure a sink. Server.Host is required.
type SinkOptions struct {
	Server
	// EventType is where all messages go. Default: "", each goes to its own Topic.
	EventType string
	// Wrap says how a body becomes an event. Default: WrapNone.
	Wrap Wrap
	// DataType is the data_type of WrapData. Default: the event type's name.
	DataType string
	// DataOp is the data_op of WrapData (C, U, D or S) for messages without a header HeaderDataOp.
	// Default: "U".
	DataOp string
	// Gzip compresses requests. Default: false.
	Gzip bool
	// MaxEventBytes bounds the text of an event, as the deployment does. Default: 999,000.
	MaxEventBytes int
	// MaxBatch bounds the events of one request. Default: 500.
	MaxBatch int
	// MaxBatchBytes bounds the text of one request, before it is compressed. Default: 8 MiB.
	MaxBatchBytes int
	// MaxRequests bounds the requests of one Publish that look for poison: each finds one message,
	// or halves a batch. What is left then was not attempted. Default: 64.
	MaxRequests int
}

// HeaderDataOp names the header that says with WrapData which data_op an event has.
const HeaderDataOp = "nakadi-data-op"

// SourceOptions configure a source. Server.Host is required, and either Subscription, or EventTypes
// and Application.
type SourceOptions struct {
	Server
	// Subscription is the subscription's ID.
	Subscription string
	// EventTypes, Application and Group name a subscription by what makes it one. Default of Group:
	// "default".
	EventTypes  []string
	Application string
	Group       string
	// Create makes the subscription where it is missing. Default: false.
	Create bool
	// ReadFrom is where a subscription begins that is made: "begin" or "end". Default: "begin".
	ReadFrom string
	// SkipTrimmed goes on with what is left where events are gone from the event type before they
	// were committed, and tells Observe. Default: false, the source ends with a *TrimmedError.
	SkipTrimmed bool
	// Notes keeps what a cursor cannot carry. All members of the subscription share it. Default: in
	// memory; after a crash causes are then unknown, and counts begin anew.
	Notes Notes
	// MaxUncommitted bounds the messages that are handed over and not committed, over all
	// partitions. One that stays unsettled stops the stream at this bound. Default: 1000.
	MaxUncommitted int
	// CommitTimeout is how long a partition may go without a commit while a message of it is
	// unsettled; then the stream is lost, and all that is uncommitted comes again. Full seconds.
	// Default: 60 s, which is also the most that a usual deployment allows.
	CommitTimeout time.Duration
	// KeepAlive is how often the server writes where there is nothing to send. It notices a dead
	// consumer about two of these later; a stream that is silent for three is given up. Full
	// seconds. Default: 5 s.
	KeepAlive time.Duration
	// Drain bounds how long handlers may go on when a stream has ended, before a new one begins.
	// Default: 10 s, at most half of CommitTimeout.
	Drain time.Duration
	// CheckEvery is how often it is looked up which partitions are still this member's. Default:
	// 5 s.
	CheckEvery time.Duration
	// Log configures the loop over the partitions: its Observe is also told of "stream" (one
	// begins), "stream-ended", "slot-busy" and "trimmed". PartitionMessages has to hold
	// MaxUncommitted.
	Log logsource.Options
}

func (o Server) withDefaults() Server {
	o.Timeout = cmp.Or(o.Timeout, 40*time.Second)
	if o.HTTP == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 16
		// A connection that died without a word is found out, not used until TCP gives it up.
		t.HTTP2 = &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second}
		o.HTTP = &http.Client{Transport: t}
	}
	return o
}

func (o SinkOptions) withDefaults() SinkOptions {
	o.Server = o.Server.withDefaults()
	o.DataOp = cmp.Or(o.DataOp, "U")
	o.MaxEventBytes = cmp.Or(o.MaxEventBytes, 999_000)
	o.MaxBatch = cmp.Or(o.MaxBatch, 500)
	o.MaxBatchBytes = cmp.Or(o.MaxBatchBytes, 8<<20)
	o.MaxRequests = cmp.Or(o.MaxRequests, 64)
	return o
}

func (o SourceOptions) withDefaults() SourceOptions {
	o.Server = o.Server.withDefaults()
	o.Group = cmp.Or(o.Group, "default")
	o.ReadFrom = cmp.Or(o.ReadFrom, "begin")
	o.MaxUncommitted = cmp.Or(o.MaxUncommitted, 1000)
	o.CommitTimeout = cmp.Or(o.CommitTimeout, time.Minute)
	o.KeepAlive = cmp.Or(o.KeepAlive, 5*time.Second)
	o.Drain = min(cmp.Or(o.Drain, 10*time.Second), o.CommitTimeout/2)
	o.CheckEvery = cmp.Or(o.CheckEvery, 5*time.Second)
	return o
}

// faults collects what is wrong.
type faults []error

func (f *faults) add(wrong bool, field, reason string) {
	if wrong {
		*f = append(*f, &ackwise.InvalidError{Field: field, Reason: reason})
	}
}

func (o *Server) check(f *faults) {
	f.add(o.Host == "", "Host", "it is empty")
	f.add(o.Timeout < 0, "Timeout", "it is negative")
}

func (o *SinkOptions) validate() error {
	var f faults
	o.check(&f)
	f.add(o.Wrap != WrapNone && o.Wrap != WrapBody && o.Wrap != WrapData, "Wrap", "no such form")
	f.add(len(o.DataOp) != 1 || !strings.Contains("CUDS", o.DataOp), "DataOp",
		"it is C, U, D or S")
	f.add(o.Wrap != WrapData && o.DataType != "", "DataType", "it goes with WrapData")
	f.add(o.EventType != "" && !typeName.MatchString(o.EventType), "EventType",
		"it is letters, digits, - and _ in segments with dots between")
	f.add(o.MaxEventBytes < 1 || o.MaxBatch < 1 || o.MaxBatchBytes < 1 || o.MaxRequests < 1,
		"MaxEventBytes, MaxBatch, MaxBatchBytes or MaxRequests", "it is less than 1")
	return errors.Join(f...)
}

func (o *SourceOptions) validate() error {
	var f faults
	o.check(&f)
	named := len(o.EventTypes) > 0 || o.Application != ""
	f.add(named == (o.Subscription != ""), "Subscription",
		"name either the subscription's ID, or its event types and its application")
	f.add(named && (len(o.EventTypes) == 0 || o.Application == ""), "EventTypes",
		"event types and application go together")
	f.add(o.Create && o.Subscription != "", "Create", "a subscription with an ID is there already")
	f.add(o.ReadFrom != "begin" && o.ReadFrom != "end", "ReadFrom", "it is begin or end")
	f.add(o.MaxUncommitted < 1, "MaxUncommitted", "it is less than 1")
	f.add(o.Log.PartitionMessages > 0 && o.Log.PartitionMessages < o.MaxUncommitted,
		"Log.PartitionMessages", "it is less than MaxUncommitted, and a partition cannot be paused")
	for name, d := range map[string]time.Duration{
		"CommitTimeout": o.CommitTimeout, "KeepAlive": o.KeepAlive} {
		f.add(d < time.Second || d%time.Second != 0, name, "it is not of full seconds")
	}
	f.add(o.Drain < 0 || o.CheckEvery < 0, "Drain or CheckEvery", "it is negative")
	return errors.Join(f...)
}

var typeName = regexp.MustCompile(`^[a-zA-Z][-0-9a-zA-Z_]*(\.[0-9a-zA-Z][-0-9a-zA-Z_]*)*$`)

const (
	sinkForm   = "nakadi://HOST[:PORT]/EVENT-TYPE?token=env:NAME"
	sourceForm = "nakadi://HOST[:PORT]?subscription=ID, or " +
		"?event_types=A,B&application=NAME&group=NAME"
)

// ParseSink reads a sink's URL, nakadi://HOST[:PORT]/EVENT-TYPE?OPTION=VALUE…
func ParseSink(text string) (SinkOptions, error) {
	e, err := parse(text)
	if err != nil {
		return SinkOptions{}, fmt.Errorf("read nakadi URL: %w; it is %s", err, sinkForm)
	}
	o := SinkOptions{Server: server(e)}
	switch len(e.Path) {
	case 0:
	case 1:
		o.EventType = e.Path[0]
	default:
		e.Fault("the path has %d parts, an event type is one", len(e.Path))
	}
	o.Wrap = Wrap(e.Word("wrap", "", string(WrapBody), string(WrapData)))
	o.DataType = e.Text("data_type", "")
	o.DataOp = e.Word("data_op", "", "C", "U", "D", "S")
	o.Gzip = e.Bool("gzip")
	o.MaxEventBytes = e.Int("max_event_bytes", 0, 1, 1<<30)
	o.MaxBatch = e.Int("max_batch", 0, 1, 100_000)
	o.MaxBatchBytes = e.Int("max_batch_bytes", 0, 1, 1<<30)
	o.MaxRequests = e.Int("max_requests", 0, 1, 100_000)
	filled := o.withDefaults()
	if err := filled.validate(); err != nil && o.Host != "" {
		e.Fault("%w", err)
	}
	if err := e.Done(sinkForm); err != nil {
		return SinkOptions{}, fmt.Errorf("read nakadi URL: %w", err)
	}
	return o, nil
}

// ParseSource reads a source's URL, nakadi://HOST[:PORT]?subscription=ID, or with event_types,
// application and group.
func ParseSource(text string) (SourceOptions, error) {
	e, err := parse(text)
	if err != nil {
		return SourceOptions{}, fmt.Errorf("read nakadi URL: %w; it is %s", err, sourceForm)
	}
	o := SourceOptions{Server: server(e)}
	if len(e.Path) > 0 {
		e.Fault("a source has no path; event types are named by event_types=A,B")
	}
	o.Subscription = e.Text("subscription", "")
	o.EventTypes = e.List("event_types")
	o.Application = e.Text("application", "")
	o.Group = e.Text("group", "")
	o.Create = e.Bool("create")
	o.ReadFrom = e.Word("read_from", "", "begin", "end")
	o.SkipTrimmed = e.Word("on_trimmed", "stop", "stop", "skip") == "skip"
	o.MaxUncommitted = e.Int("max_uncommitted", 0, 1, 8192)
	o.CommitTimeout = e.Duration("commit_timeout", 0, time.Second, time.Hour)
	o.KeepAlive = e.Duration("keep_alive", 0, time.Second, time.Hour)
	o.Drain = e.Duration("drain", 0, time.Millisecond, time.Hour)
	o.CheckEvery = e.Duration("check_every", 0, 10*time.Millisecond, time.Hour)
	if place := e.Text("notes", ""); place != "" {
		dir, ok := strings.CutPrefix(place, "file:")
		if !ok || dir == "" {
			e.Fault("notes=%.40s: it is file:DIRECTORY", place)
		}
		o.Notes = FileNotes(dir)
	}
	filled := o.withDefaults()
	if err := filled.validate(); err != nil && o.Host != "" {
		e.Fault("%w", err)
	}
	if err := e.Done(sourceForm); err != nil {
		return SourceOptions{}, fmt.Errorf("read nakadi URL: %w", err)
	}
	return o, nil
}

func parse(text string) (*endpoint.Endpoint, error) {
	e, err := endpoint.Parse(text)
	if err == nil && e.Scheme != "nakadi" {
		err = fmt.Errorf("the scheme is %.20q, not nakadi", e.Scheme)
	}
	return e, err
}

func server(e *endpoint.Endpoint) Server {
	if e.Host == "" || strings.Contains(e.Host, ",") {
		e.Fault("there is one host, with a port or without")
	}
	return Server{Host: e.Host, Plain: e.Word("tls", "true", "true", "false") == "false",
		Token:   e.Secret("token"),
		Timeout: e.Duration("timeout", 0, time.Millisecond, time.Hour)}
}
