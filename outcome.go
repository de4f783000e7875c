package ackwise

import (
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Outcome is what a settlement does.
type Outcome uint8

// The outcomes. All but OutcomeExtend end the hand-out.
const (
	OutcomeAck     Outcome = iota // done
	OutcomeNack                   // failed: again later; spends the failure budget
	OutcomeSnooze                 // not now; spends nothing
	OutcomeRelease                // given back unattempted; spends nothing
	OutcomeExtend                 // hold longer
	OutcomeDead                   // dead letter now
	OutcomeDrop                   // away, with a reason
)

// String returns the outcome's word, such as "ack".
func (o Outcome) String() string {
	return wordOf(o, [...]string{"ack", "nack", "snooze", "release", "extend", "dead", "drop"})
}

// Again returns why a message comes again, as whoever ended its hand-out with o knows when the very
// next one is here: what was done with is there because that was not carried out.
func (o Outcome) Again() Cause {
	switch o {
	case OutcomeAck, OutcomeDrop:
		return CauseAckLost
	case OutcomeNack:
		return CauseFailed
	case OutcomeSnooze:
		return CauseSnoozed
	case OutcomeRelease:
		return CauseReleased
	case OutcomeExtend, OutcomeDead:
	}
	return CauseUnknown
}

func wordOf[T ~uint8, A ~[5]string | ~[7]string](v T, words A) string {
	if int(v) < len(words) {
		return words[v]
	}
	return fmt.Sprintf("%T(%d)", v, v)
}

// RetryAfter makes a handler's failure err wait d before the next attempt instead of the loop's own
// backoff. It spends the failure budget.
func RetryAfter(err error, d time.Duration) error { return &retryError{err: err, after: d} }

// Snooze puts a message off for d without spending any budget.
func Snooze(d time.Duration) error { return &snoozeError{after: d} }

// Reject makes a message a dead letter now: it is poison and no retry will help.
func Reject(err error) error { return &rejectError{err: err} }

// Drop lets a message go, with a reason that is counted.
func Drop(reason string) error { return &dropError{reason: reason} }

type retryError struct {
	err   error
	after time.Duration
}

func (e *retryError) Error() string { return fmt.Sprintf("%v (retry after %s)", e.err, e.after) }
func (e *retryError) Unwrap() error { return e.err }

type snoozeError struct{ after time.Duration }

func (e *snoozeError) Error() string { return fmt.Sprintf("snoozed for %s", e.after) }

type rejectError struct{ err error }

func (e *rejectError) Error() string { return fmt.Sprintf("rejected: %v", e.err) }
func (e *rejectError) Unwrap() error { return e.err }

type dropError struct{ reason string }

func (e *dropError) Error() string { return "dropped: " + e.reason }

// Verdict is what a handler's returned error means.
type Verdict struct {
	Outcome Outcome
	Delay   time.Duration // OutcomeSnooze, or OutcomeNack with After set
	After   bool          // the handler named the delay itself, by RetryAfter
	Reason  string        // the error's text, or the drop's reason; cut at MaxErrorBytes
}

// OutcomeOf reads a handler's error: nil is an ack; what RetryAfter, Snooze, Reject and Drop made,
// also where it is wrapped, is that; any other error is a nack.
func OutcomeOf(err error) Verdict {
	if err == nil {
		return Verdict{Outcome: OutcomeAck}
	}
	var (
		retry  *retryError
		snooze *snoozeError
		reject *rejectError
		drop   *dropError
	)
	switch {
	case errors.As(err, &drop) && drop.reason == "":
		return Verdict{Outcome: OutcomeDrop, Reason: "no reason given"}
	case errors.As(err, &drop):
		return Verdict{Outcome: OutcomeDrop, Reason: CutError(drop.reason)}
	case errors.As(err, &reject):
		return Verdict{Outcome: OutcomeDead, Reason: CutError(fmt.Sprint(reject.err))}
	case errors.As(err, &snooze):
		return Verdict{Outcome: OutcomeSnooze, Delay: snooze.after}
	case errors.As(err, &retry):
		return Verdict{Outcome: OutcomeNack, Delay: retry.after, After: true,
			Reason: CutError(fmt.Sprint(retry.err))}
	}
	return Verdict{Outcome: OutcomeNack, Reason: CutError(err.Error())}
}

// CutError cuts an error text at MaxErrorBytes, at the start of a character.
func CutError(s string) string {
	if len(s) <= MaxErrorBytes {
		return s
	}
	cut := MaxErrorBytes
	for cut > MaxErrorBytes-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
