// Command ackwise-lambda is a relay for AWS Lambda: what an SQS queue, a DynamoDB stream or an SNS
// topic brings goes to SQS, SNS, Nakadi or HTTPS, in the same loop as `ackwise run`, and is
// answered as each of these sources understands. It is configured by environment variables alone.
//
//	CGO_ENABLED=0 go build -tags lambda.norpc -trimpath -ldflags "-s -w" -o bootstrap \
//		./cmd/ackwise-lambda
//	./bootstrap --help      the variables
//	./bootstrap --check     reads them and says all that is wrong: 0 nothing, 3 something
//
// It promises what package adapters/aws/lambda promises. It has no other systems in it, so that it
// stays below 15 MB and starts fast. See docs/systems/lambda.md.
package main
