package nakadi

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// publish stores a batch, or says of each event why not.
func (s *Server) publish(w http.ResponseWriter, r *request) {
	body, p := readText(r)
	if p != nil {
		p.write(w)
		return
	}
	items, status, p := s.publishBatch(r, body)
	if r.fault.is(LoseAnswer) {
		hangUp(w)
		return
	}
	switch {
	case p != nil:
		p.write(w)
	case items != nil:
		answer(w, status, items)
	default:
		w.WriteHeader(http.StatusOK)
	}
}

func readText(r *request) ([]byte, *problem) {
	var from io.Reader = r.Body
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, problemf(http.StatusBadRequest, "the body is not gzip: %v", err)
		}
		from = z
	}
	body, err := io.ReadAll(from)
	if err != nil {
		return nil, problemf(http.StatusBadRequest, "read the body: %v", err)
	}
	return body, nil
}

// item is what becomes of one event of a batch.
type item struct {
	EID       *string `json:"eid"`
	Status    string  `json:"publishing_status"`
	Step      string  `json:"step"`
	Detail    string  `json:"detail"`
	Partition *string `json:"partition"`
}

func (s *Server) publishBatch(r *request, body []byte) ([]item, int, *problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p := s.find(r)
	if p != nil {
		return nil, 0, p
	}
	if a := t.def.Authorization; a != nil && !authorized(r.user, a.Writers) {
		return nil, 0, problemf(http.StatusForbidden,
			"Access on WRITE event-type:%s denied", t.def.Name)
	}
	list, p := readEvents(body, t)
	if p != nil {
		return nil, 0, p
	}
	if !s.prepare(t, list, r) {
		return items(list), http.StatusUnprocessableEntity, nil
	}
	if r.fault.is(Partial) {
		s.storeSome(t, list, r.fault)
		return items(list), http.StatusMultiStatus, nil
	}
	for _, e := range list {
		s.store(t, e)
	}
	s.wake()
	return nil, http.StatusOK, nil
}

// prepare takes all events through all steps before the broker. The first that is bad aborts all.
func (s *Server) prepare(t *eventType, list []*event, r *request) bool {
	steps := []struct {
		name string
		do   func(*event) string
	}{
		{"validating", func(e *event) string {
			if r.fault.is(Poison) && strings.Contains(fmt.Sprint(e.value), r.fault.Match) {
				return "#: the event is poison"
			}
			return s.validate(e, t)
		}},
		{"partitioning", t.choose},
		{"enriching", func(e *event) string { return enrich(t, e, r) }},
	}
	for _, step := range steps {
		for _, e := range list {
			e.step = step.name
			if e.detail = step.do(e); e.detail != "" {
				e.status = "failed"
				return false
			}
		}
	}
	return true
}

func enrich(t *eventType, e *event, r *request) string {
	if e.meta == nil {
		return ""
	}
	e.meta["received_at"] = time.Now().UTC().Format(time.RFC3339Nano)
	e.meta["event_type"] = t.def.Name
	e.meta["partition"] = e.part.name
	e.meta["published_by"] = r.user
	e.meta["version"] = t.def.Schema.Version
	if e.meta["flow_id"] == nil {
		e.meta["flow_id"] = r.Header.Get("X-Flow-Id")
	}
	return ""
}

// storeSome is a broker that is in trouble: of what it calls failed, some is stored all the same.
func (s *Server) storeSome(t *eventType, list []*event, f *Fault) {
	for i, e := range list {
		e.status, e.step = "submitted", "publishing"
		failed := f.Every == 0 || i%f.Every == 0
		if failed {
			e.status, e.detail = "failed", "timed out"
		}
		if !failed || f.Store {
			s.store(t, e)
		}
	}
	s.wake()
}

func (s *Server) store(t *eventType, e *event) {
	text, err := json.Marshal(e.value) // written anew, as Nakadi does: members move
	if err != nil {
		panic(err)
	}
	st := Stored{Type: t.def.Name, Partition: e.part.name, Offset: offsetText(len(e.part.events)),
		EID: e.eid, Event: text, at: time.Now()}
	s.journal.put(entry{Event: &st})
	e.part.events = append(e.part.events, st)
}

func items(list []*event) []item {
	out := make([]item, len(list))
	for i, e := range list {
		out[i] = item{Status: e.status, Step: e.step, Detail: e.detail}
		if e.eid != "" {
			out[i].EID = &e.eid
		}
		if e.part != nil {
			out[i].Partition = &e.part.name
		}
	}
	return out
}
