package bench

import (
	"math/bits"
	"time"
)

const (
	subBits = 5 // 32 parts of each power of two: a quantile is off by 3 % at most
	octaves = 40 - subBits
)

// histogram counts durations, up to 18 minutes, in nanoseconds.
type histogram struct {
	count   int64
	buckets [(octaves + 1) << subBits]uint32
}

func (h *histogram) add(d time.Duration) {
	h.count++
	h.buckets[bucketOf(uint64(max(d, 0)))]++
}

func bucketOf(ns uint64) int {
	shift := max(bits.Len64(ns)-subBits-1, 0)
	i := shift<<subBits + int(ns>>shift)
	return min(i, (octaves+1)<<subBits-1)
}

// least is the smallest duration of a bucket.
func least(bucket int) uint64 {
	if bucket < 2<<subBits {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	return uint64(bucket-shift<<subBits) << shift
}

func (h *histogram) merge(other *histogram) {
	h.count += other.count
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// quantile returns the duration that the part q of all does not exceed; 0 where there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := int64(q*float64(h.count)), int64(0)
	for i, n := range h.buckets {
		if seen += int64(n); seen > rank || seen == h.count && seen > 0 {
			return time.Duration(least(i))
		}
	}
	return 0
}

// millis is a duration as the report tells it, with three decimals.
func millis(d time.Duration) float64 {
	return float64(d.Round(time.Microsecond).Microseconds()) / 1000
}
