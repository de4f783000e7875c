package awsconn_test

import (
	"context"
	"fmt"

	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

func ExampleExplain() {
	denied := &smithy.GenericAPIError{Code: "AccessDenied", Message: "not authorized"}
	fmt.Println(awsconn.Explain(denied, awsconn.Asked{Action: "sqs:SendMessage",
		Resource: "the queue orders", Region: "eu-central-1"}))
	// Output:
	// call sqs:SendMessage for the queue orders in eu-central-1: api error AccessDenied: not authorized
	//   hint: The caller needs the permission sqs:SendMessage on the queue orders.
}

func ExampleLoad() {
	_, err := awsconn.Load(context.Background(), awsconn.Options{Region: "eu-central1"})
	fmt.Println(err)
	// Output: invalid region "eu-central1": it is not a region such as eu-central-1; did you mean "eu-central-1"?
}
