package nakadi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options configure a Server. The zero value is ready to use: in memory, open to everybody.
type Options struct {
	// Dir keeps the data for the next start. Default: "", nothing is kept.
	Dir string
	// Tokens are the valid bearer tokens, and whose they are. Default: none, everybody may all.
	Tokens map[string]string
	// MaxEventBytes bounds the text of one event. Default: 999,000.
	MaxEventBytes int
	// MaxPartitions bounds the partitions of a type; more are silently cut. Default: 8.
	MaxPartitions int
	// MaxCommitTimeout bounds commit_timeout and is its default. Default: 60 s.
	MaxCommitTimeout time.Duration
}

// Server is the fake. It is an http.Handler of its own, so that it runs in a test's process too.
type Server struct {
	o       Options
	mux     *http.ServeMux
	streams sync.WaitGroup

	mu      sync.Mutex // guards all below; not held while a connection is written
	types   map[string]*eventType
	subs    map[string]*subscription
	tokens  map[string]string
	faults  []*Fault
	fired   map[string]int
	journal *journal
	changed chan struct{} // closed and replaced when a stream should look again
	closed  bool
}

// New makes a server, with what Options.Dir holds.
func New(o Options) (*Server, error) {
	o.MaxEventBytes = cmp.Or(o.MaxEventBytes, 999_000)
	o.MaxPartitions = cmp.Or(o.MaxPartitions, 8)
	o.MaxCommitTimeout = cmp.Or(o.MaxCommitTimeout, 60*time.Second)
	s := &Server{o: o, mux: http.NewServeMux(), types: map[string]*eventType{},
		subs: map[string]*subscription{}, tokens: map[string]string{}, fired: map[string]int{},
		changed: make(chan struct{})}
	maps.Copy(s.tokens, o.Tokens)
	if o.Dir != "" {
		if err := s.openJournal(); err != nil {
			return nil, fmt.Errorf("open the data of the fake: %w", err)
		}
	}
	s.routes()
	return s, nil
}

// Close ends all streams and gives the data directory back.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	s.wake()
	s.mu.Unlock()
	s.streams.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.journal.close()
}

// wake makes streams look again. mu is held.
func (s *Server) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) routes() {
	api := func(pattern, kind string, h func(w http.ResponseWriter, r *request)) {
		s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			s.serve(w, &request{Request: r, kind: kind}, h)
		})
	}
	api("GET /health", "health", func(w http.ResponseWriter, _ *request) {
		_, _ = io.WriteString(w, "OK")
	})
	api("POST /event-types", "types", s.createType)
	api("GET /event-types", "types", s.listTypes)
	api("GET /event-types/{name}", "types", s.getType)
	api("PUT /event-types/{name}", "types", s.putType)
	api("DELETE /event-types/{name}", "types", s.deleteType)
	api("GET /event-types/{name}/partitions", "partitions", s.getPartitions)
	api("POST /event-types/{name}/events", "publish", s.publish)
	api("POST /subscriptions", "subscriptions", s.createSubscription)
	api("GET /subscriptions", "subscriptions", s.listSubscriptions)
	api("GET /subscriptions/{id}", "subscriptions", s.onSub(false, s.getSubscription))
	api("PUT /subscriptions/{id}", "subscriptions", s.onSub(true, s.putSubscription))
	api("DELETE /subscriptions/{id}", "subscriptions", s.onSub(true, s.deleteSubscription))
	api("GET /subscriptions/{id}/events", "stream", s.stream)
	api("POST /subscriptions/{id}/events", "stream", s.stream)
	api("GET /subscriptions/{id}/cursors", "cursors", s.onSub(false, s.getCursors))
	api("POST /subscriptions/{id}/cursors", "commit", s.commitCursors)
	api("PATCH /subscriptions/{id}/cursors", "cursors", s.onSub(true, s.resetCursors))
	api("GET /subscriptions/{id}/stats", "stats", s.onSub(false, s.getStats))
	s.adminRoutes()
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	flow := cmp.Or(r.Header.Get("X-Flow-Id"), newUUID())
	r.Header.Set("X-Flow-Id", flow)
	w.Header().Set("X-Flow-Id", flow)
	s.mux.ServeHTTP(w, r)
}

// request is an HTTP request with what was found out of it.
type request struct {
	*http.Request
	kind  string
	user  string // "" = nobody has to be anybody
	fault *Fault
}

// serve lets faults and the token come before a request's own work.
func (s *Server) serve(w http.ResponseWriter, r *request,
	h func(http.ResponseWriter, *request)) {
	r.fault = s.takeFault(r)
	if r.fault != nil && s.breakRequest(w, r) {
		return
	}
	s.mu.Lock()
	user, ok := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	open := len(s.o.Tokens) == 0
	s.mu.Unlock()
	if !ok && !open {
		w.Header().Set("WWW-Authenticate", `Bearer realm="nakadi", error="invalid_token"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		writeJSON(w, &problem{Title: "Unauthorized", Status: 401, Detail: "token not valid"})
		return
	}
	r.user = user
	h(w, r)
}

// problem is an error as RFC 7807 has it; like Nakadi's it often has no type.
type problem struct {
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

func (p *problem) Error() string { return p.Detail }

func problemf(status int, format string, args ...any) *problem {
	return &problem{Title: http.StatusText(status), Status: status,
		Detail: fmt.Sprintf(format, args...)}
}

func (p *problem) write(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	writeJSON(w, p)
}

func writeJSON(w io.Writer, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own types are written
	}
	_, _ = w.Write(b) // a client that is gone reads nothing
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	writeJSON(w, v)
}

// authorized reports whether user stands in the list. An empty list is everybody's.
func authorized(user string, list []attribute) bool {
	for _, a := range list {
		if a.Value == user || a.Value == "*" {
			return true
		}
	}
	return len(list) == 0 || user == ""
}

// attribute is one entry of an authorization list.
type attribute struct {
	DataType string `json:"data_type"`
	Value    string `json:"value"`
}
