package awsconn_test

import (
	"context"
	"fmt"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

func ExampleExplain() {
	denied := &smithy.GenericAPIError{Code: "AccessDenied", Message: "not authorized"}
	fmt.Println(awsconn.Explain(denied, awsconn.Asked{Action: "sqs:SendMessage",
		Resource: "the queue q", Region: "eu-central-1"}))
	// Output:
	// call sqs:SendMessage for the queue q in eu-central-1: api error AccessDenied: not authorized
	//   hint: The caller needs the permission sqs:SendMessage on the queue q.
}

func ExampleLoad() {
	_, err := awsconn.Load(context.Background(), awsconn.Options{Region: "eu-central1"})
	fmt.Println(strings.ReplaceAll(err.Error(), "; ", ";\n"))
	// Output:
	// invalid region "eu-central1": it is not a region such as eu-central-1;
	// did you mean "eu-central-1"?
}
