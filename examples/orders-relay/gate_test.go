package orders

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// gate stands between one client and the server of one system. It sees each request and what the
// client heard of it, and holds one at a moment that a fault wants: so a fault always finds work in
// flight.
type gate struct {
	url    string
	server *httptest.Server
	client *http.Client

	mu     sync.Mutex // guards all below; not held during I/O
	target string
	traps  []*trap
	open   map[*passage]bool
	log    []*passage // requests that publish events
	prefix string     // of the flow IDs
}

// passage is one request.
type passage struct {
	flow   string
	at     time.Time
	fate   fate
	failed map[string]bool // eids that the answer calls failed
	dead   bool            // its client was killed
}

// fate is what the client heard.
type fate string

const (
	fateAnswered fate = "answered"
	fatePartial  fate = "207"
	fateLost     fate = "answer lost"
	fateTimeout  fate = "timed out"
	fateKilled   fate = "sender killed"
)

// trap holds the next request that it matches, before it is forwarded or when its answer is there.
type trap struct {
	match  func(r *http.Request, body []byte) bool
	before bool
	caught chan struct{} // closed when one is held
	let    chan struct{} // closed to let it go on
	drop   bool          // the answer is lost; set before let is closed
}

func newGate(t *testing.T, prefix, target string) *gate {
	t.Helper()
	g := &gate{target: target, prefix: prefix, open: map[*passage]bool{}}
	g.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	g.server = httptest.NewServer(g)
	g.url = g.server.URL
	t.Cleanup(func() {
		g.server.CloseClientConnections()
		g.server.Close()
		g.client.CloseIdleConnections()
	})
	return g
}

// host is the address without its scheme.
func (g *gate) host() string { return strings.TrimPrefix(g.url, "http://") }

// ServeHTTP passes one request on.
func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // its client is gone
	}
	p := g.enter(r)
	defer g.leave(p)
	if tr := g.take(r, body, true); tr != nil {
		<-tr.let
	}
	heard := g.forward(r, body, p)
	if tr := g.take(r, body, false); tr != nil {
		<-tr.let
		if tr.drop {
			heard = nil
		}
	}
	if g.settle(r, p, heard) {
		maps.Copy(w.Header(), heard.header)
		w.WriteHeader(heard.status)
		_, _ = w.Write(heard.body) // who is gone is seen at the next request
		return
	}
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

func publishes(r *http.Request, _ []byte) bool {
	return r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/events")
}

func (g *gate) enter(r *http.Request) *passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	p := &passage{flow: g.prefix + strconv.Itoa(len(g.log)), at: time.Now(), failed: map[string]bool{}}
	if publishes(r, nil) {
		g.log = append(g.log, p)
	}
	g.open[p] = true
	return p
}

func (g *gate) leave(p *passage) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.open, p)
}

func (g *gate) take(r *http.Request, body []byte, before bool) *trap {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, tr := range g.traps {
		if tr.before == before && tr.match(r, body) {
			g.traps = append(g.traps[:i:i], g.traps[i+1:]...)
			close(tr.caught)
			return tr
		}
	}
	return nil
}

// answer is a server's, read as a whole.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// forward asks the server, and waits though the client may be gone: a network does not call back
// what was sent. It returns nil where there is no answer.
func (g *gate) forward(r *http.Request, body []byte, p *passage) *answer {
	g.mu.Lock()
	target := g.target
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), time.Minute)
	defer cancel()
	out, err := http.NewRequestWithContext(ctx, r.Method, target+r.URL.RequestURI(),
		bytes.NewReader(body))
	if err != nil {
		return nil
	}
	out.Header = r.Header.Clone()
	if publishes(r, nil) {
		out.Header.Set("X-Flow-Id", p.flow)
	}
	res, err := g.client.Do(out)
	if err != nil {
		return nil
	}
	defer func() { _ = res.Body.Close() }() // it is read
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return nil
	}
	return &answer{res.StatusCode, res.Header, text}
}

// settle notes what the client hears, and reports whether it is the answer.
func (g *gate) settle(r *http.Request, p *passage, heard *answer) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case p.dead:
		p.fate = fateKilled
	case r.Context().Err() != nil:
		p.fate = fateTimeout
	case heard == nil:
		p.fate = fateLost
	case heard.status == http.StatusMultiStatus:
		p.fate = fatePartial
		var items []struct {
			EID    string `json:"eid"`
			Status string `json:"publishing_status"`
		}
		if json.Unmarshal(heard.body, &items) == nil {
			for _, it := range items {
				p.failed[it.EID] = it.Status != "submitted"
			}
		}
	default:
		p.fate = fateAnswered
	}
	return heard != nil && !p.dead
}

// set lays a trap. Its request is held until release.
func (g *gate) set(before bool, match func(*http.Request, []byte) bool) *trap {
	tr := &trap{match: match, before: before, caught: make(chan struct{}), let: make(chan struct{})}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.traps = append(g.traps, tr)
	return tr
}

func (tr *trap) release(drop bool) {
	tr.drop = drop
	close(tr.let)
}

// killed says that the client behind the gate was killed: what it had under way is answered to
// nobody.
func (g *gate) killed() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for p := range g.open {
		p.dead = true
	}
}

// heard reports whether a client has heard so of a request.
func (g *gate) heard(f fate) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.ContainsFunc(g.log, func(p *passage) bool { return p.fate == f })
}

// quiet reports whether nothing was published for so long.
func (g *gate) quiet(d time.Duration) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.open) == 0 && (len(g.log) == 0 || time.Since(g.log[len(g.log)-1].at) > d)
}

// passages are the requests that published, by flow ID.
func (g *gate) passages() map[string]*passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := map[string]*passage{}
	for _, p := range g.log {
		all[p.flow] = p
	}
	return all
}

// action matches requests of AWS's protocols that carry one of the actions out.
func action(names ...string) func(*http.Request, []byte) bool {
	return func(r *http.Request, body []byte) bool {
		for _, name := range names {
			if strings.Contains(r.Header.Get("X-Amz-Target"), "."+name) ||
				bytes.Contains(body, []byte("Action="+name)) {
				return true
			}
		}
		return false
	}
}
