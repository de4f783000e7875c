package nakadi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
)

// maxAnswer bounds an answer that is read as a whole.
const maxAnswer = 64 << 20

// client sends requests to one server.
type client struct {
	base string
	o    Server
	http *http.Client
	// answered says that what is there speaks HTTP as the options have it.
	answered atomic.Bool
}

func newClient(o Server) *client {
	scheme := "https://"
	if o.Plain {
		scheme = "http://"
	}
	// A redirect would send the token and the events somewhere else: it is an answer like others.
	h := *o.HTTP
	h.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{base: scheme + o.Host, o: o, http: &h}
}

// call is one request.
type call struct {
	method, path string
	query        url.Values
	body         []byte
	header       map[string]string
}

// answer is what came back. Where err is set there was none.
type answer struct {
	status     int
	body       []byte
	problem    bool // it is a problem object: Nakadi's own answer, not a gateway's
	plain      bool // it came without TLS
	retryAfter time.Duration
	sent       bool // the server may have got the request
	cut        bool // the body has no end
	err        error
}

// do sends a request and reads the answer as a whole.
func (c *client) do(ctx context.Context, r call) answer {
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	res, sent, err := c.open(ctx, r)
	if err != nil {
		return answer{sent: sent, err: err}
	}
	defer func() { _ = res.Body.Close() }() // it was read, or is not wanted
	a := answer{status: res.StatusCode, sent: true, plain: c.o.Plain,
		retryAfter: retryAfter(res.Header, time.Now())}
	kind := res.Header.Get("Content-Type")
	a.body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if a.cut = err != nil; a.cut {
		a.body = nil // the status is all that is known
	}
	a.problem = strings.HasPrefix(kind, "application/problem+json")
	return a
}

// open sends a request. sent says whether the server may have got it.
func (c *client) open(ctx context.Context, r call) (res *http.Response, sent bool, err error) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	target := c.base + r.path
	if len(r.query) > 0 {
		target += "?" + r.query.Encode()
	}
	var body io.Reader
	if r.body != nil {
		body = bytes.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, target, body)
	if err != nil {
		return nil, false, fmt.Errorf("make request: %w", err)
	}
	if r.body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	token, err := c.token(ctx)
	if err != nil {
		return nil, false, err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	res, err = c.http.Do(req)
	if err != nil {
		return nil, connected.Load(), c.unreached(fmt.Errorf("ask nakadi: %w", err))
	}
	if res.StatusCode != http.StatusBadRequest {
		c.answered.Store(true)
	}
	return res, true, nil
}

// token reads the token. Where there is none it is empty.
func (c *client) token(ctx context.Context) (string, error) {
	if c.o.Token == nil {
		return "", nil
	}
	token, err := c.o.Token(ctx)
	if err != nil {
		return "", fmt.Errorf("get token: %w", err)
	}
	return token, nil
}

// maxReads bounds how often something is looked up whose answer was cut off.
const maxReads = 3

// get reads a JSON answer into v.
func (c *client) get(ctx context.Context, path string, query url.Values, v any) error {
	var a answer
	for range maxReads {
		a = c.do(ctx, call{method: http.MethodGet, path: path, query: query})
		if a.err == nil && !a.cut || !a.sent || ctx.Err() != nil {
			break
		}
	}
	if err := a.fault(http.StatusOK); err != nil {
		return err
	}
	if a.cut {
		return fmt.Errorf("read answer of %s: the connection was cut", path)
	}
	if err := json.Unmarshal(a.body, v); err != nil {
		return strange(fmt.Errorf("read answer of %s: %w", path, err))
	}
	return nil
}

// fault returns what is wrong with an answer, unless its status is one of the wanted.
func (a *answer) fault(want ...int) error {
	if a.err != nil {
		return a.err
	}
	if slices.Contains(want, a.status) {
		return nil
	}
	return a.refusal()
}

// statusError is an answer that refuses.
type statusError struct {
	status int
	detail string
}

func (e *statusError) Error() string {
	return fmt.Sprintf("nakadi answered %d %s: %s", e.status, http.StatusText(e.status), e.detail)
}

// HTTPStatusCode is the answer's status.
func (e *statusError) HTTPStatusCode() int { return e.status }

func statusOf(err error) int {
	if e, ok := errors.AsType[*statusError](err); ok {
		return e.status
	}
	return 0
}

// refusal is the answer as an error, with a hint where there is something to be done.
func (a *answer) refusal() error {
	var p struct{ Title, Detail string }
	detail := ""
	if json.Unmarshal(a.body, &p) == nil {
		detail = p.Detail
		if detail == "" {
			detail = p.Title
		}
	}
	if detail == "" {
		detail = "it gave no reason"
	}
	err := error(&statusError{a.status, ackwise.CutError(detail)})
	hint := map[int]string{
		http.StatusUnauthorized: "Check the option token: it was read anew and is not valid, or " +
			"there is none.",
		http.StatusForbidden: "Let the token's owner write to the event type (authorization." +
			"writers), or read the event type and the subscription (authorization.readers).",
		http.StatusNotFound: "Check the name; event types are not made by Ackwise.",
	}[a.status]
	switch {
	case a.status >= 300 && a.status < 400:
		hint = "Name the host that answers itself: redirects are not followed."
	case a.status == http.StatusBadRequest && a.plain && !a.problem:
		hint = perhapsTLS // so do servers answer who speaks HTTP to a port for HTTPS
	}
	if hint != "" {
		err = &ackwise.HintError{Err: err, Hint: hint}
	}
	return err
}

// retryAfter reads the header, in seconds or as a date.
func retryAfter(h http.Header, now time.Time) time.Duration {
	text := h.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n > 0 {
		return min(time.Duration(n)*time.Second, 24*time.Hour)
	}
	if at, err := http.ParseTime(text); err == nil && at.After(now) {
		return min(at.Sub(now), 24*time.Hour)
	}
	return 0
}
