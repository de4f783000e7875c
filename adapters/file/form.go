package file

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/nearest"
)

// form makes messages of lines.
type form struct {
	o      *SourceOptions
	prefix string // of the IDs
}

// maxSuffix is the room that an ID keeps for generation and offset.
const maxSuffix = 32

// idPrefix is a file's part of its lines' IDs: its path, or the path's digest where no ID can hold
// it.
func idPrefix(path string) string {
	if ackwise.ValidateID(path) == nil && len(path) <= ackwise.MaxIDBytes-maxSuffix {
		return path
	}
	sum := sha256.Sum256([]byte(path))
	return "file-" + hex.EncodeToString(sum[:16])
}

// message makes a message of a line; id is what it is called where the line does not say it.
func (f *form) message(l *line, id string) (ackwise.Message, error) {
	if l.tooLong {
		return ackwise.Message{}, fmt.Errorf("the line is %w: at most %d bytes are allowed",
			ackwise.ErrTooLarge, f.o.MaxLine)
	}
	m := ackwise.Message{ID: id, Body: l.text}
	var err error
	switch {
	case f.o.Format == JSON:
		m, err = readMessage(l.text, id)
	case f.o.IDField+f.o.KeyField != "":
		err = f.readFields(&m)
	}
	if err != nil {
		return m, err
	}
	m.Topic = f.o.Topic
	valid := m
	valid.Topic = "any" // a source need not name one
	return m, valid.Validate()
}

func readMessage(text []byte, id string) (ackwise.Message, error) {
	var m ackwise.Message
	if bytes.Equal(bytes.TrimSpace(text), []byte("null")) {
		return m, errors.New("the line is null, not a message")
	}
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fmt.Errorf("the line is not a message: %w", err)
	}
	if m.ID == "" {
		m.ID = id
	}
	return m, nil
}

func (f *form) readFields(m *ackwise.Message) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(m.Body, &object); err != nil {
		return fmt.Errorf("the line is not a JSON object: %w", err)
	}
	if object == nil {
		return errors.New("the line is null, not a JSON object")
	}
	var err error
	if f.o.KeyField != "" {
		if m.Key, err = fieldText(object, f.o.KeyField); err != nil {
			return err
		}
	}
	if f.o.IDField == "" {
		return nil
	}
	if m.ID, err = fieldText(object, f.o.IDField); err == nil && m.ID == "" {
		err = fmt.Errorf("the field %q is empty", f.o.IDField)
	}
	return err
}

// fieldText returns a field's string, or its number as it is written.
func fieldText(object map[string]json.RawMessage, name string) (string, error) {
	raw, ok := object[name]
	if !ok {
		names := slices.Sorted(maps.Keys(object))
		return "", &ackwise.NotFoundError{Kind: "field", Name: name,
			Nearest: nearest.Of(name, names)}
	}
	switch raw = bytes.TrimSpace(raw); {
	case raw[0] == '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	case strings.IndexByte("-0123456789", raw[0]) >= 0:
		return string(raw), nil
	}
	return "", fmt.Errorf("the field %q is %.40s; it must be a string or a number", name, raw)
}
