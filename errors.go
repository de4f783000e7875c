package ackwise

import (
	"errors"
	"fmt"
	"time"
)

// Errors of a settlement.
var (
	// ErrLeaseLost: the hand-out is no longer this consumer's. A handler's context ends with it as
	// its cause. Its effects are not undone: the fence guards state, not effects.
	ErrLeaseLost = errors.New("the lease is lost: the message is or was handed out again")
	// ErrSettled: the hand-out was settled before, with another outcome.
	ErrSettled = errors.New("the delivery was settled before, with another outcome")
	// ErrRunOrder: an earlier message of the same key's run is not settled, or was not acked.
	ErrRunOrder = errors.New("an earlier message of the same key is still unsettled")
	// ErrBadToken: the lease token is not one that this source wrote.
	ErrBadToken = errors.New("not a lease token of this source")
)

// Errors of a publish.
var (
	// ErrFull: a bound is reached. Nothing was accepted; the producer waits and repeats.
	ErrFull = errors.New("full")
	// ErrTooLarge: a message or a batch is over its limit.
	ErrTooLarge = errors.New("too large")
	// ErrIDConflict: the ID was accepted before with another body, key or topic.
	ErrIDConflict = errors.New("the same ID was accepted before with another content")
)

// Errors of a life cycle.
var (
	// ErrStopping is the cause of a handler's context when the grace of a soft stop is over.
	ErrStopping = errors.New("stopping")
	// ErrClosed: the source, sink or store was closed.
	ErrClosed = errors.New("closed")
	// ErrExists: a thing of this name is there already.
	ErrExists = errors.New("exists already")
)

// InvalidError reports a value that is never accepted. Value is shown where it is short.
type InvalidError struct {
	Field  string // which part: "topic", "id", "key", "header", an option's name
	Value  string // the value; "" where it is empty or too long to show
	Reason string // what is wrong, as a clause
}

// Error names the field, the value and the reason.
func (e *InvalidError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("invalid %s: %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("invalid %s %.64q: %s", e.Field, e.Value, e.Reason)
}

// NotFoundError reports a name that is not there.
type NotFoundError struct {
	Kind    string // "topic", "subscription", "table", "dead letter"
	Name    string
	Nearest string // the existing name that is nearest to it; "" = none is near
}

// Error names what is missing and the nearest name.
func (e *NotFoundError) Error() string {
	s := fmt.Sprintf("no %s %.80q", e.Kind, e.Name)
	if e.Nearest != "" {
		s += fmt.Sprintf("; did you mean %q?", e.Nearest)
	}
	return s
}

// HintError adds to an operator's error what to do next.
type HintError struct {
	Err  error
	Hint string // a next step, as a sentence
}

// Error returns the error and the hint.
func (e *HintError) Error() string { return fmt.Sprintf("%v\n  hint: %s", e.Err, e.Hint) }

// Unwrap returns Err.
func (e *HintError) Unwrap() error { return e.Err }

// Event is one thing that happened, as told to an Options.Observe function of the engine or the
// loop. Observers are called from one goroutine at a time per component, must not block, and see
// a thing after it happened.
type Event struct {
	Kind     string // the component's own closed list, such as "settled", "dead", "breaker-open"
	Time     time.Time
	Pipeline string // TOPIC/SUBSCRIPTION or the pipeline's name; "" where there is none
	ID, Key  string // the message's; "" where the event is of no single one
	Attempt  int
	Cause    Cause
	Outcome  Outcome
	Duration time.Duration
	Err      error
}
