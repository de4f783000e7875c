package kafka_test

import (
	"testing"

	"github.com/ackwise/ackwise/test/servers"
)

func TestRealGroup(t *testing.T) {
	address := servers.Address(t, "ACKWISE_TEST_KAFKA")
	runGroupTests(t, func(t *testing.T, partitions int32, protocol string) *place {
		return newPlace(t, address, partitions, protocol, nil)
	})
}
