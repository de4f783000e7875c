package awsconn

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
)

// EntryError is the failure of one entry of a batch, as an error of the service. sender says that
// the entry itself was wrong.
func EntryError(code, message *string, sender bool) error {
	fault := smithy.FaultServer
	if sender {
		fault = smithy.FaultClient
	}
	return &smithy.GenericAPIError{Code: aws.ToString(code), Message: aws.ToString(message),
		Fault: fault}
}

// ClassOf decides what became of a message whose call, or whose entry in the answer, failed for a
// reason that all services have in common; known is false where the service's own code decides.
func ClassOf(err error) (class ackwise.ResultClass, known bool) {
	switch KindOf(err) {
	case Denied, Credentials, Untrusted, Unreached:
		// Nothing was sent, or all was refused; an operator can mend it.
		return ackwise.ResultRetryable, true
	case Throttled:
		return ackwise.ResultRetryable, true // refused before it was looked at
	case ServerFault, Interrupted:
		return ackwise.ResultUnknown, true // it may have been stored before that
	case Other:
	}
	return ackwise.ResultUnknown, false
}
