package ackwise

import (
	"fmt"
	"slices"
)

// Cause says why a hand-out happened. It is known, never guessed: a system that says "again" but
// not why gives CauseUnknown. It is fixed at hand-out; a late ack amends it to CauseAckLost.
type Cause uint8

// The closed list of causes.
const (
	CauseUnknown       Cause = iota // the source does not say
	CauseFirst                      // the first hand-out
	CauseFailed                     // requeued by a nack
	CauseSnoozed                    // put off by the handler
	CauseReleased                   // given back unattempted while its consumer stays
	CauseLeaseExpired               // its lease ran out in a living session
	CauseConsumerLost               // its consumer's session ended without a word
	CauseRestarted                  // the process that held it, and owned the store, ended
	CauseAckLost                    // its handler had succeeded; the ack came too late or never
	CauseProducedAgain              // the producer repeated its publish
	CauseRedriven                   // brought back from the dead letters
	CauseRedone                     // an operator ordered the effect again
	CauseRebalanced                 // its partition moved, or its consumer left cleanly
	CauseReplayed                   // read again from history
)

var causeNames = [...]string{"unknown", "first", "failed", "snoozed", "released", "lease-expired",
	"consumer-lost", "restarted", "ack-lost", "produced-again", "redriven", "redone", "rebalanced",
	"replayed"}

// Causes returns every cause, in the order of their values.
func Causes() []Cause {
	all := make([]Cause, len(causeNames))
	for i := range all {
		all[i] = Cause(i)
	}
	return all
}

// String returns the cause's word, such as "lease-expired".
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("Cause(%d)", c)
}

// MarshalText returns the cause's word.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText reads a cause's word.
func (c *Cause) UnmarshalText(text []byte) error {
	i := slices.Index(causeNames[:], string(text))
	if i < 0 {
		return &InvalidError{Field: "cause", Value: string(text), Reason: "no such cause"}
	}
	*c = Cause(i)
	return nil
}

// DuplicateSource returns which of the five duplicate sources of at-least-once delivery the cause
// belongs to: "crash" (after the work, before the ack), "ack-lost", "produced-again",
// "redriven", "rebalanced"; or "" where the cause is none of them.
func (c Cause) DuplicateSource() string {
	switch c {
	case CauseLeaseExpired, CauseConsumerLost, CauseRestarted:
		return "crash"
	case CauseAckLost, CauseProducedAgain, CauseRedriven, CauseRebalanced:
		return c.String()
	case CauseUnknown, CauseFirst, CauseFailed, CauseSnoozed, CauseReleased, CauseRedone,
		CauseReplayed:
	}
	return ""
}

// Crash reports whether the cause spends the crash budget rather than the failure budget: the
// consumer went away without a word, or its lease ran out.
func (c Cause) Crash() bool { return c.DuplicateSource() == "crash" }
