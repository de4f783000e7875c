package deliver

import "time"

// retryBudget is a bucket of retries: successes and time fill it, a retry takes one. It may go
// into debt, which stretches the delays of those that find it empty. It reads no clock.
type retryBudget struct {
	o      RetryBudget
	tokens float64
	filled time.Time // up to when PerSecond was paid in
}

func newRetryBudget(o RetryBudget, now time.Time) retryBudget {
	return retryBudget{o: o, tokens: float64(o.Burst), filled: now}
}

// success pays Share of a retry in.
func (b *retryBudget) success() { b.add(b.o.Share) }

// take takes one retry and returns by how much its delay is to be stretched.
func (b *retryBudget) take(now time.Time) time.Duration {
	if b.o.Off {
		return 0
	}
	if d := now.Sub(b.filled); d > 0 {
		b.add(d.Seconds() * b.o.PerSecond)
		b.filled = now
	}
	// The debt is bounded, so that a long outage does not silence the retries for ever.
	b.tokens = max(b.tokens-1, -b.o.PerSecond*b.o.MaxStretch.Seconds())
	if b.tokens >= 0 {
		return 0
	}
	return min(b.o.MaxStretch, time.Duration(-b.tokens/b.o.PerSecond*float64(time.Second)))
}

func (b *retryBudget) add(n float64) { b.tokens = min(b.tokens+n, float64(b.o.Burst)) }

func (o RetryBudget) withDefaults() RetryBudget {
	if o.Share == 0 {
		o.Share = 0.2
	}
	if o.PerSecond == 0 {
		o.PerSecond = 50
	}
	if o.Burst == 0 {
		o.Burst = 500
	}
	if o.MaxStretch == 0 {
		o.MaxStretch = 5 * time.Minute
	}
	return o
}
