package queue

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// What a delivery holds is its own: a later Receive does not write over it, and messages whose
// places in the log are not in the order of the line get their own bodies.
func TestDeliveriesHoldTheirOwnBodies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{})
		defer s.Close()
		create(t, s, "orders", "audit", SubscriptionOptions{})
		for i, id := range []string{"d", "c", "b", "a"} { // due in the opposite order
			s.Schedule(t.Context(), time.Duration(4-i)*time.Minute, []ackwise.Message{{
				Topic: "orders", ID: id, Key: "key " + id, Body: []byte("body " + id),
				Headers: []ackwise.Header{{Name: "name " + id, Value: []byte("value " + id)}}}})
		}
		time.Sleep(time.Hour) // virtual
		r := receiver(t, s, "orders", "audit", ReceiverOptions{})
		got := receive(t, r, 2)
		got = append(got, receive(t, r, 2)...)
		for i, want := range []string{"a", "b", "c", "d"} {
			d := got[i]
			if d.ID != want || d.Key != "key "+want || string(d.Body) != "body "+want ||
				d.Headers[0].Name != "name "+want || string(d.Headers[0].Value) != "value "+want {
				t.Errorf("delivery %d is %s with key %q, body %q, headers %q, want %s", i, d.ID,
					d.Key, d.Body, d.Headers, want)
			}
		}
	})
}
