package bench

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
)

// load is a number of publishers, each in a closed loop: the next message follows when the one
// before it is answered.
type load struct {
	publishers int
	window     time.Duration
	bodies     [][]byte
}

func (l *load) size() int { return len(l.bodies[0]) }

// sample is what one measurement saw.
type sample struct {
	perSecond float64
	latency   histogram
	fresh     int64 // bytes that the log took of the disk meanwhile
}

// publish publishes a message of a publisher, and returns when it is answered. Each publisher has a
// context of its own, as the calls of a server have.
type publish func(ctx context.Context, publisher int, body []byte) error

// drive runs the loops for the window. An error of publish ends the measurement.
func (l *load) drive(ctx context.Context, publish publish) (sample, error) {
	runtime.GC() // what came before, such as a warm-up, leaves its garbage to nobody
	var wg sync.WaitGroup
	start := make(chan struct{})
	histograms, errs := make([]histogram, l.publishers), make([]error, l.publishers)
	var begin time.Time // written before start is closed
	for p := range l.publishers {
		wg.Go(func() { // ends with the window
			own, cancel := context.WithCancel(ctx)
			defer cancel()
			<-start
			h := &histograms[p]
			last := begin
			for i := p; ctx.Err() == nil && last.Sub(begin) < l.window; i++ {
				if errs[p] = publish(own, p, l.bodies[i%len(l.bodies)]); errs[p] != nil {
					return
				}
				now := time.Now()
				h.add(now.Sub(last))
				last = now
			}
		})
	}
	begin = time.Now()
	close(start)
	wg.Wait()
	elapsed := time.Since(begin)
	if err := errors.Join(ctx.Err(), firstOf(errs)); err != nil {
		return sample{}, err
	}
	s := sample{}
	for p := range histograms {
		s.latency.merge(&histograms[p])
	}
	s.perSecond = float64(s.latency.count) / elapsed.Seconds()
	return s, nil
}

func firstOf(errs []error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// median is the value in the middle, or the mean of the two there; 0 where there are none.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}
