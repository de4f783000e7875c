package deliver

import (
	"math"
	"time"
)

// Delay returns how long to wait after the given number of failures (at least 1), for a random r in
// [0, 1). Zero fields stand for their defaults.
func (b Backoff) Delay(failures int, r float64) time.Duration {
	b = b.withDefaults()
	most := float64(b.First) * math.Pow(b.Factor, float64(max(failures, 1)-1))
	return time.Duration(r * min(most, float64(b.Cap)))
}

func (b Backoff) withDefaults() Backoff {
	if b.First == 0 {
		b.First = time.Second
	}
	if b.Factor == 0 {
		b.Factor = 2
	}
	if b.Cap == 0 {
		b.Cap = max(5*time.Minute, b.First)
	}
	return b
}
