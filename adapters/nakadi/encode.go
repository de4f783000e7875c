package nakadi

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
)

// Names in metadata.span_ctx, the only place of an event that takes what we like. It is a map of
// strings, so headers, which have an order and may repeat, stand in one value.
const (
	spanID      = ackwise.HeaderID
	spanKey     = ackwise.HeaderKey
	spanKey64   = ackwise.HeaderKey + "64"
	spanHeaders = "ackwise-headers"
	spanNoTime  = "ackwise-no-time" // occurred_at is the publisher's, the message had no time
	spanForm    = "ackwise-form"    // "body": the event is a wrapped body
)

// traceHeaders are also written under their own names, where tracing tools look for them.
var traceHeaders = []string{"traceparent", "tracestate"}

type metadata struct {
	EID        string            `json:"eid"`
	OccurredAt string            `json:"occurred_at"`
	SpanCtx    map[string]string `json:"span_ctx,omitempty"`
	Partition  string            `json:"partition,omitempty"`
	CompactKey string            `json:"partition_compaction_key,omitempty"`
}

// header is a header in the form of the handler protocol.
type header struct {
	Name    string  `json:"name"`
	Value   *string `json:"value,omitempty"`
	Value64 []byte  `json:"value64,omitempty"`
}

var uuidText = regexp.MustCompile(
	`^[a-f0-9]{8}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{4}-[a-f0-9]{12}$`)

// encode makes the text of an event. What it cannot make an event of is rejected for ever.
func (o *SinkOptions) encode(m *ackwise.Message, t *eventType, now time.Time) (eid string,
	text []byte, err error) {
	meta, err := newMetadata(m, t, now)
	if err != nil {
		return "", nil, err
	}
	switch o.Wrap {
	case WrapBody:
		text, err = wrapBody(m, meta, t)
	case WrapData:
		text, err = o.wrapData(m, meta, t)
	default:
		text, err = mergeBody(m.Body, meta)
	}
	if err == nil && len(text) > o.MaxEventBytes {
		err = fmt.Errorf("%w: the event has %d bytes, at most %d are allowed",
			ackwise.ErrTooLarge, len(text), o.MaxEventBytes)
	}
	return meta.EID, text, err
}

func newMetadata(m *ackwise.Message, t *eventType, now time.Time) (*metadata, error) {
	if err := ackwise.ValidateID(m.ID); err != nil {
		return nil, err // JSON would make another one of it
	}
	meta := &metadata{EID: m.ID, SpanCtx: map[string]string{},
		OccurredAt: m.Time.UTC().Format(time.RFC3339Nano)}
	if !uuidText.MatchString(m.ID) {
		meta.EID, meta.SpanCtx[spanID] = eidOf(m.ID), m.ID
	}
	if m.Time.IsZero() {
		meta.OccurredAt, meta.SpanCtx[spanNoTime] = now.UTC().Format(time.RFC3339Nano), "true"
	}
	lane := m.Key
	if !utf8.ValidString(m.Key) {
		lane = base64.StdEncoding.EncodeToString([]byte(m.Key))
		meta.SpanCtx[spanKey64] = lane
	} else if m.Key != "" {
		meta.SpanCtx[spanKey] = m.Key
	}
	if t.compacts() {
		if meta.CompactKey = lane; lane == "" {
			return nil, &ackwise.InvalidError{Field: "key", Reason: "the event type compacts: " +
				"each of its events needs one"}
		}
	}
	if t.Strategy == "user_defined" {
		if lane == "" {
			lane = m.ID // independent of all others: anywhere
		}
		meta.Partition = t.partition(lane)
	}
	return meta, meta.setHeaders(m.Headers)
}

func (meta *metadata) setHeaders(hs []ackwise.Header) error {
	if len(hs) == 0 {
		return nil
	}
	list := make([]header, len(hs))
	for i, h := range hs {
		if !utf8.ValidString(h.Name) {
			return &ackwise.InvalidError{Field: "header", Value: h.Name,
				Reason: "the name is not valid UTF-8"}
		}
		list[i] = header{Name: h.Name, Value64: h.Value}
		if utf8.Valid(h.Value) {
			text := string(h.Value)
			list[i] = header{Name: h.Name, Value: &text}
			if slices.Contains(traceHeaders, h.Name) {
				meta.SpanCtx[h.Name] = text
			}
		}
	}
	text, err := json.Marshal(list)
	meta.SpanCtx[spanHeaders] = string(text)
	return err
}

// eidOf is the UUID of version 5 of an ID, in the name space of URLs (RFC 9562 §5.5).
func eidOf(id string) string {
	space := [16]byte{0x6b, 0xa7, 0xb8, 0x11, 0x9d, 0xad, 0x11, 0xd1,
		0x80, 0xb4, 0x00, 0xc0, 0x4f, 0xd4, 0x30, 0xc8}
	h := sha1.Sum(append(space[:], id...))
	h[6], h[8] = h[6]&0x0f|0x50, h[8]&0x3f|0x80
	s := hex.EncodeToString(h[:16])
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

type wrapped struct {
	Metadata *metadata `json:"metadata"`
	Key      string    `json:"key"`
	Body     *string   `json:"body,omitempty"`
	Body64   *[]byte   `json:"body64,omitempty"`
}

func wrapBody(m *ackwise.Message, meta *metadata, t *eventType) ([]byte, error) {
	if t.Category == "data" {
		return nil, errors.New("wrap body: the event type is of the category data, use wrap=data")
	}
	meta.SpanCtx[spanForm] = string(WrapBody)
	w := wrapped{Metadata: meta, Key: meta.SpanCtx[spanKey] + meta.SpanCtx[spanKey64]}
	if w.Key == "" {
		w.Key = m.ID // a hash needs something
	}
	switch {
	case m.Body == nil:
	case utf8.Valid(m.Body):
		text := string(m.Body)
		w.Body = &text
	default:
		w.Body64 = &m.Body
	}
	return marshal(w)
}

func (o *SinkOptions) wrapData(m *ackwise.Message, meta *metadata, t *eventType) ([]byte, error) {
	if t.Category != "data" {
		return nil, fmt.Errorf("wrap data: the event type is of the category %s, not data", t.Category)
	}
	if !json.Valid(m.Body) || !utf8.Valid(m.Body) {
		return nil, &ackwise.InvalidError{Field: "body", Reason: "it is not JSON in UTF-8"}
	}
	w := struct {
		Metadata *metadata       `json:"metadata"`
		DataType string          `json:"data_type"`
		DataOp   string          `json:"data_op"`
		Data     json.RawMessage `json:"data"`
	}{meta, o.DataType, o.DataOp, m.Body}
	if w.DataType == "" {
		w.DataType = t.Name
	}
	if op, ok := m.Header(HeaderDataOp); ok {
		w.DataOp = string(op)
	}
	return marshal(w)
}

// marshal writes JSON without making three characters longer that are harmless here.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// mergeBody adds metadata to a body that is a JSON object. Metadata that another Nakadi wrote is
// replaced; a member of the name that is anything else is nobody's to throw away.
func mergeBody(body []byte, meta *metadata) ([]byte, error) {
	bad := func(reason string) error {
		return &ackwise.InvalidError{Field: "body", Reason: reason}
	}
	if !json.Valid(body) {
		return nil, bad("it is not a JSON object; wrap=body carries any bytes")
	}
	if !utf8.Valid(body) { // a server would store other characters in their place
		return nil, bad("it is JSON, but not in UTF-8; wrap=body carries any bytes")
	}
	own, err := marshal(meta)
	if err != nil {
		return nil, err
	}
	out := append([]byte(`{"metadata":`), own...)
	d := json.NewDecoder(bytes.NewReader(body))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return nil, bad("it is JSON, but no object; wrap=body carries any bytes")
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			return nil, bad(err.Error())
		}
		if name == "metadata" {
			var old struct{ EID string }
			if json.Unmarshal(value, &old) != nil || old.EID == "" {
				return nil, bad("it has a member metadata of its own; wrap=body carries it")
			}
			continue
		}
		quoted, err := marshal(name)
		if err != nil {
			return nil, bad(err.Error())
		}
		out = append(append(append(append(out, ','), quoted...), ':'), value...)
	}
	return append(out, '}'), nil
}
