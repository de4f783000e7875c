package nakadi

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// bed is a fake with a client that says what it wants in plain HTTP.
type bed struct {
	*testing.T
	s    *Server
	base string
	http *http.Client
}

func newBed(t *testing.T, o Options) *bed {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	h := httptest.NewServer(s)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		h.CloseClientConnections()
		h.Close()
	})
	return &bed{t, s, h.URL, &http.Client{Transport: transport, Timeout: time.Minute}}
}

// got is an answer.
type got struct {
	status int
	header http.Header
	body   string
}

func (b *bed) do(method, path, body string, headers ...string) got {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, b.base+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := b.http.Do(req)
	if err != nil {
		return got{body: err.Error()}
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return got{res.StatusCode, res.Header, string(text)}
}

// want checks the status, and that the body holds a text.
func (b *bed) want(g got, status int, text string) got {
	b.Helper()
	if g.status != status || !strings.Contains(g.body, text) {
		b.Fatalf("%d %s, want %d with %q", g.status, g.body, status, text)
	}
	return g
}

// kind makes an event type; more overrides members of it.
func (b *bed) kind(name string, more map[string]any) got {
	b.Helper()
	return b.do("POST", "/event-types", kindText(b.T, name, more))
}

func kindText(t *testing.T, name string, more map[string]any) string {
	t.Helper()
	d := map[string]any{"name": name, "owning_application": "test", "category": "business",
		"enrichment_strategies": []string{"metadata_enrichment"},
		"schema":                map[string]string{"type": "json_schema", "schema": `{"type":"object"}`}}
	for k, v := range more {
		if v == nil {
			delete(d, k)
			continue
		}
		d[k] = v
	}
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// business makes the text of a business event; member is the text of its own members.
func business(n int, member string) string {
	if member != "" {
		member = "," + member
	}
	return fmt.Sprintf(`{"metadata":{"eid":"%s","occurred_at":"2026-01-02T03:04:05Z"}%s}`,
		eid(n), member)
}

func eid(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }

func (b *bed) publish(name string, events ...string) got {
	b.Helper()
	return b.do("POST", "/event-types/"+name+"/events", "["+strings.Join(events, ",")+"]")
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	if _, err := z.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func itemsOf(t *testing.T, g got) (list []item) {
	t.Helper()
	if err := json.Unmarshal([]byte(g.body), &list); err != nil {
		t.Fatalf("%v: %s", err, g.body)
	}
	return list
}

// subscribe makes a subscription from the beginning and returns its ID.
func (b *bed) subscribe(group string, types ...string) string {
	b.Helper()
	text, err := json.Marshal(map[string]any{"owning_application": "test", "event_types": types,
		"consumer_group": group, "read_from": "begin"})
	if err != nil {
		b.Fatal(err)
	}
	var d subscriptionDef
	g := b.want(b.do("POST", "/subscriptions", string(text)), 201, "id")
	if err := json.Unmarshal([]byte(g.body), &d); err != nil {
		b.Fatal(err)
	}
	return d.ID
}

// reader is an open stream.
type reader struct {
	b     *bed
	id    string
	sub   string
	body  io.Closer
	lines *bufio.Scanner
}

func (b *bed) open(sub, query string) *reader {
	b.Helper()
	path := b.base + "/subscriptions/" + sub + "/events?" + query
	req, err := http.NewRequestWithContext(b.Context(), "GET", path, nil)
	if err != nil {
		b.Fatal(err)
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { res.Body.Close() })
	if res.StatusCode != 200 {
		b.Fatalf("open stream: %s", res.Status)
	}
	if kind := res.Header.Get("Content-Type"); kind != "application/x-json-stream" {
		b.Errorf("content type %s", kind)
	}
	return &reader{b, res.Header.Get("X-Nakadi-StreamId"), sub, res.Body, bufio.NewScanner(res.Body)}
}

// next reads a line; ok is false at the end.
func (r *reader) next() (l line, ok bool) {
	r.b.Helper()
	if !r.lines.Scan() {
		return l, false
	}
	if err := json.Unmarshal(r.lines.Bytes(), &l); err != nil {
		r.b.Fatal(err)
	}
	return l, true
}

// batch reads on to the next line with events.
func (r *reader) batch() line {
	r.b.Helper()
	for {
		l, ok := r.next()
		if !ok {
			r.b.Fatal("the stream has ended")
		}
		if len(l.Events) > 0 {
			return l
		}
	}
}

func (r *reader) commit(cs ...cursor) got {
	r.b.Helper()
	text, err := json.Marshal(cursorList{cs})
	if err != nil {
		r.b.Fatal(err)
	}
	return r.b.do("POST", "/subscriptions/"+r.sub+"/cursors", string(text),
		"X-Nakadi-StreamId", r.id)
}

// until waits for a condition.
func (b *bed) until(what string, ok func() bool) {
	b.Helper()
	end := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(end) {
			b.Fatalf("still not: %s", what)
		}
		t := time.NewTimer(5 * time.Millisecond)
		<-t.C
	}
}
