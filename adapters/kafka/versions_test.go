package kafka_test

import (
	"context"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/kafka"
)

func openSink(t *testing.T, url string) error {
	o, err := kafka.ParseSink(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := kafka.OpenSink(t.Context(), o)
	if err == nil {
		err = s.Close()
	}
	return err
}

func useSource(t *testing.T, url string, use func(ackwise.Source) error) error {
	o, err := kafka.ParseSource(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := kafka.OpenSource(t.Context(), o)
	if err != nil {
		return err
	}
	defer s.Close()
	return use(s)
}

func sourceWith(options string) func(*testing.T, string) error {
	return func(t *testing.T, url string) error {
		return useSource(t, url+"?group=g"+options, func(ackwise.Source) error { return nil })
	}
}

// TestOldestVersions: what brokers are too old for is refused when it is opened, with the version
// that docs/systems/kafka.md names; those of that version do.
func TestOldestVersions(t *testing.T) {
	t.Parallel()
	transact := func(t *testing.T, url string) error {
		tr := kafka.Transact(func(context.Context, *kafka.Tx, []*ackwise.Delivery) error { return nil },
			kafka.SinkOptions{Topic: "t"})
		defer tr.Close()
		return useSource(t, url+"?group=g", tr.Bind)
	}
	for name, c := range map[string]struct {
		open        func(t *testing.T, url string) error
		old, oldest *kversion.Versions
		want        string
	}{
		"sink":     {openSink, kversion.V0_10_2(), kversion.V0_11_0(), "Apache Kafka 0.11"},
		"source":   {sourceWith(""), kversion.V0_10_2(), kversion.V0_11_0(), "Apache Kafka 0.11"},
		"instance": {sourceWith("&instance=i"), kversion.V2_2_0(), kversion.V2_3_0(), "Apache Kafka 2.3"},
		"transact": {transact, kversion.V2_4_0(), kversion.V2_5_0(), "Apache Kafka 2.5"},
		"consumer": {sourceWith("&protocol=consumer"), kversion.V3_9_0(), kversion.V4_0_0(),
			"Apache Kafka 4.0"},
		"share": {sourceWith("&mode=share&create=true"), kversion.V4_0_0(), kversion.V4_1_0(),
			"Apache Kafka 4.1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, version := range []*kversion.Versions{c.old, c.oldest} {
				cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "t"),
					kfake.MaxVersions(version))
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(cluster.Close)
				err = c.open(t, "kafka://"+cluster.ListenAddrs()[0]+"/t")
				switch {
				case version == c.oldest && err != nil:
					t.Errorf("the oldest version: %v", err)
				case version == c.old && (err == nil || !strings.Contains(err.Error(), c.want) ||
					!strings.Contains(err.Error(), "hint: ")):
					t.Errorf("older: %v, want %q", err, c.want)
				}
			}
		})
	}
}
