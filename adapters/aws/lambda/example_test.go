package lambda_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/lambda"
)

// A function for a queue: what failed is named in the answer, and comes again. In a main function:
// awslambda.Start(f), of github.com/aws/aws-lambda-go/lambda.
func ExampleNew() {
	ctx := context.Background()
	f, err := lambda.New(ctx, lambda.Options{
		Handler: ackwise.HandlerFunc(func(_ context.Context, d *ackwise.Delivery) error {
			if string(d.Body) == "bad" {
				return ackwise.Reject(errors.New("bad"))
			}
			return nil
		}),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	answer, err := f.Invoke(ctx, []byte(`{"Records":[
		{"messageId":"1","body":"good","eventSource":"aws:sqs"},
		{"messageId":"2","body":"bad","eventSource":"aws:sqs"}]}`))
	fmt.Println(string(answer), err)
	// Output: {"batchItemFailures":[{"itemIdentifier":"2"}]} <nil>
}
