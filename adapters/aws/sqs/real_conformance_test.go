package sqs

import (
	"strings"
	"testing"

	"github.com/ackwise/ackwise/adapters/adaptertest"
	"github.com/ackwise/ackwise/test/servers"
)

func TestRealConformance(t *testing.T) {
	servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	t.Parallel()
	adaptertest.Run(t, realHarness(false))
}

func TestRealConformanceFIFO(t *testing.T) {
	servers.Address(t, "ACKWISE_TEST_ELASTICMQ")
	t.Parallel()
	adaptertest.Run(t, realHarness(true))
}

// realHarness is ElasticMQ. The checks that kill or freeze it have one of their own; the others
// share one, each behind a proxy of its own, since a start takes seconds.
func realHarness(fifo bool) adaptertest.Harness {
	h := harness(fifo, realLease)
	if fifo { // TestRealElasticMQForgetsGroups shows it without this package
		h.Cannot = map[adaptertest.Check]string{adaptertest.Restart: "docs/systems/sqs.md: Killed and " +
			"started again, ElasticMQ hands out later messages of a group while an earlier one is hidden."}
	}
	h.New = func(t *testing.T) *adaptertest.Bed {
		b := &adaptertest.Bed{}
		var proxy *servers.Proxy
		if strings.Contains(t.Name(), "/broker_") {
			server, own := servers.StartBehindProxy(t, "elasticmq")
			b.Server, proxy = server, own
			b.Forgets = "docs/systems/sqs.md: Killed, ElasticMQ may bring back a message that it " +
				"had deleted."
		} else {
			_, address, _ := strings.Cut(servers.Address(t, "ACKWISE_TEST_ELASTICMQ"), "://")
			proxy = servers.StartProxy(t, address)
		}
		b.Proxy = proxy
		return bed(t, "http://"+proxy.Address, &h, b)
	}
	return h
}
