package kafka

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/ackwise/ackwise"
)

// deadFormats are the dead letters of others that readDead knows. "auto" goes by the names of the
// headers.
var deadFormats = []string{"connect", "share", "spring", "auto"}

// foreignDead is what the headers of a dead letter of another system are called. An empty name is
// something that it does not say.
type foreignDead struct {
	format                   string
	topic, partition, offset string
	binary                   bool // partition and offset are 4 and 8 bytes, big-endian; else text
	group, attempts          string
	message, class           string
}

// foreignDeads holds one row a format.
func foreignDeads() []foreignDead {
	return []foreignDead{
		{format: "connect", topic: "__connect.errors.topic",
			partition: "__connect.errors.partition", offset: "__connect.errors.offset",
			group: "__connect.errors.connector.name", message: "__connect.errors.exception.message",
			class: "__connect.errors.exception.class.name"},
		{format: "share", topic: "__dlq.errors.topic", partition: "__dlq.errors.partition",
			offset: "__dlq.errors.offset", group: "__dlq.errors.group",
			attempts: "__dlq.errors.delivery.count", message: "__dlq.errors.message"},
		{format: "spring", topic: "kafka_dlt-original-topic", binary: true,
			partition: "kafka_dlt-original-partition", offset: "kafka_dlt-original-offset",
			group: "kafka_dlt-original-consumer-group", message: "kafka_dlt-exception-message",
			class: "kafka_dlt-exception-fqcn"},
	}
}

// readDead adds what a dead letter of another system says of its origin and its error under the
// names that our own dead letters use; its own headers stay as they are. A message that has ours
// already, and one that is no dead letter of that format, is left alone. A value that cannot be
// read is left out, never guessed. The format "" reads nothing.
func readDead(format string, hs []ackwise.Header) []ackwise.Header {
	if format == "" || has(hs, ackwise.HeaderOrigin) {
		return hs
	}
	for _, f := range foreignDeads() {
		if (format == f.format || format == "auto") && has(hs, f.topic) {
			return append(slices.Clip(hs), f.read(hs)...)
		}
	}
	return hs
}

func has(hs []ackwise.Header, name string) bool {
	return slices.ContainsFunc(hs, func(h ackwise.Header) bool { return h.Name == name })
}

// read returns our headers. Where one of theirs repeats (Spring appends at each of its retry
// topics), the origin is the first and the error the last.
func (f *foreignDead) read(hs []ackwise.Header) []ackwise.Header {
	first, last := map[string][]byte{}, map[string][]byte{}
	for _, h := range hs {
		if _, ok := first[h.Name]; !ok {
			first[h.Name] = h.Value
		}
		last[h.Name] = h.Value
	}
	var out []ackwise.Header
	add := func(name, value string) {
		if value != "" {
			out = append(out, ackwise.Header{Name: name, Value: []byte(value)})
		}
	}
	why := strings.ToValidUTF8(string(last[f.message]), "�")
	if why == "" {
		why = string(last[f.class])
	}
	origin := string(first[f.topic])
	if p, ok := f.number(first[f.partition], 4); ok {
		origin = partitionName(origin, int32(p))
	}
	add(ackwise.HeaderError, ackwise.CutError(why))
	add(ackwise.HeaderOrigin, origin)
	if n, ok := f.number(first[f.offset], 8); ok {
		add(ackwise.HeaderPosition, string(position(n)))
	}
	add(ackwise.HeaderPipeline, string(last[f.group]))
	if n, err := strconv.Atoi(string(last[f.attempts])); err == nil && n > 0 {
		add(ackwise.HeaderAttempts, strconv.Itoa(n))
	}
	add(ackwise.HeaderCause, ackwise.CauseUnknown.String())
	return out
}

// number reads a partition or an offset of so many bytes.
func (f *foreignDead) number(b []byte, size int) (int64, bool) {
	if !f.binary {
		n, err := strconv.ParseInt(string(b), 10, size*8)
		return n, err == nil && n >= 0
	}
	if len(b) != size {
		return 0, false
	}
	var n int64
	if size == 4 {
		n = int64(int32(binary.BigEndian.Uint32(b)))
	} else {
		n = int64(binary.BigEndian.Uint64(b))
	}
	return n, n >= 0
}
