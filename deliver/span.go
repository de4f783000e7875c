package deliver

import (
	"math"
	"time"
)

// RetrySpan returns how long the pauses between the attempts of one message may take in all, each
// as long as Backoff and RetryBudget allow; false where it is tried again for ever (NoDeadLetters,
// or MaxFailures is Unlimited). Zero fields stand for their defaults.
//
// It is the least that a dedup store has to remember. Not in it are the time in the handler, what
// the handler itself asks for (Snooze, RetryAfter), the time that no consumer runs, and the age at
// which a dead letter is redriven.
func (o Options) RetrySpan() (span time.Duration, bounded bool) {
	if o.Guarantee == AtMostOnce {
		return 0, true
	}
	failures := o.MaxFailures
	setDefault(&failures, 10)
	if failures == Unlimited || o.NoDeadLetters {
		return 0, false
	}
	budget := o.RetryBudget.withDefaults()
	stretch := budget.MaxStretch.Seconds()
	if budget.Off {
		stretch = 0
	}
	backoff := o.Backoff.withDefaults()
	most, limit := backoff.First.Seconds(), backoff.Cap.Seconds()
	seconds := 0.0
	for n := 1; n < failures; n++ {
		if most >= limit || backoff.Factor < 1+1e-6 { // all that follow are alike
			seconds += float64(failures-n) * (min(most, limit) + stretch)
			break
		}
		seconds += most + stretch
		most *= backoff.Factor
	}
	if seconds >= float64(math.MaxInt64)/float64(time.Second) {
		return math.MaxInt64, true
	}
	return time.Duration(math.Round(seconds*1e3)) * time.Millisecond, true
}
