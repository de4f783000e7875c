package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func TestSignedPosts(t *testing.T) {
	r := newReceiver(t)
	t.Setenv(secretEnv, secretOne+" "+secretTwo)
	s := open(t, r.address("&secret=env:"+secretEnv+"&headers=x-a,y-*&key_header=x-key"))
	for _, secret := range []string{secretOne, secretTwo} { // each receiver knows one of the two
		r.mu.Lock()
		r.secret = secret
		r.mu.Unlock()
		res := publish(t, s, ackwise.Message{ID: "topic/1%é", Key: "k ö", Body: []byte("b\x00\xff"),
			Headers: []ackwise.Header{{Name: "X-A", Value: []byte("1")}, {Name: "x-a", Value: []byte("2")},
				{Name: "y-b", Value: []byte("\xff")}, {Name: "other", Value: []byte("no")},
				{Name: "Cookie", Value: []byte("no")}, {Name: "ce-id", Value: []byte("1")}}})
		if res.Class != ackwise.ResultAccepted || res.ID != "topic/1%é" || res.Err != nil {
			t.Errorf("got %+v", res)
		}
	}
	got := r.requests(t)
	if len(got) != 2 {
		t.Fatalf("%d requests", len(got))
	}
	h := got[0].header
	if got[0].id != "topic/1%25%C3%A9" || got[0].body != "b\x00\xff" || got[0].path != "/hook" ||
		!slices.Equal(h["X-A"], []string{"1", "2"}) || h.Get("y-b") != "\xff" ||
		h.Get("x-key") != "k%20%C3%B6" || h.Get("ce-id") != "1" ||
		h.Get("content-type") != "application/json" {
		t.Errorf("got %+v", got[0])
	}
	if h.Get("other")+h.Get("cookie")+h.Get("ackwise-body") != "" {
		t.Errorf("sent what nobody allowed: %v", h)
	}
}

// The body is as it is, a missing one can be told from an empty one, and an ID is made where there
// is none.
func TestBodies(t *testing.T) {
	r := newReceiver(t)
	s := open(t, r.address(""))
	large := strings.Repeat("x", 3<<20)
	results := s.Publish(t.Context(), []ackwise.Message{{ID: "nil"}, {ID: "empty", Body: []byte{}},
		{ID: "large", Body: []byte(large)}, {Body: []byte("no ID")}})
	for _, res := range results {
		if res.Class != ackwise.ResultAccepted || res.ID == "" {
			t.Errorf("got %+v", res)
		}
	}
	bodies := map[string]string{}
	for _, one := range r.requests(t) {
		bodies[one.id] = one.body + one.header.Get("ackwise-body")
	}
	if len(bodies) != 4 || bodies["nil"] != "none" || bodies["empty"] != "" ||
		bodies["large"] != large || bodies[results[3].ID] != "no ID" {
		t.Errorf("got %d: nil %q, empty %q", len(bodies), bodies["nil"], bodies["empty"])
	}
}

func TestAnswersAreClassified(t *testing.T) {
	type want struct {
		class ackwise.ResultClass
		after time.Duration
		text  string
	}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, c := range []struct {
		name  string
		a     answer
		wants want
	}{
		{"200", answer{status: 200}, want{class: ackwise.ResultAccepted}},
		{"204", answer{status: 204}, want{class: ackwise.ResultAccepted}},
		{"301", answer{status: 301}, want{ackwise.ResultRetryable, 0, "redirects"}},
		{"400", answer{status: 400}, want{ackwise.ResultRejected, 0, "400"}},
		{"401", answer{status: 401}, want{ackwise.ResultRetryable, 0, "permissions"}},
		{"403", answer{status: 403}, want{ackwise.ResultRetryable, 0, "permissions"}},
		{"404", answer{status: 404}, want{ackwise.ResultRetryable, 0, "path"}},
		{"408", answer{status: 408}, want{ackwise.ResultRetryable, 0, "later"}},
		{"410", answer{status: 410}, want{ackwise.ResultRejected, 0, "any more"}},
		{"413", answer{status: 413}, want{ackwise.ResultRejected, 0, "413"}},
		{"425", answer{status: 425}, want{ackwise.ResultRetryable, 0, "later"}},
		{"429 in seconds", answer{status: 429, retryAfter: "7"},
			want{ackwise.ResultRetryable, 7 * time.Second, "later"}},
		{"503 at a date", answer{status: 503, retryAfter: "Fri, 02 Jan 2026 03:05:05 GMT", now: now},
			want{ackwise.ResultRetryable, time.Minute, "now"}},
		{"for too long", answer{status: 503, retryAfter: "999999999999"},
			want{ackwise.ResultRetryable, time.Hour, "now"}},
		{"in the past", answer{status: 503, retryAfter: "-5"},
			want{ackwise.ResultRetryable, 0, "now"}},
		{"500", answer{status: 500}, want{ackwise.ResultRetryable, 0, "now"}},
		{"502", answer{status: 502}, want{ackwise.ResultUnknown, 0, "gateway"}},
		{"504", answer{status: 504}, want{ackwise.ResultUnknown, 0, "gateway"}},
		{"sent, and no answer", answer{err: errors.New("cut"), sent: true},
			want{ackwise.ResultUnknown, 0, "no answer"}},
		{"never sent", answer{err: errors.New("refused")},
			want{ackwise.ResultRetryable, 0, "not sent"}},
		{"a header that cannot be", answer{err: &ackwise.InvalidError{Field: "header", Value: "h"}},
			want{ackwise.ResultRejected, 0, `"h"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := classify(c.a)
			if r.Class != c.wants.class || r.After != c.wants.after ||
				(r.Err == nil) != (r.Class == ackwise.ResultAccepted) ||
				r.Err != nil && !strings.Contains(r.Err.Error(), c.wants.text) {
				t.Errorf("got %+v, want %+v", r, c.wants)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	other, r := newReceiver(t), newReceiver(t)
	r.answer = func(w http.ResponseWriter, _ int) {
		w.Header().Set("Location", other.URL)
		w.WriteHeader(http.StatusTemporaryRedirect)
	}
	res := publish(t, open(t, r.address("")), ackwise.Message{ID: "1"})
	if res.Class != ackwise.ResultRetryable || len(r.requests(t)) != 1 || len(other.requests(t)) != 0 {
		t.Errorf("got %+v, %d requests at the other one", res, len(other.requests(t)))
	}
}

// An address that is not public is refused when it is dialled, whatever the name was.
func TestPrivateAddressesAreRefused(t *testing.T) {
	r := newReceiver(t)
	at := strings.Replace(r.address(""), "&allow_private=true", "", 1)
	if res := publish(t, open(t, at), ackwise.Message{ID: "1"}); res.Class != ackwise.ResultAccepted {
		t.Errorf("a loopback address that the URL itself names: %+v", res)
	}
	o, err := ParseSink(at)
	if err != nil {
		t.Fatal(err)
	}
	o.URL = strings.Replace(o.URL, "127.0.0.1", "example.com", 1)
	sink, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	s := sink.(*Sink)
	// The name resolves to this machine, as an attacker's would.
	transport := s.c.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
		return dial(ctx, network, r.Listener.Addr().String())
	}
	res := publish(t, s, ackwise.Message{ID: "2"})
	var blocked *blockedError
	if res.Class != ackwise.ResultRetryable || !errors.As(res.Err, &blocked) ||
		!strings.Contains(res.Err.Error(), "allow_private") || len(r.requests(t)) != 1 {
		t.Errorf("got %+v, %d requests", res, len(r.requests(t)))
	}
}

func TestWhatIsPublic(t *testing.T) {
	for addr, want := range map[string]bool{
		"93.184.216.34": true, "2606:2800:220:1::1": true, "64:ff9b::5db8:d822": true,
		"127.0.0.1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.64.0.1": false, "0.0.0.0": false, "224.0.0.1": false,
		"255.255.255.255": false, "198.18.0.1": false, "192.0.2.1": false, "::1": false, "::": false,
		"fe80::1%eth0": false, "fc00::1": false, "fd00:ec2::254": false, "ff02::1": false,
		"::ffff:127.0.0.1": false, "::ffff:10.0.0.1": false, "::127.0.0.1": false,
		"64:ff9b::7f00:1": false, "2002:7f00:1::": false, "2002:a00:1::": false, "2001:db8::1": false,
		"2001::1": false, "::ffff:0:7f00:1": false, "::ffff:0:5db8:d822": true, "3fff::1": false,
	} {
		if got := public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: public is %t, want %t", addr, got, want)
		}
	}
	g := guard{loopback: true}
	if g.control("tcp", "127.0.0.1:80", nil) != nil ||
		g.control("tcp", "93.184.216.34:80", nil) == nil {
		t.Error("a URL that names this machine reaches it alone")
	}
}

func TestNoAnswerIsUnknown(t *testing.T) {
	gone := make(chan struct{})
	for name, answer := range map[string]func(w http.ResponseWriter){
		"cut in the middle": func(w http.ResponseWriter) {
			c, _, err := w.(http.Hijacker).Hijack()
			if err == nil {
				_, _ = c.Write([]byte("HTTP/1.1 20"))
				_ = c.Close()
			}
		},
		"too late": func(http.ResponseWriter) { <-gone },
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			if name == "too late" {
				t.Cleanup(func() { close(gone) })
			}
			r.answer = func(w http.ResponseWriter, _ int) { answer(w) }
			timeout := "30s"
			if name == "too late" {
				timeout = "3s"
			}
			s := open(t, r.address("&timeout="+timeout))
			res := publish(t, s, ackwise.Message{ID: "1"})
			if res.Class != ackwise.ResultUnknown || len(r.requests(t)) != 1 {
				t.Errorf("got %+v after %d requests", res, len(r.requests(t)))
			}
			for _, one := range r.requests(t) {
				if one.id != "1" {
					t.Errorf("the ID was %q", one.id)
				}
			}
		})
	}
}

func TestWhatWasNeverSentIsRetryable(t *testing.T) {
	r := newReceiver(t)
	t.Run("an issuer that nobody trusts", func(t *testing.T) {
		s := open(t, r.URL+"?allow_private=true")
		res := publish(t, s, ackwise.Message{ID: "1"})
		if res.Class != ackwise.ResultRetryable || !strings.Contains(res.Err.Error(), "certificate") {
			t.Errorf("got %+v", res)
		}
	})
	t.Run("nobody listens", func(t *testing.T) {
		res := publish(t, open(t, "http://127.0.0.1:1"), ackwise.Message{ID: "1"})
		if res.Class != ackwise.ResultRetryable || !strings.Contains(res.Err.Error(), "not sent") {
			t.Errorf("got %+v", res)
		}
	})
	t.Run("closed", func(t *testing.T) {
		s := open(t, r.address(""))
		_ = s.Close()
		if res := publish(t, s, ackwise.Message{ID: "1"}); !errors.Is(res.Err, ackwise.ErrClosed) {
			t.Errorf("got %+v", res)
		}
	})
	if n := len(r.requests(t)); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

func TestHeadersThatHTTPCannotCarry(t *testing.T) {
	r := newReceiver(t)
	s := open(t, r.address("&headers=x-*"))
	for _, h := range []ackwise.Header{{Name: "x-a", Value: []byte("v\r\nx-evil: 1")},
		{Name: "x-a", Value: []byte("\x00")}, {Name: "x-a", Value: []byte(" v")},
		{Name: "x-a b", Value: []byte("v")}, {Name: "content-type", Value: []byte("a\n")}} {
		res := publish(t, s, ackwise.Message{ID: "1", Headers: []ackwise.Header{h}})
		if res.Class != ackwise.ResultRejected || !strings.Contains(res.Err.Error(), h.Name) {
			t.Errorf("%q: %+v", h, res)
		}
	}
	if n := len(r.requests(t)); n != 0 {
		t.Errorf("%d requests arrived", n)
	}
}

// An answer of any length is cut, and what the receiver says is in no error.
func TestLongAnswers(t *testing.T) {
	r := newReceiver(t)
	r.answer = func(w http.ResponseWriter, n int) {
		if n > 1 {
			w.WriteHeader(http.StatusBadRequest)
		}
		_, _ = w.Write([]byte(strings.Repeat("said by the receiver ", 100_000)))
	}
	s := open(t, r.address(""))
	if res := publish(t, s, ackwise.Message{ID: "1"}); res.Class != ackwise.ResultAccepted {
		t.Errorf("got %+v", res)
	}
	res := publish(t, s, ackwise.Message{ID: "2"})
	if res.Class != ackwise.ResultRejected || strings.Contains(res.Err.Error(), "said by") {
		t.Errorf("got %+v", res)
	}
}

// Secrets are read anew for each request, and stand in no error.
func TestSecrets(t *testing.T) {
	const canary = "canary-7f3a"
	r := newReceiver(t)
	dir := t.TempDir()
	write := func(name, value string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return "file:" + path
	}
	address := r.address("&secret=" + write("s", secretOne) + "&authorization=" +
		write("a", "Bearer one") + "&path=" + write("p", "/other?token=1"))
	s := open(t, address)
	publish(t, s, ackwise.Message{ID: "1"})
	write("s", secretTwo)
	write("a", "Bearer two")
	r.mu.Lock()
	r.secret = secretTwo
	r.mu.Unlock()
	publish(t, s, ackwise.Message{ID: "2"})
	got := r.requests(t)
	if len(got) != 2 || got[0].path != "/other?token=1" ||
		got[0].header.Get("authorization") != "Bearer one" ||
		got[1].header.Get("authorization") != "Bearer two" {
		t.Errorf("got %+v", got)
	}
	for name, value := range map[string]string{"s": "whsec_" + canary, "a": canary + "\nx: y",
		"p": "/" + canary + "%zz"} {
		write(name, value)
		res := publish(t, s, ackwise.Message{ID: "3"})
		if res.Class != ackwise.ResultRetryable || strings.Contains(fmt.Sprint(res.Err), canary) {
			t.Errorf("%s: got %+v", name, res)
		}
		write("s", secretTwo)
		write("a", "Bearer two")
		write("p", "/other")
	}
	r.Close() // now nobody listens: the error of a URL would show its path
	write("p", "/"+canary)
	if res := publish(t, s, ackwise.Message{ID: "4"}); strings.Contains(res.Err.Error(), canary) {
		t.Errorf("got %v", res.Err)
	}
	if err := os.Remove(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	o, err := ParseSink(address)
	if err != nil {
		t.Fatal(err)
	}
	_, err = OpenSink(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "authorization") {
		t.Errorf("a missing secret is found at the start: %v", err)
	}
}

func TestParseSinkSaysWhatIsWrong(t *testing.T) {
	for text, want := range map[string]string{
		"https:///path":                        "it is not https://",
		"http://example.com/x":                 "allow_http",
		"https://me:canary@example.com/":       "before the host",
		"https://example.com/?secert=env:A":    `did you mean "secret"?`,
		"https://example.com/?secret=canary":   "env:NAME or file:PATH",
		"https://example.com/?timeout=0s":      "duration from",
		"https://example.com/?headers=a%20b":   `"a b"`,
		"https://example.com/?headers=Cookie":  "to set",
		"https://example.com/?headers=*":       "no name",
		"https://example.com/?key_header=x%0a": "no name",
		"https://example.com/?parallel=0":      "from 1",
	} {
		_, err := ParseSink(text)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	o, err := ParseSink("https://example.com:8443/a%2Fb/c/?query=x%3D1&allow_http=true")
	if err != nil || o.URL != "https://example.com:8443/a%2Fb/c/?x=1" {
		t.Errorf("got %q, %v", o.URL, err)
	}
}
