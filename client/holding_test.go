package client

import (
	"testing"

	"github.com/ackwise/ackwise"
)

// What a Receive brings after its session was opened again is refused: the owner was told that it
// had never arrived, and hands it out again.
func TestWhatComesAfterTheSessionWasOpenedAgain(t *testing.T) {
	r := &Receiver{held: map[ackwise.LeaseToken]holding{}, seq: 7, told: 7}
	ds := []*ackwise.Delivery{{Token: "late"}}
	if r.hold(7, ds) || len(r.held) != 0 {
		t.Errorf("Receive 7 is held: %v", r.held)
	}
	if !r.hold(8, ds) || len(r.held) != 1 {
		t.Errorf("Receive 8 is not held: %v", r.held)
	}
}
