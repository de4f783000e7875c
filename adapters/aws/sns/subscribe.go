package sns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sns"

	"github.com/ackwise/ackwise"
)

// Subscription is what a queue gets of a topic.
type Subscription struct {
	// Queue is the queue's ARN. Its policy has to allow the topic sqs:SendMessage. Required.
	Queue string
	// Raw delivers messages as they are, else in SNS's envelope, which the source of SQS takes off.
	// Default: false.
	Raw bool
	// FilterPolicy lets only some messages through: JSON, passed on as it is. Default: "", all.
	FilterPolicy string
	// FilterScope is what the policy looks at: MessageAttributes, which user headers are, or
	// MessageBody. Default: MessageAttributes.
	FilterScope string
	// DeadLetters is the ARN of a queue for what SNS cannot deliver to Queue. What its consumer
	// fails at is not that: it goes to the queue's own dead letters. Default: "", it is lost.
	DeadLetters string
	// Create makes the subscription where it is missing. One that is there is never changed.
	// Default: false, it has to be there as it is described here.
	Create bool
}

func (s Subscription) attributes() map[string]string {
	set := map[string]string{}
	if s.Raw {
		set["RawMessageDelivery"] = "true"
	}
	if s.FilterPolicy != "" {
		set["FilterPolicy"] = s.FilterPolicy
		if s.FilterScope != "" {
			set["FilterPolicyScope"] = s.FilterScope
		}
	}
	if s.DeadLetters != "" {
		set["RedrivePolicy"] = fmt.Sprintf(`{"deadLetterTargetArn":%q}`, s.DeadLetters)
	}
	return set
}

func (s Subscription) validate() error {
	var faults []error
	bad := func(field, value, reason string) {
		faults = append(faults, &ackwise.InvalidError{Field: field, Value: value, Reason: reason})
	}
	for _, q := range []struct{ field, arn string }{{"Queue", s.Queue}, {"DeadLetters", s.DeadLetters}} {
		if !strings.HasPrefix(q.arn, "arn:") && (q.field == "Queue" || q.arn != "") {
			bad(q.field, q.arn, "it is no ARN such as arn:aws:sqs:REGION:ACCOUNT:QUEUE")
		}
	}
	if s.FilterPolicy != "" && !json.Valid([]byte(s.FilterPolicy)) {
		bad("FilterPolicy", s.FilterPolicy, "it is no JSON")
	}
	switch s.FilterScope {
	case "", "MessageAttributes", "MessageBody":
	default:
		bad("FilterScope", s.FilterScope, "it is MessageAttributes or MessageBody")
	}
	if s.FilterScope != "" && s.FilterPolicy == "" {
		bad("FilterScope", s.FilterScope, "there is no FilterPolicy that it could be of")
	}
	return errors.Join(faults...)
}

// Subscribe checks that a queue is subscribed to the topic of the options as it is described, or
// subscribes it, and returns the subscription's ARN.
func Subscribe(ctx context.Context, o SinkOptions, s Subscription) (string, error) {
	o = o.withDefaults()
	faults := []error{o.validate(), s.validate()}
	if o.Topic == "" {
		faults = append(faults, &ackwise.InvalidError{Field: "topic", Reason: "the name is missing"})
	}
	if err := errors.Join(faults...); err != nil {
		return "", fmt.Errorf("subscribe a queue: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, o.Timeout,
		fmt.Errorf("not done within %s", o.Timeout))
	defer cancel()
	a, err := connect(ctx, o)
	if err != nil {
		return "", fmt.Errorf("subscribe a queue: %w", err)
	}
	t, err := a.find(ctx, o.Topic)
	if err != nil {
		return "", fmt.Errorf("subscribe a queue: %w", err)
	}
	arn, err := a.subscription(ctx, t, s.Queue)
	switch {
	case err != nil:
	case arn != "":
		err = a.compare(ctx, arn, s)
	case s.Create:
		arn, err = a.subscribe(ctx, t, s)
	default:
		err = &ackwise.HintError{Err: fmt.Errorf("%w to the topic %s",
			&ackwise.NotFoundError{Kind: "subscription of the queue", Name: s.Queue}, t.arn),
			Hint: "Subscribe it, or set Create."}
	}
	if err != nil {
		return "", fmt.Errorf("subscribe a queue: %w", err)
	}
	return arn, nil
}

func (a *account) subscribe(ctx context.Context, t *topic, s Subscription) (string, error) {
	out, err := repeated(ctx, a.api.Subscribe, &sns.SubscribeInput{TopicArn: &t.arn,
		Protocol: aws.String("sqs"), Endpoint: &s.Queue,
		Attributes: s.attributes(), ReturnSubscriptionArn: true})
	if err != nil {
		return "", a.explain("Subscribe", t.arn, err)
	}
	return aws.ToString(out.SubscriptionArn), nil
}

// subscription returns the ARN of a queue's subscription, "" = there is none.
func (a *account) subscription(ctx context.Context, t *topic, queue string) (string, error) {
	in := &sns.ListSubscriptionsByTopicInput{TopicArn: &t.arn}
	for range maxPages {
		out, err := repeated(ctx, a.api.ListSubscriptionsByTopic, in)
		if err != nil {
			return "", a.explain("ListSubscriptionsByTopic", t.arn, err)
		}
		for _, s := range out.Subscriptions {
			if aws.ToString(s.Protocol) == "sqs" && aws.ToString(s.Endpoint) == queue {
				return aws.ToString(s.SubscriptionArn), nil
			}
		}
		if aws.ToString(out.NextToken) == "" {
			break
		}
		in.NextToken = out.NextToken
	}
	return "", nil
}

// compare refuses a subscription that is there and is another one than was described.
func (a *account) compare(ctx context.Context, arn string, s Subscription) error {
	out, err := repeated(ctx, a.api.GetSubscriptionAttributes,
		&sns.GetSubscriptionAttributesInput{SubscriptionArn: &arn})
	if err != nil {
		return a.explain("GetSubscriptionAttributes", arn, err)
	}
	want := s.attributes()
	var faults []error
	for _, name := range []string{"RawMessageDelivery", "FilterPolicy", "FilterPolicyScope",
		"RedrivePolicy"} {
		has, unset := out.Attributes[name], ""
		switch name {
		case "RawMessageDelivery":
			unset = "false"
		case "FilterPolicyScope":
			unset = "MessageAttributes"
		}
		if !same(orUnset(has, unset), orUnset(want[name], unset)) {
			faults = append(faults, fmt.Errorf("its %s is %q, not %q", name, has, want[name]))
		}
	}
	if len(faults) == 0 {
		return nil
	}
	return &ackwise.HintError{Err: fmt.Errorf("the subscription %s is another one: %w", arn,
		errors.Join(faults...)), Hint: "Change it in AWS, or describe it as it is."}
}

func orUnset(value, unset string) string {
	if value == "" {
		return unset
	}
	return value
}

// same compares texts, or what they say where they are JSON.
func same(a, b string) bool {
	var x, y any
	if a == b {
		return true
	}
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil &&
		reflect.DeepEqual(x, y)
}
