package kafka

import (
	"slices"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
)

// TestReadDead holds the dead letters of other systems against what ours say.
func TestReadDead(t *testing.T) {
	connect := []string{"__connect.errors.topic", "orders", "__connect.errors.partition", "3",
		"__connect.errors.offset", "42", "__connect.errors.connector.name", "sink-1",
		"__connect.errors.exception.class.name", "org.example.Bad",
		"__connect.errors.exception.message", "no such table"}
	spring := []string{"kafka_dlt-original-topic", "orders",
		"kafka_dlt-original-partition", "\x00\x00\x00\x03",
		"kafka_dlt-original-offset", "\x00\x00\x00\x00\x00\x00\x01\x00",
		"kafka_dlt-original-consumer-group", "billing",
		"kafka_dlt-exception-fqcn", "org.example.Bad"}
	share := []string{"__dlq.errors.topic", "orders", "__dlq.errors.partition", "0",
		"__dlq.errors.offset", "7", "__dlq.errors.group", "workers",
		"__dlq.errors.delivery.count", "5", "__dlq.errors.message", "rejected by client"}
	for _, c := range []struct {
		name, format string
		in           []string
		want         string
	}{
		{"connect", "connect", connect, "error=no such table origin=orders/3 " +
			"position=00000000000000000042 pipeline=sink-1 cause=unknown"},
		{"share group", "auto", share, "error=rejected by client origin=orders/0 " +
			"position=00000000000000000007 pipeline=workers attempts=5 cause=unknown"},
		{"spring, no message: its class", "spring", spring, "error=org.example.Bad " +
			"origin=orders/3 position=00000000000000000256 pipeline=billing cause=unknown"},
		{"spring, through a retry topic: the first origin, the last error", "auto",
			append(slices.Clone(spring), "kafka_dlt-exception-message", "first",
				"kafka_dlt-original-topic", "orders-retry-0", "kafka_dlt-exception-message", "last"),
			"error=last origin=orders/3 position=00000000000000000256 pipeline=billing cause=unknown"},
		{"numbers that are none", "spring", []string{"kafka_dlt-original-topic", "orders",
			"kafka_dlt-original-partition", "3", "kafka_dlt-original-offset",
			"\xff\xff\xff\xff\xff\xff\xff\xff"}, "origin=orders cause=unknown"},
		{"no dead letter", "auto", []string{"h", "v"}, ""},
		{"of another format", "share", connect, ""},
		{"not asked for", "", connect, ""},
		{"ours already", "auto", append([]string{ackwise.HeaderOrigin, "mine"}, share...), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			var in []ackwise.Header
			for i := 0; i < len(c.in); i += 2 {
				in = append(in, ackwise.Header{Name: c.in[i], Value: []byte(c.in[i+1])})
			}
			out := readDead(c.format, in)
			if !slices.EqualFunc(out[:len(in)], in, func(a, b ackwise.Header) bool {
				return a.Name == b.Name && string(a.Value) == string(b.Value)
			}) {
				t.Errorf("the headers %q were changed", out[:len(in)])
			}
			var got []string
			for _, h := range out[len(in):] {
				got = append(got, strings.TrimPrefix(h.Name, "ackwise-")+"="+string(h.Value))
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}
