package awsconn

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/aws/smithy-go"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
	"github.com/ackwise/ackwise/internal/reach"
)

func dialer(d *net.Dialer) { d.Timeout = dialPatience }

// Kind sorts the errors that all services have in common.
type Kind uint8

// The kinds of errors.
const (
	Other       Kind = iota // the service's own
	Denied                  // the caller may not do this
	Credentials             // the service does not know who asks, or no longer
	Throttled               // too many requests, of this caller or of all
	ServerFault             // an answer of 5xx: it may have been carried out
	Unreached               // no connection was made: nothing was sent
	Untrusted               // the server's certificate is not trusted: nothing was sent
	Interrupted             // the answer did not come: it may have been carried out
)

// KindOf sorts an error of a call.
func KindOf(err error) Kind {
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return kindOfAnswer(err, api)
	}
	var (
		dns     *net.DNSError
		op      *net.OpError
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		cert    *tls.CertificateVerificationError
	)
	switch {
	case errors.As(err, &unknown), errors.As(err, &host), errors.As(err, &cert):
		return Untrusted
	case errors.As(err, &dns), errors.As(err, &op) && op.Op == "dial":
		return Unreached
	case strings.Contains(err.Error(), "get credentials"),
		strings.Contains(err.Error(), "refresh cached credentials"):
		return Credentials
	}
	return Interrupted
}

func kindOfAnswer(err error, api smithy.APIError) Kind {
	switch Code(api) {
	case "AccessDenied", "AccessDeniedException", "AuthorizationError", "AuthorizationErrorException",
		"KmsAccessDenied", "KMSAccessDenied", "KMSAccessDeniedException", "NotAuthorized",
		"UnauthorizedOperation":
		return Denied
	case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId",
		"SignatureDoesNotMatch", "InvalidSignatureException", "IncompleteSignature", "ExpiredToken",
		"ExpiredTokenException", "RequestExpired", "MissingAuthenticationToken",
		"MissingAuthenticationTokenException", "AuthFailure", "InvalidSecurity", "OptInRequired":
		return Credentials
	}
	if reach.Throttled(api.ErrorCode()) {
		return Throttled
	}
	if statusOf(err) >= 500 {
		return ServerFault
	}
	if api.ErrorFault() == smithy.FaultServer {
		return ServerFault
	}
	return Other
}

// Code is the code of a service's error without what some put before it, such as
// "AWS.SimpleQueueService." or "KMS.".
func Code(api smithy.APIError) string {
	code := api.ErrorCode()
	return code[strings.LastIndexByte(code, '.')+1:]
}

// Asked says what was asked for, for the hint of an error.
type Asked struct {
	Action   string // the permission, such as sqs:ReceiveMessage
	Resource string // such as the queue orders
	Region   string
	Endpoint string // Options.Endpoint
}

// Explain says of a call's error what it was about and, where that is known, what to do. The error
// wraps err.
func Explain(err error, a Asked) error {
	if err == nil {
		return nil
	}
	kind := KindOf(err)
	err = fmt.Errorf("call %s for %s in %s: %w", a.Action, a.Resource, a.Region, err)
	hint := ""
	switch kind {
	case Denied:
		hint = fmt.Sprintf("The caller needs the permission %s on %s.", a.Action, a.Resource)
	case Credentials:
		hint = "The credentials are not known to AWS in this region, or have run out: look at " +
			"AWS_ACCESS_KEY_ID, AWS_PROFILE or the role, and at the region " + a.Region + "."
	case Unreached:
		hint = a.unreached()
	case Untrusted:
		hint = "The server's certificate is not trusted: set AWS_CA_BUNDLE to the file of its authority."
	case Other, Interrupted:
		hint = a.other(err)
	case Throttled, ServerFault:
	}
	if hint == "" {
		return err
	}
	return &ackwise.HintError{Err: err, Hint: hint}
}

func (a Asked) unreached() string {
	if a.Endpoint != "" {
		return "Nobody answers at the endpoint " + a.Endpoint + "."
	}
	hint := "Is the region " + a.Region + " right, and is there a way to the network?"
	if near := nearest.Of(a.Region, knownRegions()); near != "" && near != a.Region {
		hint += fmt.Sprintf(" Did you mean %q?", near)
	}
	return hint
}
