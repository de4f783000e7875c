package nakadi

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"time"
)

// typeDef is an event type as it is written. Members that this server does not need are kept raw.
type typeDef struct {
	Name        string     `json:"name"`
	Application string     `json:"owning_application"`
	Category    string     `json:"category"`
	Enrichment  []string   `json:"enrichment_strategies"`
	Strategy    string     `json:"partition_strategy"`
	KeyFields   []string   `json:"partition_key_fields"`
	Mode        string     `json:"compatibility_mode"`
	Cleanup     string     `json:"cleanup_policy"`
	Schema      *schemaDef `json:"schema"`
	Statistic   *struct {
		Read  int `json:"read_parallelism"`
		Write int `json:"write_parallelism"`
	} `json:"default_statistic,omitempty"`
	Options *struct {
		Retention int64 `json:"retention_time"`
	} `json:"options,omitempty"`
	Authorization *struct {
		Admins  []attribute `json:"admins"`
		Readers []attribute `json:"readers"`
		Writers []attribute `json:"writers"`
	} `json:"authorization,omitempty"`
}

type schemaDef struct {
	Type    string `json:"type"`
	Schema  string `json:"schema"`
	Version string `json:"version,omitempty"`
}

type eventType struct {
	def    typeDef
	schema *schema
	parts  []*partition
	next   int // the partition that random takes
}

type partition struct {
	name   string
	events []Stored // by their ordinals; those below first are gone
	first  int
}

// kept are the events that are there.
func (p *partition) kept() []Stored { return p.events[p.first:] }

// trim drops the events below an ordinal and returns how many those were.
func (p *partition) trim(before int) (dropped int) {
	before = max(p.first, min(before, len(p.events)))
	dropped = before - p.first
	clear(p.events[p.first:before])
	p.first = before
	return dropped
}

// Trim drops the events of a partition below an offset, given as its ordinal, as retention does.
// It returns how many have gone.
func (s *Server) Trim(kind, name string, before int) (dropped int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.types[kind]
	if t == nil || t.part(name) == nil {
		return 0
	}
	dropped = t.part(name).trim(before)
	s.journal.put(entry{Trim: &trimEntry{kind, name, before}})
	s.wake()
	return dropped
}

// Stored is one event as it is kept.
type Stored struct {
	Type      string          `json:"type"`
	Partition string          `json:"partition"`
	Offset    string          `json:"offset"`
	EID       string          `json:"eid"`
	Event     json.RawMessage `json:"event"`

	at time.Time
}

var typeName = regexp.MustCompile(`^[a-zA-Z][-0-9a-zA-Z_]*(\.[0-9a-zA-Z][-0-9a-zA-Z_]*)*$`)

// check fills defaults in and returns the first rule that is broken.
func (d *typeDef) check() *problem {
	setDefault(&d.Strategy, "random")
	setDefault(&d.Mode, "forward")
	setDefault(&d.Cleanup, "delete")
	bad := func(format string, args ...any) *problem {
		return problemf(http.StatusUnprocessableEntity, format, args...)
	}
	enriched := slices.Equal(d.Enrichment, []string{"metadata_enrichment"})
	switch {
	case len(d.Name) > 255 || !typeName.MatchString(d.Name):
		return bad("name %q is not well formed", d.Name)
	case d.Application == "":
		return bad("owning_application is missing")
	case !slices.Contains([]string{"business", "data", "undefined"}, d.Category):
		return bad("category %q is unknown", d.Category)
	case d.Schema == nil || d.Schema.Type != "json_schema":
		return bad("schema is missing, or its type is not json_schema")
	case d.Category != "undefined" && !enriched:
		return bad("must define metadata enrichment strategy")
	case d.Category == "undefined" && len(d.Enrichment) > 0:
		return bad("must not define enrichment strategy")
	case !slices.Contains([]string{"random", "hash", "user_defined"}, d.Strategy):
		return bad("partition_strategy %q is unknown", d.Strategy)
	case d.Strategy == "hash" && len(d.KeyFields) == 0:
		return bad("partition_key_fields field should be set for partition strategy 'hash'")
	case !slices.Contains([]string{"forward", "compatible", "none"}, d.Mode):
		return bad("compatibility_mode %q is unknown", d.Mode)
	case !slices.Contains([]string{"delete", "compact", "compact_and_delete"}, d.Cleanup):
		return bad("cleanup_policy %q is unknown", d.Cleanup)
	case d.Options != nil && d.Options.Retention != 0 &&
		(d.Options.Retention < 3*3_600_000 || d.Options.Retention > 4*24*3_600_000):
		return bad("retention_time is not between 3 hours and 4 days")
	}
	setDefault(&d.Schema.Version, "1.0.0")
	return nil
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

// partitions is how many the definition asks for.
func (d *typeDef) partitions() int {
	if d.Statistic == nil {
		return 1
	}
	return max(1, d.Statistic.Read, d.Statistic.Write)
}

func newType(d typeDef, most int) (*eventType, *problem) {
	if p := d.check(); p != nil {
		return nil, p
	}
	sch, err := readSchema(d.Schema.Schema)
	if err != nil {
		return nil, problemf(http.StatusUnprocessableEntity, "schema is not valid: %v", err)
	}
	t := &eventType{def: d, schema: sch}
	t.grow(min(d.partitions(), most))
	return t, nil
}

func (t *eventType) grow(n int) {
	for len(t.parts) < n {
		t.parts = append(t.parts, &partition{name: strconv.Itoa(len(t.parts))})
	}
}

func (t *eventType) part(name string) *partition {
	for _, p := range t.parts {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (s *Server) createType(w http.ResponseWriter, r *request) {
	d, p := readBody[typeDef](r)
	if p == nil {
		p = s.addType(*d)
	}
	if p != nil {
		p.write(w)
		return
	}
	w.WriteHeader(http.StatusCreated) // with an empty body
}

func (s *Server) addType(d typeDef) *problem {
	t, p := newType(d, s.o.MaxPartitions)
	if p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.types[d.Name] != nil {
		return problemf(http.StatusConflict, "EventType with name %s already exists", d.Name)
	}
	s.types[d.Name] = t
	s.journal.put(entry{Type: &t.def})
	return nil
}

func (s *Server) listTypes(w http.ResponseWriter, _ *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []*typeDef{}
	for _, name := range slices.Sorted(maps.Keys(s.types)) {
		list = append(list, &s.types[name].def)
	}
	answer(w, http.StatusOK, list)
}

// find returns the type of the path. mu is held.
func (s *Server) find(r *request) (*eventType, *problem) {
	name := r.PathValue("name")
	if t := s.types[name]; t != nil {
		return t, nil
	}
	return nil, problemf(http.StatusNotFound, "EventType '%s' does not exist.", name)
}

func (s *Server) getType(w http.ResponseWriter, r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p := s.find(r)
	if p != nil {
		p.write(w)
		return
	}
	answer(w, http.StatusOK, &t.def)
}

// putType changes what may change: the schema, more partitions, delete to compact_and_delete.
func (s *Server) putType(w http.ResponseWriter, r *request) {
	d, p := readBody[typeDef](r)
	if p == nil {
		p = s.changeType(r, *d)
	}
	if p != nil {
		p.write(w)
		return
	}
	w.WriteHeader(http.StatusOK)
}

func (s *Server) changeType(r *request, d typeDef) *problem {
	n, p := newType(d, s.o.MaxPartitions)
	if p != nil {
		return p
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p := s.find(r)
	switch {
	case p != nil:
		return p
	case n.def.Name != t.def.Name || n.def.Category != t.def.Category:
		return problemf(422, "name and category cannot be changed")
	case n.def.Cleanup != t.def.Cleanup &&
		(t.def.Cleanup != "delete" || n.def.Cleanup != "compact_and_delete"):
		return problemf(422, "cleanup_policy cannot be changed so")
	case len(n.parts) < len(t.parts):
		return problemf(422, "the number of partitions cannot shrink")
	}
	grown := len(n.parts) > len(t.parts)
	t.def, t.schema = n.def, n.schema
	t.grow(len(n.parts))
	for _, sub := range s.subs {
		if grown && slices.Contains(sub.def.Types, t.def.Name) {
			sub.addParts(s, "begin")
			sub.disconnect()
		}
	}
	s.journal.put(entry{Type: &t.def})
	s.wake()
	return nil
}

func (s *Server) deleteType(w http.ResponseWriter, r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p := s.find(r)
	for _, sub := range s.subs {
		if p == nil && slices.Contains(sub.def.Types, t.def.Name) {
			p = problemf(http.StatusConflict,
				"Can't remove event type %s, as it has subscriptions", t.def.Name)
		}
	}
	if p != nil {
		p.write(w)
		return
	}
	delete(s.types, t.def.Name)
	s.journal.put(entry{NoType: t.def.Name})
	w.WriteHeader(http.StatusOK)
}

func (s *Server) getPartitions(w http.ResponseWriter, r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t, p := s.find(r)
	if p != nil {
		p.write(w)
		return
	}
	type item struct {
		Partition string `json:"partition"`
		Oldest    string `json:"oldest_available_offset"`
		Newest    string `json:"newest_available_offset"`
	}
	list := []item{}
	for _, p := range t.parts {
		list = append(list, item{p.name, offsetText(p.first), offsetText(len(p.events) - 1)})
	}
	answer(w, http.StatusOK, list)
}

// readBody reads a JSON body; it says 400 where it is none.
func readBody[T any](r *request) (*T, *problem) {
	var v T
	err := json.NewDecoder(r.Body).Decode(&v)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, problemf(http.StatusBadRequest, "the body is not readable: %v", err)
	}
	return &v, nil
}
