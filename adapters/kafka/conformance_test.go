package kafka_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/kafka"
)

func TestMain(m *testing.M) {
	// The tests wait more than they work.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	var all []adaptertest.Harness
	for _, mode := range modes {
		all = append(all, fakeHarness(mode), harness(mode, realLease))
	}
	os.Exit(adaptertest.Main(m, all...))
}

// modes are the ways to read.
var modes = []string{"classic", "consumer", "share"}

func TestConformance(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode, func(t *testing.T) { t.Parallel(); adaptertest.Run(t, fakeHarness(mode)) })
	}
}

// harness is the row of a mode, without a place.
func harness(mode string, lease time.Duration) adaptertest.Harness {
	h := adaptertest.Harness{
		Name: "kafka " + mode,
		Source: &ackwise.Features{Order: ackwise.OrderKey, Extend: true, MaxNackDelay: 24 * time.Hour,
			Counts: true, Causes: true, KeyRuns: true},
		Sink: &ackwise.SinkFeatures{KeyRunSafe: true, MaxBodyBytes: 1_047_052},
		OpenSource: func(ctx context.Context, address string) (ackwise.Source, error) {
			o, err := kafka.ParseSource(address)
			if err != nil {
				return nil, err
			}
			return kafka.OpenSource(ctx, o)
		},
		OpenSink: func(ctx context.Context, address string) (ackwise.Sink, error) {
			o, err := kafka.ParseSink(address)
			if err != nil {
				return nil, err
			}
			return kafka.OpenSink(ctx, o)
		},
	}
	if mode == "share" {
		h.Source = &ackwise.Features{Lease: lease, Extend: true, HandOuts: true, MaxHandOuts: 5}
	}
	return h
}

func fakeHarness(mode string) adaptertest.Harness {
	h := harness(mode, 2*time.Second)
	h.Name += " (fake)"
	if mode == "share" { // what a stop gives back unattempted counts too
		h.Source.MaxHandOuts = 10
	}
	h.New = func(t *testing.T) *adaptertest.Bed {
		c, err := kfake.NewCluster(kfake.NumBrokers(1),
			kfake.GroupMinSessionTimeout(100*time.Millisecond),
			kfake.BrokerConfigs(map[string]string{
				"group.initial.rebalance.delay.ms":     "0",
				"group.consumer.session.timeout.ms":    "2000",
				"group.consumer.heartbeat.interval.ms": "100",
				"group.share.record.lock.duration.ms":  "2000",
				"share.record.lock.sweep.interval.ms":  "100",
				"group.share.heartbeat.interval.ms":    "100",
				"group.share.session.timeout.ms":       "2000",
				"group.share.delivery.count.limit":     "10",
			}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(c.Close)
		return bed(t, mode, strings.Join(c.ListenAddrs(), ","), &adaptertest.Bed{})
	}
	return h
}

// partitions is how many a topic has.
const partitions = 12

// bed makes a topic and the addresses of a group.
func bed(t *testing.T, mode, brokers string, b *adaptertest.Bed) *adaptertest.Bed {
	t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(brokers))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	topic := "t" + strings.ToLower(ackwise.NewID(time.Now())[24:])
	n := int32(partitions)
	if mode == "share" && strings.HasSuffix(t.Name(), "/extend") {
		n = 1 // more members than partitions: else one of them waits for what the idle one has
	}
	makeTopic(t, kadm.NewClient(cl), n, topic)
	b.Sink = "kafka://" + brokers + "/" + topic
	b.Source = b.Sink + "?group=g-" + topic
	b.Patience = 2 * time.Minute
	switch mode {
	case "share":
		b.Source += "&mode=share&create=true"
	case "consumer":
		b.Source += "&protocol=consumer"
	default:
		b.Source += "&session-timeout=6s&rebalance-timeout=15s"
	}
	return b
}

// makeTopic makes a topic, and waits until the broker knows it.
func makeTopic(t testing.TB, adm *kadm.Client, partitions int32, topic string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		_, err := adm.CreateTopic(t.Context(), partitions, 1, nil, topic)
		if err == nil || errors.Is(err, kerr.TopicAlreadyExists) {
			var ends kadm.ListedOffsets
			ends, err = adm.ListEndOffsets(t.Context(), topic)
			if err == nil && ends.Error() == nil && len(ends[topic]) == int(partitions) {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("the topic %s is not seen: %v", topic, err)
		}
	}
}
