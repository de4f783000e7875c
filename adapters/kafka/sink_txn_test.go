package kafka

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/ackwise/ackwise"
)

// hurried makes the client end its transactions too early, each time. What the client knows of a
// topic is in its place only when every record that waited for it has got its partition, and the
// first of them may be acknowledged long before: a commit then finds no partition with records, and
// the client ends the transaction without a word to the broker, and without an error. So a record
// that nobody waits for stands behind those of the test, and its partition is found only once the
// client has ended the transaction.
type hurried struct {
	kgo.Partitioner

	mu    sync.Mutex    // guards early
	early int           // how often the client has ended the transaction in silence
	ended chan struct{} // closed when it has first
	over  chan struct{} // closed by the test when the sink has answered
}

// straggler is the body of the record that nobody waits for.
const straggler = "straggler"

// ForTopic implements kgo.Partitioner.
func (h *hurried) ForTopic(topic string) kgo.TopicPartitioner {
	return hurriedTopic{h.Partitioner.ForTopic(topic), h}
}

type hurriedTopic struct {
	kgo.TopicPartitioner
	h *hurried
}

func (t hurriedTopic) Partition(r *kgo.Record, n int) int {
	if string(r.Value) != straggler {
		return t.TopicPartitioner.Partition(r, n)
	}
	select {
	case <-t.h.ended:
	case <-t.h.over:
	}
	return -1 // it is not written
}

// Level implements kgo.Logger.
func (h *hurried) Level() kgo.LogLevel { return kgo.LogLevelDebug }

// Log implements kgo.Logger.
func (h *hurried) Log(_ kgo.LogLevel, text string, _ ...any) {
	if !strings.Contains(text, "ending without doing anything") {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.early++; h.early == 1 {
		close(h.ended)
	}
}

// commits notes what is asked of the coordinator.
func (b *sinkBed) commits() func() []bool {
	var mu sync.Mutex // guards ends
	var ends []bool
	b.ControlKey(int16(kmsg.EndTxn), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		mu.Lock()
		defer mu.Unlock()
		end := r.(*kmsg.EndTxnRequest)
		if end.Version > 4 {
			// From there on a client that has forgotten what it wrote asks for an abort instead.
			b.t.Errorf("EndTxn is asked in version %d", end.Version)
		}
		ends = append(ends, end.Commit)
		return nil, nil, false
	})
	return func() []bool {
		mu.Lock()
		defer mu.Unlock()
		return ends
	}
}

// openHurried opens a transactional sink whose client is hurried.
func (b *sinkBed) openHurried(topic string) (*Sink, *hurried) {
	b.t.Helper()
	h := &hurried{Partitioner: kgo.StickyKeyPartitioner(nil), ended: make(chan struct{}),
		over: make(chan struct{})}
	o, err := ParseSink(b.url(topic + "?transactional=tx"))
	if err != nil {
		b.t.Fatal(err)
	}
	s, err := openSink(b.t.Context(), o)
	if err != nil {
		b.t.Fatal(err)
	}
	s.cl.Close()
	ends := &endings{}
	s.cl, err = s.client(kgo.WithHooks(ends), kgo.RecordPartitioner(h), kgo.WithLogger(h))
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { s.Close() })
	s.txn = newTxnProducer(s.cl, ends)
	return s, h
}

// holdMetadata keeps clients from knowing the topic until free is closed; asked is closed when one
// has asked.
func (b *sinkBed) holdMetadata(topic string) (asked, free chan struct{}) {
	asked, free = make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.ControlKey(int16(kmsg.Metadata), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.KeepControl()
		for _, t := range r.(*kmsg.MetadataRequest).Topics {
			if t.Topic == nil || *t.Topic != topic {
				continue
			}
			once.Do(func() { close(asked) })
			b.SleepControl(func() {
				select {
				case <-free:
				case <-b.t.Context().Done():
				}
			})
		}
		return nil, nil, false
	})
	return asked, free
}

// TestSinkCommitsWhatTheClientForgot: right after a topic's first record the client ends the
// transaction without telling the broker, and calls that a success. What the sink calls accepted is
// seen by those who read committed records all the same.
func TestSinkCommitsWhatTheClientForgot(t *testing.T) {
	b := newSinkBed(t, 1, "out")
	s, h := b.openHurried("out")
	asked, free := b.holdMetadata("out")
	commits := b.commits()
	ctx, cancel := context.WithTimeout(t.Context(), sinkPatience)
	defer cancel()
	published := make(chan []ackwise.Result, 1)
	go func() { published <- s.Publish(ctx, keyed("k", "1")) }()
	select {
	case <-asked: // the record waits for the topic
	case <-ctx.Done():
		t.Fatal("the client does not ask for the topic")
	}
	gone := make(chan error, 1)
	s.cl.Produce(ctx, &kgo.Record{Topic: "out", Value: []byte(straggler)},
		func(_ *kgo.Record, err error) { gone <- err })
	close(free)
	if got := classes(<-published); got != "accepted" {
		t.Errorf("published: %s", got)
	}
	close(h.over)
	if err := <-gone; err == nil {
		t.Error("the record that holds up the client was written")
	}
	h.mu.Lock()
	if h.early == 0 {
		t.Error("the client did not end the transaction early: commitAgain was not needed")
	}
	h.mu.Unlock()
	if got := commits(); !slices.Equal(got, []bool{true}) {
		t.Errorf("asked of the coordinator, true for a commit: %v", got)
	}
	if got := bodies(b.read("out", 1, kgo.FetchIsolationLevel(kgo.ReadCommitted()))); got != "1" {
		t.Errorf("committed: %q", got)
	}
	// The client knows the topic now.
	if got := classes(s.Publish(ctx, keyed("k", "2"))); got != "accepted" {
		t.Fatal(got)
	}
	if got := bodies(b.read("out", 2, kgo.FetchIsolationLevel(kgo.ReadCommitted()))); got != "1 2" {
		t.Errorf("committed: %q", got)
	}
}
