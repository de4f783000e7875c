package ackwise_test

import (
	"sync"
	"testing"

	"github.com/ackwise/ackwise"
)

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestRevokedAndLostAreTwoLatches(t *testing.T) {
	for _, c := range []struct {
		name        string
		mark        func(*ackwise.Delivery)
		mine, other func(*ackwise.Delivery) <-chan struct{}
	}{
		{"revoked", (*ackwise.Delivery).MarkRevoked, (*ackwise.Delivery).Revoked,
			(*ackwise.Delivery).Lost},
		{"lost", (*ackwise.Delivery).MarkLost, (*ackwise.Delivery).Lost,
			(*ackwise.Delivery).Revoked},
	} {
		t.Run(c.name+", looked at before it is marked", func(t *testing.T) {
			var d ackwise.Delivery
			before := c.mine(&d)
			if closed(before) {
				t.Fatal("closed before it was marked")
			}
			c.mark(&d)
			c.mark(&d) // twice does no harm
			if !closed(before) || !closed(c.mine(&d)) {
				t.Error("not closed after it was marked")
			}
			if closed(c.other(&d)) {
				t.Error("the other one was closed too")
			}
		})
		t.Run(c.name+", marked before it is looked at", func(t *testing.T) {
			var d ackwise.Delivery
			c.mark(&d)
			c.mark(&d)
			first, second := c.mine(&d), c.mine(&d)
			if !closed(first) || !closed(second) {
				t.Error("not closed for one who looks later")
			}
		})
	}
}

func TestLatchWakesEverybodyWhoWaits(t *testing.T) {
	var d ackwise.Delivery
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() { <-d.Lost() })
		wg.Go(d.MarkLost)
		wg.Go(func() { <-d.Lost() })
	}
	wg.Wait()
}

func TestDedupKeyChangesWithTheEpochOnly(t *testing.T) {
	d := ackwise.Delivery{Message: ackwise.Message{ID: "a", Key: "k"}, Attempt: 3}
	if got := d.DedupKey(); got != "a" {
		t.Errorf("DedupKey = %q, want the ID", got)
	}
	d.Epoch = 12
	if got := d.DedupKey(); got != "a#12" {
		t.Errorf("DedupKey = %q, want a#12", got)
	}
}

func TestOnlyTheFirstCauseIsNoRedelivery(t *testing.T) {
	for _, c := range ackwise.Causes() {
		d := ackwise.Delivery{Cause: c}
		if got, want := d.Redelivered(), c != ackwise.CauseFirst; got != want {
			t.Errorf("Redelivered with cause %s = %t, want %t", c, got, want)
		}
	}
}
