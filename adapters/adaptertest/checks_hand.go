package adaptertest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/ackwise/ackwise"
)

func isLost(err error) bool { return errors.Is(err, ackwise.ErrLeaseLost) }

// nackDelay nacks with a delay: the message does not come before, and comes then.
func nackDelay(r *rig) {
	r.publish(messages(0, 3, 0))
	h := r.hand("by hand")
	first := h.receive(1)[0]
	delay := min(1500*time.Millisecond, r.h.Source.MaxNackDelay)
	begun := time.Now()
	for _, res := range h.settle(ackwise.Settlement{Token: first.Token,
		Outcome: ackwise.OutcomeNack, Delay: delay, Reason: "the suite asked for it"}) {
		if res.Err != nil {
			r.t.Fatalf("nack: %v", res.Err)
		}
	}
	for {
		d := h.receive(1)[0]
		h.all(ackwise.OutcomeAck, d)
		if d.ID != first.ID {
			continue
		}
		// Its clock may round to its own unit, by less than a hundredth of a second.
		if took := time.Since(begun); took < delay-10*time.Millisecond {
			r.t.Errorf("a nack with a delay of %s came again after %s", delay, took)
		}
		break
	}
	if more := 3 - r.done(); more > 0 {
		h.all(ackwise.OutcomeAck, h.receive(more)...)
	}
	h.close()
	r.arrive()
}

// extend extends a lease well past its length. Nobody else gets the message meanwhile.
func extend(r *rig) {
	r.publish(messages(0, 1, 0))
	holder, other := r.hand("holder"), r.hand("other")
	d := holder.receive(1)[0]
	lease := r.h.Source.Lease
	for range 5 { // in steps of a third of it
		begun := time.Now()
		res := holder.settle(ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeExtend})[0]
		switch {
		case res.Err != nil:
			r.t.Fatalf("extend: %v", res.Err)
		case !res.Deadline.After(begun):
			r.t.Errorf("extended at %s, the lease ends at %s", begun, res.Deadline)
		}
		if ds := other.within(1, lease/3); len(ds) > 0 {
			r.t.Fatalf("%s was extended, and handed out to another consumer (%s)", ds[0].ID, ds[0].Cause)
		}
	}
	holder.all(ackwise.OutcomeAck, d)
	if ds := other.within(1, lease+lease/3); len(ds) > 0 {
		r.t.Errorf("%s was acked, and handed out again (%s)", ds[0].ID, ds[0].Cause)
	}
	holder.close()
	other.close()
	r.arrive()
}

// release gives deliveries back unattempted.
func release(r *rig) {
	r.publish(messages(0, 4, 0))
	h := r.hand("by hand")
	ds := h.receive(4)
	h.all(ackwise.OutcomeRelease, ds...)
	again := h.receive(4)
	if !slices.Equal(ids(ds), ids(again)) {
		r.t.Errorf("released were %v, and what came is %v", ids(ds), ids(again))
	}
	for _, d := range again {
		if r.h.Source.Counts && (d.Counts.Failures != 0 || d.Counts.Crashes != 0) {
			r.t.Errorf("%s was released, and is charged: %+v", d.ID, d.Counts)
		}
	}
	h.all(ackwise.OutcomeAck, again...)
	h.close()
	r.arrive()
}

// partialBatch settles a batch of which some succeed, some fail, and one has no sound token.
func partialBatch(r *rig) {
	r.publish(messages(0, 8, 0))
	h := r.hand("by hand")
	ds := h.receive(8)
	var ss []ackwise.Settlement
	var failed []*ackwise.Delivery
	for i, d := range ds {
		s := ackwise.Settlement{Token: d.Token, Outcome: ackwise.OutcomeAck}
		if i%2 == 1 {
			s.Outcome, s.Reason = ackwise.OutcomeNack, "the suite asked for it"
			failed = append(failed, d)
		}
		if ss = append(ss, s); i == 3 {
			ss = append(ss, ackwise.Settlement{Token: "no token of this source"})
		}
	}
	for i, res := range h.settle(ss...) {
		if bad := strings.HasPrefix(string(ss[i].Token), "no token"); bad != (res.Err != nil) {
			r.t.Errorf("the result of settlement %d (%s, token %.20q): %v", i, ss[i].Outcome,
				ss[i].Token, res.Err)
		}
	}
	again := h.receive(len(failed))
	if !slices.Equal(ids(failed), ids(again)) {
		r.t.Errorf("nacked were %v, and what came is %v", ids(failed), ids(again))
	}
	h.all(ackwise.OutcomeAck, again...)
	if more := h.within(1, 300*time.Millisecond); len(more) > 0 {
		r.t.Errorf("all were acked, and %v came", ids(more))
	}
	h.close()
	r.arrive()
}

// slowHandler lets a handler work for longer than its lease, beside a consumer that is idle. Where
// there is no lease it works for a while, alone: another member could have the partition moved.
func slowHandler(r *rig) {
	r.publish(messages(0, 4, 0))
	slow := r.member("slow", setup{}, holdAll)
	slow.holds(1)
	long := 2 * time.Second
	if lease := r.h.Source.Lease; lease > 0 {
		r.member("idle", setup{}, ackAll)
		long = 5 * lease / 2
	}
	r.pause(long)
	slow.holds(1)
	slow.answers(ackAll)
	r.arrive()
	outs := map[string]int{}
	for _, e := range r.events() {
		if e.Kind == saysReceived {
			if outs[e.ID]++; outs[e.ID] > 1 {
				r.t.Errorf("%s was handed out again (%s) while heartbeats held it", e.ID, e.Cause)
			}
		}
	}
}

// cleanStop ends consumers that hold deliveries in good order: others get them, charged to nobody.
func cleanStop(r *rig) {
	r.publish(messages(0, 30, 10))
	h := r.hand("by hand")
	held := ids(h.receive(2))
	h.close()
	first := r.member("first", setup{}, holdAll)
	first.holds(1)
	r.book.locked(func() {
		for _, s := range first.held {
			held = append(held, s.ID)
		}
	})
	first.stop()
	r.member("second", setup{}, ackAll)
	r.arrive()
	again := 0
	for _, e := range r.events() {
		if e.Kind != saysOrder || e.Outcome != doAck || !slices.Contains(held, e.ID) {
			continue
		}
		again++
		if r.h.Source.Counts && (e.Counts.Failures != 0 || e.Counts.Crashes != 0) {
			r.t.Errorf("%s was given back at a clean stop, and is charged: %+v", e.ID, e.Counts)
		}
	}
	if again == 0 {
		r.t.Error("nothing was held at the stop")
	}
}

// backPressure holds everything: no more comes than was asked for, and all comes after.
func backPressure(r *rig) {
	const most = 4
	r.publish(messages(0, 100, 0))
	m := r.member("consumer", setup{Concurrency: most, MaxInFlight: most}, holdAll)
	m.holds(most)
	r.pause(500 * time.Millisecond)
	m.answers(ackAll)
	r.arrive()
	for _, e := range r.events() {
		if e.Kind == saysReceived && e.Held > most {
			r.t.Fatalf("%d deliveries were held, %d is the most", e.Held, most)
		}
	}
}

// poisonKills publishes a message that kills each process that handles it, until it is dead. The
// other messages go on.
func poisonKills(r *rig) {
	ms := messages(0, 20, 0)
	r.publish(ms)
	poison := ms[7].ID
	policy := func(s *said) order {
		if s.ID == poison {
			return order{}
		}
		return order{Do: doAck}
	}
	kills := 0
	for ; !r.book.is(func() bool { return r.book.dead[poison] && r.book.complete() }); kills++ {
		if kills > 12 {
			r.t.Fatalf("%s has killed its process %d times, and is not dead%s", poison, kills,
				r.book.tell())
		}
		m := r.member("victim", setup{MaxInFlight: 8, MaxCrashes: 2, MaxHandOuts: 5}, policy)
		r.until("the poison is handled, or dead", func() bool {
			return len(m.held) > 0 || m.over || r.book.dead[poison] && r.book.complete()
		})
		if r.book.is(func() bool { return len(m.held) == 0 }) {
			m.stop()
			continue
		}
		if !r.h.Source.Counts { // what is in flight beside it is charged too
			r.waits(30*time.Second, func() bool { return r.book.unsettled(m) <= 1 })
		}
		m.answers(func(s *said) order {
			if s.ID == poison {
				return order{Do: doDie}
			}
			return order{}
		})
		r.until("the poison has killed its process", func() bool { return m.over })
	}
	if kills < 2 {
		r.t.Errorf("the poison killed %d processes", kills)
	}
	r.book.locked(func() {
		for _, m := range ms {
			if m.ID != poison && r.book.dead[m.ID] {
				r.t.Errorf("%s is dead beside the poison %s", m.ID, poison)
			}
		}
	})
	r.judge()
}

// unknownResent interrupts a producer at many moments: what may have been accepted is sent again
// with its ID, what surely was not never arrives.
func unknownResent(r *rig) {
	r.sink()
	short := 0
	for i := range 20 {
		ms := messages(i*5, 5, 0)
		r.book.send(ms)
		ctx, cancel := context.WithTimeout(r.ctx, time.Duration(i)*time.Duration(i)*50*time.Microsecond)
		results := r.publishWith(ctx, ms)
		cancel()
		var again []ackwise.Message
		for j, res := range results {
			switch res.Class {
			case ackwise.ResultAccepted:
				continue
			case ackwise.ResultUnknown:
				again = append(again, ms[j])
			case ackwise.ResultRejected:
				r.t.Errorf("%s, interrupted, is rejected: %v", ms[j].ID, res.Err)
			case ackwise.ResultRetryable, ackwise.ResultNotAttempted:
				r.book.locked(func() { r.book.sent[ms[j].ID].refused = true })
			}
			short++
		}
		if len(again) > 0 {
			r.publish(again)
		}
	}
	if short == 0 {
		r.t.Error("no call was interrupted")
	}
	if r.bed.Proxy != nil {
		fired := r.bed.Proxy.Fired()
		r.bed.Proxy.CutReplies(1)
		r.publish(messages(1000, 5, 0))
		r.fired(fired)
	}
	if r.h.Source != nil {
		r.member("consumer", setup{}, ackAll)
	}
	r.arrive()
}
