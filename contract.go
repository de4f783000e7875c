package ackwise

import (
	"context"
	"time"
)

// Handler does the work of one delivery. A nil return is an ack; an error is a nack, or what
// RetryAfter, Snooze, Reject or Drop say. The context ends with cause ErrLeaseLost when the lease
// is gone and with cause ErrStopping at the end of a soft stop's grace.
type Handler interface {
	Handle(ctx context.Context, d *Delivery) error
}

// HandlerFunc makes a function a Handler.
type HandlerFunc func(ctx context.Context, d *Delivery) error

// Handle calls f.
func (f HandlerFunc) Handle(ctx context.Context, d *Delivery) error { return f(ctx, d) }

// BatchHandler does the work of several deliveries at once and returns exactly one result for each,
// in their order. A batch may hold an in-order run of a key; the run's first failure turns the rest
// of the run into releases, whatever their own results say.
type BatchHandler interface {
	HandleBatch(ctx context.Context, ds []*Delivery) []error
}

// BatchHandlerFunc makes a function a BatchHandler.
type BatchHandlerFunc func(ctx context.Context, ds []*Delivery) []error

// HandleBatch calls f.
func (f BatchHandlerFunc) HandleBatch(ctx context.Context, ds []*Delivery) []error {
	return f(ctx, ds)
}

// Transactional is a Handler whose own commit settles the delivery: effect and settlement are one
// transaction. It is what exactly-once needs. Bind ties the handler to the source it will get its
// deliveries from and returns an error that says why, and what to use instead, where the two cannot
// share a transaction. After Bind, a nil from Handle means that the delivery is settled.
type Transactional interface {
	Handler
	Bind(Source) error
}

// Source is where deliveries come from. Its methods may be called from several goroutines.
//
// Receive blocks until there is at least one delivery or ctx ends, and returns at most max. A
// batch may hold an in-order run of one key, which is one lease and is settled in order. A
// cancelled Receive strands nothing: what it had claimed is handed out to a later one. io.EOF
// itself, not an error that wraps it, says that nothing will come any more; an error with a method
// Final() bool that returns true, or ErrClosed, that the source has failed for good; any other
// error may pass.
//
// Settle carries out the settlements in their order and returns exactly one result for each. It
// returns when they are as durable as the source promises. It may be repeated safely.
//
// Close ends the session in good order: what it still holds goes back.
type Source interface {
	Receive(ctx context.Context, max int) ([]*Delivery, error)
	Settle(ctx context.Context, s []Settlement) []SettleResult
	Features() Features
	Close() error
}

// Sink is where messages go. Its methods may be called from several goroutines.
//
// Publish returns exactly one result for each message. Messages accepted in one call keep their
// order where SinkFeatures.KeyRunSafe says so. A cancelled or interrupted call answers
// ResultUnknown for what may have been accepted: publish it again with the same ID.
type Sink interface {
	Publish(ctx context.Context, msgs []Message) []Result
	Features() SinkFeatures
	Close() error
}

// Settlement ends a hand-out, or extends it.
type Settlement struct {
	Token   LeaseToken
	Outcome Outcome
	// Delay is how long to wait before the next hand-out (OutcomeNack, OutcomeSnooze), or the
	// lease from now on (OutcomeExtend; 0 = the source's own lease). Unused elsewhere.
	Delay time.Duration
	// Reason is the handler's error (OutcomeNack, OutcomeDead) or why it was dropped (OutcomeDrop,
	// required). It is kept in the history, cut at MaxErrorBytes.
	Reason string
}

// SettleResult is the answer to one Settlement. Err is nil, ErrLeaseLost (the hand-out is no longer
// this consumer's), ErrSettled (it was settled with another outcome), ErrRunOrder, or what
// went wrong.
type SettleResult struct {
	Err      error
	Deadline time.Time // the lease's new end, after OutcomeExtend
	Already  bool      // the same settlement had been carried out before
}

// Order is what a source keeps in order.
type Order uint8

// The orders a source can promise.
const (
	OrderNone      Order = iota // none
	OrderKey                    // messages of one key
	OrderPartition              // all messages of one partition
)

// Features says what a source can do, so that the loop can adapt or refuse at start.
type Features struct {
	Order        Order
	Lease        time.Duration // the lease of a hand-out; 0 = it lasts until settled or closed
	Extend       bool          // OutcomeExtend works
	MaxNackDelay time.Duration // the longest Delay of a nack; 0 = none: a retry is held in the loop
	Dead         bool          // OutcomeDead moves the message to dead letters in one step
	Counts       bool          // Delivery.Counts survive the consumer's process
	HandOuts     bool          // without Counts: Delivery.Counts.HandOuts do, and nothing says why
	MaxHandOuts  int           // the system gives a message up after so many hand-outs; 0 = never
	Causes       bool          // causes are known; else they are CauseFirst or CauseUnknown
	MaxBatch     int           // the most that one Receive returns; 0 = no limit of its own
	KeyRuns      bool          // one Receive may return an in-order run of a key, settled in order
}

// SinkFeatures says what a sink can do.
type SinkFeatures struct {
	KeyRunSafe   bool // one batch may hold several messages of a key and keeps their order
	Dedup        bool // a repeated ID is accepted once within a window
	MaxBatch     int  // the most messages of one Publish; 0 = no limit of its own
	MaxBodyBytes int  // the longest body; 0 = no limit of its own
}

// Result tells what became of one published message.
type Result struct {
	Class     ResultClass
	ID        string        // the message's ID, assigned where it was empty
	Position  Position      // where it was accepted
	Duplicate bool          // accepted before under this ID: this is the first copy's receipt
	Err       error         // why not; nil exactly when Class is ResultAccepted
	After     time.Duration // with ResultRetryable: wait this long first; 0 = the caller's backoff
}

// ResultClass sorts results by what the producer has to do next.
type ResultClass uint8

// The five classes. The zero value is ResultUnknown, so that a forgotten result is repeated.
const (
	ResultUnknown      ResultClass = iota // may have been accepted: send again with the same ID
	ResultAccepted                        // durable
	ResultRetryable                       // not accepted, may be later
	ResultRejected                        // not accepted, and never will be
	ResultNotAttempted                    // its batch was refused because of another message
)

// String returns the class's word, such as "accepted".
func (c ResultClass) String() string {
	return wordOf(c, [...]string{"unknown", "accepted", "retryable", "rejected", "not-attempted"})
}
