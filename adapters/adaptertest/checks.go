package adaptertest

import (
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// A delay of a nack that every system can be asked for.
const shortDelay = 20 * time.Millisecond

func allArrive(r *rig) {
	r.publish(messages(0, 200, 20))
	r.publish(messages(200, 50, 0))
	if r.h.Source != nil {
		r.member("consumer", setup{}, ackAll)
	}
	r.arrive()
}

// crash kills a consumer that holds deliveries. Another one, without its disk, gets them.
func crash(r *rig) {
	r.publish(messages(0, 60, 12))
	r.member("first", setup{}, ackThenHold(10)).kill()
	r.member("second", setup{}, ackAll)
	r.arrive()
}

// lostAck kills a consumer between the end of its settlements and their answer; where connections
// can be cut, it also cuts an answer off.
func lostAck(r *rig) {
	r.publish(messages(0, 40, 8))
	m := r.member("first", setup{}, holdAll)
	m.holds(1)
	m.order(order{Do: doSwallow})
	m.answers(r.ackSome(5))
	r.until("a settlement is carried out", func() bool {
		return slices.ContainsFunc(r.book.events, func(e event) bool { return e.Kind == saysSwallowed })
	})
	m.killNow()
	if r.bed.Proxy != nil {
		lostAnswer(r)
	}
	r.member("second", setup{}, ackAll)
	r.arrive()
}

func lostAnswer(r *rig) {
	h := r.hand("by hand")
	d := h.receive(1)[0]
	fired := r.bed.Proxy.Fired()
	r.bed.Proxy.CutReplies(1)
	deadline := time.Now().Add(r.bed.Patience)
	for try := 1; ; try++ {
		res := h.settle(ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck})[0]
		if res.Err == nil || isLost(res.Err) {
			break
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the ack was repeated %d times, and still: %v", try, res.Err)
		}
		r.pause(shortDelay)
	}
	r.fired(fired)
	h.close()
}

// producedAgain publishes everything twice, as a producer does after a time-out.
func producedAgain(r *rig) {
	ms := messages(0, 40, 8)
	r.publish(ms)
	r.book.send(ms)
	for _, batch := range r.batches(ms) {
		for i, res := range r.publishOnce(batch) {
			switch {
			case res.Class != ackwise.ResultAccepted:
				r.t.Fatalf("%s, published again: %s, %v", batch[i].ID, res.Class, res.Err)
			case r.h.Sink.Dedup && !res.Duplicate:
				r.t.Errorf("%s, published again: the result does not say that it is a duplicate",
					batch[i].ID)
			}
		}
	}
	if r.h.Source != nil {
		r.member("consumer", setup{}, ackAll)
	}
	r.arrive()
}

// requeue nacks or snoozes each message once.
func requeue(r *rig) {
	r.publish(messages(0, 40, 10))
	before := map[string]bool{}
	r.member("consumer", setup{}, func(s *said) order {
		switch {
		case before[s.ID]:
			return order{Do: doAck}
		case snoozes(s.ID):
			before[s.ID] = true
			return order{Do: doSnooze, Delay: shortDelay}
		}
		before[s.ID] = true
		return order{Do: doNack, Delay: shortDelay}
	})
	r.arrive()
	if r.h.Source.MaxNackDelay > 0 { // else its loop held the retries: the source has not seen them
		r.counts()
	}
}

// counts compares what the source has counted of each message that failed once with what the test
// saw.
func (r *rig) counts() {
	outs := map[string]int{}
	for _, e := range r.events() {
		if e.Kind == saysReceived {
			outs[e.ID]++
		}
		if e.Kind != saysOrder || e.Outcome != doAck {
			continue
		}
		failures := 1
		if snoozes(e.ID) {
			failures = 0
		}
		f, got := r.h.Source, e.Counts
		if f.Counts && (got.Failures != failures || got.Crashes != 0) ||
			(f.Counts || f.HandOuts) && got.HandOuts != outs[e.ID] {
			r.t.Errorf("%s was nacked %d times and handed out %d times; the counts say %+v", e.ID,
				failures, outs[e.ID], got)
		}
	}
}

// snoozes says which third of the messages is snoozed rather than nacked.
func snoozes(id string) bool { return id[len(id)-1]%3 == 0 }

// moving lets a second member join while the first holds deliveries, and the first leave.
func moving(r *rig) {
	r.publish(messages(0, 60, 12))
	first := r.member("first", setup{}, ackThenHold(10))
	first.holds(1)
	second := r.member("second", setup{}, ackAll)
	r.publish(messages(60, 60, 12))
	first.holds(1)
	var held []string
	r.book.locked(func() {
		for _, s := range first.held {
			held = append(held, s.ID)
		}
	})
	first.stop()
	r.arrive()
	if !slices.ContainsFunc(r.events(), func(e event) bool {
		return e.Kind == saysReceived && e.by == second && slices.Contains(held, e.ID)
	}) {
		r.t.Errorf("nothing moved: the second member got none of %v", held)
	}
}

// keyOrder takes keys through nacks, a killed consumer, and one that comes and goes.
func keyOrder(r *rig) {
	r.publish(messages(0, 120, 6))
	if r.h.Source == nil {
		r.arrive()
		r.readInOrder()
		return
	}
	before := map[string]bool{}
	nacked := 0
	some := func(n int) func(*said) order {
		return func(s *said) order {
			switch {
			case !before[s.ID] && s.ID[len(s.ID)-1] == '3':
				before[s.ID] = true
				nacked++
				return order{Do: doNack, Delay: shortDelay}
			case n == 0:
				return order{}
			}
			n--
			return order{Do: doAck}
		}
	}
	r.member("first", setup{}, some(30)).kill()
	second := r.member("second", setup{}, some(30))
	second.holds(1)
	if r.h.Cannot[Moving] != "" { // one member at a time
		second.stop()
		r.member("third", setup{}, some(-1))
	} else {
		third := r.member("third", setup{}, some(-1))
		second.answers(some(-1))
		r.until("half is acked", func() bool { return len(r.book.done) >= 70 || third.over })
		second.stop()
	}
	r.arrive()
	if nacked == 0 {
		r.t.Error("nothing was nacked")
	}
}

// restart kills the system's server while deliveries are in flight, and starts it with its data.
func restart(r *rig) {
	r.away(func() {
		r.book.locked(func() { r.book.restarted, r.book.forgets = true, r.bed.Forgets != "" })
		r.bed.Server.Kill(r.t)
	}, 200*time.Millisecond, func() { r.bed.Server.Restart(r.t) })
}

// freeze stops the system's server where it stands for a while.
func freeze(r *rig) {
	r.away(func() { r.bed.Server.Freeze(r.t) }, 2*time.Second, func() { r.bed.Server.Thaw(r.t) })
}

// cutBoth cuts all connections, and lets none be made for a while.
func cutBoth(r *rig) {
	fired := r.bed.Proxy.Fired()
	r.away(r.bed.Proxy.CutAll, 700*time.Millisecond, r.bed.Proxy.Heal)
	r.fired(fired)
}

// away lets the system be away for a while, with deliveries in flight and a producer at work.
func (r *rig) away(leave func(), most time.Duration, back func()) {
	r.t.Helper()
	r.publish(messages(0, 60, 12))
	var m *member
	if r.h.Source != nil {
		m = r.member("consumer", setup{}, r.ackSome(10))
		m.holds(1)
		r.until("an ack is carried out", func() bool { return len(r.book.done) > 0 })
	}
	r.book.locked(func() { r.book.disturbed = true })
	leave()
	wait := r.beside(messages(60, 30, 10))
	r.pause(most)
	back()
	wait()
	if m != nil {
		m.answers(ackAll)
	}
	r.arrive()
}

// cutReply cuts answers in their middle, again and again.
func cutReply(r *rig) {
	if r.h.Source != nil {
		r.member("consumer", setup{}, ackAll)
	}
	r.book.locked(func() { r.book.disturbed = true })
	fired := r.bed.Proxy.Fired()
	for i := range 6 {
		r.bed.Proxy.CutReplies(1)
		r.publish(messages(i*10, 10, 5))
	}
	r.arrive()
	r.fired(fired)
}

// fired sees to it that a connection was cut since.
func (r *rig) fired(since int) {
	r.t.Helper()
	if r.bed.Proxy.Fired() == since {
		r.t.Error("no connection was cut")
	}
}
