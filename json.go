package ackwise

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// A message as JSON, the form of the handler protocol, of exports and of the native API: bytes
// that are valid UTF-8 are a string, others stand base64-coded under the same name with 64 added.
// An empty key and a nil body are absent; an empty body is "".
type messageJSON struct {
	ID      string       `json:"id"`
	Topic   string       `json:"topic,omitempty"`
	Key     string       `json:"key,omitempty"`
	Key64   []byte       `json:"key64,omitempty"`
	Headers []headerJSON `json:"headers,omitempty"`
	Body    *string      `json:"body,omitempty"`
	Body64  []byte       `json:"body64,omitempty"`
	Time    time.Time    `json:"time,omitzero"`
}

type headerJSON struct {
	Name    string  `json:"name"`
	Value   *string `json:"value,omitempty"`
	Value64 []byte  `json:"value64,omitempty"`
}

// MarshalJSON writes the message's JSON form.
func (m Message) MarshalJSON() ([]byte, error) {
	j := messageJSON{ID: m.ID, Topic: m.Topic, Time: m.Time.UTC()}
	if utf8.ValidString(m.Key) {
		j.Key = m.Key
	} else {
		j.Key64 = []byte(m.Key)
	}
	if m.Body != nil {
		j.Body, j.Body64 = textOr64(m.Body)
	}
	for _, h := range m.Headers {
		text, b64 := textOr64(h.Value)
		j.Headers = append(j.Headers, headerJSON{Name: h.Name, Value: text, Value64: b64})
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads the message's JSON form.
func (m *Message) UnmarshalJSON(data []byte) error {
	var j messageJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("read message: %w", err)
	}
	*m = Message{ID: j.ID, Topic: j.Topic, Key: j.Key, Time: j.Time}
	if j.Key64 != nil {
		m.Key = string(j.Key64)
	}
	m.Body = bytesOf(j.Body, j.Body64)
	for _, h := range j.Headers {
		m.Headers = append(m.Headers, Header{Name: h.Name, Value: bytesOf(h.Value, h.Value64)})
	}
	return nil
}

func textOr64(b []byte) (*string, []byte) {
	if utf8.Valid(b) {
		s := string(b)
		return &s, nil
	}
	return nil, b
}

func bytesOf(text *string, b64 []byte) []byte {
	if text != nil {
		return []byte(*text)
	}
	return b64
}
