package ackwise_test

import (
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// TestTheEndsOfTime: the nanoseconds of every time that is taken fit 64 bits.
func TestTheEndsOfTime(t *testing.T) {
	for _, c := range []struct {
		at time.Time
		ok bool
	}{
		{time.Date(1677, 12, 31, 23, 59, 59, 999, time.UTC), false},
		{time.Date(1678, 1, 1, 0, 0, 0, 0, time.UTC), true},
		{time.Date(2261, 12, 31, 23, 59, 59, 0, time.UTC), true},
		{time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC), false},
	} {
		m := ackwise.Message{Topic: "t", Time: c.at}
		if err := m.Validate(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.at, err)
		}
	}
}
