package deliver

import (
	"context"
	"log/slog"
	"math"
	"time"

	"github.com/ackwise/ackwise"
)

// Guarantee is what a loop promises about the effects of a message.
type Guarantee uint8

// The three guarantees.
const (
	// AtLeastOnce settles after the handler succeeded: nothing is lost, some are handled again.
	AtLeastOnce Guarantee = iota
	// AtMostOnce settles before handling: nothing is handled twice, what fails is lost. The ack
	// lets other consumers have the key's next message before this handler begins: the order of a
	// key holds within one consumer only.
	AtMostOnce
	// ExactlyOnce lets the handler's own transaction settle. The handler must be
	// ackwise.Transactional and bind to the source, else Run refuses.
	ExactlyOnce
)

// String returns the guarantee's words, such as "at-least-once".
func (g Guarantee) String() string {
	switch g {
	case AtLeastOnce:
		return "at-least-once"
	case AtMostOnce:
		return "at-most-once"
	case ExactlyOnce:
		return "exactly-once"
	}
	return "unknown guarantee"
}

// Unlimited as Options.MaxFailures, MaxCrashes or MaxHandOuts means that the budget is never spent.
const Unlimited = math.MaxInt

// NoGrace as a grace in Options means none: at once.
const NoGrace time.Duration = -1

// DeadLetters keeps what failed for sources without dead letters of their own. Put returns nil only
// when the dead letter is durable. The loop settles after that, so a crash between the two makes it
// put the same message again: a store deduplicates by Delivery.DedupKey.
type DeadLetters interface {
	Put(ctx context.Context, d *ackwise.Delivery, reason string) error
}

// DeadLetterFunc makes a function a DeadLetters.
type DeadLetterFunc func(ctx context.Context, d *ackwise.Delivery, reason string) error

// Put calls f.
func (f DeadLetterFunc) Put(ctx context.Context, d *ackwise.Delivery, reason string) error {
	return f(ctx, d, reason)
}

// Options configure a loop. The zero value is ready to use with a source that has dead letters of
// its own; any other also needs DeadLetters or NoDeadLetters.
type Options struct {
	// Pipeline is the loop's name in logs and in Observe. Default: "".
	Pipeline string
	// Guarantee is what the loop promises. Default: AtLeastOnce.
	Guarantee Guarantee

	// Concurrency is how many handler calls run at once. Default: 16.
	Concurrency int
	// MaxInFlight bounds the deliveries held at once: waiting, being handled, held for a retry,
	// being settled. At least Concurrency × BatchSize, so that no handler idles for want of room.
	// Default: 16 × Concurrency, or Concurrency × BatchSize where that is more.
	MaxInFlight int
	// BatchSize is the most deliveries of one HandleBatch call. A call takes what is ready; a low
	// Concurrency makes larger batches. Unused by a Handler. Default: 100.
	BatchSize int
	// Linger is how long a HandleBatch call that could begin waits for BatchSize deliveries to be
	// ready: fewer calls at a target that takes batches, for so much delay. It does not wait where
	// no more can come: MaxInFlight is held, or the source has ended. Unused by a Handler.
	// Default: 0, a call takes what is ready.
	Linger time.Duration

	// Backoff spaces the attempts of a message. Default: see Backoff.
	Backoff Backoff
	// RetryBudget bounds retries as a share of successes. Default: see RetryBudget.
	RetryBudget RetryBudget
	// Breaker pauses the source while everything fails. Default: see Breaker.
	Breaker Breaker
	// Rand is the source of jitter, in [0, 1). A loop calls it from one goroutine at a time.
	// Default: math/rand/v2.
	Rand func() float64

	// MaxFailures is the failure budget: the N-th failure of a message makes its dead letter.
	// Default: 10. Unlimited turns it off.
	MaxFailures int
	// MaxCrashes is the crash budget: a message that took its consumer down N times becomes a
	// dead letter before its handler is called again. Default: 3. Unlimited turns it off.
	MaxCrashes int
	// MaxHandOuts stands in for MaxCrashes where the source knows how often a message was handed
	// out and not why (Features.HandOuts): a message handed out N times before becomes a dead
	// letter before its handler is called again. Hand-outs that this loop itself gave back (nack,
	// snooze, release) do not count; those of other processes do, since nothing says how they
	// ended. From a third of it on, 2 at least and 10 at most, a message runs alone, so that its
	// crashes are counted against no other. Default: 30. Unlimited turns it off. Unused by other
	// sources.
	MaxHandOuts int
	// DeadLetters keeps what is dead where the source has no dead letters of its own
	// (Features.Dead); with those it is refused. Default: nil.
	DeadLetters DeadLetters
	// NoDeadLetters says that there are none: what would become a dead letter is tried again for
	// ever, with backoff, and its key waits. Default: false.
	NoDeadLetters bool
	// MaxCounted bounds the messages whose failures are counted in memory, where the source does
	// not count (Features.Counts). Past it the oldest count is forgotten, and that message is
	// tried more often than MaxFailures. Default: 100,000.
	MaxCounted int

	// MaxHandle is how long a delivery may be held in all, from its hand-out: so long heartbeats
	// extend its lease. Then a running handler's context ends with cause ErrLeaseLost and the
	// lease is left to run out, what waits for a retry is nacked, what has not started is released.
	// Where the source has no leases it bounds each handler call alone. Default: 1 h.
	MaxHandle time.Duration
	// RevokeGrace is how long a running handler may go on after its delivery was revoked. Then
	// its context ends with cause ErrLeaseLost. Default: 10 s. NoGrace = at once.
	RevokeGrace time.Duration
	// StopGrace is how long running handlers may go on after Run's context has ended. Then theirs
	// end with cause ErrStopping. Default: 30 s. NoGrace = at once.
	StopGrace time.Duration
	// CancelGrace is how long a handler may take to return once its context has ended. Then it is
	// reported as stuck, and a stopping Run waits for it no longer. Default: 5 s. NoGrace = none.
	CancelGrace time.Duration
	// SettleTimeout bounds one Settle call, and how long a stopping Run goes on trying to settle
	// once no handler runs. Default: 10 s.
	SettleTimeout time.Duration
	// Margin is how long before its context's deadline Process stops trying, so that the answer
	// is still heard. Unused by Run. Default: 2 s, or a quarter of the time left where that is less.
	Margin time.Duration

	// CrashOnPanic lets a handler's panic end the process, which spends the crash budget where
	// the source counts. Default: false, a panic is a failure whose stack is logged.
	CrashOnPanic bool
	// Logger gets each failure once, with message id, key, attempt and cause. Default: nothing is
	// logged.
	Logger *slog.Logger
	// Observe is told of what happens, see ackwise.Event. Its kinds are "handled" (a handler
	// returned), "settled", "dead" (a dead letter is durable), "held" (a retry waits in the loop),
	// "stretched" (the retry budget made a delay longer), "lease-lost", "revoked", "extend-failed",
	// "settle-failed" (tried again while the lease lasts), "unsettled" (given up: the lease runs
	// out), "dead-letter-failed", "receive-failed", "stuck" (a handler ignores its context's end),
	// "breaker-open", "breaker-half-open", "breaker-closed", "stopping", "stopped".
	// Default: nil.
	Observe func(ackwise.Event)
}

// Backoff spaces the attempts of a message: exponential, with a cap and full jitter. The zero value
// is the default. After n failures the delay is r × min(Cap, First × Factor^(n-1)) for a random r
// in [0, 1): with the defaults up to 1 s, 2 s, 4 s … 256 s, then up to 5 min. Ten failures so take
// about 8.5 min on average.
type Backoff struct {
	First  time.Duration // before the second attempt, at most. Default: 1 s
	Factor float64       // growth with each failure, at least 1. Default: 2
	Cap    time.Duration // the longest delay. Default: 5 min
}

// RetryBudget bounds retries, so that an outage does not multiply the load: in any stretch of time
// t no more than Burst + Share × successes + PerSecond × t retries keep the delay that Backoff or
// the handler gave them. The delay of each one beyond is stretched until PerSecond would have paid
// for it, by at most MaxStretch. The zero value is the default.
type RetryBudget struct {
	Off        bool          // no budget. Default: false
	Share      float64       // retries for each success. Default: 0.2
	PerSecond  float64       // retries that are always free, each second. Default: 50
	Burst      int           // what may be saved up. Default: 500
	MaxStretch time.Duration // the longest that is added to a delay. Default: 5 min
}

// Breaker pauses the source while a target is down, instead of spending the failure budget of every
// message. It opens after Failures failures without a success between, or when within Window at
// least MinResults results came and Ratio of them were failures. While it is open nothing is
// fetched, and what has not started is released. After OpenFor it lets one delivery through: a
// success closes it, a failure opens it again for twice as long, up to MaxOpen. A handler's Reject
// and Drop count as successes: the target answered. The zero value is the default.
type Breaker struct {
	Off        bool          // no breaker. Default: false
	Failures   int           // in a row. Default: 100
	Ratio      float64       // share of failures, in (0, 1]. Default: 0.9
	MinResults int           // results within Window before Ratio counts. Default: 100
	Window     time.Duration // Default: 30 s
	OpenFor    time.Duration // the first pause. Default: 1 s
	MaxOpen    time.Duration // the longest pause. Default: 30 s
}
