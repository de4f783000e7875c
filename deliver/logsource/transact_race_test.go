package logsource_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver/logsource"
	"github.com/ackwise/ackwise/deliver/logsource/memlog"
)

// TestTransactBesideASettlement settles a hand-out, as a loop does that stops, while a transaction
// of it is being written.
func TestTransactBesideASettlement(t *testing.T) {
	outcomes := []ackwise.Outcome{ackwise.OutcomeRelease, ackwise.OutcomeNack, ackwise.OutcomeAck}
	for _, failed := range []error{nil, errors.New("aborted")} {
		for _, o := range outcomes {
			t.Run(o.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { settleBeside(t, o, failed) })
			})
		}
	}
}

func settleBeside(t *testing.T, o ackwise.Outcome, failed error) {
	l := memlog.New("orders", 1)
	l.Append(0, msgs(2, "")...)
	s, m := open(t, l, "a", logsource.Options{})
	l.Move(0, m, time.Time{})
	ds := receive(t, s, 10, 2)
	settle := func(o ackwise.Outcome) error {
		return s.Settle(t.Context(), []ackwise.Settlement{
			{Token: ds[0].Token, Outcome: o, Reason: "x"}})[0].Err
	}
	err := s.Transact(t.Context(), []ackwise.LeaseToken{ds[0].Token},
		func(context.Context, []logsource.Mark) error {
			if err := settle(o); err == nil || errors.Is(err, ackwise.ErrLeaseLost) {
				t.Errorf("beside the transaction: %v, want an error that may pass", err)
			}
			return failed
		})
	if !errors.Is(err, failed) {
		t.Fatal(err)
	}
	err = settle(o)
	switch {
	case failed != nil || o == ackwise.OutcomeAck:
		if err != nil {
			t.Errorf("after it: %v", err)
		}
	case !errors.Is(err, ackwise.ErrSettled):
		t.Errorf("after it: %v, want ErrSettled", err)
	}
}
