package sns_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/adapters/aws/sns"
	"github.com/ackwise/ackwise/test/servers"
)

func TestRealConformance(t *testing.T) {
	moto(t)
	t.Parallel()
	adaptertest.Run(t, realHarness())
}

// realHarness reads a queue that is subscribed with the envelope; this server cannot deliver binary
// attributes raw. It has no row for FIFO topics: the server forgets a deduplication ID with the
// message that a consumer deletes, AWS does after 5 minutes. The checks that kill or freeze the
// server have one of their own.
func realHarness() adaptertest.Harness {
	h := harness(false)
	h.Cannot = map[adaptertest.Check]string{adaptertest.Restart: "docs/systems/sns.md: " +
		"moto keeps topics and messages in memory."}
	var places atomic.Int64
	h.New = func(t *testing.T) *adaptertest.Bed {
		server, b := moto(t), &adaptertest.Bed{}
		if strings.Contains(t.Name(), "/broker_") {
			own := servers.Start(t, "moto")
			server, b.Server = own.Address, own
		}
		topic := fmt.Sprintf("conformance-%d", places.Add(1))
		_, o := openReal(t, server, topic)
		q := newQueue(t, server, topic, nil)
		subscribe(t, o, sns.Subscription{Queue: q.arn})
		proxy := servers.StartProxy(t, strings.TrimPrefix(server, "http://"))
		var mu sync.Mutex // guards all: what was read until now
		var all []ackwise.Message
		b.Proxy = proxy
		b.Sink = "sns://eu-central-1/" + topic + "?timeout=5s&endpoint=http://" + proxy.Address
		b.Read = func(ctx context.Context) ([]ackwise.Message, error) {
			mu.Lock()
			defer mu.Unlock()
			for {
				ms, raw, err := q.receive(ctx)
				if err != nil || len(ms) == 0 {
					return slices.Clone(all), err
				}
				for i := range ms {
					ms[i].Topic = "suite"
					all = append(all, ms[i])
					if _, err := q.api.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &q.url,
						ReceiptHandle: raw[i].ReceiptHandle}); err != nil {
						return nil, err
					}
				}
			}
		}
		return b
	}
	return h
}
