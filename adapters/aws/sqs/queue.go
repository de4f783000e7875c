package sqs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/internal/nearest"
)

// queue is a queue that is there, with what has to be known of it.
type queue struct {
	Queue
	api       *sqs.Client // repeats nothing by itself
	asks      *sqs.Client // for calls that may be repeated unseen
	url       string
	arn       string
	lease     time.Duration // its visibility timeout
	retention time.Duration // 0 = it does not say
	maxBytes  int           // of a message
	// maxReceives is how often SQS hands a message out before it moves it to a queue of dead letters;
	// 0 = it moves none.
	maxReceives int
}

// callPatience is how long one call may take, apart from polls.
const callPatience = 20 * time.Second

// A queue keeps messages for defaultRetention unless it is told otherwise, and for maxRetention at
// most.
const (
	defaultRetention = 4 * 24 * time.Hour
	maxRetention     = 14 * 24 * time.Hour
)

// settings are what a queue that is made gets beside the service's defaults. 0 = the default.
type settings struct{ lease, retention time.Duration }

// openQueue finds the queue, or makes it where it may.
func openQueue(ctx context.Context, o Queue, made settings) (*queue, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, callPatience,
		fmt.Errorf("no answer within %s", callPatience))
	defer cancel()
	config, err := awsconn.Load(ctx, o.conn())
	if err != nil {
		return nil, err
	}
	q := &queue{Queue: o, asks: sqs.NewFromConfig(config),
		api: sqs.NewFromConfig(config, func(o *sqs.Options) {
			o.Retryer = aws.NopRetryer{} // what is repeated, and what it may have done, is decided here
		})}
	err = q.find(ctx)
	var gone *types.QueueDoesNotExist
	switch {
	case errors.As(err, &gone) && o.Create:
		err = q.create(ctx, made)
	case errors.As(err, &gone):
		err = q.missing(ctx)
	}
	if err != nil {
		return nil, err
	}
	return q, q.look(ctx)
}

func (q *queue) find(ctx context.Context) error {
	in := &sqs.GetQueueUrlInput{QueueName: &q.Name}
	if q.Account != "" {
		in.QueueOwnerAWSAccountId = &q.Account
	}
	out, err := q.asks.GetQueueUrl(ctx, in)
	if err == nil && out.QueueUrl == nil {
		err = awsconn.ErrEmpty
	}
	if err != nil {
		return q.explain("GetQueueUrl", err)
	}
	q.url = aws.ToString(out.QueueUrl)
	return nil
}

func (q *queue) create(ctx context.Context, made settings) error {
	in := &sqs.CreateQueueInput{QueueName: &q.Name, Attributes: map[string]string{}}
	if q.fifo() {
		in.Attributes["FifoQueue"] = "true"
	}
	for name, d := range map[types.QueueAttributeName]time.Duration{
		types.QueueAttributeNameVisibilityTimeout:      made.lease,
		types.QueueAttributeNameMessageRetentionPeriod: made.retention} {
		if d > 0 {
			in.Attributes[string(name)] = strconv.Itoa(int(seconds(d)))
		}
	}
	out, err := q.asks.CreateQueue(ctx, in)
	var exists *types.QueueNameExists
	switch {
	case errors.As(err, &exists): // another one was faster, with other settings
		return q.find(ctx)
	case err != nil:
		return q.explain("CreateQueue", err)
	}
	q.url = aws.ToString(out.QueueUrl)
	return nil
}

// missing says that the queue is not there, and which name may have been meant.
func (q *queue) missing(ctx context.Context) error {
	e := &ackwise.NotFoundError{Kind: "queue", Name: q.Name}
	// Who may not list the queues gets no such help.
	out, err := q.asks.ListQueues(ctx, &sqs.ListQueuesInput{MaxResults: aws.Int32(1000)})
	if err == nil {
		names := make([]string, len(out.QueueUrls))
		for i, u := range out.QueueUrls {
			names[i] = u[strings.LastIndexByte(u, '/')+1:]
		}
		e.Nearest = nearest.Of(q.Name, names)
	}
	place := "region " + q.Region
	if q.Endpoint != "" {
		place += " at " + q.Endpoint
	}
	if q.Account != "" {
		place += ", account " + q.Account
	}
	return &ackwise.HintError{Err: fmt.Errorf("%w (%s)", e, place),
		Hint: "Is the region the queue's " +
			"own? To have it made, set create=true."}
}

// look reads what the queue says of itself.
func (q *queue) look(ctx context.Context) error {
	all, err := q.attributes(ctx, types.QueueAttributeNameAll)
	if err != nil {
		return err
	}
	n := func(name types.QueueAttributeName, unset int) int {
		if v, err := strconv.Atoi(all[string(name)]); err == nil {
			return v
		}
		return unset
	}
	q.arn = all[string(types.QueueAttributeNameQueueArn)]
	q.lease = time.Duration(n(types.QueueAttributeNameVisibilityTimeout, 30)) * time.Second
	q.retention = time.Duration(n(types.QueueAttributeNameMessageRetentionPeriod, 0)) * time.Second
	q.maxBytes = min(n(types.QueueAttributeNameMaximumMessageSize, attr.SQSBytes), attr.SQSBytes)
	q.maxReceives, err = maxReceives(all[string(types.QueueAttributeNameRedrivePolicy)])
	return err
}

// keeps is how long the queue keeps a message.
func (q *queue) keeps() time.Duration { return cmp.Or(q.retention, defaultRetention) }

// maxReceives reads a redrive policy. Its count is a number, or a string that holds one.
func maxReceives(policy string) (int, error) {
	if policy == "" {
		return 0, nil
	}
	var p struct {
		Count any `json:"maxReceiveCount"`
	}
	err := json.Unmarshal([]byte(policy), &p)
	n, bad := strconv.Atoi(fmt.Sprint(p.Count))
	if errors.Join(err, bad) != nil || n < 1 {
		return 0, &ackwise.InvalidError{Field: "RedrivePolicy of the queue", Value: policy,
			Reason: "it holds no maxReceiveCount"}
	}
	return n, nil
}

func (q *queue) attributes(ctx context.Context, names ...types.QueueAttributeName) (
	map[string]string, error) {
	out, err := q.asks.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &q.url,
		AttributeNames: names})
	if err != nil {
		return nil, q.explain("GetQueueAttributes", err)
	}
	return out.Attributes, nil
}

// explain says of a call's error what it was about.
func (q *queue) explain(action string, err error) error {
	if err == nil {
		return nil
	}
	name := q.Name
	if name == "" {
		name = q.url
	}
	err = awsconn.Explain(err, awsconn.Asked{Action: "sqs:" + action, Resource: "the queue " + name,
		Region: q.Region, Endpoint: q.Endpoint})
	var (
		gone *types.QueueDoesNotExist
		over *types.OverLimit
	)
	switch {
	case errors.As(err, &gone) && action != "GetQueueUrl":
		return &ackwise.HintError{Err: fmt.Errorf("the queue %s is gone: %w", name, err), Hint: "It " +
			"was deleted, with what was in it. Make it again, or stop this pipeline."}
	case errors.As(err, &over) && action == "ReceiveMessage":
		return &ackwise.HintError{Err: fmt.Errorf("%w: %w", ackwise.ErrFull, err), Hint: "SQS hands " +
			"out no more before some of what is in flight is settled: run more handlers, or look for a " +
			"consumer that settles nothing."}
	}
	return err
}

// seconds is a duration as the service counts, rounded up.
func seconds(d time.Duration) int32 {
	return int32((max(d, 0) + time.Second - 1) / time.Second)
}
