package nakadi

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"
)

// subscriptionDef is a subscription as it is written.
type subscriptionDef struct {
	ID            string            `json:"id"`
	Application   string            `json:"owning_application"`
	Types         []string          `json:"event_types"`
	Group         string            `json:"consumer_group"`
	ReadFrom      string            `json:"read_from"`
	Initial       []cursor          `json:"initial_cursors,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Authorization *struct {
		Admins  []attribute `json:"admins"`
		Readers []attribute `json:"readers"`
	} `json:"authorization,omitempty"`
}

// cursor names a place in a partition.
type cursor struct {
	Partition string `json:"partition"`
	Offset    string `json:"offset"`
	Type      string `json:"event_type"`
	Token     string `json:"cursor_token,omitempty"`
}

type subscription struct {
	def      subscriptionDef
	parts    []*subPart
	sessions []*session // in the order of their coming
}

// subPart is how far a partition is read and committed. Offsets are ordinals, -1 = nothing.
type subPart struct {
	kind, name      string // event type and partition
	committed, sent int
	open            []int     // what was sent and is not committed
	owner, next     *session  // next waits until owner has committed, or is gone
	since           time.Time // when the oldest sent event, or the last commit, was
	keptAlive       time.Time // when the last line was sent
	pending         time.Time // since when an unsent event waits; zero = none does
	idle            int       // keep-alives in a row
}

// maxSubscribed bounds the partitions of a subscription.
const maxSubscribed = 100

func newSubscription(d subscriptionDef) *subscription { return &subscription{def: d} }

func (sub *subscription) part(key string) *subPart {
	for _, p := range sub.parts {
		if p.kind+"/"+p.name == key {
			return p
		}
	}
	return nil
}

// addParts adds the partitions that are missing, from a place.
func (sub *subscription) addParts(s *Server, from string) {
	for _, name := range sub.def.Types {
		for _, p := range s.types[name].parts {
			if sub.part(name+"/"+p.name) != nil {
				continue
			}
			sp := &subPart{kind: name, name: p.name, committed: p.first - 1}
			if from == "end" {
				sp.committed = len(p.events) - 1
			}
			sp.sent = sp.committed
			sub.parts = append(sub.parts, sp)
		}
	}
}

func (s *Server) createSubscription(w http.ResponseWriter, r *request) {
	d, p := readBody[subscriptionDef](r)
	if p != nil {
		p.write(w)
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d.Group, d.ReadFrom = cmp.Or(d.Group, "default"), cmp.Or(d.ReadFrom, "end")
	slices.Sort(d.Types)
	for _, old := range s.subs {
		if old.def.Application == d.Application && old.def.Group == d.Group &&
			slices.Equal(old.def.Types, d.Types) {
			answer(w, http.StatusOK, &old.def)
			return
		}
	}
	d.ID = newUUID()
	sub := newSubscription(*d)
	if p := s.checkSubscription(sub); p != nil {
		p.write(w)
		return
	}
	s.subs[d.ID] = sub
	s.journal.put(entry{Sub: &sub.def})
	for _, sp := range sub.parts {
		s.keep(sub, sp)
	}
	answer(w, http.StatusCreated, &sub.def)
}

func (s *Server) checkSubscription(sub *subscription) *problem {
	d := &sub.def
	switch {
	case !slices.Contains([]string{"begin", "end", "cursors"}, d.ReadFrom):
		return problemf(http.StatusBadRequest, "read_from %q is unknown", d.ReadFrom)
	case d.Application == "" || len(d.Types) == 0:
		return problemf(422, "owning_application or event_types is missing")
	}
	for _, name := range d.Types {
		if s.types[name] == nil {
			return problemf(422,
				"Failed to create subscription, event type(s) not found: '%s'", name)
		}
	}
	sub.addParts(s, d.ReadFrom)
	if len(sub.parts) > maxSubscribed {
		return problemf(422, "%d partitions, at most %d are allowed", len(sub.parts), maxSubscribed)
	}
	if d.ReadFrom != "cursors" {
		return nil
	}
	set := map[*subPart]bool{}
	for _, c := range d.Initial {
		sp, n, p := sub.locate(c)
		if p != nil {
			return p
		}
		sp.committed, sp.sent, set[sp] = n, n, true
	}
	if len(set) != len(sub.parts) {
		return problemf(422, "initial_cursors should contain cursors for all partitions")
	}
	return nil
}

// locate reads a cursor.
func (sub *subscription) locate(c cursor) (*subPart, int, *problem) {
	sp := sub.part(c.Type + "/" + c.Partition)
	if sp == nil {
		return nil, 0, problemf(422, "non existing partition %s of %s", c.Partition, c.Type)
	}
	n, ok := readOffset(c.Offset)
	if !ok {
		return nil, 0, problemf(422, "invalid offset %s for partition %s", c.Offset, c.Partition)
	}
	return sp, n, nil
}

// keep writes down how far a partition is committed.
func (s *Server) keep(sub *subscription, sp *subPart) {
	s.journal.put(entry{Commit: &commitEntry{sub.def.ID, sp.kind + "/" + sp.name, sp.committed}})
}

// findSub returns the subscription of the path where its user may do with it what he wants to.
// mu is held.
func (s *Server) findSub(r *request, admin bool) (*subscription, *problem) {
	sub := s.subs[r.PathValue("id")]
	if sub == nil {
		return nil, problemf(http.StatusNotFound,
			"Subscription with id '%s' does not exist", r.PathValue("id"))
	}
	if a := sub.def.Authorization; a != nil {
		list := a.Readers
		if admin {
			list = a.Admins
		}
		if !authorized(r.user, list) {
			return nil, problemf(http.StatusForbidden, "Access on subscription:%s denied", sub.def.ID)
		}
	}
	for _, name := range sub.def.Types {
		if a := s.types[name].def.Authorization; a != nil && !authorized(r.user, a.Readers) {
			return nil, problemf(http.StatusForbidden, "Access on READ event-type:%s denied", name)
		}
	}
	return sub, nil
}

// onSub makes a handler of one that works, with mu held, on the subscription of the path.
func (s *Server) onSub(admin bool, h func(http.ResponseWriter, *request, *subscription) *problem,
) func(http.ResponseWriter, *request) {
	return func(w http.ResponseWriter, r *request) {
		body, _ := io.ReadAll(r.Body) // not with mu held; that it is cut off is seen by who reads it
		r.Body = io.NopCloser(bytes.NewReader(body))
		s.mu.Lock()
		defer s.mu.Unlock()
		sub, p := s.findSub(r, admin)
		if p == nil {
			p = h(w, r, sub)
		}
		if p != nil {
			p.write(w)
		}
	}
}

func (s *Server) listSubscriptions(w http.ResponseWriter, r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := r.URL.Query()
	list := []*subscriptionDef{}
	for _, id := range slices.Sorted(maps.Keys(s.subs)) {
		d := &s.subs[id].def
		app, kind := q.Get("owning_application"), q.Get("event_type")
		if (app == "" || app == d.Application) && (kind == "" || slices.Contains(d.Types, kind)) {
			list = append(list, d)
		}
	}
	limit, offset := number(q.Get("limit"), 20), number(q.Get("offset"), 0)
	list = list[min(offset, len(list)):]
	answer(w, http.StatusOK, map[string]any{"items": list[:min(limit, len(list))]})
}

func number(text string, unset int) int {
	if n, err := strconv.Atoi(text); err == nil {
		return n
	}
	return unset
}

func (s *Server) getSubscription(w http.ResponseWriter, _ *request, sub *subscription) *problem {
	answer(w, http.StatusOK, &sub.def)
	return nil
}

// putSubscription changes the authorization, and nothing else.
func (s *Server) putSubscription(w http.ResponseWriter, r *request, sub *subscription) *problem {
	d, p := readBody[subscriptionDef](r)
	if p != nil {
		return p
	}
	sub.def.Authorization = d.Authorization
	s.journal.put(entry{Sub: &sub.def})
	for _, sp := range sub.parts {
		s.keep(sub, sp)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) deleteSubscription(w http.ResponseWriter, _ *request, sub *subscription) *problem {
	sub.disconnect()
	delete(s.subs, sub.def.ID)
	s.journal.put(entry{NoSub: sub.def.ID})
	s.wake()
	w.WriteHeader(http.StatusNoContent)
	return nil
}
