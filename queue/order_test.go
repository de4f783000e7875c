package queue

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// keyed is a consumer that judges order by its own lists.
type keyed struct {
	t       *testing.T
	applied map[string]int // by key: how many messages, in order
	failing map[string]bool
	fired   map[string]int
}

// handle does the work of one delivery: a message of a failing key fails; any other must be the
// next of its key, or one that was applied before.
func (k *keyed) handle(d *ackwise.Delivery) ackwise.Settlement {
	st := ackwise.Settlement{Token: d.Token}
	var n int
	if _, err := fmt.Sscanf(d.ID, d.Key+"-%d", &n); err != nil {
		k.t.Fatal(err)
	}
	done := k.applied[d.Key]
	switch {
	case n > done:
		k.t.Fatalf("key %s: message %d comes before %d is done (cause %s)", d.Key, n, done, d.Cause)
	case k.failing[d.Key] && d.Counts.Failures >= 2:
		st.Outcome, st.Reason = ackwise.OutcomeDead, "down for good"
		k.fired["dead"]++
	case k.failing[d.Key]:
		st.Outcome, st.Reason, st.Delay = ackwise.OutcomeNack, "down", 50*time.Millisecond
		k.fired["failed"]++
	case n == done:
		k.applied[d.Key]++
		k.fired["applied"]++
	}
	return st
}

// run consumes until nothing comes for a while, and returns how many were settled. It dies, without
// a word, with probability die.
func (k *keyed) run(s *Store, rng *rand.Rand, die float64) (settled int) {
	r, err := s.Receiver(k.t.Context(), "flights", "miles", ReceiverOptions{SyncAcks: true})
	if err != nil {
		k.t.Fatal(err)
	}
	for {
		ctx, cancel := context.WithTimeout(k.t.Context(), 300*time.Millisecond)
		ds, err := r.Receive(ctx, 1+rng.IntN(20))
		cancel()
		if err != nil {
			_ = r.Close()
			return settled
		}
		if rng.Float64() < die {
			k.fired["died"]++
			_ = r.Lost()
			return settled
		}
		stop := map[string]bool{}
		for _, d := range ds {
			st := ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeRelease}
			if !stop[d.Key] {
				st = k.handle(d)
			}
			stop[d.Key] = stop[d.Key] || st.Outcome != ackwise.OutcomeAck
			if res := r.Settle(k.t.Context(), []ackwise.Settlement{st}); res[0].Err != nil {
				k.t.Fatalf("%s: %v", d.ID, res[0].Err)
			}
			settled++
		}
	}
}

// L4: on an ordered subscription that holds, no key ever goes on past an unfinished message:
// through retries, dead letters, redrive, dying consumers, power cuts and restarts. Other keys
// never wait.
func TestL4OrderHoldsThroughDeadLettersRedriveAndCrashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keys, each = 200, 10
		rng := rand.New(rand.NewPCG(4, 4))
		mem := vfs.NewMem()
		s := openMem(t, mem, Options{SegmentBytes: 1 << 16})
		create(t, s, "flights", "miles", SubscriptionOptions{Ordered: true, OnDead: Hold,
			Lease: time.Second})
		for n := range each {
			var msgs []ackwise.Message
			for key := range keys {
				name := fmt.Sprint("k", key)
				msgs = append(msgs, ackwise.Message{Topic: "flights", Key: name,
					ID: fmt.Sprintf("%s-%d", name, n)})
			}
			publish(t, s, msgs...)
		}
		k := &keyed{t: t, applied: map[string]int{}, fired: map[string]int{},
			failing: map[string]bool{"k7": true, "k77": true}} // 1 % of the keys
		for range 40 {
			k.run(s, rng, 0.05)
			if rng.IntN(4) == 0 {
				k.fired["power cut"]++
				after := mem.CrashClone(rng)
				_ = s.Close()
				mem = after
				s = openMem(t, mem, Options{SegmentBytes: 1 << 16})
			}
		}
		for key := range keys {
			name := fmt.Sprint("k", key)
			if want := each; !k.failing[name] && k.applied[name] != want {
				t.Errorf("%s: %d of %d applied while other keys fail", name, k.applied[name], want)
			}
		}
		parked, err := s.ParkedKeys(t.Context(), "flights", "miles", 10)
		if err != nil || len(parked) != 2 || parked[0].Depth != each-1 || parked[0].Error == "" {
			t.Fatalf("parked keys: %+v, %v", parked, err)
		}
		k.failing = nil
		if n, err := s.Redrive(t.Context(), "flights", "miles", DeadFilter{}, false); n != 2 ||
			err != nil {
			t.Fatalf("redrive: %d, %v", n, err)
		}
		for range 20 {
			k.run(s, rng, 0.1)
		}
		for key, n := range k.applied {
			if n != each {
				t.Errorf("%s: %d of %d applied in the end", key, n, each)
			}
		}
		for _, what := range []string{"dead", "failed", "died", "power cut"} {
			if k.fired[what] == 0 {
				t.Errorf("%q never happened", what)
			}
		}
		if open, _ := s.ParkedKeys(t.Context(), "flights", "miles", 10); len(open) != 0 {
			t.Errorf("still parked: %+v", open)
		}
		verify(t, s)
		_ = s.Close()
	})
}

// One message that kills its consumer, among 1,000 good ones: it becomes a dead letter after its
// crash budget, and none of the good ones does.
func TestSuspectsFindTheMessageThatKills(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openMem(t, vfs.NewMem(), Options{})
		create(t, s, "orders", "billing", SubscriptionOptions{})
		for i := range 10 {
			var msgs []ackwise.Message
			for j := range 100 {
				msgs = append(msgs, ackwise.Message{Topic: "orders", ID: fmt.Sprint(i*100 + j)})
			}
			publish(t, s, msgs...)
		}
		const poison, budget = "505", 3
		acked, kills := map[string]bool{}, 0
		for len(acked) < 999 {
			if kills > 20 {
				t.Fatalf("%d consumers died", kills)
			}
			if consumeUntilKilled(t, s, poison, budget, acked) {
				kills++
			}
		}
		letters, err := s.DeadLetters(t.Context(), "orders", "billing", DeadFilter{})
		if err != nil || len(letters) != 1 || letters[0].Message.ID != poison ||
			letters[0].Counts.Crashes != budget {
			t.Errorf("dead letters: %+v, %v", letters, err)
		}
		if kills != budget+1 { // once among others, uncharged, then alone
			t.Errorf("%d consumers died, want %d", kills, budget+1)
		}
		verify(t, s)
		_ = s.Close()
	})
}

// consumeUntilKilled works as a loop does: it asks the crash budget before it handles a message.
func consumeUntilKilled(t *testing.T, s *Store, poison string, budget int,
	acked map[string]bool) (killed bool) {
	r := receiver(t, s, "orders", "billing", ReceiverOptions{})
	for len(acked) < 999 {
		ds := receive(t, r, 16)
		for _, d := range ds {
			if d.Counts.Crashes >= budget {
				settle(t, r, d, ackwise.OutcomeDead)
				continue
			}
			if d.ID == poison {
				if err := r.Lost(); err != nil {
					t.Fatal(err)
				}
				return true
			}
			settle(t, r, d, ackwise.OutcomeAck)
			acked[d.ID] = true
		}
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	return false
}

// A session with 10,000 messages in flight that dies does not make them run one by one while other
// sessions are idle: each session runs a suspect of its own at the same time.
func TestSuspectsRunInAllSessionsAtOnce(t *testing.T) {
	s := openMem(t, vfs.NewMem(), Options{MaxBatch: 10_000})
	create(t, s, "orders", "billing", SubscriptionOptions{})
	const n, sessions = 10_000, 8
	msgs := make([]ackwise.Message, n)
	for i := range msgs {
		msgs[i] = ackwise.Message{Topic: "orders", ID: fmt.Sprint(i)}
	}
	publish(t, s, msgs...)
	dying := receiver(t, s, "orders", "billing", ReceiverOptions{})
	if got := len(receive(t, dying, n)); got != n {
		t.Fatalf("%d in flight", got)
	}
	if err := dying.Lost(); err != nil {
		t.Fatal(err)
	}
	var rs []*Receiver
	for range sessions {
		rs = append(rs, receiver(t, s, "orders", "billing", ReceiverOptions{}))
	}
	for acked := 0; acked < n; {
		var round []*ackwise.Delivery
		for _, r := range rs { // all hold theirs before the first one is settled
			ds := receive(t, r, 100)
			if len(ds) != 1 || !ds[0].Suspect || ds[0].Counts.Crashes != 0 {
				t.Fatalf("got %d deliveries, suspect %v, %d crashes", len(ds), ds[0].Suspect,
					ds[0].Counts.Crashes)
			}
			round = append(round, ds[0])
		}
		for i, d := range round {
			settle(t, rs[i], d, ackwise.OutcomeAck)
			acked++
		}
	}
	// New messages go on in other sessions while one session holds a suspect.
	publish(t, s, ackwise.Message{Topic: "orders", ID: "x"}, ackwise.Message{Topic: "orders", ID: "y"})
	receive(t, rs[0], 2)
	if err := rs[0].Lost(); err != nil {
		t.Fatal(err)
	}
	publish(t, s, ackwise.Message{Topic: "orders", ID: "new"})
	receive(t, rs[1], 1) // a suspect
	receive(t, rs[2], 1) // the other one
	if d := receive(t, rs[3], 1)[0]; d.ID != "new" || d.Suspect {
		t.Errorf("got %s, suspect %v", d.ID, d.Suspect)
	}
	verify(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}
