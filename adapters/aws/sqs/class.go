package sqs

import (
	"errors"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/aws/internal/awsconn"
)

// entryError is the failure of one entry of a batch, as an error of the service.
func entryError(f *types.BatchResultErrorEntry) error {
	return awsconn.EntryError(f.Code, f.Message, f.SenderFault)
}

// codeOf is the service's code and words of an error.
func codeOf(err error) (code, text string) {
	var api smithy.APIError
	if !errors.As(err, &api) {
		return "", ""
	}
	return awsconn.Code(api), api.ErrorMessage()
}

// classOf decides what became of a message whose call, or whose entry in the answer, failed.
func classOf(err error) ackwise.ResultClass {
	if class, known := awsconn.ClassOf(err); known {
		return class
	}
	switch code, text := codeOf(err); code {
	case "InvalidMessageContents", "InvalidParameterValue", "MissingParameter",
		"InvalidAttributeValue",
		"InvalidAttributeName", "InvalidParameterCombination", "MessageTooLong":
		if strings.Contains(strings.ToLower(text), "queueurl") {
			return ackwise.ResultRetryable // it is not the message's fault
		}
		return ackwise.ResultRejected // the message itself: it never will be taken
	case "BatchRequestTooLong", "TooManyEntriesInBatchRequest", "BatchEntryIdsNotDistinct",
		"InvalidBatchEntryId", "EmptyBatchRequest", "QueueDoesNotExist", "NonExistentQueue",
		"QueueDeletedRecently", "InvalidAddress", "UnsupportedOperation", "OverLimit", "KmsDisabled",
		"KmsInvalidState", "KmsNotFound", "KmsOptInRequired", "KmsInvalidKeyUsage":
		return ackwise.ResultRetryable // refused as a whole, for a reason outside of the message
	}
	return ackwise.ResultUnknown // not known to be refused
}

// aloneHelps tells a call that was refused as a whole because of one of its entries, or of all
// together: sent one by one they show whose fault it is.
func aloneHelps(err error) bool {
	switch code, _ := codeOf(err); code {
	case "BatchRequestTooLong", "InvalidMessageContents", "InvalidParameterValue", "MessageTooLong",
		"InvalidParameterCombination", "MissingParameter", "InvalidAttributeValue":
		return true
	}
	return false
}

// fate is what a failed settlement means.
type fate uint8

const (
	again fate = iota // it may have been carried out; carrying it out again is safe
	lost              // the hand-out is over
	wrong             // it will never be carried out
)

// fateOf decides what the failure of a settlement means.
func fateOf(err error) fate {
	code, text := codeOf(err)
	switch code {
	case "ReceiptHandleIsInvalid", "MessageNotInflight":
		return lost
	case "InvalidParameterValue":
		if strings.Contains(text, "VisibilityTimeout") {
			return wrong // more than 12 hours in all
		}
		if low := strings.ToLower(text); strings.Contains(low, "receipt") ||
			strings.Contains(low, "expired") || strings.Contains(low, "not available") {
			return lost
		}
		return wrong
	}
	switch awsconn.KindOf(err) {
	case awsconn.Throttled, awsconn.ServerFault, awsconn.Interrupted, awsconn.Unreached:
		return again
	case awsconn.Other, awsconn.Denied, awsconn.Credentials, awsconn.Untrusted:
	}
	return wrong
}

// errNoResult is what an entry gets that the answer does not name.
var errNoResult = errors.New("the answer does not name it")
