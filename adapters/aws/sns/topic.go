package sns

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
	"github.com/ackwise/ackwise/internal/nearest"
)

// topic is a topic that is there, with what has to be known of it.
type topic struct {
	arn      string
	fifo     bool
	maxBytes int // of a message, and of a batch
}

// account is the topics of one account and region.
type account struct {
	o   SinkOptions
	api *sns.Client
}

func connect(ctx context.Context, o SinkOptions) (*account, error) {
	config, err := awsconn.Load(ctx, o.conn())
	if err != nil {
		return nil, err
	}
	return &account{o: o, api: sns.NewFromConfig(config, func(o *sns.Options) {
		o.Retryer = aws.NopRetryer{} // what is repeated, and what it may have done, is decided here
	})}, nil
}

// maxPages bounds the search for a topic by its name: 100 topics are on one page.
const maxPages = 1000

// find finds a topic by its name or ARN, or makes it where it may.
func (a *account) find(ctx context.Context, name string) (*topic, error) {
	if err := a.o.checkTopic(name); err != nil {
		return nil, err
	}
	arn, near := a.arn(name), ""
	if arn == "" && a.o.Create { // it answers the ARN of one that is there
		return a.create(ctx, name)
	}
	if arn == "" {
		var err error
		if arn, near, err = a.search(ctx, name); err != nil {
			return nil, err
		}
	}
	if arn == "" {
		return nil, a.missing(name, near)
	}
	t, err := a.look(ctx, arn)
	switch {
	case missing(err) && a.o.Create && !strings.HasPrefix(name, "arn:"):
		return a.create(ctx, name)
	case missing(err):
		return nil, a.missing(name, "")
	case err != nil:
		return nil, a.explain("GetTopicAttributes", name, err)
	}
	return t, nil
}

// arn is the topic's ARN where it can be known without asking, else "".
func (a *account) arn(name string) string {
	if strings.HasPrefix(name, "arn:") {
		return name
	}
	if a.o.Account == "" {
		return ""
	}
	partition := "aws"
	switch {
	case strings.HasPrefix(a.o.Region, "cn-"):
		partition = "aws-cn"
	case strings.HasPrefix(a.o.Region, "us-gov-"):
		partition = "aws-us-gov"
	}
	return "arn:" + partition + ":sns:" + a.o.Region + ":" + a.o.Account + ":" + name
}

// search looks through the topics for one, or for a name that is near.
func (a *account) search(ctx context.Context, name string) (arn, near string, err error) {
	var names []string
	in := &sns.ListTopicsInput{}
	for range maxPages {
		out, err := repeated(ctx, a.api.ListTopics, in)
		switch {
		case err != nil && awsconn.KindOf(err) == awsconn.Denied:
			return "", "", &ackwise.HintError{Err: a.explain("ListTopics", name, err), Hint: "Or name the " +
				"topic's ARN, or its account by account=…: then no list is needed."}
		case err != nil:
			return "", "", a.explain("ListTopics", name, err)
		}
		for _, t := range out.Topics {
			arn := aws.ToString(t.TopicArn)
			last := arn[strings.LastIndexByte(arn, ':')+1:]
			if last == name {
				return arn, "", nil
			}
			names = append(names, last)
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in.NextToken = out.NextToken
	}
	return "", nearest.Of(name, names), nil
}

func (a *account) create(ctx context.Context, name string) (*topic, error) {
	in := &sns.CreateTopicInput{Name: &name}
	if strings.HasSuffix(name, fifoEnd) {
		in.Attributes = map[string]string{"FifoTopic": "true"}
	}
	out, err := repeated(ctx, a.api.CreateTopic, in)
	if err != nil {
		return nil, a.explain("CreateTopic", name, err)
	}
	t, err := a.look(ctx, aws.ToString(out.TopicArn))
	return t, a.explain("GetTopicAttributes", name, err)
}

// look reads what the topic says of itself.
func (a *account) look(ctx context.Context, arn string) (*topic, error) {
	out, err := repeated(ctx, a.api.GetTopicAttributes, &sns.GetTopicAttributesInput{TopicArn: &arn})
	if err != nil {
		return nil, err
	}
	t := &topic{arn: arn, fifo: strings.HasSuffix(arn, fifoEnd), maxBytes: attr.SNSBytes}
	if n, err := strconv.Atoi(out.Attributes["MaximumMessageSize"]); err == nil && n > 0 {
		t.maxBytes = n
	}
	return t, nil
}

// missing says that the topic is not there, and which name may have been meant.
func (a *account) missing(name, near string) error {
	place := "region " + a.o.Region
	if a.o.Endpoint != "" {
		place += " at " + a.o.Endpoint
	}
	if a.o.Account != "" {
		place += ", account " + a.o.Account
	}
	return &ackwise.HintError{
		Err: fmt.Errorf("%w (%s)", &ackwise.NotFoundError{Kind: "topic", Name: name, Nearest: near},
			place),
		Hint: "Is the region the topic's own? To have it made, set create=true."}
}

// explain says of a call's error what it was about.
func (a *account) explain(action, name string, err error) error {
	return awsconn.Explain(err, awsconn.Asked{Action: "sns:" + action, Resource: "the topic " + name,
		Region: a.o.Region, Endpoint: a.o.Endpoint})
}
