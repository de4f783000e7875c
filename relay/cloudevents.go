package relay

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

// CloudEvents says how a message is put into an envelope of CloudEvents 1.0.2.
type CloudEvents uint8

// The modes of an envelope.
const (
	NoEnvelope CloudEvents = iota // the message goes as it is
	Binary                        // attributes as headers
	Structured                    // attributes and body in one JSON body
)

// String returns the mode's word, such as "binary".
func (c CloudEvents) String() string {
	switch c {
	case NoEnvelope:
		return "none"
	case Binary:
		return "binary"
	case Structured:
		return "structured"
	}
	return "unknown mode"
}

const (
	headerContentType = "content-type"
	structuredType    = "application/cloudevents+json"
)

// attribute is one of an envelope's.
type attribute struct{ name, value string }

// envelope puts m into its envelope.
func (t *Transform) envelope(m *ackwise.Message) error {
	if !plainText(m.ID) {
		return errors.New("make a CloudEvent: its ID is empty or has control characters")
	}
	contentType := t.ContentType
	if said, ok := m.Header(headerContentType); ok && contentType == "" {
		contentType = string(said)
	}
	attributes := []attribute{{"specversion", "1.0"}, {"id", m.ID}, {"source", t.EventSource},
		{"type", t.EventType}}
	if !m.Time.IsZero() {
		attributes = append(attributes,
			attribute{"time", m.Time.UTC().Format(time.RFC3339Nano)})
	}
	if plainText(m.Key) {
		attributes = append(attributes, attribute{"partitionkey", m.Key})
	}
	if t.CloudEvents == Structured {
		return structured(m, attributes, contentType)
	}
	t.binary(m, attributes, contentType)
	return nil
}

// binary writes attributes as headers, in place of those that an earlier hop has written.
func (t *Transform) binary(m *ackwise.Message, attributes []attribute, contentType string) {
	prefix := t.HeaderPrefix
	if prefix == "" {
		prefix = "ce-"
	}
	var names []string
	var headers []ackwise.Header
	add := func(name, value string) {
		names = append(names, name)
		headers = append(headers, ackwise.Header{Name: name, Value: []byte(value)})
	}
	for _, a := range attributes {
		if prefix == "ce-" {
			a.value = percentEncode(a.value)
		}
		add(prefix+a.name, a.value)
	}
	if contentType != "" {
		add(headerContentType, contentType)
	}
	m.Headers = append(without(m.Headers, names...), headers...)
}

// structured writes attributes and body as one JSON body. A body that is not what its content type
// says is carried as base64, so that every byte arrives.
func structured(m *ackwise.Message, attributes []attribute, contentType string) error {
	event := map[string]any{}
	for _, a := range attributes {
		event[a.name] = a.value
	}
	if contentType != "" {
		if !plainText(contentType) {
			return errors.New("make a CloudEvent: the header content-type has control characters")
		}
		event["datacontenttype"] = contentType
	}
	isJSON := contentType == "" || isJSONType(contentType)
	switch {
	case m.Body == nil:
	case isJSON && json.Valid(m.Body) && utf8.Valid(m.Body):
		event["data"] = json.RawMessage(m.Body)
	case !isJSON && strings.HasPrefix(contentType, "text/") && utf8.Valid(m.Body):
		event["data"] = string(m.Body)
	default:
		event["data_base64"] = m.Body
	}
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("make a CloudEvent: %w", err)
	}
	m.Body = body
	m.Headers = append(without(m.Headers, headerContentType),
		ackwise.Header{Name: headerContentType, Value: []byte(structuredType)})
	return nil
}

func isJSONType(contentType string) bool {
	kind, _, _ := strings.Cut(contentType, ";")
	kind = strings.ToLower(strings.TrimSpace(kind))
	return kind == "application/json" || kind == "text/json" || strings.HasSuffix(kind, "+json")
}

// plainText reports whether s may be an attribute's value: not empty, no control characters.
func plainText(s string) bool {
	control := func(r rune) bool { return r < 0x20 || 0x7f <= r && r <= 0x9f }
	return s != "" && utf8.ValidString(s) && !strings.ContainsFunc(s, control)
}

// percentEncode writes an attribute as the HTTP binding asks: what is not printable ASCII, and
// space, double quote and percent, as the bytes of its UTF-8.
func percentEncode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c > 0x20 && c < 0x7f && c != '"' && c != '%' {
			b.WriteByte(c)
			continue
		}
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}
