package queue

import (
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// On a full disk publish is refused, nothing that was acknowledged is lost, consumers go on, and
// all goes on by itself when space returns.
func TestAFullDiskPushesBackAndHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := vfs.NewMem()
		mem.SetCapacity(2 << 20)
		s := openMem(t, mem, Options{MinFreeBytes: 1 << 20, SegmentBytes: 1 << 16,
			CheckpointBytes: 1 << 30})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		body := make([]byte, 10_000)
		accepted := 0
		next := func() ackwise.Result {
			time.Sleep(askFreeMillis * time.Millisecond) // virtual
			return s.Publish(t.Context(), []ackwise.Message{{Topic: "orders",
				ID: fmt.Sprint("m", accepted), Body: body}})[0]
		}
		for {
			res := next()
			if res.Class != ackwise.ResultAccepted {
				if res.Class != ackwise.ResultRetryable || !errors.Is(res.Err, ackwise.ErrFull) {
					t.Fatalf("on a full disk: %v %v", res.Class, res.Err)
				}
				break
			}
			if accepted++; accepted > 1000 {
				t.Fatal("the disk never filled")
			}
		}
		r := receiver(t, s, "orders", "billing", ReceiverOptions{})
		for acked := 0; acked < accepted; {
			for _, d := range receive(t, r, 10) {
				settle(t, r, d, ackwise.OutcomeAck)
				acked++
			}
		}
		verify(t, s)
		mem.SetCapacity(10 << 20)
		if next().Class != ackwise.ResultAccepted {
			t.Error("publish is still refused though space is back")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}
