package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
)

// maxAnswer is how much of an answer is read, so that its connection can be used again.
const maxAnswer = 4 << 10

// Sink posts messages to one address.
type Sink struct {
	o     SinkOptions
	url   *url.URL
	names []string // of headers that are sent, in small letters
	c     *http.Client
	ctx   context.Context // of all requests: it ends with Close
	end   context.CancelFunc
}

// OpenSink makes a sink. It reads its secrets and its certificates once, to see that they are
// there, and connects to nothing.
func OpenSink(ctx context.Context, o SinkOptions) (ackwise.Sink, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("open webhook: %w", err)
	}
	at, err := url.Parse(o.URL)
	if err != nil {
		return nil, errors.New("open webhook: the URL cannot be read")
	}
	s := &Sink{o: o.withDefaults(), url: at,
		names: []string{"content-type", "traceparent", "tracestate", "ce-*"}}
	for _, name := range o.Headers {
		s.names = append(s.names, strings.ToLower(name))
	}
	s.ctx, s.end = context.WithCancel(context.WithoutCancel(ctx))
	transport, err := s.transport()
	if err == nil {
		_, err = s.request(ctx, &ackwise.Message{ID: "check"})
	}
	if err != nil {
		s.end()
		return nil, fmt.Errorf("open webhook %s: %w", at.Host, err)
	}
	s.c = &http.Client{Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	return s, nil
}

func (s *Sink) transport() (*http.Transport, error) {
	g := guard{private: s.o.AllowPrivate, loopback: loopback(s.url.Hostname())}
	dialer := &net.Dialer{Timeout: s.o.Timeout, Control: g.control}
	t := &http.Transport{ // without a proxy: it would make the connection that the guard checks
		DialContext: dialer.DialContext, ForceAttemptHTTP2: true, DisableCompression: true,
		MaxIdleConnsPerHost: s.o.Parallel, IdleConnTimeout: time.Minute,
		TLSHandshakeTimeout: s.o.Timeout, MaxResponseHeaderBytes: 64 << 10,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12},
		// A connection that died without a word would take in one request after the other, and none
		// would be answered, until TCP gives up after a quarter of an hour.
		HTTP2: &http.HTTP2Config{SendPingTimeout: 10 * time.Second, PingTimeout: 10 * time.Second},
	}
	if s.o.CA == "" {
		return t, nil
	}
	pem, err := os.ReadFile(s.o.CA)
	if err != nil {
		return nil, fmt.Errorf("read the certificates: %w", err)
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the certificates: %s holds none in PEM", s.o.CA)
	}
	return t, nil
}

// Features returns what webhooks can do.
func (s *Sink) Features() ackwise.SinkFeatures { return ackwise.SinkFeatures{} }

// Publish posts the messages, some at a time. Their order is not kept.
func (s *Sink) Publish(ctx context.Context, msgs []ackwise.Message) []ackwise.Result {
	results := make([]ackwise.Result, len(msgs))
	var wg sync.WaitGroup
	var next atomic.Int64
	for range min(s.o.Parallel, len(msgs)) {
		wg.Go(func() { // ends with the last message
			for i := int(next.Add(1)) - 1; i < len(msgs); i = int(next.Add(1)) - 1 {
				results[i] = s.post(ctx, &msgs[i])
			}
		})
	}
	wg.Wait()
	return results
}

// Close ends requests that are under way; they answer unknown.
func (s *Sink) Close() error {
	s.end()
	s.c.CloseIdleConnections()
	return nil
}

// post posts one message.
func (s *Sink) post(ctx context.Context, m *ackwise.Message) ackwise.Result {
	id := m.ID
	if id == "" {
		id = ackwise.NewID(s.o.Now())
	}
	ctx, cancel := context.WithTimeout(ctx, s.o.Timeout)
	defer cancel()
	defer context.AfterFunc(s.ctx, cancel)()
	a := answer{now: s.o.Now()}
	if s.ctx.Err() != nil {
		a.err = ackwise.ErrClosed
		return s.result(id, a)
	}
	one := *m
	one.ID = id
	req, err := s.request(ctx, &one)
	if err != nil {
		a.err = err
		return s.result(id, a)
	}
	var connected atomic.Bool
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}))
	resp, err := s.c.Do(req)
	a.sent, a.err = connected.Load(), err
	if err == nil {
		_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer)
		_ = resp.Body.Close()
		a.status, a.retryAfter = resp.StatusCode, resp.Header.Get("Retry-After")
	}
	return s.result(id, a)
}

func (s *Sink) result(id string, a answer) ackwise.Result {
	r := classify(a)
	r.ID = id
	return r
}

// request makes the request of a message.
func (s *Sink) request(ctx context.Context, m *ackwise.Message) (*http.Request, error) {
	at := *s.url
	if s.o.Path != nil {
		text, err := s.o.Path(ctx)
		if err != nil {
			return nil, err
		}
		secret, err := url.Parse("/" + strings.TrimPrefix(text, "/"))
		if err != nil {
			return nil, errors.New("the option path is not the path of a URL") // without showing it
		}
		at.Path, at.RawPath, at.RawQuery = secret.Path, secret.RawPath, secret.RawQuery
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(),
		bytes.NewReader(m.Body))
	if err != nil {
		return nil, errors.New("the URL cannot be requested")
	}
	if err := s.addHeaders(req.Header, m); err != nil {
		return nil, err
	}
	id, timestamp := encode(m.ID), strconv.FormatInt(s.o.Now().Unix(), 10)
	req.Header.Set(headerID, id)
	req.Header.Set(headerTimestamp, timestamp)
	req.Header.Set("User-Agent", "ackwise")
	if s.o.Secret != nil {
		secrets, err := s.o.Secret(ctx)
		if err != nil {
			return nil, err
		}
		signature, err := sign(secrets, id, timestamp, m.Body)
		if err != nil {
			return nil, err
		}
		req.Header.Set(headerSignature, signature)
	}
	if s.o.Authorization != nil {
		value, err := s.o.Authorization(ctx)
		if err != nil {
			return nil, err
		}
		if fault := valueFault(value); fault != "" {
			return nil, errors.New("the option authorization " + fault)
		}
		req.Header.Set("Authorization", value)
	}
	return req, nil
}
