package sns_test

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/sns"
)

func ExampleParseSink() {
	o, err := sns.ParseSink("sns://eu-central-1/orders.fifo?account=123456789012")
	fmt.Println(o.Region, o.Topic, o.Account, err)
	_, err = sns.ParseSink("sns://eu-central-1/orders?crate=true")
	fault, _, _ := strings.Cut(fmt.Sprint(err), "; it is")
	fmt.Println(fault)
	// Output:
	// eu-central-1 orders.fifo 123456789012 <nil>
	// read the address of a topic: there is no option "crate"; did you mean "create"?
}

// A sink opens only what is there: here nobody answers.
func ExampleOpenSink() {
	ctx := context.Background()
	o, err := sns.ParseSink("sns://eu-central-1/orders?endpoint=http://127.0.0.1:1")
	if err == nil {
		_, err = sns.OpenSink(ctx, o)
	}
	var hint *ackwise.HintError
	fmt.Println(errors.As(err, &hint), hint.Hint)
	// Output: true Nobody answers at the endpoint http://127.0.0.1:1.
}

// A queue is subscribed only when Create says so.
func ExampleSubscribe() {
	_, err := sns.Subscribe(context.Background(), sns.SinkOptions{Region: "eu-central-1"},
		sns.Subscription{Queue: "arn:aws:sqs:eu-central-1:123456789012:billing", Raw: true,
			FilterPolicy: `{"kind":["paid"]}`, Create: true})
	fmt.Println(err)
	// Output: subscribe a queue: invalid topic: the name is missing
}
