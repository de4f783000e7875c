package reach

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// Passes reports whether an error of opening is the network's or the server's own, and so may pass
// when it is tried again. A permission, a token or a credential that is missing, a wrong name or a
// certificate that is not trusted does not.
func Passes(err error) bool {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return !dns.IsNotFound // a name that is not there is written wrong
	}
	if asked, ok := errors.AsType[interface {
		error
		Service() string
	}](err); ok && asked.Service() == "ec2imds" {
		return false // the last place where credentials of AWS are looked for, and none are there
	}
	if busy(err) {
		return true
	}
	if coded, ok := errors.AsType[interface {
		error
		ErrorCode() string
	}](err); ok && Throttled(coded.ErrorCode()) {
		return true // some services answer it as a wrong request
	}
	if answer, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](err); ok && answer.HTTPStatusCode() != 0 { // 0: no answer came
		status := answer.HTTPStatusCode()
		return status >= 500 || status == http.StatusTooManyRequests ||
			status == http.StatusRequestTimeout
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Op != "remote error" // the other side refuses our TLS
	}
	if late, ok := errors.AsType[net.Error](err); ok && late.Timeout() {
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF)
}

// busy reports whether a database answers that it is not there yet, or not for so many: Postgres in
// the classes 08, 53 and 57P of SQLSTATE (appendix A of its manual), Redis by the first word of its
// answer.
func busy(err error) bool {
	if state, ok := errors.AsType[interface {
		error
		SQLState() string
	}](err); ok {
		class := state.SQLState()
		return strings.HasPrefix(class, "08") || strings.HasPrefix(class, "53") ||
			strings.HasPrefix(class, "57P")
	}
	if answer, ok := errors.AsType[interface {
		error
		RedisError()
	}](err); ok {
		word, _, _ := strings.Cut(answer.Error(), " ")
		return word == "LOADING" || word == "TRYAGAIN" || word == "CLUSTERDOWN" || word == "MASTERDOWN"
	}
	return false
}

// Cut reports whether the other side has ended the connection. A system that goes away does that,
// and one that wants a login or TLS.
func Cut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET)
}

// Throttled reports whether a service of AWS says by an error's code that there are too many
// requests, of this caller or of all. What some services put before a code, such as
// "AWS.SimpleQueueService.", may be there.
func Throttled(code string) bool {
	switch code[strings.LastIndexByte(code, '.')+1:] {
	case "Throttling", "ThrottlingException", "ThrottledException", "RequestThrottled",
		"RequestThrottledException", "RequestLimitExceeded", "TooManyRequestsException",
		"ProvisionedThroughputExceededException", "LimitExceededException", "KmsThrottled",
		"KMSThrottlingException", "Throttled", "SlowDown":
		return true
	}
	return false
}
