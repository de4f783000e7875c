package kafka_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/kafka"
	"github.com/ackwise/ackwise/test/servers"
)

func TestRealConformance(t *testing.T) {
	servers.Address(t, "ACKWISE_TEST_KAFKA")
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			adaptertest.Run(t, realHarness(t, mode))
		})
	}
}

// realLease is how long the real broker lets a record of a share group be.
const realLease = 5 * time.Second

// realHarness has a broker of its own for the checks that disturb it, one after the other, and the
// shared one for the others.
func realHarness(t *testing.T, mode string) adaptertest.Harness {
	t.Helper()
	h := harness(mode, realLease)
	server, proxy := servers.StartBehindProxy(t, "kafka")
	var own sync.Mutex // held by the check that has it
	h.New = func(t *testing.T) *adaptertest.Bed {
		name := t.Name()[strings.LastIndex(t.Name(), "/"):]
		if !strings.Contains(name, "broker") && !strings.Contains(name, "cut") {
			return bed(t, mode, servers.Address(t, "ACKWISE_TEST_KAFKA"), &adaptertest.Bed{})
		}
		own.Lock()
		t.Cleanup(own.Unlock)
		b := bed(t, mode, proxy.Address, &adaptertest.Bed{Server: server, Proxy: proxy})
		direct := strings.Replace(b.Source, proxy.Address, server.Address, 1)
		t.Cleanup(func() { nothingStuck(t, mode, direct) }) // once no member is left
		return b
	}
	return h
}

// nothingStuck reads what a check has left over, such as acks that the broker did not take, until
// the group has all of its topic behind it: a message that is neither settled nor comes would stay
// in between.
func nothingStuck(t *testing.T, mode, source string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	defer cancel()
	o, err := kafka.ParseSource(source)
	if err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(o.Brokers...),
		kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	// A share group writes how far it is only with the next settlement: one more in each partition
	// brings it to where the last one stands.
	more := int64(0)
	for n := range int32(partitions) {
		if mode != "share" {
			break
		}
		more = 1
		r := &kgo.Record{Topic: o.Topics[0], Partition: n}
		if err := cl.ProduceSync(ctx, r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := kafka.OpenSource(ctx, o)
	if err != nil {
		t.Fatalf("open the source again: %v", err)
	}
	defer s.Close()
	left := "not known"
	for again := 0; left != ""; {
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		ds, err := s.Receive(short, 100)
		cancel()
		if ctx.Err() != nil {
			t.Fatalf("%d messages came again, and stuck are: %s (%v)", again, left, err)
		}
		for _, d := range ds {
			again++
			s.Settle(ctx, []ackwise.Settlement{{Token: d.Token}}) // what is refused comes again
		}
		left = unsettled(ctx, kadm.NewClient(cl), &o, more)
	}
}

// unsettled says in which partitions the group is not at the end less so many, "" = in none.
func unsettled(ctx context.Context, adm *kadm.Client, o *kafka.SourceOptions, less int64) string {
	ends, err := adm.ListEndOffsets(ctx, o.Topics...)
	if err != nil {
		return err.Error()
	}
	var at func(topic string, partition int32) int64
	if o.Share {
		got, err := adm.DescribeShareGroupOffsets(ctx, o.Group)
		if err != nil {
			return err.Error()
		}
		at = func(topic string, partition int32) int64 {
			p, _ := got[o.Group].Offsets.Lookup(topic, partition)
			return p.StartOffset
		}
	} else {
		got, err := adm.FetchOffsetsForTopics(ctx, o.Group, o.Topics...)
		if err != nil {
			return err.Error()
		}
		at = func(topic string, partition int32) int64 {
			p, _ := got.Lookup(topic, partition)
			return p.At
		}
	}
	var left []string
	ends.Each(func(end kadm.ListedOffset) {
		if is := at(end.Topic, end.Partition); is < end.Offset-less {
			left = append(left, fmt.Sprintf("%s/%d at %d of %d", end.Topic, end.Partition, is, end.Offset))
		}
	})
	return strings.Join(left, ", ")
}
