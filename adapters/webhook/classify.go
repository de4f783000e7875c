package webhook

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ackwise/ackwise"
)

// maxRetryAfter bounds what a receiver may ask for.
const maxRetryAfter = time.Hour

// answer is what became of a request.
type answer struct {
	status     int // 0 = none
	retryAfter string
	sent       bool // a connection was there, so that the receiver may have got it
	err        error
	now        time.Time
}

// classify says what the producer has to do next. Only 2xx is success.
func classify(a answer) ackwise.Result {
	if a.err != nil {
		return a.failed()
	}
	retry := func(why string) ackwise.Result {
		return ackwise.Result{Class: ackwise.ResultRetryable, After: a.after(),
			Err: fmt.Errorf("the receiver answered %d: %s", a.status, why)}
	}
	switch {
	case a.status >= 200 && a.status < 300:
		return ackwise.Result{Class: ackwise.ResultAccepted}
	case a.status >= 300 && a.status < 400:
		return retry("redirects are not followed; name the address that it redirects to")
	case a.status == http.StatusUnauthorized, a.status == http.StatusForbidden:
		return retry("check its permissions, and the options secret and authorization")
	case a.status == http.StatusNotFound:
		return retry("there is nothing at this path, yet or any more")
	case a.status == http.StatusRequestTimeout, a.status == http.StatusTooEarly,
		a.status == http.StatusTooManyRequests:
		return retry("it wants it later")
	case a.status == http.StatusBadGateway, a.status == http.StatusGatewayTimeout:
		// The gateway does not know what the receiver behind it has done.
		return ackwise.Result{Class: ackwise.ResultUnknown,
			Err: fmt.Errorf("a gateway answered %d for the receiver", a.status)}
	case a.status >= 500:
		return retry("it cannot take it now")
	case a.status == http.StatusGone:
		return ackwise.Result{Class: ackwise.ResultRejected,
			Err: errors.New("the receiver answered 410: it takes nothing any more")}
	}
	// 400, 413, 422 and their like are about this message: no repeat will change them.
	return ackwise.Result{Class: ackwise.ResultRejected,
		Err: fmt.Errorf("the receiver answered %d to this message", a.status)}
}

// failed is the class of a request without an answer.
func (a answer) failed() ackwise.Result {
	err := a.err
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its text shows the URL, whose path may be secret
	}
	if _, ok := errors.AsType[*ackwise.InvalidError](err); ok {
		return ackwise.Result{Class: ackwise.ResultRejected, Err: err} // a header of the message
	}
	if a.sent {
		return ackwise.Result{Class: ackwise.ResultUnknown,
			Err: fmt.Errorf("no answer of the receiver: %w", err)}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		err = fmt.Errorf("check the receiver's certificate: %w (trust its issuer with ca=FILE, or "+
			"name the host that it names)", err)
	}
	return ackwise.Result{Class: ackwise.ResultRetryable, Err: fmt.Errorf("not sent: %w", err)}
}

// after reads Retry-After: seconds or a date.
func (a answer) after() time.Duration {
	d := time.Duration(0)
	if seconds, err := strconv.Atoi(a.retryAfter); err == nil {
		d = time.Duration(min(max(seconds, 0), int(maxRetryAfter/time.Second))) * time.Second
	} else if at, err := http.ParseTime(a.retryAfter); err == nil {
		d = at.Sub(a.now)
	}
	return min(max(d, 0), maxRetryAfter)
}
