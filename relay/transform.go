package relay

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise"
)

// Transform is what a relay changes in a message on its way. The ID always stays. The zero value
// changes nothing.
type Transform struct {
	// Topic is the topic that messages are published to, where the sink's address names none.
	// Default: "", each one's own.
	Topic string
	// KeyHeader is the name of the header whose value becomes the key. A message without it is
	// rejected. Default: "", the key stays.
	KeyHeader string
	// KeyField is the field of a JSON body whose value becomes the key, such as customer.id. A text
	// is taken as it is, a number or a truth as it is written. A body without it is rejected; a
	// message without a body (a tombstone) keeps its key. Default: "", the key stays.
	KeyField string
	// RemoveHeaders are the names of headers that go no further; one that ends with * stands for
	// all that begin so. Default: none.
	RemoveHeaders []string
	// SetHeaders are headers that every message gets, in place of its own of that name. Default:
	// none.
	SetHeaders map[string]string
	// CloudEvents puts messages into the envelope of CloudEvents 1.0.2: binary (attributes as
	// headers, the body as it is) or structured (one JSON body). Attributes are id (the message's
	// ID), source, type, time, datacontenttype and, where the key is plain text, partitionkey.
	// Default: no envelope.
	CloudEvents CloudEvents
	// EventSource is the attribute source, a URI reference such as /orders. Required with
	// CloudEvents.
	EventSource string
	// EventType is the attribute type, such as com.example.order.changed. Required with CloudEvents.
	EventType string
	// ContentType is the attribute datacontenttype, such as application/json. Default: the header
	// content-type, else none, which means JSON.
	ContentType string

	// HeaderPrefix begins the names of headers in binary mode: ce- (HTTP and most systems, with
	// what such a header cannot hold percent-encoded) or ce_ (Kafka, as it is). Default: ce-.
	HeaderPrefix string
}

// Validate returns all that is wrong, each an *ackwise.InvalidError that names the field.
func (t *Transform) Validate() error {
	var faults []error
	bad := func(wrong bool, field, value, reason string) {
		if wrong {
			faults = append(faults, &ackwise.InvalidError{Field: field, Value: value, Reason: reason})
		}
	}
	bad(t.KeyHeader != "" && t.KeyField != "", "KeyField", t.KeyField, "KeyHeader is set too")
	if t.KeyField != "" {
		bad(slices.Contains(strings.Split(t.KeyField, "."), ""), "KeyField", t.KeyField,
			"it is names with dots between, none empty")
	}
	for _, name := range t.RemoveHeaders {
		bad(name == "" || name == "*", "RemoveHeaders", name, "it names no header")
	}
	for _, name := range slices.Sorted(maps.Keys(t.SetHeaders)) {
		m := ackwise.Message{Topic: "t", Headers: []ackwise.Header{{Name: name}}}
		bad(m.Validate() != nil, "SetHeaders", name, "it is no name of a header")
	}
	if t.CloudEvents == NoEnvelope {
		for field, value := range map[string]string{"EventSource": t.EventSource,
			"EventType": t.EventType, "ContentType": t.ContentType} {
			bad(value != "", field, value, "it is for CloudEvents")
		}
		return errors.Join(faults...)
	}
	bad(t.CloudEvents > Structured, "CloudEvents", t.CloudEvents.String(), "no such mode")
	for _, a := range [...]struct{ field, value string }{{"EventSource", t.EventSource},
		{"EventType", t.EventType}} {
		bad(!plainText(a.value), a.field, a.value, "it is required, and has no control characters")
	}
	bad(t.ContentType != "" && !plainText(t.ContentType), "ContentType", t.ContentType,
		"it has control characters")
	return errors.Join(faults...)
}

// apply changes m; the error says why it cannot, ever.
func (t *Transform) apply(m *ackwise.Message) error {
	if t.Topic != "" {
		m.Topic = t.Topic
	}
	if err := t.pickKey(m); err != nil {
		return err
	}
	if len(t.RemoveHeaders)+len(t.SetHeaders) > 0 {
		m.Headers = slices.DeleteFunc(slices.Clone(m.Headers), func(h ackwise.Header) bool {
			_, set := t.SetHeaders[h.Name]
			return set || slices.ContainsFunc(t.RemoveHeaders, func(name string) bool {
				prefix, many := strings.CutSuffix(name, "*")
				return h.Name == name || many && strings.HasPrefix(h.Name, prefix)
			})
		})
		for _, name := range slices.Sorted(maps.Keys(t.SetHeaders)) {
			m.Headers = append(m.Headers,
				ackwise.Header{Name: name, Value: []byte(t.SetHeaders[name])})
		}
	}
	if t.CloudEvents == NoEnvelope {
		return nil
	}
	return t.envelope(m)
}

func (t *Transform) pickKey(m *ackwise.Message) error {
	switch {
	case t.KeyHeader != "":
		value, ok := m.Header(t.KeyHeader)
		if !ok {
			return fmt.Errorf("pick the key: there is no header %q", t.KeyHeader)
		}
		m.Key = string(value)
	case t.KeyField != "" && m.Body != nil:
		key, err := fieldOf(m.Body, t.KeyField)
		if err != nil {
			return fmt.Errorf("pick the key: %w", err)
		}
		m.Key = key
	}
	if len(m.Key) > ackwise.MaxKeyBytes {
		return fmt.Errorf("pick the key: it is %d bytes long, at most %d are allowed", len(m.Key),
			ackwise.MaxKeyBytes)
	}
	return nil
}

// fieldOf returns the value of a field of a JSON object, as text.
func fieldOf(body []byte, path string) (string, error) {
	value := json.RawMessage(body)
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if err := json.Unmarshal(value, &object); err != nil {
			return "", fmt.Errorf("the body is no JSON object with a field %s", path)
		}
		value = object[name]
	}
	value = bytes.TrimSpace(value)
	switch {
	case len(value) == 0 || string(value) == "null":
		return "", fmt.Errorf("the body has no field %s", path)
	case value[0] == '{' || value[0] == '[':
		return "", fmt.Errorf("the field %s is neither a text nor a number", path)
	case value[0] == '"':
		var text string
		err := json.Unmarshal(value, &text)
		return text, err
	}
	return string(value), nil
}

// deadLetterHeaders are the headers that a dead letter has on top of its message's own, the most
// telling first.
func deadLetterHeaders() []string {
	return []string{ackwise.HeaderError, ackwise.HeaderAttempts, ackwise.HeaderCause,
		ackwise.HeaderOrigin, ackwise.HeaderPosition, ackwise.HeaderPipeline,
		ackwise.HeaderFirstSeen, ackwise.HeaderRedrives}
}

// redriven takes a dead letter's own headers away again; how often it was redriven stays, and is
// one more now.
func redriven(d *ackwise.Delivery) []ackwise.Header {
	return append(without(d.Headers, deadLetterHeaders()...), ackwise.Header{
		Name: ackwise.HeaderRedrives, Value: []byte(strconv.Itoa(redrives(d) + 1))})
}

// redrives is how often a message was brought back: what its source has counted, or what the
// message itself says, where it came through systems that count nothing.
func redrives(d *ackwise.Delivery) int {
	text, _ := d.Header(ackwise.HeaderRedrives)
	n, err := strconv.Atoi(string(text))
	if err != nil || n < 0 {
		n = 0
	}
	return max(n, d.Counts.Redrives)
}
