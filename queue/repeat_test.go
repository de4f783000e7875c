package queue

import (
	"testing"
	"testing/synctest"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// TestARepeatedSettlementWaitsToo repeats a settlement whose first copy waits for the disk: the
// answer "already" has to wait for the same sync.
func TestARepeatedSettlementWaitsToo(t *testing.T) {
	for _, outcome := range []ackwise.Outcome{ackwise.OutcomeAck, ackwise.OutcomeDead} {
		t.Run(outcome.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				faults := vfs.NewFaults(vfs.NewMem())
				s := openMem(t, faults, Options{})
				create(t, s, "orders", "billing", SubscriptionOptions{})
				r := receiver(t, s, "orders", "billing", ReceiverOptions{SyncAcks: true})
				s.Publish(t.Context(), []ackwise.Message{{Topic: "orders", ID: "a"}})
				ds, err := r.Receive(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				hold := make(chan struct{})
				faults.Set(&vfs.Fault{Op: vfs.OpSync, N: 1, Block: hold})
				settle := func() <-chan []ackwise.SettleResult {
					done := make(chan []ackwise.SettleResult, 1)
					go func() { // ends when the sync is let go
						done <- r.Settle(t.Context(), []ackwise.Settlement{{Token: ds[0].Token,
							Outcome: outcome, Reason: "why"}})
					}()
					synctest.Wait()
					return done
				}
				first := settle()
				second := settle()
				select {
				case got := <-second:
					t.Errorf("the repeat returned %+v before the sync", got)
				default:
				}
				close(hold)
				<-first
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
