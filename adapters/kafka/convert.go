package kafka

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// records makes records of messages. What they consist of stands in a few pieces of memory, made
// for all that is to come.
type records struct {
	made    []kgo.Record
	headers []kgo.RecordHeader
	bytes   []byte
}

// ownHeaders is the most that record adds.
const ownHeaders = 2

func newRecords(msgs []ackwise.Message) *records {
	headers, bytes := 0, 0
	for i := range msgs {
		m := &msgs[i]
		headers += len(m.Headers) + ownHeaders
		bytes += len(m.Key) + len(m.ID)
	}
	return &records{make([]kgo.Record, 0, len(msgs)), make([]kgo.RecordHeader, 0, headers),
		make([]byte, 0, bytes)}
}

// record makes a record of a message, for its topic. A message without a key has a nil key, one
// without a body (a tombstone) a nil value. Headers of the message that carry the names of our own
// fields are replaced by the fields.
func (w *records) record(m *ackwise.Message) *kgo.Record {
	w.made = append(w.made, kgo.Record{Topic: m.Topic, Value: m.Body})
	r := &w.made[len(w.made)-1]
	if m.Key != "" {
		r.Key = w.copy(m.Key)
	}
	from := len(w.headers)
	for _, h := range m.Headers {
		if !ownField(h.Name) {
			w.headers = append(w.headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
	}
	if m.ID != "" {
		w.header(ackwise.HeaderID, m.ID)
	}
	if !m.Time.IsZero() {
		r.Timestamp = m.Time
		// A record's own time has milliseconds, from 1970 on.
		if at := m.Time.UnixMilli(); at < 0 || m.Time.Nanosecond()%1e6 != 0 {
			r.Timestamp = time.UnixMilli(max(at, 0))
			w.header(ackwise.HeaderTime, m.Time.UTC().Format(time.RFC3339Nano))
		}
	}
	r.Headers = w.headers[from:len(w.headers):len(w.headers)]
	return r
}

func (w *records) header(name, value string) {
	w.headers = append(w.headers, kgo.RecordHeader{Key: name, Value: w.copy(value)})
}

func (w *records) copy(s string) []byte {
	from := len(w.bytes)
	w.bytes = append(w.bytes, s...)
	return w.bytes[from:len(w.bytes):len(w.bytes)]
}

// message reads a record. Its ID is the one of our header, else the value of the header idHeader
// where one is named and holds a valid ID, else topic/partition/offset, which is the same at every
// read. The epoch is the one of our header; 0 where there is none.
func message(r *kgo.Record, idHeader string, t *texts.Pages) (
	m ackwise.Message, epoch int) {
	m = ackwise.Message{Topic: r.Topic, Key: t.Add(r.Key), Body: r.Value, Time: r.Timestamp}
	var foreign string
	for _, h := range r.Headers {
		switch h.Key {
		case ackwise.HeaderKey:
			m.Key = string(h.Value)
			continue
		case ackwise.HeaderTime:
			if at, err := time.Parse(time.RFC3339Nano, string(h.Value)); err == nil {
				m.Time = at
			}
			continue
		case ackwise.HeaderEpoch:
			if n, err := strconv.Atoi(string(h.Value)); err == nil && n > 0 {
				epoch = n
			}
			continue
		case ackwise.HeaderID:
			if id := t.Add(h.Value); ackwise.ValidateID(id) == nil {
				m.ID = id
				continue
			}
		}
		if foreign == "" && idHeader != "" && h.Key == idHeader {
			foreign = string(h.Value)
		}
		if m.Headers == nil {
			m.Headers = make([]ackwise.Header, 0, len(r.Headers))
		}
		m.Headers = append(m.Headers, ackwise.Header{Name: h.Key, Value: h.Value})
	}
	if m.ID == "" && ackwise.ValidateID(foreign) == nil {
		m.ID = foreign
	}
	if m.ID == "" {
		m.ID = r.Topic + "/" + strconv.Itoa(int(r.Partition)) + "/" +
			strconv.FormatInt(r.Offset, 10)
	}
	return m, epoch
}

// severed is an error of a broken connection that nobody takes for the end of the messages: the
// client passes io.EOF on.
func severed(err error) error {
	if err != nil && errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: the broker closed the connection: %s",
			io.ErrUnexpectedEOF, err.Error())
	}
	return err
}

// ownField reports whether a header is one of our fields that a record carries as such. The epoch
// and those of dead letters are ordinary headers: the relay and the dead-letter sink write them.
func ownField(name string) bool {
	return name == ackwise.HeaderID || name == ackwise.HeaderKey || name == ackwise.HeaderTime
}

const positionDigits = 20

// position is an offset as a Position: 20 digits, so that < orders them. There is none before 0.
func position(offset int64) ackwise.Position {
	return ackwise.Position(appendPosition(nil, offset))
}

func appendPosition(b []byte, offset int64) []byte {
	if offset < 0 {
		return b
	}
	var digits [positionDigits]byte
	for i := range digits {
		digits[len(digits)-1-i] = '0' + byte(offset%10)
		offset /= 10
	}
	return append(b, digits[:]...)
}

// offset reads what position wrote; the empty one is -1.
func offset(p ackwise.Position) (int64, error) {
	if p == "" {
		return -1, nil
	}
	n, err := strconv.ParseInt(string(p), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read position %.30q: %w", p, err)
	}
	return n, nil
}

// partitionName names a partition as deliveries do: TOPIC/NUMBER. No topic's name has a slash.
func partitionName(topic string, partition int32) string {
	return topic + "/" + strconv.Itoa(int(partition))
}
