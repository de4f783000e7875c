package nakadi

import (
	"net/http"
	"slices"
	"time"
)

type cursorList struct {
	Items []cursor `json:"items"`
}

// getCursors returns what is committed. As in Nakadi there is no token in it.
func (s *Server) getCursors(w http.ResponseWriter, _ *request, sub *subscription) *problem {
	list := cursorList{Items: []cursor{}}
	for _, sp := range sub.parts {
		list.Items = append(list.Items, cursor{Partition: sp.name,
			Offset: offsetText(sp.committed), Type: sp.kind})
	}
	answer(w, http.StatusOK, list)
	return nil
}

type commitResult struct {
	Cursor cursor `json:"cursor"`
	Result string `json:"result"`
}

func (s *Server) commitCursors(w http.ResponseWriter, r *request) {
	results, p := s.commit(r)
	if r.fault.is(LoseAnswer) {
		hangUp(w)
		return
	}
	if p != nil {
		p.write(w)
		return
	}
	for _, res := range results {
		if res.Result != "committed" {
			answer(w, http.StatusOK, map[string]any{"items": results})
			return
		}
	}
	w.WriteHeader(http.StatusNoContent)
}

func (s *Server) commit(r *request) ([]commitResult, *problem) {
	list, p := readBody[cursorList](r)
	if p != nil {
		return nil, p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub, p := s.findSub(r, false)
	if p != nil {
		return nil, p
	}
	now := time.Now()
	sub.expire(now)
	ses, p := sub.session(r.Header.Get("X-Nakadi-StreamId"), now)
	switch {
	case p != nil:
		return nil, p
	case len(list.Items) == 0:
		return nil, problemf(422, "items may not be empty")
	}
	for _, c := range list.Items {
		sp, _, p := sub.locate(c)
		switch {
		case p != nil:
			return nil, p
		case c.Token == "":
			return nil, problemf(422, "cursor_token may not be null")
		case sp.owner != ses:
			return nil, problemf(422, "Cursor %s of %s cannot be committed with stream id %s",
				c.Offset, c.Partition, ses.id)
		}
	}
	var results []commitResult
	for _, c := range list.Items {
		sp, n, _ := sub.locate(c)
		result := commitResult{c, "outdated"}
		if n > sp.committed {
			open := slices.DeleteFunc(sp.open, func(sent int) bool { return sent <= n })
			ses.committed += len(sp.open) - len(open)
			sp.open, sp.committed, sp.sent, sp.since = open, n, max(n, sp.sent), now
			result.Result = "committed"
			s.keep(sub, sp)
		}
		results = append(results, result)
	}
	sub.expire(now)
	s.wake()
	return results, nil
}

// session finds a session that may still commit.
func (sub *subscription) session(id string, now time.Time) (*session, *problem) {
	if id == "" {
		return nil, problemf(http.StatusBadRequest,
			"Required request header 'X-Nakadi-StreamId' is not present")
	}
	for _, ses := range sub.sessions {
		if ses.id == id && sub.late(ses, now) == nil {
			return ses, nil
		}
	}
	return nil, problemf(422, "Session with stream id %s not found", id)
}

// resetCursors moves the committed offsets and disconnects everybody.
func (s *Server) resetCursors(w http.ResponseWriter, r *request, sub *subscription) *problem {
	list, p := readBody[cursorList](r)
	if p != nil {
		return p
	}
	for _, c := range list.Items {
		if _, _, p := sub.locate(c); p != nil {
			return p
		}
	}
	sub.disconnect()
	for _, c := range list.Items {
		sp, n, _ := sub.locate(c)
		sp.committed, sp.sent = n, n
		s.keep(sub, sp)
	}
	s.wake()
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) getStats(w http.ResponseWriter, r *request, sub *subscription) *problem {
	now := time.Now()
	sub.expire(now)
	type part struct {
		Partition  string `json:"partition"`
		State      string `json:"state"`
		Unconsumed int    `json:"unconsumed_events"`
		Lag        *int   `json:"consumer_lag_seconds,omitempty"`
		Stream     string `json:"stream_id"`
	}
	type kind struct {
		Type  string `json:"event_type"`
		Parts []part `json:"partitions"`
	}
	list := []kind{}
	for _, name := range sub.def.Types {
		k := kind{Type: name}
		for _, sp := range sub.parts {
			if sp.kind != name {
				continue
			}
			from := s.types[name].part(sp.name)
			events := from.events
			one := part{Partition: sp.name, State: "unassigned",
				Unconsumed: max(0, len(events)-1-sp.committed)}
			if sp.owner != nil {
				one.State, one.Stream = "assigned", sp.owner.id
			}
			if sp.owner != nil && sp.next != nil {
				one.State = "reassigning"
			}
			if r.URL.Query().Get("show_time_lag") == "true" {
				lag := 0
				if oldest := max(sp.committed+1, from.first); oldest < len(events) {
					lag = int(now.Sub(events[oldest].at) / time.Second)
				}
				one.Lag = &lag
			}
			k.Parts = append(k.Parts, one)
		}
		list = append(list, k)
	}
	answer(w, http.StatusOK, map[string]any{"items": list})
	return nil
}
