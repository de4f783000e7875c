package sns

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/internal/endpoint"
)

const (
	maxName   = 256
	maxCall   = 10 // messages of one call
	fifoEnd   = ".fifo"
	formOfURL = "sns://REGION/TOPIC?endpoint=…&account=…&timeout=…&create=true"
)

// SinkOptions configure a sink.
type SinkOptions struct {
	// Region is the region's name, such as eu-central-1. Required.
	Region string
	// Topic is the topic's name or ARN; that of a FIFO topic ends in .fifo. Default: "", the topic
	// of each message.
	Topic string
	// Account is the number of the account that topics belong to. With it, or with an ARN, the sink
	// needs no sns:ListTopics. Default: "", topics are looked for in the caller's own.
	Account string
	// Endpoint is the address of a server that stands in for AWS, such as http://127.0.0.1:4566.
	// Default: "", the region's own.
	Endpoint string
	// Credentials are who signs. Default: the first that the default chain finds.
	Credentials aws.CredentialsProvider
	// Create makes a topic where it is missing, with the service's defaults. Default: false, a
	// missing topic is an error.
	Create bool
	// Timeout bounds one call; what it had in hand is unknown then. Default: 30 s.
	Timeout time.Duration
}

func (o SinkOptions) withDefaults() SinkOptions {
	o.Timeout = cmp.Or(o.Timeout, 30*time.Second)
	return o
}

func (o SinkOptions) conn() awsconn.Options {
	return awsconn.Options{Region: o.Region, Endpoint: o.Endpoint, Credentials: o.Credentials}
}

func (o SinkOptions) validate() error {
	faults := []error{o.conn().Validate()}
	if o.Topic != "" {
		faults = append(faults, o.checkTopic(o.Topic))
	}
	if o.Account != "" && (len(o.Account) != 12 || strings.ContainsFunc(o.Account, notDigit)) {
		faults = append(faults, &ackwise.InvalidError{Field: "account", Value: o.Account,
			Reason: "it is a number of 12 digits"})
	}
	if o.Timeout < 0 {
		faults = append(faults, &ackwise.InvalidError{Field: "Timeout", Value: o.Timeout.String(),
			Reason: "it is negative"})
	}
	return errors.Join(faults...)
}

// checkTopic reports a name or an ARN that cannot be one.
func (o SinkOptions) checkTopic(topic string) error {
	bad := func(reason string) error {
		return &ackwise.InvalidError{Field: "topic", Value: topic, Reason: reason}
	}
	name := topic
	if strings.HasPrefix(topic, "arn:") {
		parts := strings.Split(topic, ":")
		switch {
		case len(parts) != 6 || parts[2] != "sns":
			return bad("it is no ARN such as arn:aws:sns:REGION:ACCOUNT:TOPIC")
		case parts[3] != o.Region:
			return bad(fmt.Sprintf("it is in the region %s, not in %s", parts[3], o.Region))
		}
		name = parts[5]
	}
	base := strings.TrimSuffix(name, fifoEnd)
	switch {
	case name == "":
		return bad("the name is missing")
	case len(name) > maxName:
		return bad(fmt.Sprintf("the name is %d bytes long, at most %d are allowed", len(name), maxName))
	case base == "", strings.ContainsFunc(base, notInName):
		return bad("a name holds letters, digits, '-' and '_' only, and may end in .fifo")
	}
	return nil
}

func notDigit(r rune) bool { return r < '0' || r > '9' }

func notInName(r rune) bool {
	return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' ||
		r == '_')
}

// ParseSink reads sns://REGION/TOPIC and its options; without /TOPIC each message's own topic is
// published to. It speaks to no server.
func ParseSink(text string) (SinkOptions, error) {
	e, err := endpoint.Parse(text)
	if err != nil {
		return SinkOptions{}, fmt.Errorf("read the address of a topic: %w", err)
	}
	o := SinkOptions{Region: e.Host, Endpoint: e.Text("endpoint", ""), Account: e.Text("account", ""),
		Create: e.Bool("create"), Timeout: e.Duration("timeout", 0, time.Second, time.Hour)}
	if len(e.Path) > 0 {
		o.Topic = e.Path[0]
	}
	if len(e.Path) > 1 {
		e.Fault("the path %s has %d parts, and a topic has one name", strings.Join(e.Path, "/"),
			len(e.Path))
	}
	if e.Scheme != "sns" {
		e.Fault("the scheme is %.20q, that of a topic is sns", e.Scheme)
	}
	if faults := o.withDefaults().validate(); faults != nil {
		e.Fault("%w", faults)
	}
	if err := e.Done(formOfURL); err != nil {
		return SinkOptions{}, fmt.Errorf("read the address of a topic: %w", err)
	}
	return o, nil
}
