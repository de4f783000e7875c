package logsource_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

// TestARunEndsBeforeItsFirstComesAgain nacks the first of a run while the rest of it is in a
// handler's hands: handed out again now, two hand-outs of one key would be in flight.
func TestARunEndsBeforeItsFirstComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlog.New("orders", 1)
		l.Append(0, msgs(3, "k")...)
		s, m := open(t, l, "a", logsource.Options{})
		l.Move(0, m, time.Time{})
		ds := receive(t, s, 2, 2)
		if ds[0].Key == "" || ds[0].Key != ds[1].Key {
			t.Fatalf("no run: %q %q", ds[0].Key, ds[1].Key)
		}
		settle(s, ds[0], ackwise.OutcomeNack, 0)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		again, err := s.Receive(ctx, 10)
		if err == nil {
			t.Fatalf("%s is handed out again while %s is in flight", again[0].ID, ds[1].ID)
		}
		settle(s, ds[1], ackwise.OutcomeRelease, 0)
		if got := receive(t, s, 3, 1); got[0].ID != ds[0].ID {
			t.Errorf("%s came first, want %s", got[0].ID, ds[0].ID)
		}
	})
}
