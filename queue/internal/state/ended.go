package state

import "github.com/ackwise/ackwise"

// End is how a hand-out ended: by a settlement, or by a loss.
type End uint8

// The ends. Those up to EndDrop are settlements, in the order of ackwise.Outcome; extending is
// none.
const (
	EndNone End = iota
	EndAck
	EndNack
	EndSnooze
	EndRelease
	EndDead
	EndDrop
	EndExpired    // the lease ran out
	EndLost       // the consumer's session ended without a word
	EndRestarted  // the store's owner ended, and the session with it
	EndRebalanced // the consumer left cleanly
	EndTakenBack  // an earlier message of its key run was lost, and the rest of the run with it
)

// endOf is the end that an outcome makes.
func endOf(o ackwise.Outcome) End {
	switch o {
	case ackwise.OutcomeAck:
		return EndAck
	case ackwise.OutcomeNack:
		return EndNack
	case ackwise.OutcomeSnooze:
		return EndSnooze
	case ackwise.OutcomeRelease:
		return EndRelease
	case ackwise.OutcomeDead:
		return EndDead
	case ackwise.OutcomeDrop:
		return EndDrop
	case ackwise.OutcomeExtend:
	}
	return EndNone
}

// loss reports whether the consumer did not settle.
func (e End) loss() bool { return e >= EndExpired }

// cause is the cause of the hand-out that follows.
func (e End) cause() ackwise.Cause {
	switch e {
	case EndNack:
		return ackwise.CauseFailed
	case EndSnooze:
		return ackwise.CauseSnoozed
	case EndRelease, EndTakenBack:
		return ackwise.CauseReleased
	case EndExpired:
		return ackwise.CauseLeaseExpired
	case EndLost:
		return ackwise.CauseConsumerLost
	case EndRestarted:
		return ackwise.CauseRestarted
	case EndRebalanced:
		return ackwise.CauseRebalanced
	case EndNone, EndAck, EndDead, EndDrop:
	}
	return ackwise.CauseUnknown
}

// word is the end as a history tells it.
func (e End) word() string {
	switch e {
	case EndAck:
		return ackwise.OutcomeAck.String()
	case EndNack:
		return ackwise.OutcomeNack.String()
	case EndDead:
		return ackwise.OutcomeDead.String()
	case EndDrop:
		return ackwise.OutcomeDrop.String()
	case EndNone, EndSnooze, EndRelease, EndExpired, EndLost, EndRestarted, EndRebalanced,
		EndTakenBack:
	}
	return e.cause().String()
}

// endedLen is how many of the last hand-outs are remembered after their end, so that a repeated
// settlement is answered "already" and a late ack finds the hand-out that followed its loss. A
// settlement that comes later still gets ErrLeaseLost: refused, never wrongly accepted.
const endedLen = 1 << 16

// ended is what is remembered of a hand-out that ended: one per generation modulo endedLen, so
// that looking up and forgetting cost nothing.
type ended struct {
	gen   uint64
	next  uint64 // the hand-out that followed; 0 = none yet
	sub   uint32
	how   End
	cause ackwise.Cause // of the hand-out itself
	told  bool          // the late ack was remembered: the next hand-out's cause is amended
}

func (s *State) remembered(gen uint64) *ended {
	if len(s.ended) == 0 {
		return nil
	}
	if e := &s.ended[gen%endedLen]; e.gen == gen && gen != 0 {
		return e
	}
	return nil
}

func (s *State) remember(e ended) {
	if len(s.ended) == 0 {
		s.ended = make([]ended, endedLen)
	}
	s.ended[e.gen%endedLen] = e
}
