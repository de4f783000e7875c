package nakadi

import (
	"encoding/json"
	"net/http"
	"time"
)

// FaultKind is one thing that can go wrong.
type FaultKind string

// The kinds of faults.
const (
	Down         FaultKind = "down"          // the connection ends before anything was done
	Slow         FaultKind = "slow"          // Delay passes before anything is done
	Status       FaultKind = "status"        // Code and RetryAfter are the answer, nothing is done
	Partial      FaultKind = "partial"       // publish answers 207; what is called failed is stored where Store says so
	LoseAnswer   FaultKind = "lose-answer"   // it is done, and the connection ends without an answer
	Poison       FaultKind = "poison"        // publish answers 422 for events that contain Match
	TokenExpired FaultKind = "token-expired" // the token that is sent stops being valid, for good
)

// Fault is a scripted fault.
type Fault struct {
	Kind FaultKind `json:"kind"`
	// On is what it happens to: publish, commit, stream, cursors, stats, partitions, types,
	// subscriptions. "" = publish.
	On string `json:"on,omitempty"`
	// After lets so many requests pass first.
	After int `json:"after,omitempty"`
	// Times is to how many requests it happens; 0 = until it is taken away.
	Times      int           `json:"times,omitempty"`
	Code       int           `json:"code,omitempty"`
	RetryAfter string        `json:"retry_after,omitempty"`
	Delay      time.Duration `json:"delay,omitempty"` // nanoseconds
	// Every says with Partial that only each so-manieth event fails, from the first; 0 = all.
	Every int    `json:"every,omitempty"`
	Store bool   `json:"store,omitempty"`
	Match string `json:"match,omitempty"`
}

func (f *Fault) is(kind FaultKind) bool { return f != nil && f.Kind == kind }

// Inject adds a fault.
func (s *Server) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.On == "" {
		f.On = "publish"
	}
	s.faults = append(s.faults, &f)
}

// Heal takes all faults away.
func (s *Server) Heal() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = nil
}

// Fired returns how often a kind of fault has happened.
func (s *Server) Fired(kind FaultKind) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fired[string(kind)]
}

// SetTokens replaces the valid tokens.
func (s *Server) SetTokens(tokens map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tokens, s.o.Tokens = tokens, tokens
}

// takeFault returns the fault of a request; nil = none.
func (s *Server) takeFault(r *request) *Fault {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range s.faults {
		if f.On != r.kind {
			continue
		}
		if f.After > 0 {
			f.After--
			continue
		}
		if f.Times == 1 {
			s.faults = append(s.faults[:i:i], s.faults[i+1:]...)
		} else if f.Times > 1 {
			f.Times--
		}
		s.fired[string(f.Kind)]++
		return f
	}
	return nil
}

// breakRequest carries out what happens before the work, and reports whether nothing more is done.
func (s *Server) breakRequest(w http.ResponseWriter, r *request) bool {
	switch r.fault.Kind {
	case Down:
		hangUp(w)
		return true
	case Slow:
		t := time.NewTimer(r.fault.Delay)
		defer t.Stop()
		<-t.C
	case Status:
		if r.fault.RetryAfter != "" {
			w.Header().Set("Retry-After", r.fault.RetryAfter)
		}
		problemf(r.fault.Code, "injected").write(w)
		return true
	case TokenExpired:
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.tokens, tokenOf(r))
	case Partial, LoseAnswer, Poison:
	}
	return false
}

func tokenOf(r *request) string {
	const bearer = "Bearer "
	if h := r.Header.Get("Authorization"); len(h) > len(bearer) {
		return h[len(bearer):]
	}
	return ""
}

// hangUp ends the connection without an answer.
func hangUp(w http.ResponseWriter) {
	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

// Events returns what is stored of a type, partition after partition, in order.
func (s *Server) Events(name string) []Stored {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []Stored{}
	if t := s.types[name]; t != nil {
		for _, p := range t.parts {
			list = append(list, p.kept()...)
		}
	}
	return list
}

// Copies returns how often each eid is stored in a type.
func (s *Server) Copies(name string) map[string]int {
	n := map[string]int{}
	for _, e := range s.Events(name) {
		n[e.EID]++
	}
	return n
}

// adminRoutes are for tests in other processes:
//
//	POST /admin/faults {fault}   DELETE /admin/faults   GET /admin/faults: how often each fired
//	GET /admin/events?type=T: {"events": [...], "copies": {eid: n}}
//	PUT /admin/tokens {token: user}
func (s *Server) adminRoutes() {
	s.mux.HandleFunc("POST /admin/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if err := json.NewDecoder(r.Body).Decode(&f); err != nil {
			problemf(http.StatusBadRequest, "read the fault: %v", err).write(w)
			return
		}
		s.Inject(f)
	})
	s.mux.HandleFunc("DELETE /admin/faults", func(http.ResponseWriter, *http.Request) { s.Heal() })
	s.mux.HandleFunc("GET /admin/faults", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		answer(w, http.StatusOK, s.fired)
	})
	s.mux.HandleFunc("GET /admin/events", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("type")
		answer(w, http.StatusOK, map[string]any{
			"events": s.Events(name), "copies": s.Copies(name)})
	})
	s.mux.HandleFunc("PUT /admin/tokens", func(w http.ResponseWriter, r *http.Request) {
		tokens := map[string]string{}
		if err := json.NewDecoder(r.Body).Decode(&tokens); err != nil {
			problemf(http.StatusBadRequest, "read the tokens: %v", err).write(w)
			return
		}
		s.SetTokens(tokens)
	})
}
