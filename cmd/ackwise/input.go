package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/process"
)

// lineForm says how a line becomes a message.
type lineForm struct {
	topic             string
	idField, keyField string
	id, key           string
	headers           []ackwise.Header
	maxBody           int
}

// message makes a message of a line. The error says what is wrong with the line.
func (f *lineForm) message(line process.InputLine, now time.Time) (ackwise.Message, error) {
	m := ackwise.Message{Topic: f.topic, ID: f.id, Key: f.key, Headers: f.headers,
		Body: line.Text, Time: now}
	if line.TooLong {
		return m, fmt.Errorf("the line is %w: a body has at most %d bytes", ackwise.ErrTooLarge,
			f.maxBody)
	}
	if f.id != "" && line.Number > 1 {
		return m, errors.New("--id names one message, and this is another line; use --id-field")
	}
	if f.idField != "" || f.keyField != "" {
		if err := f.readFields(&m); err != nil {
			return m, err
		}
	}
	return m, m.Validate()
}

func (f *lineForm) readFields(m *ackwise.Message) error {
	var object map[string]json.RawMessage
	if err := json.Unmarshal(m.Body, &object); err != nil || object == nil {
		if err == nil {
			err = errors.New("it is null")
		}
		return fmt.Errorf("the line is not a JSON object: %w", err)
	}
	for _, field := range []struct {
		name string
		to   *string
	}{{f.idField, &m.ID}, {f.keyField, &m.Key}} {
		if field.name == "" {
			continue
		}
		text, err := fieldText(object, field.name)
		if err != nil {
			return err
		}
		*field.to = text
	}
	if f.idField != "" && m.ID == "" {
		return fmt.Errorf("the field %q is empty", f.idField)
	}
	return nil
}

// fieldText returns a field's string, or its number as it is written.
func fieldText(object map[string]json.RawMessage, name string) (string, error) {
	raw, ok := object[name]
	if !ok {
		names := make([]string, 0, len(object))
		for n := range object {
			names = append(names, n)
		}
		if missing, ok := errors.AsType[*ackwise.NotFoundError](find("field", name, names)); ok {
			return "", missing
		}
	}
	raw = bytes.TrimSpace(raw)
	if raw[0] == '"' {
		var s string
		err := json.Unmarshal(raw, &s)
		return s, err
	}
	if raw[0] == '-' || '0' <= raw[0] && raw[0] <= '9' {
		return string(raw), nil
	}
	return "", fmt.Errorf("the field %q is %.40s; it must be a string or a number", name, raw)
}

// batchOf waits for a line and returns it with what else is there, at most n lines of together at
// most maxBatchBytes; an empty batch is the end of the input. A line beyond the bytes is put in
// *held for the next call.
func batchOf(ctx context.Context, lines <-chan process.InputLine, n int,
	held *process.InputLine) []process.InputLine {
	var batch []process.InputLine
	if held.Number > 0 {
		batch, *held = append(batch, *held), process.InputLine{}
	} else {
		select {
		case l, ok := <-lines:
			if !ok {
				return nil
			}
			batch = append(batch, l)
		case <-ctx.Done():
			return nil
		}
	}
	for size := len(batch[0].Text); len(batch) < n; {
		select {
		case l, ok := <-lines:
			if !ok {
				return batch
			}
			if size += len(l.Text); size > maxBatchBytes {
				*held = l
				return batch
			}
			batch = append(batch, l)
		default:
			return batch
		}
	}
	return batch
}

// maxBatchBytes bounds the bodies of one publish, well below what the store takes.
const maxBatchBytes = 8 << 20
