package kafka

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/test/servers"
)

// The variables by which TestRealTransact tells its children what to do.
const (
	childAddress = "ACKWISE_TRANSACT_ADDRESS"
	childTarget  = "ACKWISE_TRANSACT_TARGET"
	childID      = "ACKWISE_TRANSACT_ID"
	// childDies is after how many ms behind its third batch it dies; "midway" in that batch's
	// transaction, with everything published; "" = it lives.
	childDies = "ACKWISE_TRANSACT_DIES"
)

// TestRealTransactChild is a consumer of its own process, for TestRealTransact.
func TestRealTransactChild(t *testing.T) {
	address := os.Getenv(childAddress)
	if address == "" {
		t.Skip("it is a part of TestRealTransact")
	}
	o, err := ParseSource(address)
	if err != nil {
		t.Fatal(err)
	}
	src, err := OpenSource(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	batches := 0
	h := Transact(func(ctx context.Context, tx *Tx, ds []*ackwise.Delivery) error {
		batches++
		if dies := os.Getenv(childDies); dies != "" && dies != "midway" && batches == 3 {
			ms, _ := strconv.Atoi(dies)
			time.AfterFunc(time.Duration(ms)*time.Millisecond, func() {
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			})
		}
		return echo(ctx, tx, ds)
	}, SinkOptions{Topic: os.Getenv(childTarget), TransactionalID: os.Getenv(childID),
		PublishTimeout: 10 * time.Second, TransactionTimeout: 20 * time.Second})
	h.midway = func() {
		if os.Getenv(childDies) == "midway" && batches == 3 {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
	}
	err = deliver.RunBatch(t.Context(), src, h, deliver.Options{Guarantee: deliver.ExactlyOnce,
		Concurrency: 1, BatchSize: 10, NoDeadLetters: true})
	t.Log("ended:", err)
}

// child starts one.
func child(t *testing.T, address, target, id, dies string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestRealTransactChild$", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), childAddress+"="+address, childTarget+"="+target,
		childID+"="+id, childDies+"="+dies)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd
}

// realTopics makes two topics of the real broker and returns its address.
func realTopics(t *testing.T, partitions int32) (broker, in, out string) {
	t.Helper()
	broker = servers.Address(t, "ACKWISE_TEST_KAFKA")
	cl, err := kgo.NewClient(kgo.SeedBrokers(broker), kgo.DisableClientMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	name := fmt.Sprintf("t%d-%d", os.Getpid(), time.Now().UnixNano())
	in, out = name+"-in", name+"-out"
	adm := kadm.NewClient(cl)
	if _, err := adm.CreateTopics(t.Context(), partitions, 1, nil, in, out); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = adm.DeleteTopics(context.WithoutCancel(t.Context()), in, out) })
	ctx, cancel := context.WithTimeout(t.Context(), sinkPatience)
	defer cancel()
	for { // until the broker knows them
		found, err := adm.ListTopics(ctx, in, out)
		if err != nil {
			t.Fatal(err)
		}
		if cmp.Or(found[in].Err, found[out].Err) == nil {
			return broker, in, out
		}
	}
}

// TestRealTransact kills consumers in their transactions and freezes one that comes back as a
// zombie. Whoever reads committed records sees each effect once, and aborted ones are there.
func TestRealTransact(t *testing.T) {
	broker, in, out := realTopics(t, 3)
	const n, keys = 1500, 30
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	o, err := ParseSink("kafka://" + broker + "/" + in)
	if err != nil {
		t.Fatal(err)
	}
	s, err := OpenSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var ids []string
	var msgs []ackwise.Message
	for i := range n {
		id := fmt.Sprintf("m%04d", i)
		ids = append(ids, id)
		msgs = append(msgs, ackwise.Message{ID: id, Key: fmt.Sprint("k", i%keys), Body: []byte(id)})
	}
	for _, r := range s.Publish(t.Context(), msgs) {
		if r.Class != ackwise.ResultAccepted {
			t.Fatal(r.Err)
		}
	}
	address := "kafka://" + broker + "/" + in + "?group=" + in +
		"&session-timeout=2s&rebalance-timeout=5s"
	killed := 0
	// Each dies in its third transaction or near it; the next one of its ID ends the transaction.
	for _, dies := range []string{"midway", fmt.Sprint(rnd.IntN(25)), "midway",
		fmt.Sprint(rnd.IntN(25))} {
		cmd := child(t, address, out, in+"-a", dies)
		if err := cmd.Wait(); strings.Contains(fmt.Sprint(err), "killed") {
			killed++
		}
	}
	if killed != 4 {
		t.Errorf("%d consumers of 4 were killed", killed)
	}
	zombie := child(t, address, out, in+"-a", "")
	waitCommitted(t, broker, out, 200)
	if err := zombie.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	child(t, address, out, in+"-b", "") // takes over
	waitCommitted(t, broker, out, 700)
	if err := zombie.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	records := readTopic(t, []string{broker}, out, n, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	checkCopies(t, records, ids, keys)
	// Who reads all records sees those of the transactions that were cut short, too.
	all := readTopic(t, []string{broker}, out, n+1)
	t.Logf("%d killed; at least %d records written for %d effects", killed, len(all), len(records))
}

// waitCommitted waits until so many effects can be seen.
func waitCommitted(t *testing.T, broker, topic string, n int) {
	t.Helper()
	readTopic(t, []string{broker}, topic, n, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
}

// TestRealTransactAborts: what an aborted transaction has published is in the topic, and nobody who
// reads committed records sees it.
func TestRealTransactAborts(t *testing.T) {
	broker, in, out := realTopics(t, 1)
	o, err := ParseSink("kafka://" + broker + "/" + out + "?transactional=" + out)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := openSink(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer sink.Close()
	ctx := t.Context()
	if err := sink.txn.begin(); err != nil {
		t.Fatal(err)
	}
	c := newCall(sink, keyed("k", "lost"))
	if c.produce(ctx, sink.cl); c.failed() != nil {
		t.Fatal(c.failed())
	}
	if err := sink.txn.abort(ctx); err != nil {
		t.Fatal(err)
	}
	if got := classes(sink.Publish(ctx, keyed("k", "1", "2"))); got != "accepted accepted" {
		t.Fatal(got)
	}
	addrs := []string{broker}
	if got := bodies(readTopic(t, addrs, out, 2,
		kgo.FetchIsolationLevel(kgo.ReadCommitted()))); got != "1 2" {
		t.Errorf("committed: %q", got)
	}
	if got := bodies(readTopic(t, addrs, out, 3)); got != "lost 1 2" {
		t.Errorf("all: %q", got)
	}
	// A newer sink of the same ID fences it.
	newer, err := OpenSink(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	defer newer.Close()
	if r := sink.Publish(ctx, keyed("k", "zombie"))[0]; r.Class == ackwise.ResultAccepted ||
		!errors.Is(r.Err, ackwise.ErrClosed) {
		t.Errorf("the older one: %+v", r)
	}
	_ = in
}
