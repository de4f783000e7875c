package nakadi

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"
	"time"
)

// params are what a stream asks for.
type params struct {
	batch, uncommitted, limit, keepAlives int
	flush, commitTimeout, timeout         time.Duration
}

type streamBody struct {
	BatchLimit    *int     `json:"batch_limit"`
	Flush         *int     `json:"batch_flush_timeout"`
	Uncommitted   *int     `json:"max_uncommitted_events"`
	CommitTimeout *int     `json:"commit_timeout"`
	Timeout       *int     `json:"stream_timeout"`
	Limit         *int     `json:"stream_limit"`
	KeepAlives    *int     `json:"stream_keep_alive_limit"`
	Partitions    []cursor `json:"partitions"`
}

// readParams reads them from the query, or from the body of a POST.
func (s *Server) readParams(r *request) (params, []cursor, *problem) {
	body := &streamBody{}
	if r.Method == http.MethodPost {
		var p *problem
		if body, p = readBody[streamBody](r); p != nil {
			return params{}, nil, p
		}
	}
	var fault *problem
	get := func(name string, given *int, unset int) int {
		text := r.URL.Query().Get(name)
		switch n, err := strconv.Atoi(text); {
		case given != nil:
			return *given
		case text == "":
			return unset
		case err != nil:
			fault = problemf(http.StatusBadRequest, "%s=%q is not a number", name, text)
			return 0
		default:
			return n
		}
	}
	most := int(s.o.MaxCommitTimeout / time.Second)
	commit := get("commit_timeout", body.CommitTimeout, most)
	timeout := get("stream_timeout", body.Timeout, 3600)
	flush := get("batch_flush_timeout", body.Flush, 30)
	p := params{
		batch:       get("batch_limit", body.BatchLimit, 1),
		uncommitted: get("max_uncommitted_events", body.Uncommitted, 10),
		limit:       get("stream_limit", body.Limit, 0),
		keepAlives:  get("stream_keep_alive_limit", body.KeepAlives, 0),
	}
	if timeout <= 0 || timeout > 4200 {
		timeout = 3600
	}
	switch {
	case fault != nil:
	case p.batch < 1:
		fault = problemf(422, "batch_limit can't be lower than 1")
	case p.uncommitted < 1:
		fault = problemf(422, "max_uncommitted_events can't be lower than 1")
	case commit < 0 || commit > most:
		fault = problemf(422, "commit_timeout can not be more than %d", most)
	}
	p.flush = time.Duration(cmp.Or(max(0, flush), 30)) * time.Second
	p.commitTimeout = time.Duration(cmp.Or(commit, most)) * time.Second
	p.timeout = time.Duration(timeout) * time.Second
	return p, body.Partitions, fault
}

// tick bounds how long a stream waits before it looks at the clock.
const tick = 50 * time.Millisecond

// stream serves one stream until it is over. Like Nakadi it learns that a client is gone only when
// a write fails.
func (s *Server) stream(w http.ResponseWriter, r *request) {
	sub, ses, p := s.openStream(r)
	if p != nil {
		p.write(w)
		return
	}
	defer s.streams.Done()
	w.Header().Set("Content-Type", "application/x-json-stream")
	w.Header().Set("X-Nakadi-StreamId", ses.id)
	w.WriteHeader(http.StatusOK)
	control := http.NewResponseController(w)
	err := control.Flush()
	for over := false; err == nil && !over; {
		var out []byte
		var changed <-chan struct{}
		out, over, changed = s.advance(sub, ses, time.Now())
		if len(out) > 0 {
			if _, err = w.Write(out); err == nil {
				err = control.Flush()
			}
			continue
		}
		if over {
			break
		}
		t := time.NewTimer(tick)
		select {
		case <-changed:
		case <-t.C:
		}
		t.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		sub.leave(ses, time.Now())
	} else {
		sub.detach(ses, time.Now())
	}
	s.wake()
}

func (s *Server) openStream(r *request) (*subscription, *session, *problem) {
	params, wanted, p := s.readParams(r)
	if p != nil {
		return nil, nil, p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, p := s.findSub(r, false)
	if p != nil {
		return nil, nil, p
	}
	if s.closed {
		return nil, nil, problemf(http.StatusServiceUnavailable, "the server is stopping")
	}
	ses := &session{id: newUUID(), params: params, started: time.Now()}
	for _, c := range wanted {
		sp := sub.part(c.Type + "/" + c.Partition)
		if sp == nil {
			return nil, nil, problemf(422, "partition %s is not in the subscription", c.Partition)
		}
		ses.direct = append(ses.direct, sp)
	}
	if p := sub.join(ses, time.Now()); p != nil {
		return nil, nil, p
	}
	s.streams.Add(1)
	s.wake()
	return sub, ses, nil
}

// line is one line of a stream.
type line struct {
	Cursor cursor            `json:"cursor"`
	Events []json.RawMessage `json:"events,omitempty"`
	Info   map[string]string `json:"info,omitempty"`
}

func (p *subPart) line(events []json.RawMessage, debug string) []byte {
	l := line{Cursor: cursor{p.name, offsetText(p.sent), p.kind, newUUID()}, Events: events}
	if debug != "" {
		l.Info = map[string]string{"debug": debug}
	}
	b, err := json.Marshal(l)
	if err != nil {
		panic(err)
	}
	return append(b, '\n')
}

// advance returns what a stream has to send now, whether it is over then, and what else it waits
// for.
func (s *Server) advance(sub *subscription, ses *session, now time.Time) (
	out []byte, over bool, changed <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.expire(now)
	if s.closed || ses.gone {
		return nil, true, nil
	}
	if p := sub.late(ses, now); p != nil {
		out = p.line(nil, "Commit timeout reached")
		sub.leave(ses, now)
		s.wake()
		return out, true, nil
	}
	over = now.Sub(ses.started) >= ses.params.timeout ||
		ses.params.limit > 0 && ses.committed >= ses.params.limit
	want := ses.params
	if over {
		want.flush = 0 // what waits is sent before the end
	}
	budget := want.uncommitted - sub.uncommitted(ses)
	idle := ses.params.keepAlives > 0
	for _, p := range sub.parts {
		if p.owner != ses || p.next != nil {
			continue
		}
		events := p.due(s.types[p.kind].part(p.name), want, min(budget, want.batch), now)
		budget -= len(events)
		switch {
		case len(events) > 0:
			out = append(out, p.line(events, "")...)
			p.keptAlive, p.idle = now, 0
		case now.Sub(p.keptAlive) >= ses.params.flush:
			out = append(out, p.line(nil, "")...)
			p.keptAlive = now
			p.idle++
		}
		idle = idle && p.idle >= ses.params.keepAlives
	}
	return out, over || idle && sub.owns(ses), s.changed
}

func (sub *subscription) owns(ses *session) bool {
	for _, p := range sub.parts {
		if p.owner == ses {
			return true
		}
	}
	return false
}

// due takes the next batch of a partition, where it is full, has waited long enough, or the stream
// ends. What is gone before it was sent is passed over, and nobody has to commit it.
func (p *subPart) due(from *partition, want params, most int, now time.Time) []json.RawMessage {
	p.sent = max(p.sent, from.first-1)
	if most <= 0 || p.sent+1 >= len(from.events) {
		return nil
	}
	if p.pending.IsZero() {
		p.pending = now
	}
	n := min(most, len(from.events)-p.sent-1)
	if n < want.batch && now.Sub(p.pending) < want.flush {
		return nil
	}
	if len(p.open) == 0 {
		p.since = now
	}
	p.pending = time.Time{}
	var events []json.RawMessage
	for range n {
		p.sent++
		p.open = append(p.open, p.sent)
		events = append(events, from.events[p.sent].Event)
	}
	return events
}
