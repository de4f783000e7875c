package adaptertest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/ackwise/ackwise"
)

// fate is what became of a hand-out.
type fate uint8

const (
	open        fate = iota // its consumer holds it
	ordered                 // the handler has returned; the settlement is on its way
	interrupted             // the handler was ended by the loop
	settled                 // carried out
	swallowed               // carried out, and the answer was lost
)

// handOut is one hand-out of a message, told apart by its token.
type handOut struct {
	by       *member
	got      said
	fate     fate
	outcome  string // of ordered and settled
	settling int64  // when the settlement began; 0 = it has not
	asked    string // its outcome: what a killed member did not live to tell may have been carried out
	leaving  bool   // its consumer was told to end
	over     bool   // its consumer is gone
	late     bool   // it was settled so late that its lease may have been over before
	taken    bool   // its settlement was refused: the lease was lost
}

// judgement walks through what happened, in the order of the clock that all processes share.
type judgement struct {
	b       *book
	dedup   bool                  // the sink takes an ID once
	order   bool                  // the source keeps the order of a key
	causes  bool                  // the source knows causes
	lease   time.Duration         // after which its hand-outs end by themselves; 0 = they do not
	counts  bool                  // what it counts survives its consumers
	counted bool                  // an attempt's number tells how many hand-outs nobody has seen
	each    bool                  // it settles each message by itself, for good
	outs    map[string][]*handOut // by ID, in order
	byToken map[string]*handOut
	keys    map[string][]*handOut // by key
	acked   map[string]bool       // the handler has succeeded
	ended   bool                  // a member has ended before
	killed  bool                  // and was killed
	faults  []string
}

// judge returns everything that was wrong: a message that nobody sent, or another one than was
// sent, a cause that cannot be, a hand-out after an ack, a key out of order.
func (b *book) judge(h *Harness) []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	j := &judgement{b: b,
		outs: map[string][]*handOut{}, byToken: map[string]*handOut{},
		keys: map[string][]*handOut{}, acked: map[string]bool{},
		faults: slices.Clone(b.faults), dedup: h.Sink != nil && h.Sink.Dedup,
		order:  h.Source != nil && h.Source.Order != ackwise.OrderNone,
		causes: h.Source != nil && h.Source.Causes,
		counts: h.Source != nil && h.Source.Counts}
	if h.Source != nil {
		j.lease, j.counted = h.Source.Lease, h.Source.Counts || h.Source.HandOuts
		j.each = j.lease > 0 && h.Source.Extend
	}
	events := slices.Clone(b.events)
	slices.SortStableFunc(events, func(x, y event) int { return cmp.Compare(x.At, y.At) })
	for i := range events {
		j.see(&events[i])
	}
	return j.faults
}

func (j *judgement) fault(format string, args ...any) {
	j.faults = append(j.faults, fmt.Sprintf(format, args...))
}

func (j *judgement) see(e *event) {
	h := j.byToken[string(e.Token)]
	switch {
	case e.Kind == saysReceived:
		j.received(e)
	case e.Kind == saysStops:
		for _, out := range j.byToken {
			out.leaving = out.leaving || out.by == e.by
		}
	case e.Kind == saysOver:
		j.over(e.by)
	case h == nil:
	case e.Kind == saysSettling:
		h.settling, h.asked = e.At, e.Outcome
	case e.Kind == saysOrder:
		h.fate, h.outcome = ordered, e.Outcome
		if e.Outcome == doAck {
			j.acked[e.ID] = true
		}
	case e.Kind == saysInterrupted:
		h.fate = interrupted
	case e.Kind == saysSettled:
		j.fenced(h)
		h.fate, h.outcome = settled, e.Outcome
		h.late = j.lease > 0 && e.At-h.got.At >= int64(j.lease)
	case e.Kind == saysRefused:
		h.taken = h.taken || e.Lost
	case e.Kind == saysGot:
		j.inOrder(e)
	case e.Kind == saysSwallowed:
		h.fate, h.outcome = swallowed, e.Outcome
	}
}

func (j *judgement) over(m *member) {
	j.ended = true
	j.killed = j.killed || m.killed != 0
	for _, h := range j.byToken {
		h.over = h.over || h.by == m
	}
}

func (j *judgement) received(e *event) {
	s := j.b.sent[e.ID]
	if s == nil {
		j.fault("%s was handed out, and nobody published it", e.ID)
		return
	}
	if s.refused {
		j.fault("%s was handed out, and its publisher was told that it was not accepted", e.ID)
	}
	if string(e.Key) != s.message.Key {
		j.fault("%s came with the key %q, its own is %q", e.ID, e.Key, s.message.Key)
	}
	if e.Sum != sumOf(&s.message) {
		j.fault("%s came with another body or other headers", e.ID)
	}
	if !sameTime(e.Time, s.message.Time) {
		j.fault("%s came with the time %s, its own is %s", e.ID, e.Time, s.message.Time)
	}
	if j.byToken[string(e.Token)] != nil {
		j.fault("%s, attempt %d: its token was given before", e.ID, e.Attempt)
	}
	outs := j.outs[e.ID]
	var last *handOut
	if len(outs) > 0 {
		last = outs[len(outs)-1]
	}
	allowed := j.allowed(s, last, e.Attempt > attempt(last)+1)
	switch {
	case j.counts && s.sends == 1 && e.Attempt <= attempt(last):
		j.fault("%s, hand-out %d: it is attempt %d, and the one before was %d", e.ID, len(outs)+1,
			e.Attempt, attempt(last))
	case len(allowed) == 0:
		j.fault("%s was handed out again (%s) after it was acked", e.ID, e.Cause)
	case !slices.Contains(allowed, e.Cause):
		j.fault("%s, hand-out %d, attempt %d: the cause is %s, and can only be one of %v", e.ID,
			len(outs)+1, e.Attempt, e.Cause, allowed)
	}
	h := &handOut{by: e.by, got: e.said}
	j.outs[e.ID] = append(outs, h)
	j.byToken[string(e.Token)] = h
	if j.order && s.message.Key != "" {
		j.keys[s.message.Key] = append(j.keys[s.message.Key], h)
	}
}

func attempt(h *handOut) int {
	if h == nil {
		return 0
	}
	return h.got.Attempt
}

// inOrder sees to it that no message is handled before those of its key that were sent before it.
func (j *judgement) inOrder(e *event) {
	now := j.b.sent[e.ID]
	if !j.order || now == nil || now.message.Key == "" || now.sends > 1 {
		return
	}
	for id, s := range j.b.sent {
		if s.message.Key == now.message.Key && s.place < now.place && s.accepted && s.sends == 1 &&
			!j.acked[id] && !j.b.dead[id] {
			j.fault("%s was handled before %s of the same key %q had succeeded", e.ID, id,
				now.message.Key)
			return
		}
	}
}

// fenced sees to it that a settlement which was carried out was the only lease of its key: nobody
// else had a delivery of it between the hand-out and the settlement.
func (j *judgement) fenced(h *handOut) {
	for _, o := range j.keys[string(h.got.Key)] {
		if o.by != h.by && h.got.At < o.got.At && o.got.At < h.settling {
			j.fault("%s of %s was settled, and %s had got %s of the same key %q meanwhile", h.got.ID,
				h.by.name, o.by.name, o.got.ID, h.got.Key)
			return
		}
	}
}

// allowed returns the causes that the next hand-out of a message can have. between says that its
// number shows hand-outs after the last one that nobody has seen.
func (j *judgement) allowed(s *sent, last *handOut, between bool) []ackwise.Cause {
	var causes []ackwise.Cause
	can := func(cs ...ackwise.Cause) { causes = append(causes, cs...) }
	if s.sends > 1 && (!j.dedup || last == nil) {
		can(ackwise.CauseFirst, ackwise.CauseProducedAgain) // it may be a copy of its own
	}
	switch {
	case last == nil:
		can(ackwise.CauseFirst)
		// Where nothing counts them, one may have been on its way to whoever has ended, or was cut off.
		between = between || !j.counted && (j.ended || j.b.disturbed)
	case last.fate == settled && last.outcome == doAck, last.fate == swallowed:
		// The end of its consumer may take back what the source had not written down yet.
		if !j.each && (last.ended() || j.b.disturbed) {
			can(j.lost(last)...)
			can(ackwise.CauseAckLost, ackwise.CauseRebalanced, ackwise.CauseReplayed)
		}
		// A queue that only counts may take a late ack for good, and have handed the message out.
		if last.late && j.each && !j.counts {
			can(ackwise.CauseAckLost)
		}
		if j.b.forgets {
			can(ackwise.CauseAckLost)
		}
		// With a position alone nobody keeps what a member has settled above it.
		if j.ended && !j.counted {
			can(ackwise.CauseUnknown)
		}
	case last.fate == settled:
		can(causeOf(last.outcome)...)
	default:
		can(j.unsettled(last)...)
	}
	if between { // it was on its way to a Receive that was cancelled, or whose caller ended
		can(ackwise.CauseReleased, ackwise.CauseRebalanced)
		if j.killed || j.b.disturbed {
			can(j.lost(nil)...)
		}
	}
	if j.lease == 0 {
		causes = slices.DeleteFunc(causes, func(c ackwise.Cause) bool {
			return c == ackwise.CauseLeaseExpired
		})
	}
	if !j.causes && len(causes) > 0 {
		can(ackwise.CauseUnknown)
	}
	return causes
}

// ended reports whether a hand-out's consumer was killed.
func (h *handOut) ended() bool { return h.over && h.by.killed != 0 }

// unsettled returns the causes that can follow a hand-out whose settlement nobody has seen.
func (j *judgement) unsettled(last *handOut) []ackwise.Cause {
	causes := []ackwise.Cause{ackwise.CauseLeaseExpired}
	// A journal takes no last word from a member that it has shut out. Once that stops too, nobody
	// knows better than that it was lost.
	shutOut := last.taken && (last.leaving || last.over) && !j.each
	if last.ended() || j.b.disturbed || shutOut {
		causes = j.lost(last)
	}
	switch {
	case last.fate == ordered && last.outcome == doAck:
		causes = append(causes, ackwise.CauseAckLost)
	case last.fate == ordered:
		causes = append(causes, causeOf(last.outcome)...)
	}
	if last.settling != 0 && last.asked != last.outcome {
		causes = append(causes, causeOf(last.asked)...)
	}
	if !last.ended() { // it was given back, or taken away
		causes = append(causes, ackwise.CauseReleased, ackwise.CauseRebalanced)
	}
	return causes
}

// lost returns the causes that a crash has: of a hand-out's consumer, or of one that is not known.
func (j *judgement) lost(h *handOut) []ackwise.Cause {
	causes := []ackwise.Cause{ackwise.CauseLeaseExpired, ackwise.CauseConsumerLost}
	if j.b.restarted || h == nil && j.killed || h != nil && h.ended() {
		causes = append(causes, ackwise.CauseRestarted)
	}
	return causes
}

// causeOf returns the causes that follow a settlement.
func causeOf(outcome string) []ackwise.Cause {
	switch outcome {
	case doNack:
		return []ackwise.Cause{ackwise.CauseFailed}
	case doSnooze:
		return []ackwise.Cause{ackwise.CauseSnoozed}
	case ackwise.OutcomeRelease.String():
		return []ackwise.Cause{ackwise.CauseReleased, ackwise.CauseRebalanced}
	}
	return nil
}
