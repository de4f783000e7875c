//go:build unix

package queue

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// idleWindow is how long the process is watched, and how much CPU time it may use in that time.
// The wall clock does not matter: a window that lasts longer because the machine is busy only makes
// the bound stricter. What else the process does (the garbage of earlier tests) can only add, so
// the best of a few windows counts.
func idleWindow() (window, most time.Duration) {
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		return 10 * time.Second, 10 * time.Millisecond
	}
	return 2 * time.Second, 5 * time.Millisecond
}

const idleWindows = 3

// cpuTime is what the whole process has used, in user and in kernel mode.
func cpuTime(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// cpuOver is the CPU time that the process uses in one window.
func cpuOver(t *testing.T, window time.Duration) time.Duration {
	t.Helper()
	debug.FreeOSMemory() // else the runtime goes on giving memory back in the background
	over := time.NewTimer(window)
	before := cpuTime(t)
	<-over.C
	return cpuTime(t) - before
}

// An idle engine uses no CPU: 1,000 subscriptions, 100,000 messages that are due in an hour, and a
// consumer that waits. This measures CPU time, not how long anything takes.
func TestIdleUsesNoCPU(t *testing.T) {
	const topics, subs, scheduled = 10, 100, 10_000
	s := open(t, t.TempDir(), Options{})
	for i := range topics {
		for j := range subs {
			create(t, s, fmt.Sprint("topic", i), fmt.Sprint("sub", j), SubscriptionOptions{})
		}
	}
	batch := make([]ackwise.Message, 2000)
	for i := range topics {
		for j := range batch {
			batch[j] = ackwise.Message{Topic: fmt.Sprint("topic", i), Body: []byte("later")}
		}
		for range scheduled / len(batch) {
			for _, r := range s.Schedule(t.Context(), time.Hour, batch) {
				if r.Class != ackwise.ResultAccepted {
					t.Fatal(r.Err)
				}
			}
		}
	}
	books, err := s.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if b := books[0]; len(books) != topics*subs || b.Delayed != scheduled {
		t.Fatalf("%d subscriptions, the first with %d delayed messages", len(books), b.Delayed)
	}
	r := receiver(t, s, "topic0", "sub0", ReceiverOptions{})
	received := make(chan []*ackwise.Delivery, 1)
	ctx, stop := context.WithCancel(t.Context())
	go func() { // ends with its first delivery, or with ctx
		ds, _ := r.Receive(ctx, 1)
		received <- ds
	}()
	window, most := idleWindow()
	used := cpuOver(t, window)
	for i := 1; i < idleWindows && used > most; i++ {
		used = min(used, cpuOver(t, window))
	}
	t.Logf("%v of CPU time in %v, at most %v is allowed", used, window, most)
	if used > most {
		t.Errorf("an idle engine used %v of CPU time in %v, at most %v is allowed",
			used, window, most)
	}
	// It idled because it had nothing to do, not because it was dead.
	publish(t, s, ackwise.Message{ID: "now", Topic: "topic0"})
	if ds := <-received; len(ds) != 1 || ds[0].ID != "now" {
		t.Errorf("the waiting consumer got %v", ds)
	}
	stop()
}

// The measure sees what it is there for: a goroutine that ticks.
func TestIdleMeasureSeesATicker(t *testing.T) {
	window, most := idleWindow()
	quit, done := make(chan struct{}), make(chan struct{})
	go func() { // ends with quit
		defer close(done)
		ticker := time.NewTicker(100 * time.Microsecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
			case <-quit:
				return
			}
		}
	}()
	used := cpuOver(t, window)
	close(quit)
	<-done
	if used <= most {
		t.Errorf("a ticking goroutine used %v of CPU time in %v: the bound of %v cannot fail",
			used, window, most)
	}
}
