package patterns

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// hundred is one message on the real engine, with the embedded store, handed out again and again.
type hundred struct {
	t       *testing.T
	dir     string
	name    string // of the dedup store
	window  time.Duration
	store   *queue.Store
	r       *queue.Receiver
	h       ackwise.Handler
	effects []time.Time // when they were made
	causes  map[ackwise.Cause]int
}

const hundredTopic = "one"

func newHundred(t *testing.T, window time.Duration) *hundred {
	h := &hundred{t: t, dir: t.TempDir(), name: "effects", window: window,
		causes: map[ackwise.Cause]int{}}
	h.open()
	ctx := t.Context()
	err := h.store.CreateTopic(ctx, hundredTopic, queue.TopicOptions{})
	if err == nil {
		err = h.store.CreateSubscription(ctx, hundredTopic, subscription,
			queue.SubscriptionOptions{Ordered: true, OnDead: queue.Hold,
				Lease: 50 * time.Millisecond})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.connect()
	h.publish()
	t.Cleanup(h.shut)
	return h
}

// publish publishes the message. A repeat is suppressed by the topic.
func (h *hundred) publish() {
	h.t.Helper()
	for _, r := range h.store.Publish(h.t.Context(), []ackwise.Message{{ID: "one",
		Topic: hundredTopic, Key: "key", Body: []byte("body")}}) {
		if r.Err != nil {
			h.t.Fatal(r.Err)
		}
	}
}

func (h *hundred) open() {
	h.t.Helper()
	var err error
	if h.store, err = queue.Open(h.dir, queue.Options{}); err != nil {
		h.t.Fatal(err)
	}
}

// connect opens a session and a handler, as a new process would.
func (h *hundred) connect() {
	h.t.Helper()
	ctx := h.t.Context()
	var err error
	if h.r, err = h.store.Receiver(ctx, hundredTopic, subscription,
		queue.ReceiverOptions{}); err != nil {
		h.t.Fatal(err)
	}
	s, err := queuestore.Open(ctx, h.store, h.name, queuestore.Options{Window: h.window})
	if err != nil {
		h.t.Fatal(err)
	}
	effect := ackwise.HandlerFunc(func(context.Context, *ackwise.Delivery) error {
		h.effects = append(h.effects, time.Now())
		return nil
	})
	if h.h, err = idempotency.Dedup(ctx, s, effect,
		idempotency.Options{Again: h.window}); err != nil {
		h.t.Fatal(err)
	}
}

func (h *hundred) shut() {
	if err := errors.Join(h.r.Close(), h.store.Close()); err != nil {
		h.t.Error(err)
	}
}

// deliver takes the message once and handles it. It does not settle it.
func (h *hundred) deliver() *ackwise.Delivery {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	ds, err := h.r.Receive(ctx, 1)
	if err != nil || len(ds) != 1 {
		h.t.Fatalf("receive: %d deliveries, %v", len(ds), err)
	}
	if err := h.h.Handle(ctx, ds[0]); err != nil {
		h.t.Fatalf("delivery %d, %s: %v", ds[0].Attempt, ds[0].Cause, err)
	}
	h.causes[ds[0].Cause]++
	return ds[0]
}

// settle ends a delivery in some way but an ack.
func (h *hundred) settle(d *ackwise.Delivery, outcome ackwise.Outcome) {
	h.t.Helper()
	r := h.r.Settle(h.t.Context(), []ackwise.Settlement{{Token: d.Token, Outcome: outcome,
		Reason: "once more"}})[0]
	if r.Err != nil && !errors.Is(r.Err, ackwise.ErrLeaseLost) { // it ran out on a slow machine
		h.t.Fatal(r.Err)
	}
}

// again brings the message back in one of the ways in which it can come back.
func (h *hundred) again(way int, d *ackwise.Delivery) {
	h.t.Helper()
	switch way {
	case 0: // its handler says that it failed
		h.settle(d, ackwise.OutcomeNack)
	case 1:
		h.settle(d, ackwise.OutcomeRelease)
	case 2:
		h.settle(d, ackwise.OutcomeSnooze)
	case 3: // nobody says anything: the lease runs out
	case 4: // its consumer dies
		if err := h.r.Lost(); err != nil {
			h.t.Fatal(err)
		}
		h.connect()
	case 5: // the engine is opened anew, and its process has no session any more
		if err := h.store.Close(); err != nil {
			h.t.Fatal(err)
		}
		h.open()
		h.connect()
	case 6: // it becomes a dead letter, and is redriven
		h.settle(d, ackwise.OutcomeDead)
		n, err := h.store.Redrive(h.t.Context(), hundredTopic, subscription, queue.DeadFilter{},
			false)
		if err != nil {
			h.t.Fatal(err)
		}
		if n == 0 {
			return // its lease had run out
		}
	case 7: // its producer repeats it, and nothing comes of that
		h.publish()
		h.settle(d, ackwise.OutcomeNack)
	}
}

const ways = 8

func TestOneMessageDeliveredAHundredTimesHasOneEffect(t *testing.T) {
	h := newHundred(t, time.Hour)
	for n := range 100 {
		h.again(n%ways, h.deliver())
	}
	h.settle(h.deliver(), ackwise.OutcomeAck)
	if len(h.effects) != 1 {
		t.Errorf("%d effects, want 1: %v", len(h.effects), h.causes)
	}
	for _, c := range []ackwise.Cause{ackwise.CauseFirst, ackwise.CauseFailed, ackwise.CauseReleased,
		ackwise.CauseSnoozed, ackwise.CauseLeaseExpired, ackwise.CauseConsumerLost,
		ackwise.CauseRestarted, ackwise.CauseRedriven} {
		if h.causes[c] == 0 {
			t.Errorf("no delivery was %s: %v", c, h.causes)
		}
	}
}

// At the window's edge the effect is made again, and not a moment before.
func TestTheWindowEndsByTimeAlone(t *testing.T) {
	window := time.Second
	h := newHundred(t, window)
	deliveries := 0
	for n := 0; len(h.effects) < 2; n++ {
		h.again(n%ways, h.deliver())
		deliveries++
	}
	if passed := h.effects[1].Sub(h.effects[0]); passed < window {
		t.Errorf("the effect was made again after %s of a window of %s", passed, window)
	}
	if deliveries < 3 {
		t.Errorf("%d deliveries: nothing came within the window", deliveries)
	}
}

// Whoever lets messages come back after the window is told when the handler is made.
func TestAWindowThatIsTooShortIsToldAtStart(t *testing.T) {
	h := newHundred(t, time.Second)
	s, err := queuestore.Open(t.Context(), h.store, h.name, queuestore.Options{Window: h.window})
	if err != nil {
		t.Fatal(err)
	}
	_, err = idempotency.Dedup(t.Context(), s, h.h, idempotency.Options{Again: 36 * time.Hour})
	if err == nil || !strings.Contains(err.Error(), "1s") ||
		!strings.Contains(err.Error(), "36h0m0s") {
		t.Errorf("got %v, want an error that names both", err)
	}
}
