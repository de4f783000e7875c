package sqs_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/ackwise/ackwise/adapters/aws/sqs"
)

// lines breaks an error's text into lines.
func lines(err error) string {
	return strings.NewReplacer(": ", ":\n", "; ", ";\n", "&account", "\n&account").Replace(err.Error())
}

// A queue is named by a URL; nothing is asked of a server before OpenSource.
func ExampleOpenSource() {
	o, err := sqs.ParseSource("sqs://eu-central-1/orders.fifo?lease=60s&wait=5s")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(o.Region, o.Name, o.Lease)
	o.Region = "eu-central1" // a typing error
	_, err = sqs.OpenSource(context.Background(), o)
	fmt.Println(lines(err))
	// Output:
	// eu-central-1 orders.fifo 1m0s
	// open source:
	// invalid region "eu-central1":
	// it is not a region such as eu-central-1;
	// did you mean "eu-central-1"?
}

func ExampleParseSource() {
	_, err := sqs.ParseSource("sqs://eu-central-1/orders?leese=30s")
	fmt.Println(lines(err))
	// Output:
	// read the address of a queue:
	// there is no option "leese";
	// did you mean "lease"?;
	// it is sqs://REGION/QUEUE?endpoint=…
	// &account=…&create=true&lease=…&wait=…&polls=…&envelope=…
}

func ExampleParseSink() {
	o, err := sqs.ParseSink("sqs://eu-central-1/orders?endpoint=http://127.0.0.1:9324&create=true")
	fmt.Println(o.Name, o.Endpoint, o.Create, err)
	// Output: orders http://127.0.0.1:9324 true <nil>
}

func ExampleOpenSink() {
	_, err := sqs.OpenSink(context.Background(), sqs.SinkOptions{Queue: sqs.Queue{
		Region: "eu-central-1", Name: "orders.new"}})
	fmt.Println(lines(err))
	// Output:
	// open sink:
	// invalid queue "orders.new":
	// a name holds letters, digits, '-' and '_' only, and may end in .fifo
}

// Letters are copied between queues of one kind, so that a group stays in order.
func ExampleKeepForward() {
	_, err := sqs.KeepForward(context.Background(), sqs.ForwardOptions{
		From: sqs.Queue{Region: "eu-central-1", Name: "dead.fifo"},
		To:   sqs.Queue{Region: "eu-central-1", Name: "kept"}})
	fmt.Println(lines(err))
	// Output:
	// keep letters:
	// invalid To "kept":
	// one of the two queues is a FIFO queue and the other is not
}

func ExampleStartMove() {
	_, err := sqs.StartMove(context.Background(), sqs.Queue{Region: "eu-central-1"}, "", 0)
	fmt.Println(err)
	// Output: move letters: invalid queue: the name is missing
}

func ExampleListMoves() {
	_, err := sqs.ListMoves(context.Background(), sqs.Queue{Region: "eu-central-1"})
	fmt.Println(err)
	// Output: move letters: invalid queue: the name is missing
}

func ExampleCancelMove() {
	_, err := sqs.CancelMove(context.Background(), sqs.Queue{Region: "eu-central-1"}, "task")
	fmt.Println(err)
	// Output: move letters: invalid queue: the name is missing
}
