package kafka

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/texts"
)

// sinkPatience bounds every wait of these tests.
const sinkPatience = time.Minute

// sinkBed is a fake cluster and the way to it.
type sinkBed struct {
	*kfake.Cluster
	t testing.TB
}

func newSinkBed(t testing.TB, partitions int32, topics ...string) *sinkBed {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(partitions, topics...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return &sinkBed{c, t}
}

// url is the address of a place in the cluster.
func (b *sinkBed) url(rest string) string {
	return "kafka://" + strings.Join(b.ListenAddrs(), ",") + "/" + rest
}

func (b *sinkBed) open(rest string) ackwise.Sink {
	b.t.Helper()
	o, err := ParseSink(b.url(rest))
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := OpenSink(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.t.Error(err)
		}
	})
	return s
}

// read returns the first n records of a topic as a plain consumer sees them, in the order of each
// partition.
func (b *sinkBed) read(topic string, n int, opts ...kgo.Opt) []*kgo.Record {
	b.t.Helper()
	return readTopic(b.t, b.ListenAddrs(), topic, n, opts...)
}

func readTopic(t testing.TB, addrs []string, topic string, n int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100 * time.Millisecond),
		kgo.DisableClientMetrics()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(t.Context(), sinkPatience)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("read %d records of %s, want %d: %v", len(out), topic, n, fs.Err0())
		}
		out = append(out, fs.Records()...)
	}
	return out
}

// produceFault makes the cluster refuse the batches of a topic in which a text stands.
func (b *sinkBed) produceFault(topic, text string, err *kerr.Error, count int) *kfake.FaultHandle {
	return b.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: topic, Err: err, Count: count,
		When: func(r kmsg.Request) bool {
			for _, rt := range r.(*kmsg.ProduceRequest).Topics {
				for _, rp := range rt.Partitions {
					if bytes.Contains(rp.Records, []byte(text)) {
						return true
					}
				}
			}
			return false
		}})
}

func classes(rs []ackwise.Result) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Class.String())
	}
	return strings.Join(out, " ")
}

func bodies(rs []*kgo.Record) string {
	var out []string
	for _, r := range rs {
		out = append(out, string(r.Value))
	}
	return strings.Join(out, " ")
}

func keyed(key string, texts ...string) []ackwise.Message {
	var out []ackwise.Message
	for _, text := range texts {
		out = append(out, ackwise.Message{Key: key, Body: []byte(text)})
	}
	return out
}

func TestSinkPublishes(t *testing.T) {
	b := newSinkBed(t, 3, "orders")
	s := b.open("orders")
	if f := s.Features(); !f.KeyRunSafe || f.MaxBodyBytes < 500_000 {
		t.Errorf("features %+v", f)
	}
	msgs := append(keyed("k", "1", "2", "3"), ackwise.Message{ID: "nil", Headers: []ackwise.Header{
		{Name: "h", Value: []byte{0, 255}}, {Name: "h", Value: nil}}},
		ackwise.Message{ID: "empty", Body: []byte{}})
	rs := s.Publish(t.Context(), msgs)
	if got := classes(rs); got != "accepted accepted accepted accepted accepted" {
		t.Fatalf("%s: %+v", got, rs)
	}
	partition, _, _ := strings.Cut(string(rs[0].Position), "/0000")
	for i, r := range rs[:3] {
		want := ackwise.Position(fmt.Sprintf("%s/%020d", partition, i))
		if r.Position != want || r.ID == "" {
			t.Errorf("position %q with ID %q, want %q and one", r.Position, r.ID, want)
		}
	}
	got := map[string]ackwise.Message{}
	for _, r := range b.read("orders", 5) {
		m, _ := message(r, "", &texts.Pages{})
		got[m.ID] = m
	}
	if m := got["nil"]; m.Body != nil || len(m.Headers) != 2 ||
		!bytes.Equal(m.Headers[0].Value, []byte{0, 255}) {
		t.Errorf("without a body it comes back as %+v", m)
	}
	if m := got["empty"]; m.Body == nil || m.Key != "" {
		t.Errorf("an empty body comes back as %+v", m)
	}
	if m := got[rs[1].ID]; string(m.Body) != "2" || m.Key != "k" {
		t.Errorf("the second comes back as %+v", m)
	}
}

// TestSinkClasses injects what a broker may answer and looks at the class of the result.
func TestSinkClasses(t *testing.T) {
	for _, c := range []struct {
		err  *kerr.Error
		want ackwise.ResultClass
	}{
		{kerr.MessageTooLarge, ackwise.ResultRejected},
		{kerr.InvalidRecord, ackwise.ResultRejected},
		{kerr.InvalidTimestamp, ackwise.ResultRejected},
		{kerr.PolicyViolation, ackwise.ResultRejected},
		{kerr.TopicAuthorizationFailed, ackwise.ResultRetryable},
		{kerr.UnknownServerError, ackwise.ResultUnknown},
		{kerr.RequestTimedOut, ackwise.ResultUnknown},
		{kerr.NotEnoughReplicasAfterAppend, ackwise.ResultUnknown},
	} {
		t.Run(c.err.Message, func(t *testing.T) {
			b := newSinkBed(t, 1, "orders")
			timeout := "10s"
			if c.err == kerr.RequestTimedOut || c.err == kerr.NotEnoughReplicasAfterAppend {
				timeout = "1s" // they are repeated until it is over
			}
			s := b.open("orders?publish-timeout=" + timeout)
			fault := b.produceFault("orders", "", c.err, -1)
			r := s.Publish(t.Context(), keyed("k", "x"))[0]
			if r.Class != c.want || r.Err == nil || r.ID == "" {
				t.Errorf("got %+v, want %s with an error and an ID", r, c.want)
			}
			if fault.Hits() == 0 {
				t.Error("the fault never fired")
			}
			fault.Remove()
			// What the first call gave up may still fail what comes right behind it, as unknown.
			for r.Class = ackwise.ResultUnknown; r.Class == ackwise.ResultUnknown; {
				r = s.Publish(t.Context(), keyed("k", "x"))[0]
			}
			if r.Class != ackwise.ResultAccepted {
				t.Errorf("afterwards: %+v", r)
			}
		})
	}
}

// TestSinkFindsThePoison: a broker refuses the whole batch for one record.
func TestSinkFindsThePoison(t *testing.T) {
	for _, mode := range []string{"", "&transactional=tx"} {
		t.Run("mode"+mode, func(t *testing.T) {
			b := newSinkBed(t, 1, "orders")
			s := b.open("orders?compression=none&linger=20ms" + mode)
			fault := b.produceFault("orders", "poison", kerr.InvalidRecord, -1)
			msgs := append(keyed("k", "1", "poison", "3"), keyed("", "4")...)
			rs := s.Publish(t.Context(), msgs)
			want, visible := "accepted rejected accepted accepted", "1 3 4"
			if mode != "" {
				want = "not-attempted rejected not-attempted not-attempted"
				rest := s.Publish(t.Context(), slices.Delete(slices.Clone(msgs), 1, 2))
				if got := classes(rest); got != "accepted accepted accepted" {
					t.Errorf("without it: %s", got)
				}
			}
			if got := classes(rs); got != want {
				t.Errorf("got %s, want %s (%v)", got, want, rs[1].Err)
			}
			if fault.Hits() < 2 {
				t.Errorf("the fault fired %d times: the poison was not tried alone", fault.Hits())
			}
			got := bodies(b.read("orders", 3, kgo.FetchIsolationLevel(kgo.ReadCommitted())))
			if got != visible {
				t.Errorf("the topic holds %q, want %q", got, visible)
			}
		})
	}
}

// TestSinkKeyRun: when the start of a run fails, nothing of it counts as accepted behind that, and
// published again it ends in its order.
func TestSinkKeyRun(t *testing.T) {
	b := newSinkBed(t, 1, "orders")
	s := b.open("orders?batch-bytes=1024&compression=none")
	fault := b.produceFault("orders", "body-000", kerr.TopicAuthorizationFailed, 1)
	var texts []string
	for i := range 300 {
		texts = append(texts, fmt.Sprintf("body-%03d", i))
	}
	msgs := keyed("k", texts...)
	rs := s.Publish(t.Context(), msgs)
	if fault.Hits() != 1 || rs[0].Class != ackwise.ResultRetryable {
		t.Fatalf("the fault fired %d times; the first is %+v", fault.Hits(), rs[0])
	}
	for i, r := range rs[1:] {
		if r.Class == ackwise.ResultAccepted || r.Class == ackwise.ResultRejected {
			t.Fatalf("message %d is %s behind one that is to be published again", i+1, r.Class)
		}
	}
	if got := s.Publish(t.Context(), msgs); classes(got) != strings.TrimSpace(
		strings.Repeat("accepted ", len(msgs))) {
		t.Fatal(classes(got))
	}
	log := bodies(b.read("orders", 300))
	if want := strings.Join(texts, " "); !strings.HasSuffix(log, want) {
		t.Errorf("the topic ends with %.100s…", log[max(0, len(log)-len(want)):])
	}
}

// TestSinkOrderOfResults is the rule by itself.
func TestSinkOrderOfResults(t *testing.T) {
	c := &call{s: &Sink{o: SinkOptions{Topic: "t"}}, msgs: keyed("k", "1", "2", "3", "4", "5")}
	for i, err := range []error{nil, kerr.TopicAuthorizationFailed, nil, nil, nil} {
		c.recs = append(c.recs, sent{rec: &kgo.Record{Offset: int64(i)}, over: true, err: err})
		if err != nil {
			c.fail(i)
		}
	}
	c.msgs[4].Key = "other"
	rs := make([]ackwise.Result, 5)
	c.results(rs)
	if got := classes(rs); got != "accepted retryable unknown unknown accepted" {
		t.Error(got)
	}
	// The second was published again behind the third.
	c.recs[1] = sent{rec: &kgo.Record{Offset: 9}, over: true, alone: true}
	c.results(rs)
	if got := classes(rs); got != "accepted accepted unknown unknown accepted" {
		t.Error(got)
	}
}

func TestSinkRefusesLocally(t *testing.T) {
	b := newSinkBed(t, 1, "orders")
	s := b.open("orders")
	big := ackwise.Message{ID: "big", Body: make([]byte, 1<<20)}
	rs := s.Publish(t.Context(), []ackwise.Message{big, {ID: "bad\n"}, {Body: []byte("good")}})
	if got := classes(rs); got != "rejected rejected accepted" {
		t.Fatalf("%s: %+v", got, rs)
	}
	if e := rs[0].Err.Error(); !strings.Contains(e, `"big"`) || !strings.Contains(e, "orders") {
		t.Errorf("the error names neither the message nor the topic: %s", e)
	}
	fits := ackwise.Message{Body: make([]byte, s.Features().MaxBodyBytes)}
	if r := s.Publish(t.Context(), []ackwise.Message{fits})[0]; r.Class != ackwise.ResultAccepted {
		t.Errorf("the longest body is %s: %v", r.Class, r.Err)
	}
}

func TestSinkTopics(t *testing.T) {
	b := newSinkBed(t, 1, "orders")
	o, err := ParseSink(b.url("missing"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSink(t.Context(), o); err == nil ||
		!strings.Contains(err.Error(), `"missing"`) || !strings.Contains(err.Error(), "create=true") {
		t.Errorf("a missing topic: %v", err)
	}
	if r := b.open("made?create=true&partitions=2").Publish(t.Context(),
		keyed("", "x"))[0]; r.Class != ackwise.ResultAccepted {
		t.Errorf("a topic that was made: %+v", r)
	}
	if n := len(b.PartitionInfos("made")); n != 2 {
		t.Errorf("it has %d partitions, want 2", n)
	}
	own := []ackwise.Message{{Topic: "orders", Body: []byte("x")}, {Topic: "other"}, {}}
	if got := classes(b.open("").Publish(t.Context(), own)); got != "accepted rejected rejected" {
		t.Errorf("each one's own topic: %s", got)
	}
	if got := classes(b.open("?create=true").Publish(t.Context(), own)); got !=
		"accepted accepted rejected" {
		t.Errorf("each one's own topic, made: %s", got)
	}
}

func TestSinkInterrupted(t *testing.T) {
	b := newSinkBed(t, 1, "orders")
	s := b.open("orders")
	ctx, cancel := context.WithCancel(t.Context())
	reached := make(chan struct{})
	b.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		close(reached)
		b.SleepControl(func() { <-ctx.Done() })
		return nil, nil, false
	})
	got := make(chan []ackwise.Result, 1)
	go func() { got <- s.Publish(ctx, keyed("k", "x")) }()
	<-reached
	cancel()
	if r := (<-got)[0]; r.Class != ackwise.ResultUnknown || !errors.Is(r.Err, context.Canceled) {
		t.Errorf("got %+v, want unknown", r)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	r := s.Publish(t.Context(), keyed("k", "x"))[0]
	if r.Class != ackwise.ResultNotAttempted || !errors.Is(r.Err, ackwise.ErrClosed) {
		t.Errorf("after Close: %+v", r)
	}
}

func TestSinkTransactions(t *testing.T) {
	b := newSinkBed(t, 2, "orders")
	s := b.open("orders?transactional=relay")
	if got := classes(s.Publish(t.Context(), keyed("k", "1", "2"))); got != "accepted accepted" {
		t.Fatal(got)
	}
	fault := b.produceFault("orders", "", kerr.TopicAuthorizationFailed, 1)
	rs := s.Publish(t.Context(), append(keyed("k", "lost"), ackwise.Message{ID: "bad\n"}))
	if got := classes(rs); got != "retryable rejected" || fault.Hits() != 1 {
		t.Errorf("%s with %d faults: %v", got, fault.Hits(), rs)
	}
	if got := classes(s.Publish(t.Context(), keyed("k", "3"))); got != "accepted" {
		t.Fatal(got)
	}
	// A second sink of that name ends the first.
	if got := classes(b.open("orders?transactional=relay").Publish(t.Context(),
		keyed("k", "4"))); got != "accepted" {
		t.Fatal(got)
	}
	if r := s.Publish(t.Context(), keyed("k", "zombie"))[0]; r.Class == ackwise.ResultAccepted ||
		!errors.Is(r.Err, ackwise.ErrClosed) {
		t.Errorf("the older sink: %+v, want it closed", r)
	}
	if got := bodies(b.read("orders", 4, kgo.FetchIsolationLevel(kgo.ReadCommitted()))); got !=
		"1 2 3 4" {
		t.Errorf("the topic holds %q", got)
	}
}

func TestSinkOfDeadLetters(t *testing.T) {
	b := newSinkBed(t, 1)
	for topic, conf := range map[string]map[string]string{
		"finite": nil, "kept": {"retention.ms": "-1", "retention.bytes": "-1"},
		"compacted": {"cleanup.policy": "compact", "retention.ms": "-1"}} {
		if err := b.CreateTopic(topic, 1, conf); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct{ rest, want string }{
		{"finite?dead-letters=true", "retention.ms, after 168h"},
		{"compacted?dead-letters=true", "compacted"},
		{"kept?dead-letters=true", ""},
		{"finite?dead-letters=true&allow-expiry=true", ""},
		{"new?dead-letters=true&create=true", ""},
	} {
		o, err := ParseSink(b.url(c.rest))
		if err != nil {
			t.Fatal(err)
		}
		s, err := OpenSink(t.Context(), o)
		if err == nil {
			err = s.Close()
		}
		if got := fmt.Sprint(err); (c.want == "") != (err == nil) || !strings.Contains(got, c.want) {
			t.Errorf("%s: %v, want %q", c.rest, err, c.want)
		}
	}
}

func TestParseSinkTellsAllFaults(t *testing.T) {
	_, err := ParseSink("kafka://h/a/b?compresion=gzip&linger=x&partitions=3&transaction-timeout=5s")
	for _, want := range []string{`did you mean "compression"?`, "linger=x", "create=true",
		"2 parts", "transactional=NAME", "kafka://HOST"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}
