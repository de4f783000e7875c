package sqs

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

func TestMain(m *testing.M) {
	credentials()
	parallel := "16" // the tests wait more than they work
	if os.Getenv("ACKWISE_TEST_ELASTICMQ") != "" {
		parallel = "6" // and so does no server
	}
	if err := flag.Set("test.parallel", parallel); err != nil {
		panic(err)
	}
	os.Exit(adaptertest.Main(m, harnesses()...))
}

func harnesses() []adaptertest.Harness {
	return []adaptertest.Harness{fakeHarness(false), fakeHarness(true), realHarness(false),
		realHarness(true)}
}

func TestConformance(t *testing.T)     { t.Parallel(); adaptertest.Run(t, fakeHarness(false)) }
func TestConformanceFIFO(t *testing.T) { t.Parallel(); adaptertest.Run(t, fakeHarness(true)) }

// Leases are short, since a crash shows when they are over; a real server on a busy machine may
// need a second for an answer.
const (
	fakeLease = 3 * time.Second
	realLease = 5 * time.Second
)

// harness is the row of standard and of FIFO queues, without a place.
func harness(fifo bool, lease time.Duration) adaptertest.Harness {
	h := adaptertest.Harness{
		Name: "sqs standard",
		Source: &ackwise.Features{Lease: lease, Extend: true, MaxNackDelay: 11 * time.Hour,
			HandOuts: true},
		Sink: &ackwise.SinkFeatures{MaxBodyBytes: 1 << 20},
		OpenSource: func(ctx context.Context, address string) (ackwise.Source, error) {
			o, err := ParseSource(address)
			if err != nil {
				return nil, err
			}
			return OpenSource(ctx, o)
		},
		OpenSink: func(ctx context.Context, address string) (ackwise.Sink, error) {
			o, err := ParseSink(address)
			if err != nil {
				return nil, err
			}
			return OpenSink(ctx, o)
		},
	}
	if fifo {
		h.Name = "sqs fifo"
		h.Source.Order, h.Source.KeyRuns, h.Source.MaxNackDelay = ackwise.OrderKey, true, 0
		h.Sink.KeyRunSafe, h.Sink.Dedup = true, true
	}
	return h
}

func fakeHarness(fifo bool) adaptertest.Harness {
	h := harness(fifo, fakeLease)
	h.Name += " (fake)"
	h.New = func(t *testing.T) *adaptertest.Bed {
		f := newFake(t)
		proxy := servers.StartProxy(t, strings.TrimPrefix(f.URL, "http://"))
		return bed(t, "http://"+proxy.Address, &h, &adaptertest.Bed{Proxy: proxy})
	}
	return h
}

// bed makes a queue behind an endpoint.
func bed(t *testing.T, endpoint string, h *adaptertest.Harness,
	b *adaptertest.Bed) *adaptertest.Bed {
	t.Helper()
	name := realQueue("suite")
	if h.Source.Order != ackwise.OrderNone {
		name = realQueue("suite.fifo")
	}
	b.Sink = fmt.Sprintf("sqs://eu-central-1/%s?endpoint=%s", name, endpoint)
	b.Source = fmt.Sprintf("%s&lease=%s&wait=1s", b.Sink, h.Source.Lease)
	o, err := ParseSink(b.Sink + "&create=true")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSink(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b.Patience = 60 * time.Second
	return b
}
