package kafka

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
)

func openReal(t *testing.T, broker, rest string) ackwise.Sink {
	t.Helper()
	o, err := ParseSink("kafka://" + broker + "/" + rest)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// TestRealSink publishes to the real broker what only it decides: a topic that takes less than it
// did when the sink was opened, and an empty key on a compacted one.
func TestRealSink(t *testing.T) {
	broker, _, out := realTopics(t, 1)
	s := openReal(t, broker, out+"?compression=none")
	if s.Features().MaxBodyBytes < 1<<19 {
		t.Errorf("features %+v", s.Features())
	}
	fits := ackwise.Message{Body: make([]byte, s.Features().MaxBodyBytes)}
	if r := s.Publish(t.Context(), []ackwise.Message{fits})[0]; r.Class != ackwise.ResultAccepted {
		t.Errorf("the longest body: %+v", r)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	set := func(name, value string) {
		t.Helper()
		rs, err := kadm.NewClient(cl).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{
			{Op: kadm.SetConfig, Name: name, Value: &value}}, out)
		if err == nil {
			_, err = rs.On(out, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	set("max.message.bytes", "2000")
	big := ackwise.Message{ID: "big", Key: "k", Body: make([]byte, 3000)}
	msgs := append(append(keyed("k", "1"), big), keyed("k", "2", "3")...)
	for classes(s.Publish(t.Context(), []ackwise.Message{big})) == "accepted" {
		continue // until the broker keeps to it
	}
	rs := s.Publish(t.Context(), msgs)
	if got := classes(rs); got != "accepted rejected accepted accepted" {
		t.Errorf("one too long for the broker: %s, %v", got, rs[1].Err)
	}
	set("cleanup.policy", "compact")
	none := ackwise.Message{ID: "none", Body: []byte("x")}
	for classes(s.Publish(t.Context(), []ackwise.Message{none})) == "accepted" {
		continue
	}
	rs = s.Publish(t.Context(), append([]ackwise.Message{none}, keyed("k", "4")...))
	if got := classes(rs); got != "rejected accepted" {
		t.Errorf("no key on a compacted topic: %s, %v", got, rs[0].Err)
	}
}

// TestRealSinkTopics opens a topic that is missing, and has one made.
func TestRealSinkTopics(t *testing.T) {
	broker, _, out := realTopics(t, 1)
	o, err := ParseSink("kafka://" + broker + "/" + out + "-missing")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSink(t.Context(), o); err == nil ||
		!strings.Contains(err.Error(), "create=true") {
		t.Errorf("a missing topic: %v", err)
	}
	made := openReal(t, broker, out+"-made?create=true&partitions=2&dead-letters=true")
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	defer func() { _, _ = kadm.NewClient(cl).DeleteTopics(t.Context(), out+"-made") }()
	var r ackwise.Result
	for r.Class != ackwise.ResultAccepted && t.Context().Err() == nil { // it has to be known first
		r = made.Publish(t.Context(), keyed("k", "x"))[0]
	}
}
