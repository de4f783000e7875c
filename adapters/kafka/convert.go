package kafka

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

// record makes a record of a message, for a topic. A message without a key has a nil key, one
// without a body (a tombstone) a nil value. Headers of the message that carry the names of our own
// fields are replaced by the fields.
func record(m *ackwise.Message, topic string) *kgo.Record {
	r := &kgo.Record{Topic: topic, Value: m.Body}
	if m.Key != "" {
		r.Key = []byte(m.Key)
	}
	r.Headers = make([]kgo.RecordHeader, 0, len(m.Headers)+2)
	for _, h := range m.Headers {
		if !ownField(h.Name) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Name, Value: h.Value})
		}
	}
	add := func(name, value string) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	if m.ID != "" {
		add(ackwise.HeaderID, m.ID)
	}
	if !m.Time.IsZero() {
		r.Timestamp = m.Time
		// A record's own time has milliseconds, from 1970 on.
		if at := m.Time.UnixMilli(); at < 0 || !time.UnixMilli(at).Equal(m.Time) {
			r.Timestamp = time.UnixMilli(max(at, 0))
			add(ackwise.HeaderTime, m.Time.UTC().Format(time.RFC3339Nano))
		}
	}
	return r
}

// message reads a record. Its ID is the one of our header, else the value of the header idHeader
// where one is named and holds a valid ID, else topic/partition/offset, which is the same at every
// read. The epoch is the one of our header; 0 where there is none.
func message(r *kgo.Record, idHeader string) (m ackwise.Message, epoch int) {
	m = ackwise.Message{Topic: r.Topic, Key: string(r.Key), Body: r.Value, Time: r.Timestamp}
	var foreign string
	for _, h := range r.Headers {
		value := string(h.Value)
		switch {
		case h.Key == ackwise.HeaderID && ackwise.ValidateID(value) == nil:
			m.ID = value
		case h.Key == ackwise.HeaderKey:
			m.Key = value
		case h.Key == ackwise.HeaderTime:
			if at, err := time.Parse(time.RFC3339Nano, value); err == nil {
				m.Time = at
			}
		case h.Key == ackwise.HeaderEpoch:
			if n, err := strconv.Atoi(value); err == nil && n > 0 {
				epoch = n
			}
		default:
			if foreign == "" && idHeader != "" && h.Key == idHeader {
				foreign = value
			}
			m.Headers = append(m.Headers, ackwise.Header{Name: h.Key, Value: h.Value})
		}
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

const (
	positionDigits = 20
	positionZeros  = "00000000000000000000"
)

// position is an offset as a Position: 20 digits, so that < orders them. There is none before 0.
func position(offset int64) ackwise.Position {
	if offset < 0 {
		return ""
	}
	digits := strconv.AppendInt(make([]byte, 0, positionDigits), offset, 10)
	return ackwise.Position(positionZeros[len(digits):] + string(digits))
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
