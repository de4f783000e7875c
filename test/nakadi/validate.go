package nakadi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf16"
)

var uuid = regexp.MustCompile(
	`^[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}$`)

// event is one event on its way through a publish.
type event struct {
	size   int
	value  map[string]any
	meta   map[string]any // nil for undefined types
	eid    string
	part   *partition
	status string
	step   string
	detail string
}

// readEvents takes a batch apart. What is wrong here has no answer of its own for each event.
func readEvents(body []byte, t *eventType) ([]*event, *problem) {
	var raw []json.RawMessage
	if err := decode(body, &raw); err != nil || raw == nil {
		return nil, problemf(http.StatusBadRequest, "Error occurred when parsing event(s). %v", err)
	}
	var list []*event
	for _, one := range raw {
		e := &event{size: len(one), status: "aborted", step: "none"}
		if err := decode(one, &e.value); err != nil {
			return nil, problemf(http.StatusBadRequest, "an event is not a JSON object")
		}
		if t.def.Category != "undefined" {
			e.meta, _ = e.value["metadata"].(map[string]any)
			if e.eid, _ = e.meta["eid"].(string); e.eid == "" {
				return nil, problemf(http.StatusBadRequest, "metadata.eid is missing")
			}
		} else if meta, ok := e.value["metadata"].(map[string]any); ok {
			e.eid, _ = meta["eid"].(string)
		}
		list = append(list, e)
	}
	return list, nil
}

// validate returns what is wrong with an event, or "".
func (s *Server) validate(e *event, t *eventType) string {
	if e.size > s.o.MaxEventBytes {
		return fmt.Sprintf("Event too large: %d bytes, at most %d are allowed",
			e.size, s.o.MaxEventBytes)
	}
	exact := t.def.Mode == "compatible"
	if t.def.Category == "undefined" {
		return t.schema.check("#", e.value, exact)
	}
	if fault := checkMetadata(e.meta, t); fault != "" {
		return "#/metadata: " + fault
	}
	if t.def.Category == "data" {
		op, _ := e.value["data_op"].(string)
		kind, _ := e.value["data_type"].(string)
		data, ok := e.value["data"]
		switch {
		case !slices.Contains([]string{"C", "U", "D", "S"}, op):
			return fmt.Sprintf("#/data_op: %q is not a valid enum value", op)
		case kind == "":
			return "#: required key [data_type] not found"
		case !ok:
			return "#: required key [data] not found"
		}
		for name := range e.value {
			if !slices.Contains([]string{"data_op", "data_type", "data", "metadata"}, name) {
				return fmt.Sprintf("#: extraneous key [%s] is not permitted", name)
			}
		}
		return t.schema.check("#/data", data, exact)
	}
	own := maps.Clone(e.value)
	delete(own, "metadata")
	return t.schema.check("#", own, exact)
}

func checkMetadata(m map[string]any, t *eventType) string {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		text, isText := m[name].(string)
		switch name {
		case "eid":
			if !uuid.MatchString(text) {
				return fmt.Sprintf("eid: string [%s] does not match pattern", text)
			}
		case "occurred_at":
			if _, err := time.Parse(time.RFC3339Nano, text); err != nil {
				return fmt.Sprintf("occurred_at must be a valid date-time: %s", text)
			}
		case "event_type":
			if text != t.def.Name {
				return "event_type is not a valid enum value"
			}
		case "flow_id", "partition", "partition_compaction_key":
			if !isText {
				return name + " is not a string"
			}
		case "parent_eids":
			for _, p := range asList(m[name]) {
				if text, _ := p.(string); !uuid.MatchString(text) {
					return "parent_eids: does not match pattern"
				}
			}
		case "span_ctx":
			ctx, ok := m[name].(map[string]any)
			for _, v := range ctx {
				_, isText := v.(string)
				ok = ok && isText
			}
			if !ok {
				return "span_ctx is not a map of strings"
			}
		default:
			return fmt.Sprintf("extraneous key [%s] is not permitted", name)
		}
	}
	if m["occurred_at"] == nil {
		return "required key [occurred_at] not found"
	}
	_, compacts := m["partition_compaction_key"]
	if compacts != strings.HasPrefix(t.def.Cleanup, "compact") {
		return "partition_compaction_key does not go with the cleanup policy"
	}
	return ""
}

func asList(v any) []any {
	if list, ok := v.([]any); ok {
		return list
	}
	return []any{v}
}

// choose finds the partition of an event, or says why there is none.
func (t *eventType) choose(e *event) string {
	switch t.def.Strategy {
	case "user_defined":
		name, _ := e.meta["partition"].(string)
		if e.part = t.part(name); e.part == nil {
			return fmt.Sprintf("Failed to resolve partition. Invalid partition specified: %q", name)
		}
	case "hash":
		var sum int32
		for _, path := range t.def.KeyFields {
			from := any(e.value)
			if t.def.Category == "data" {
				from = e.value["data"]
			}
			v, ok := at(from, path)
			if !ok {
				return fmt.Sprintf("Failed to get value for field '%s'", path)
			}
			sum += javaHash(fmt.Sprint(v))
		}
		n := int64(sum) % int64(len(t.parts))
		e.part = t.parts[max(n, -n)]
	default:
		e.part = t.parts[t.next%len(t.parts)]
		t.next++
	}
	return ""
}

func at(v any, path string) (any, bool) {
	for name := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		var ok bool
		if v, ok = m[name]; !ok {
			return nil, false
		}
	}
	return v, v != nil
}

// javaHash is String.hashCode of Java.
func javaHash(text string) (h int32) {
	for _, unit := range utf16.Encode([]rune(text)) {
		h = 31*h + int32(unit)
	}
	return h
}
