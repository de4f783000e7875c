package nakadi_test

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/nakadi"
	fake "github.com/ackwise/ackwise/test/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

// listening is the address of a server that does so with each connection, after it has got
// something, and closes it.
func listening(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	return servers.Listen(t, func(conn net.Conn) {
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			answer(conn)
		}
	})
}

// openings opens a sink and both kinds of source at a host, and returns their errors.
func openings(t *testing.T, host, options string) map[string]error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	errs := map[string]error{}
	o, err := nakadi.ParseSink("nakadi://" + host + "/e?timeout=30s" + options)
	if err != nil {
		t.Fatal(err)
	}
	_, errs["sink"] = nakadi.OpenSink(ctx, o)
	for name, query := range map[string]string{"subscription": "?subscription=s",
		"application": "?event_types=e&application=a", "create": "?event_types=e&application=a&create=true"} {
		o, err := nakadi.ParseSource("nakadi://" + host + query + options)
		if err != nil {
			t.Fatal(err)
		}
		_, errs[name] = nakadi.OpenSource(ctx, o)
	}
	return errs
}

// TestUnreached: who cannot reach Nakadi is told what to do, by the sink and by the source.
func TestUnreached(t *testing.T) {
	quiet := log.New(io.Discard, "", 0)
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = quiet
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(plain.Close)
	page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, "<html>")
	}))
	t.Cleanup(page.Close)
	reset := listening(t, func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) })
	gone := listening(t, func(c net.Conn) { _, _ = c.Read(make([]byte, 1<<20)) })
	alert := listening(t, func(c net.Conn) { io.WriteString(c, "\x15\x03\x01\x00\x02\x02\x16") })
	greet := listening(t, func(c net.Conn) { io.WriteString(c, "220 good day\r\n") })
	bare := func(s *httptest.Server) string { return s.Listener.Addr().String() }
	const perhaps = "Perhaps this port speaks TLS: then leave tls=false out."
	for name, c := range map[string]struct{ host, options, want string }{
		"an unknown authority": {bare(secure), "", "SSL_CERT_FILE"},
		"no TLS there":         {bare(plain), "", "set tls=false"},
		"another protocol":     {greet, "", "set tls=false"},
		"an end, with TLS":     {gone, "", "Perhaps the server speaks no TLS"},
		"a reset, with TLS":    {reset, "", "Perhaps the server speaks no TLS"},
		"TLS there":            {bare(secure), "&tls=false", perhaps},
		"a reset":              {reset, "&tls=false", perhaps},
		"an end":               {gone, "&tls=false", perhaps},
		"an alert":             {alert, "&tls=false", perhaps},
		"nobody":               {"127.0.0.1:1", "", "127.0.0.1:1"},
		"a page":               {bare(page), "&tls=false", "does not seem to be Nakadi"},
	} {
		t.Run(name, func(t *testing.T) {
			for side, err := range openings(t, c.host, c.options) {
				hint, ok := errors.AsType[*ackwise.HintError](err)
				if !ok || !strings.Contains(hint.Hint, c.want) {
					t.Errorf("%s: %v, want the hint %q", side, err, c.want)
				}
			}
		})
	}
}

// TestAnotherName: a certificate that is made for another host is told from one of an unknown
// authority.
func TestAnotherName(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	_, err := nakadi.OpenSink(t.Context(), nakadi.SinkOptions{EventType: "e",
		Server: nakadi.Server{Host: "localhost:" + port, HTTP: s.Client()}})
	hint, ok := errors.AsType[*ackwise.HintError](err)
	if !ok || !strings.Contains(hint.Hint, "as its certificate does") {
		t.Errorf("%v", err)
	}
}

// TestNoGuessAfterAnAnswer: a server that has answered is not taken for one that speaks TLS when it
// goes away.
func TestNoGuessAfterAnAnswer(t *testing.T) {
	b := newBed(t, fake.Options{})
	b.kind("orders", 1, nil)
	cut := false
	o, err := nakadi.ParseSink("nakadi://" + b.host + "?tls=false")
	if err != nil {
		t.Fatal(err)
	}
	o.HTTP = &http.Client{Transport: tripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodPost {
			cut = true
			return nil, io.EOF
		}
		return http.DefaultTransport.RoundTrip(r)
	})}
	sink, err := nakadi.OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	r := sink.Publish(t.Context(), []ackwise.Message{object(1, "k")})
	if _, ok := errors.AsType[*ackwise.HintError](r[0].Err); ok || !cut || r[0].Err == nil {
		t.Errorf("cut %v: %v", cut, r[0].Err)
	}
}

type tripper func(*http.Request) (*http.Response, error)

func (f tripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestTokenAtOpening: a token that is not there is told when the sink is opened, also where no
// request is due then, and before anything else.
func TestTokenAtOpening(t *testing.T) {
	const unset = "env:ACKWISE_TEST_NOT_SET is empty or not set"
	for name, err := range openings(t, "127.0.0.1:1", "&token=env:ACKWISE_TEST_NOT_SET") {
		if err == nil || !strings.Contains(err.Error(), unset) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for token, want := range map[string]string{"env:ACKWISE_TEST_NOT_SET": unset,
		"file:/no/such/file": "/no/such/file"} {
		o, err := nakadi.ParseSink("nakadi://127.0.0.1:1?token=" + token)
		if err != nil {
			t.Fatal(err)
		}
		_, err = nakadi.OpenSink(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s, no event type: %v", token, err)
		}
	}
}
