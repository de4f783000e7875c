package kafka_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ackwise/ackwise/adapters/adaptertest"
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

// realHarness has a broker of its own for the checks that disturb it, one after the other, and the
// shared one for the others.
func realHarness(parent *testing.T, mode string) adaptertest.Harness {
	h := harness(mode, 5*time.Second)
	var own sync.Mutex // held by the check that has the broker below
	var server *servers.Server
	var proxy *servers.Proxy
	h.New = func(t *testing.T) *adaptertest.Bed {
		name := t.Name()[strings.LastIndex(t.Name(), "/"):]
		if !strings.Contains(name, "broker") && !strings.Contains(name, "cut") {
			return bed(t, mode, servers.Address(t, "ACKWISE_TEST_KAFKA"), &adaptertest.Bed{})
		}
		own.Lock()
		t.Cleanup(own.Unlock)
		if server == nil {
			server, proxy = servers.StartBehindProxy(parent, "kafka")
		}
		return bed(t, mode, proxy.Address, &adaptertest.Bed{Server: server, Proxy: proxy})
	}
	return h
}
