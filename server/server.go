// Package server serves a queue.Store to other processes: the native API, JSON over HTTP/1.1, which
// package client speaks. Local serves it on the Unix socket of the store's directory.
//
//	client ── POST /v1/publish ───────────────▶ store.Publish
//	       ── POST /v1/receivers ═════════════▶ store.Receiver   (the stream is the session)
//	       ── POST /v1/receive, /v1/settle ───▶ its Receive, Settle
//
// It promises that an answer is what the store said, errors included (client/wire has the table),
// that everything a caller can make it hold is bounded before any work is done, and that a
// consumer's session ends as consumer-lost at once when its stream closes without a word, but
// stays for the next owner when the server itself stops.
//
// It does not authenticate: who may open the socket may do everything. Its forms are in package
// client/wire.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/client/wire"
	"github.com/ackwise/ackwise/queue"
)

// Options configure a Handler. The zero value is ready to use.
type Options struct {
	// MaxRequestBytes bounds the body of one request. JSON makes bytes longer (six for one at the
	// worst), so it is well above the store's MaxBatchBytes. Default: 64 MiB.
	MaxRequestBytes int64
	// MaxCalls bounds the calls that are carried out at once; more wait. A Receive that waits for
	// deliveries is bounded by MaxSessions instead. Default: 64.
	MaxCalls int
	// MaxSessions bounds the consumers' sessions, and apart from them the streams that watch the
	// owner. More are refused with ErrFull. Default: 1024.
	MaxSessions int
}

func (o Options) withDefaults() Options {
	if o.MaxRequestBytes == 0 {
		o.MaxRequestBytes = 64 << 20
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = 64
	}
	if o.MaxSessions == 0 {
		o.MaxSessions = 1024
	}
	return o
}

// bodyTimeout bounds how long a client may take over a request's body.
const bodyTimeout = 30 * time.Second

const (
	// valuesOfOne is how many JSON values a message or a key has at the most: a message with its
	// headers, a key with its sum.
	valuesOfOne = 256
	// leastValues is how many values a request may have whatever MaxBatch is.
	leastValues = 1 << 20
)

// Handler serves the native API of store. It stops when the store does.
func Handler(store *queue.Store, o Options) http.Handler { return newHandler(store, o) }

// handler is the native API of a store.
type handler struct {
	store     *queue.Store
	opt       Options
	mux       *http.ServeMux
	calls     chan struct{} // one slot a call that is carried out
	watchers  chan struct{} // one slot an Owner stream
	consumers chan struct{} // one slot a Receivers stream
	sessions  sessions
	values    int // that one request may have

	stopping context.Context // ends when the server is about to stop
	stop     context.CancelFunc
	streams  sync.WaitGroup // the streams that may still end a session
}

func newHandler(store *queue.Store, o Options) *handler {
	o = o.withDefaults()
	h := &handler{store: store, opt: o, mux: http.NewServeMux(),
		calls: make(chan struct{}, o.MaxCalls), watchers: make(chan struct{}, o.MaxSessions),
		consumers: make(chan struct{}, o.MaxSessions),
		sessions:  sessions{open: map[string]*session{}}}
	h.values = max(leastValues, valuesOfOne*store.Features().MaxBatch)
	h.stopping, h.stop = context.WithCancel(context.Background())
	h.routeStore()
	h.routeDead()
	h.routeSessions()
	return h
}

// ServeHTTP answers one request.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.over() {
		refuse(w, wire.ErrHandingOver)
		return
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Method == http.MethodPost && (err != nil || kind != "application/json") {
		refuse(w, &ackwise.InvalidError{Field: "content type", Value: kind,
			Reason: "a request's body is application/json"})
		return
	}
	h.mux.ServeHTTP(w, r)
}

// over reports whether this owner is giving the directory up.
func (h *handler) over() bool {
	if h.stopping.Err() != nil {
		return true
	}
	select {
	case <-h.store.Done():
		return h.store.Err() == nil
	default:
		return false
	}
}

// handOver turns what a store that was closed in good order says into wire.ErrHandingOver: the next
// owner will say something else.
func (h *handler) handOver(err error) error {
	if errors.Is(err, ackwise.ErrClosed) && h.over() {
		return wire.ErrHandingOver
	}
	return err
}

// route answers a call with fn: within the bounds, one JSON value in and one out.
func route[Req, Resp any](h *handler, name wire.Call,
	fn func(context.Context, Req) (Resp, error)) {
	h.mux.HandleFunc("POST "+wire.Prefix+string(name),
		func(w http.ResponseWriter, r *http.Request) {
			var req Req
			done, err := h.admit(w, r, &req)
			if err != nil {
				refuse(w, err)
				return
			}
			defer done()
			resp, err := fn(r.Context(), req)
			if err != nil {
				refuse(w, h.handOver(err))
				return
			}
			answer(w, resp)
		})
}

// admit waits for a slot and reads the request into req. After done the slot is free.
func (h *handler) admit(w http.ResponseWriter, r *http.Request, req any) (done func(), err error) {
	select {
	case h.calls <- struct{}{}:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	if err := h.read(w, r, req); err != nil {
		<-h.calls
		return nil, err
	}
	return func() { <-h.calls }, nil
}

// read reads a request's body, to its end: only then is a closed connection noticed.
func (h *handler) read(w http.ResponseWriter, r *http.Request, req any) error {
	conn := http.NewResponseController(w)
	_ = conn.SetReadDeadline(time.Now().Add(bodyTimeout)) // not every transport has deadlines
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, h.opt.MaxRequestBytes))
	_ = conn.SetReadDeadline(time.Time{})
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return fmt.Errorf("read request: more than %d bytes: %w", tooLarge.Limit,
			ackwise.ErrTooLarge)
	}
	if err != nil {
		return fmt.Errorf("read request: %w", err)
	}
	if len(b) > h.values { // else it cannot have more
		if n := values(b); n > h.values {
			return fmt.Errorf("read request: it has %d values, at most %d are allowed: %w", n,
				h.values, ackwise.ErrTooLarge)
		}
	}
	if err := json.Unmarshal(b, req); err != nil {
		if _, ok := errors.AsType[*ackwise.InvalidError](err); ok {
			return err
		}
		return &ackwise.InvalidError{Field: "request", Reason: err.Error()}
	}
	return nil
}

// values counts the values of a JSON text without making them: those that a comma ends, and the
// last. A text of a few bytes a value would take hundreds of times its size in memory.
func values(text []byte) int {
	n, quoted := 1, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			quoted = !quoted
		case c == '\\' && quoted:
			i++ // what it escapes
		case c == ',' && !quoted:
			n++
		}
	}
	return n
}

// answer writes a value. That it cannot be written is the client's to notice: it sends again.
func answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, fmt.Errorf("write answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}

// refuse writes an error as a problem.
func refuse(w http.ResponseWriter, err error) {
	p := wire.ProblemOf(err)
	b, merr := json.Marshal(p)
	if merr != nil {
		http.Error(w, p.Detail, p.Status)
		return
	}
	w.Header().Set("Content-Type", wire.ContentType)
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(b, '\n'))
}
