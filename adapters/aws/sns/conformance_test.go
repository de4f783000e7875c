package sns_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/aws/internal/attr"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/test/servers"
)

func TestMain(m *testing.M) {
	for _, name := range []string{"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} {
		if err := os.Setenv(name, "test"); err != nil { // the fakes know nobody
			panic(err)
		}
	}
	os.Exit(adaptertest.Main(m, harnesses()...))
}

func harnesses() []adaptertest.Harness {
	return []adaptertest.Harness{fakeHarness(false), fakeHarness(true), realHarness()}
}

func TestConformance(t *testing.T)     { t.Parallel(); adaptertest.Run(t, fakeHarness(false)) }
func TestConformanceFIFO(t *testing.T) { t.Parallel(); adaptertest.Run(t, fakeHarness(true)) }

// harness is the row of standard and of FIFO topics, without a place.
func harness(fifo bool) adaptertest.Harness {
	h := adaptertest.Harness{
		Name: "sns standard",
		Sink: &ackwise.SinkFeatures{MaxBatch: 10, MaxBodyBytes: attr.SNSBytes, Dedup: fifo},
		OpenSink: func(ctx context.Context, address string) (ackwise.Sink, error) {
			o, err := sns.ParseSink(address)
			if err != nil {
				return nil, err
			}
			return sns.OpenSink(ctx, o)
		},
	}
	if fifo {
		h.Name = "sns fifo"
		h.Cannot = map[adaptertest.Check]string{adaptertest.ProducedAgain: "any message published with " +
			"the same deduplication ID, within the five-minute deduplication interval, is accepted but " +
			"not delivered (https://docs.aws.amazon.com/sns/latest/dg/fifo-message-dedup.html): the " +
			"answer does not say that it is a repeated one"}
	}
	return h
}

func name(fifo bool) string {
	if fifo {
		return "suite.fifo"
	}
	return "suite"
}

// fakeHarness reads what the fake was given as raw delivery would.
func fakeHarness(fifo bool) adaptertest.Harness {
	h := harness(fifo)
	if !fifo { // the real server has that row
		h.Name += " (fake)"
	}
	h.New = func(t *testing.T) *adaptertest.Bed {
		f := newFake(t, name(fifo))
		proxy := servers.StartProxy(t, strings.TrimPrefix(f.url, "http://"))
		return &adaptertest.Bed{Proxy: proxy,
			Sink: "sns://eu-central-1/" + name(fifo) + "?timeout=5s&endpoint=http://" + proxy.Address,
			Read: func(context.Context) ([]ackwise.Message, error) {
				f.mu.Lock()
				defer f.mu.Unlock()
				var ms []ackwise.Message
				for _, p := range f.topics[arnBase+name(fifo)].got {
					m := attr.Decode(p.Body, p.Attributes, "").Message
					m.Topic = "suite"
					ms = append(ms, m)
				}
				return ms, nil
			}}
	}
	return h
}
