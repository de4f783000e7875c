package kafka_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

// patience bounds every wait of these tests.
const patience = 60 * time.Second

// place is a topic and a group on a cluster, fake or real.
type place struct {
	brokers  string
	topic    string
	protocol string
	fake     *kfake.Cluster // nil: a real one
	cl       *kgo.Client
	adm      *kadm.Client
}

func fakePlace(t testing.TB, partitions int32, protocol string, opts ...kfake.Opt) *place {
	t.Helper()
	c, err := kfake.NewCluster(append([]kfake.Opt{kfake.NumBrokers(1),
		kfake.GroupMinSessionTimeout(100 * time.Millisecond),
		kfake.BrokerConfigs(map[string]string{"group.initial.rebalance.delay.ms": "0",
			"group.consumer.session.timeout.ms":    "2000",
			"group.consumer.heartbeat.interval.ms": "100"})}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return newPlace(t, strings.Join(c.ListenAddrs(), ","), partitions, protocol, c)
}

func newPlace(t testing.TB, brokers string, partitions int32, protocol string,
	fake *kfake.Cluster) *place {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(brokers, ",")...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	p := &place{brokers: brokers, topic: "t" + strings.ToLower(ackwise.NewID(time.Now())[24:]),
		protocol: protocol, fake: fake, cl: cl, adm: kadm.NewClient(cl)}
	makeTopic(t, p.adm, partitions, p.topic)
	return p
}

// url is the address of a source; options begin with "&".
func (p *place) url(options string) string {
	return "kafka://" + p.brokers + "/" + p.topic + "?group=g-" + p.topic + "&protocol=" +
		p.protocol + options
}

// put writes messages m0 … of a partition, beginning with the number from.
func (p *place) put(t testing.TB, partition int32, from, n int) {
	t.Helper()
	var rs []*kgo.Record
	for i := range n {
		name := fmt.Sprintf("m%d", from+i)
		rs = append(rs, &kgo.Record{Topic: p.topic, Partition: partition, Value: []byte(name),
			Headers: []kgo.RecordHeader{{Key: ackwise.HeaderID, Value: []byte(name)}}})
	}
	if err := p.cl.ProduceSync(t.Context(), rs...).FirstErr(); err != nil {
		t.Fatal(err)
	}
}

// trim drops the records below an offset of partition 0.
func (p *place) trim(t testing.TB, offset int64) {
	t.Helper()
	at := kadm.Offsets{}
	at.AddOffset(p.topic, 0, offset, -1)
	if _, err := p.adm.DeleteRecords(t.Context(), at); err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, url string) ackwise.Source {
	t.Helper()
	return openWith(t, url, nil)
}

func openWith(t testing.TB, url string, observe func(ackwise.Event)) ackwise.Source {
	t.Helper()
	o, err := kafka.ParseSource(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Log.Observe = observe
	s, err := kafka.OpenSource(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// late is closed when a wait was in vain.
func late(t testing.TB) <-chan struct{} {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx.Done()
}

// receive takes n deliveries, one by one where need be.
func receive(t testing.TB, s ackwise.Source, n int) []*ackwise.Delivery {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var all []*ackwise.Delivery
	for len(all) < n {
		ds, err := s.Receive(ctx, n-len(all))
		if err != nil {
			t.Fatalf("after %d of %d: %v", len(all), n, err)
		}
		all = append(all, ds...)
	}
	return all
}

func settle(t testing.TB, s ackwise.Source, o ackwise.Outcome, ds ...*ackwise.Delivery) {
	t.Helper()
	var list []ackwise.Settlement
	for _, d := range ds {
		list = append(list, ackwise.Settlement{Token: d.Token, Outcome: o})
	}
	for i, r := range s.Settle(t.Context(), list) {
		if r.Err != nil {
			t.Fatalf("%s %s: %v", o, ds[i].ID, r.Err)
		}
	}
}

func ack(t testing.TB, s ackwise.Source, ds ...*ackwise.Delivery) {
	t.Helper()
	settle(t, s, ackwise.OutcomeAck, ds...)
}

// expect receives as many messages as want names, acks them, and compares their causes.
func expect(t testing.TB, s ackwise.Source, want map[string]ackwise.Cause) {
	t.Helper()
	want = maps.Clone(want)
	for range len(want) {
		d := receive(t, s, 1)[0]
		if cause, ok := want[d.ID]; !ok || d.Cause != cause {
			t.Errorf("%s came, %s; want one of %v", d.ID, d.Cause, want)
		}
		delete(want, d.ID)
		ack(t, s, d)
	}
}

// groupTests run on the fake and on the real broker, with both protocols.
var groupTests = []struct {
	name       string
	partitions int32
	run        func(t *testing.T, p *place)
}{
	{"restart", 1, testRestart},
	{"drain", 2, testDrain},
	{"drain deadline", 2, testDrainDeadline},
	{"crash", 1, testCrash},
	{"trimmed at start", 1, testTrimmedAtStart},
	{"trimmed while reading", 1, testTrimmedWhileReading},
	{"latest", 1, testLatest},
	{"removed member", 1, testRemoved},
	{"lag", 2, testLag},
	{"lag of a surplus member", 1, testLagOfSurplus},
	{"deleted topic", 1, testDeleted},
	{"transactions", 1, testCommittedOnly},
	{"instance twice", 1, testInstanceTwice},
	{"instance crash", 1, testInstanceCrash},
	{"instance restart", 2, testInstanceRestart},
}

func runGroupTests(t *testing.T,
	start func(t *testing.T, partitions int32, protocol string) *place) {
	for _, protocol := range []string{"classic", "consumer"} {
		for _, test := range groupTests {
			t.Run(protocol+"/"+test.name, func(t *testing.T) {
				t.Parallel()
				test.run(t, start(t, test.partitions, protocol))
			})
		}
	}
}

func TestGroup(t *testing.T) {
	runGroupTests(t, func(t *testing.T, partitions int32, protocol string) *place {
		return fakePlace(t, partitions, protocol)
	})
}

// What was acked does not come again, what was not does, with its cause.
func testRestart(t *testing.T, p *place) {
	p.put(t, 0, 0, 5)
	s := open(t, p.url(""))
	ds := receive(t, s, 4)
	ack(t, s, ds[0], ds[2])
	began := time.Now()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	t.Logf("closed in %s", time.Since(began))
	expect(t, open(t, p.url("")), map[string]ackwise.Cause{"m1": ackwise.CauseRebalanced,
		"m3": ackwise.CauseRebalanced, "m4": ackwise.CauseFirst})
}

// revoked waits until all of one partition's deliveries are asked back.
func revoked(t testing.TB, held map[string]*ackwise.Delivery) *ackwise.Delivery {
	t.Helper()
	any := make(chan *ackwise.Delivery, len(held))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, d := range held {
		wg.Go(func() {
			select {
			case <-d.Revoked():
				any <- d
			case <-stop:
			}
		})
	}
	defer wg.Wait()
	defer close(stop)
	select {
	case d := <-any:
		return d
	case <-late(t):
		t.Fatal("no partition was revoked")
		return nil
	}
}

// A second member joins: the first one finishes what it has of the partition that goes, and
// nothing comes twice.
func testDrain(t *testing.T, p *place) {
	p.put(t, 0, 0, 2)
	p.put(t, 1, 2, 2)
	a := open(t, p.url(""))
	held := map[string]*ackwise.Delivery{}
	for _, d := range receive(t, a, 4) {
		held[d.ID] = d
	}
	b := open(t, p.url(""))
	gone := revoked(t, held)
	for _, d := range held {
		if d.Partition == gone.Partition && d != gone {
			settle(t, a, ackwise.OutcomeRelease, d)
			delete(held, d.ID)
			defer expect(t, b, map[string]ackwise.Cause{d.ID: ackwise.CauseRebalanced})
		}
	}
	ack(t, a, slices.Collect(maps.Values(held))...)
}

// What is not settled in time goes to the next owner, which knows that it was in flight.
func testDrainDeadline(t *testing.T, p *place) {
	p.put(t, 0, 0, 1)
	p.put(t, 1, 1, 1)
	a := open(t, p.url("&drain=300ms&rebalance-timeout=10s"))
	held := map[string]*ackwise.Delivery{}
	for _, d := range receive(t, a, 2) {
		held[d.ID] = d
	}
	b := open(t, p.url(""))
	gone := revoked(t, held)
	select {
	case <-gone.Lost():
	case <-late(t):
		t.Fatal("the delivery was not lost")
	}
	expect(t, b, map[string]ackwise.Cause{gone.ID: ackwise.CauseRebalanced})
	late := a.Settle(t.Context(), []ackwise.Settlement{{Token: gone.Token}})
	if !errors.Is(late[0].Err, ackwise.ErrLeaseLost) {
		t.Errorf("late ack: %v", late[0].Err)
	}
}

// A member ends without a word: the next one learns from the commit what was in flight.
func testCrash(t *testing.T, p *place) {
	p.put(t, 0, 0, 2)
	url := p.url("&session-timeout=1s")
	for crashes := range 3 {
		s := open(t, url)
		d := receive(t, s, 1)[0]
		want := ackwise.CauseConsumerLost
		if crashes == 0 {
			want = ackwise.CauseFirst
		}
		if d.ID != "m0" || d.Cause != want || d.Counts.Crashes != crashes {
			t.Errorf("hand-out %d: %s, %s, %d crashes; want m0, %s, %d", d.Attempt, d.ID, d.Cause,
				d.Counts.Crashes, want, crashes)
		}
		kafka.Kill(s)
	}
}

func testTrimmedAtStart(t *testing.T, p *place) {
	p.put(t, 0, 0, 10)
	s := open(t, p.url(""))
	ack(t, s, receive(t, s, 2)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.trim(t, 7)
	s = open(t, p.url(""))
	want := kafka.TrimmedError{Topic: p.topic, From: 2, To: 7}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := s.Receive(ctx, 1)
	for err == nil {
		t.Fatal("a message came, though records are gone")
	}
	if got, ok := errors.AsType[*kafka.TrimmedError](err); !ok || *got != want {
		t.Errorf("got %v, want %v", err, &want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	seen := make(chan error, 100)
	s = openWith(t, p.url("&on-trimmed=skip"), func(e ackwise.Event) {
		if e.Kind == "trimmed" {
			seen <- e.Err
		}
	})
	expect(t, s, map[string]ackwise.Cause{"m7": ackwise.CauseFirst, "m8": ackwise.CauseFirst,
		"m9": ackwise.CauseFirst})
	if got, ok := errors.AsType[*kafka.TrimmedError](<-seen); !ok || *got != want {
		t.Errorf("observed %v, want %v", got, &want)
	}
}

// The log is trimmed behind the back of a member that is far behind.
func testTrimmedWhileReading(t *testing.T, p *place) {
	p.put(t, 0, 0, 4)
	seen := make(chan error, 100)
	o, err := kafka.ParseSource(p.url("&on-trimmed=skip"))
	if err != nil {
		t.Fatal(err)
	}
	o.Log.PartitionMessages, o.Log.PollMessages = 2, 2
	o.Log.Observe = func(e ackwise.Event) {
		if e.Kind == "trimmed" {
			seen <- e.Err
		}
	}
	s, err := kafka.OpenSource(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ds := receive(t, s, 2) // the window is full: the partition is paused
	for i := range 20 {
		p.put(t, 0, 4+5*i, 5)
	}
	p.trim(t, 90)
	ack(t, s, ds...)
	last := ""
	for last != "m103" {
		d := receive(t, s, 1)[0]
		ack(t, s, d)
		last = d.ID
	}
	got, ok := errors.AsType[*kafka.TrimmedError](<-seen)
	if !ok || got.To != 90 || got.From < 2 || got.From > 89 {
		t.Errorf("observed %+v", got)
	}
}

// A new group begins at the end of its opening; nothing that comes later is missed, on partitions
// that are added later neither.
func testLatest(t *testing.T, p *place) {
	p.put(t, 0, 0, 3)
	s := open(t, p.url("&start=latest"))
	kafka.Kill(s) // before it has read anything
	p.put(t, 0, 3, 1)
	s = open(t, p.url("&start=latest"))
	expect(t, s, map[string]ackwise.Cause{"m3": ackwise.CauseFirst})
	if _, err := p.adm.CreatePartitions(t.Context(), 1, p.topic); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	p.cl.ForceMetadataRefresh()
	for {
		r := p.cl.ProduceSync(t.Context(), &kgo.Record{Topic: p.topic, Partition: 1,
			Value: []byte("x")})
		if r.FirstErr() == nil {
			break
		}
		if t.Context().Err() != nil {
			t.Fatal(r.FirstErr())
		}
	}
	s = open(t, p.url("&start=latest"))
	expect(t, s, map[string]ackwise.Cause{p.topic + "/1/0": ackwise.CauseFirst})
}

// Somebody removes the member from the group: its ack is refused, and it comes back.
func testRemoved(t *testing.T, p *place) {
	p.put(t, 0, 0, 1)
	s := open(t, p.url(""))
	d := receive(t, s, 1)[0]
	p.leave(t, s)
	deadline := time.Now().Add(patience)
	for {
		err := s.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}})[0].Err
		if errors.Is(err, ackwise.ErrLeaseLost) {
			break
		}
		if err == nil || time.Now().After(deadline) {
			t.Fatalf("ack after the removal: %v", err)
		}
	}
	again := receive(t, s, 1)[0]
	if again.ID != d.ID || again.Cause == ackwise.CauseFirst {
		t.Errorf("%s came, %s", again.ID, again.Cause)
	}
	ack(t, s, again)
}

func testDeleted(t *testing.T, p *place) {
	p.put(t, 0, 0, 1)
	s := open(t, p.url(""))
	d := receive(t, s, 1)[0]
	if _, err := p.adm.DeleteTopic(t.Context(), p.topic); err != nil {
		t.Fatal(err)
	}
	// Whether the ack still goes through is a matter of who is first.
	s.Settle(t.Context(), []ackwise.Settlement{{Token: d.Token}})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := s.Receive(ctx, 1); err == nil || !strings.Contains(err.Error(), "was deleted") {
		t.Errorf("receive: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	o, err := kafka.ParseSource(p.url(""))
	if err != nil {
		t.Fatal(err)
	}
	_, err = kafka.OpenSource(t.Context(), o)
	if missing, ok := errors.AsType[*ackwise.NotFoundError](err); !ok || missing.Name != p.topic {
		t.Errorf("open: %v", err)
	}
}

func testCommittedOnly(t *testing.T, p *place) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(p.brokers, ",")...),
		kgo.TransactionalID("t-"+p.topic), kgo.DefaultProduceTopic(p.topic))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for _, commit := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit} {
		if err := cl.BeginTransaction(); err != nil {
			t.Fatal(err)
		}
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Value: []byte("x")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
		if err := cl.EndTransaction(t.Context(), commit); err != nil {
			t.Fatal(err)
		}
	}
	// Offset 0 was aborted, 1 is the mark of that, 2 was committed.
	expect(t, open(t, p.url("")), map[string]ackwise.Cause{p.topic + "/0/2": ackwise.CauseFirst})
}
