package sns

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sns/types"
	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

// entryError is the failure of one entry of a batch, as an error of the service.
func entryError(f *types.BatchResultErrorEntry) error {
	return awsconn.EntryError(f.Code, f.Message, f.SenderFault)
}

// codeOf is the service's code of an error; documents and servers write it with and without the
// ending.
func codeOf(err error) (code, text string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return "", ""
	}
	return strings.TrimSuffix(api.ErrorCode(), "Exception"), api.ErrorMessage()
}

// classOf decides what became of a message whose call, or whose entry in the answer, failed.
func classOf(err error) ackwise.ResultClass {
	if class, known := awsconn.ClassOf(err); known {
		return class
	}
	switch code, text := codeOf(err); code {
	case "InvalidParameter", "InvalidParameterValue", "ParameterValueInvalid", "MissingParameter",
		"InvalidMessageContents", "ValidationError":
		if strings.Contains(strings.ToLower(text), "topicarn") {
			return ackwise.ResultRetryable // it is not the message's fault
		}
		return ackwise.ResultRejected // the message itself: it never will be taken
	case "BatchRequestTooLong", "TooManyEntriesInBatchRequest", "BatchEntryIdsNotDistinct",
		"InvalidBatchEntryId", "EmptyBatchRequest", "NotFound", "ResourceNotFound", "TopicNotFound",
		"EndpointDisabled", "InvalidState", "KMSDisabled", "KMSInvalidState", "KMSNotFound",
		"KMSOptInRequired", "KMSInvalidKeyUsage":
		return ackwise.ResultRetryable // refused as a whole, for a reason outside of the message
	}
	return ackwise.ResultUnknown // not known to be refused
}

// aloneHelps tells a call that was refused as a whole because of one of its entries, or of all
// together: sent one by one they show whose fault it is.
func aloneHelps(err error) bool {
	code, _ := codeOf(err)
	return classOf(err) == ackwise.ResultRejected || code == "BatchRequestTooLong"
}

// missing reports a topic that is not there.
func missing(err error) bool {
	var gone *types.NotFoundException
	code, _ := codeOf(err)
	return errors.As(err, &gone) || code == "NotFound" || code == "TopicNotFound"
}

// errNoResult is what an entry gets that the answer does not name.
var errNoResult = errors.New("the answer does not name it")
