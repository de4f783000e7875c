package awsconn

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/aws/smithy-go"
)

// ErrEmpty says that an answer lacks what every answer of the service has.
var ErrEmpty = errors.New("the answer is empty")

// other is what to do where something has answered that is not the service, or "" where it may
// have been.
func (a Asked) other(err error) string {
	plain := strings.HasPrefix(a.Endpoint, "http:")
	switch status := statusOf(err); {
	case wantsPlain(err) && a.Endpoint != "":
		return "The server at the endpoint " + a.Endpoint + " speaks no TLS there: let the endpoint " +
			"begin with http://, or name the port that does."
	case plain && status == 0 && hungUp(err):
		return "The server at the endpoint " + a.Endpoint + " has hung up. Perhaps it has gone away, " +
			"does not speak " + a.service() + ", or speaks TLS: then let the endpoint begin with https://."
	case !strange(err, status):
		return ""
	case a.Endpoint == "":
		return "What answered is not " + a.service() + ". Perhaps a proxy has answered in its place: " +
			"look at HTTPS_PROXY."
	case plain && status == http.StatusBadRequest:
		return "What answers at the endpoint " + a.Endpoint + " does not speak " + a.service() +
			": check the host and the port. If the port speaks TLS, let the endpoint begin with https://."
	}
	return "What answers at the endpoint " + a.Endpoint + " does not speak " + a.service() +
		": check the host and the port."
}

// service is the name of the service that was asked.
func (a Asked) service() string {
	switch prefix, _, _ := strings.Cut(a.Action, ":"); prefix {
	case "dynamodb":
		return "DynamoDB"
	default:
		return strings.ToUpper(prefix)
	}
}

// hungUp reports whether the other side has closed the connection. The client, which reads and
// writes at once, may have closed its own first when it says so.
func hungUp(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) ||
		errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed)
}

func statusOf(err error) int {
	var status interface{ HTTPStatusCode() int }
	if errors.As(err, &status) {
		return status.HTTPStatusCode()
	}
	return 0
}

func wantsPlain(err error) bool {
	_, other := errors.AsType[tls.RecordHeaderError](err)
	return other || errors.Is(err, http.ErrSchemeMismatch)
}

// strange reports whether an answer came that is none of a service: empty, without a code, in
// another form or in another protocol. A gateway's is not, since what is behind it may be the
// service; neither is one that was cut off, unless its status says that it was not understood.
func strange(err error, status int) bool {
	if status >= 500 {
		return false
	}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		return api.ErrorCode() == "UnknownError"
	}
	if _, ok := errors.AsType[*smithy.DeserializationError](err); ok {
		_, cut := errors.AsType[net.Error](err)
		return status == http.StatusBadRequest || !cut && !errors.Is(err, io.ErrUnexpectedEOF)
	}
	return errors.Is(err, ErrEmpty) || strings.Contains(err.Error(), "malformed HTTP")
}
