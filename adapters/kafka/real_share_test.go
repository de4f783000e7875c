package kafka_test

import (
	"testing"

	"github.com/ackwise/ackwise/test/servers"
)

func TestRealShare(t *testing.T) {
	address := servers.Address(t, "ACKWISE_TEST_KAFKA")
	runShareTests(t, func(t *testing.T) *place { return newPlace(t, address, 2, "share", nil) })
}
