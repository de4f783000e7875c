package adaptertest

import (
	"fmt"
	"runtime"
	"sync"
	"testing"
)

// recorder is a test that keeps its faults to itself: for checks that are expected to fail.
type recorder struct {
	testing.TB
	mu     sync.Mutex // guards faults
	faults []string
}

// record runs fn and returns its faults.
func record(t testing.TB, fn func(testing.TB)) []string {
	r := &recorder{TB: t}
	var running sync.WaitGroup
	running.Go(func() { fn(r) }) // it may be ended by FailNow
	running.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.faults
}

func (r *recorder) fault(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.faults = append(r.faults, text)
}

// Error notes a fault.
func (r *recorder) Error(args ...any) { r.fault(fmt.Sprintln(args...)) }

// Errorf notes a fault.
func (r *recorder) Errorf(format string, args ...any) { r.fault(fmt.Sprintf(format, args...)) }

// Fail notes a fault.
func (r *recorder) Fail() { r.fault("failed") }

// FailNow notes a fault and ends the goroutine.
func (r *recorder) FailNow() { r.Fail(); runtime.Goexit() }

// Fatal notes a fault and ends the goroutine.
func (r *recorder) Fatal(args ...any) { r.Error(args...); runtime.Goexit() }

// Fatalf notes a fault and ends the goroutine.
func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

// Failed reports whether there is a fault.
func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.faults) > 0
}
