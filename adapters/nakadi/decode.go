package nakadi

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

// decode makes a message of an event. Its body is the event as the server sent it, unless our sink
// wrapped one. An event without an eid (category undefined) gets the ID of its place.
func decode(raw json.RawMessage, t *eventType) (m ackwise.Message, epoch int, err error) {
	m = ackwise.Message{Topic: t.Name, Body: raw}
	var e struct {
		Metadata struct {
			EID        string            `json:"eid"`
			OccurredAt string            `json:"occurred_at"`
			SpanCtx    map[string]string `json:"span_ctx"`
			CompactKey string            `json:"partition_compaction_key"`
		} `json:"metadata"`
		Body   *string `json:"body"`
		Body64 *[]byte `json:"body64"`
	}
	err = json.Unmarshal(raw, &e)
	span := e.Metadata.SpanCtx
	if err != nil && (e.Metadata.EID == "" || span[spanForm] != "") {
		if t.Category == "undefined" {
			return m, 0, nil // anything may stand under these names
		}
		return m, 0, fmt.Errorf("read event: %w", err)
	}
	m.ID = e.Metadata.EID
	if id := span[spanID]; id != "" {
		m.ID = id
	}
	if at, err := time.Parse(time.RFC3339Nano, e.Metadata.OccurredAt); err == nil &&
		span[spanNoTime] == "" {
		m.Time = at
	}
	if m.Key, err = keyOf(raw, span, e.Metadata.CompactKey, t); err != nil {
		return m, 0, err
	}
	if m.Headers, epoch, err = headersOf(span); err != nil {
		return m, 0, err
	}
	if span[spanForm] == string(WrapBody) {
		switch m.Body = nil; {
		case e.Body64 != nil:
			m.Body = *e.Body64
		case e.Body != nil:
			m.Body = []byte(*e.Body)
		}
	}
	return m, epoch, nil
}

// keyOf finds what an event is ordered by: our own key, the compaction key, or the fields that
// Nakadi hashes for the event's partition.
func keyOf(raw json.RawMessage, span map[string]string, compact string, t *eventType) (
	string, error) {
	switch {
	case span[spanKey64] != "":
		key, err := base64.StdEncoding.DecodeString(span[spanKey64])
		return string(key), err
	case span[spanKey] != "" || span[spanForm] != "" || span[spanHeaders] != "":
		return span[spanKey], nil
	case compact != "":
		return compact, nil
	case t.Strategy != "hash":
		return "", nil
	}
	var parts []string
	for _, path := range t.KeyFields {
		if t.Category == "data" {
			path = "data." + path
		}
		v := raw
		for name := range strings.SplitSeq(path, ".") {
			var members map[string]json.RawMessage
			if json.Unmarshal(v, &members) != nil || members[name] == nil {
				return "", nil
			}
			v = members[name]
		}
		var text string
		if json.Unmarshal(v, &text) != nil {
			text = string(v)
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, "\x00"), nil
}

// headersOf reads our headers, and the epoch among them, or takes what another producer put there.
func headersOf(span map[string]string) (hs []ackwise.Header, epoch int, err error) {
	if text, ok := span[spanHeaders]; ok {
		var list []header
		if err := json.Unmarshal([]byte(text), &list); err != nil {
			return nil, 0, fmt.Errorf("read headers of event: %w", err)
		}
		for _, h := range list {
			value := h.Value64
			if h.Value != nil {
				value = []byte(*h.Value)
			}
			if h.Name == ackwise.HeaderEpoch {
				epoch, err = strconv.Atoi(string(value))
				if err != nil {
					return nil, 0, fmt.Errorf("read epoch of event: %w", err)
				}
				continue
			}
			hs = append(hs, ackwise.Header{Name: h.Name, Value: value})
		}
		return hs, epoch, nil
	}
	for _, name := range slices.Sorted(maps.Keys(span)) {
		if !strings.HasPrefix(name, "ackwise-") {
			hs = append(hs, ackwise.Header{Name: name, Value: []byte(span[name])})
		}
	}
	return hs, 0, nil
}
