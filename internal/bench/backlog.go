package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"time"

	"github.com/ackwise/ackwise"
)

// Kind says what a long stay in the store is made of.
type Kind string

// What RunBacklog can fill a store with.
const (
	KindBacklog   Kind = "backlog"   // messages that wait for a consumer; they are drained at the end
	KindScheduled Kind = "scheduled" // messages that are due in a day
	KindIDs       Kind = "ids"       // IDs that dedup remembers, of messages that are acked already
	KindKeys      Kind = "keys"      // keys that a dedup store remembers as done; no messages
)

// BacklogOptions configure RunBacklog.
type BacklogOptions struct {
	// Child is the command line of a process that calls Child. Required.
	Child []string
	// Kind says what the store is filled with. Default: KindBacklog.
	Kind Kind
	// Messages is how many there are, each with an ID that the caller gives. Required.
	Messages int
	// Size is the length of a body, in bytes. Default: 200.
	Size int
	// Keys is how many keys they have; the subscription is ordered. Default: 100,000.
	Keys int
	// Dir is where the run makes its folder. Default: the system's temporary directory.
	Dir string
	// Seed makes the bodies. Default: 1.
	Seed uint64
	// Patience is how long the child may say nothing before the run ends. Default: 2 min.
	Patience time.Duration
	// Progress is told what is done now, and how much of it. Default: nil.
	Progress func(what string, done float64)
}

func (o *BacklogOptions) fill() error {
	setDefault(&o.Kind, KindBacklog)
	setDefault(&o.Size, 200)
	setDefault(&o.Keys, 100_000)
	setDefault(&o.Seed, 1)
	setDefault(&o.Patience, 2*time.Minute)
	if o.Progress == nil {
		o.Progress = func(string, float64) {}
	}
	errs := []error{inRange("Messages", int64(o.Messages), 1, 100_000_000),
		inRange("Size", int64(o.Size), numberBytes, 1<<20),
		inRange("Keys", int64(o.Keys), 1, 100_000_000),
		inRange("Patience", int64(o.Patience), int64(time.Second), int64(time.Hour))}
	if o.Kind != KindBacklog && o.Kind != KindScheduled && o.Kind != KindIDs &&
		o.Kind != KindKeys {
		errs = append(errs, &ackwise.InvalidError{Field: "Kind", Value: string(o.Kind)})
	}
	if len(o.Child) == 0 {
		errs = append(errs, &ackwise.InvalidError{Field: "Child", Reason: "it is missing"})
	}
	return errors.Join(errs...)
}

// Backlog is what a store needed to hold many messages, through a kill and a reopening. Memory is
// the peak of the resident memory of the process that has the store.
type Backlog struct {
	Machine
	Kind        Kind    `json:"kind"`
	Messages    int     `json:"messages"`
	Size        int     `json:"size"` // bytes of a body
	Keys        int     `json:"keys"`
	FillMiB     float64 `json:"fill_peak_mib"`            // until the last message was answered
	ReopenedMiB float64 `json:"reopened_peak_mib"`        // from the start until the first message
	DrainMiB    float64 `json:"drain_peak_mib,omitempty"` // from then on, with Close
	// ReopenSeconds goes from the start of the process after the kill to its first message received.
	ReopenSeconds  float64                 `json:"reopen_s"`
	FillPerSecond  float64                 `json:"fill_per_s"`
	DrainPerSecond float64                 `json:"drain_per_s,omitempty"`
	DiskPeakMiB    float64                 `json:"disk_peak_mib"`
	DiskEndMiB     float64                 `json:"disk_end_mib"` // when the store is closed
	Sent           int64                   `json:"ids_sent"`
	Received       int64                   `json:"ids_received"`         // different ones, each acked once
	Nacked         int64                   `json:"nacked"`               // with a delay, 1 % of the messages
	Released       int64                   `json:"released"`             // behind a nacked one of their key
	HandOuts       map[ackwise.Cause]int64 `json:"hand_outs,omitempty"`  // by cause
	Delayed        int64                   `json:"delayed,omitempty"`    // scheduled ones still there at the end
	Suppressed     int64                   `json:"suppressed,omitempty"` // IDs or keys asked for again and known
	// Of KindKeys: how many keys went with their expired buckets, and the longest that a call to the
	// same store took meanwhile.
	Dropped     int64   `json:"dropped_keys,omitempty"`
	DropSeconds float64 `json:"drop_s,omitempty"`
}

// RunBacklog fills a store in a child process, kills that with SIGKILL, opens the store in another
// one, and sees all messages come out there. A message that is lost, or received again without a
// cause, is an error. It needs a system with /proc. It removes what it wrote.
func RunBacklog(ctx context.Context, o BacklogOptions) (report *Backlog, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	err = inFolder(o.Dir, func(dir string) error {
		report = &Backlog{Machine: machine(dir, o.Seed), Kind: o.Kind, Messages: o.Messages,
			Size: o.Size, Keys: o.Keys}
		b := &backlogRun{BacklogOptions: o, report: report,
			order: order{Dir: filepath.Join(dir, "store"), Kind: o.Kind, Messages: o.Messages,
				Size: o.Size, Keys: o.Keys, Seed: o.Seed}}
		return b.run(ctx)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return report, nil
}

// backlogRun is a run under way.
type backlogRun struct {
	BacklogOptions
	order    order
	report   *Backlog
	diskPeak int64
}

func (b *backlogRun) run(ctx context.Context) error {
	if err := b.fillAndKill(ctx); err != nil {
		return fmt.Errorf("fill the store: %w", err)
	}
	if err := b.reopen(ctx); err != nil {
		return fmt.Errorf("reopen the store: %w", err)
	}
	end, err := diskBytes(b.order.Dir, func(string) bool { return true })
	b.report.DiskEndMiB, b.report.DiskPeakMiB = mib(end), mib(b.diskPeak)
	return errors.Join(err, b.judge())
}

func (b *backlogRun) fillAndKill(ctx context.Context) error {
	b.order.Phase = phaseFill
	c, err := b.start(ctx)
	if err != nil {
		return err
	}
	filled, err := c.await(ctx, "fill")
	if err == nil {
		b.report.FillPerSecond, b.report.Sent = math.Round(filled.PerSecond), filled.Sent
		b.report.Received = filled.Received
		b.report.FillMiB, err = c.peakMiB()
	}
	if err := errors.Join(err, c.kill()); err != nil {
		return err
	}
	return c.wasKilled()
}

func (b *backlogRun) reopen(ctx context.Context) error {
	b.order.Phase = phaseDrain
	begin := time.Now()
	c, err := b.start(ctx)
	if err != nil {
		return err
	}
	_, err = c.await(ctx, "reopen")
	b.report.ReopenSeconds = decimals(time.Since(begin).Seconds())
	if err == nil {
		b.report.ReopenedMiB, err = c.peakMiB()
	}
	if err == nil {
		err = errors.Join(c.forgetPeak(), c.goOn())
	}
	var drained said
	if err == nil {
		drained, err = c.await(ctx, "drain")
	}
	if err == nil {
		b.report.DrainMiB, err = c.peakMiB()
	}
	if err == nil {
		err = c.goOn()
	}
	if err != nil {
		return errors.Join(err, c.kill())
	}
	r := b.report
	r.DrainPerSecond, r.Received = math.Round(drained.PerSecond), r.Received+drained.Received
	r.Nacked, r.Released, r.HandOuts = drained.Nacked, drained.Released, drained.HandOuts
	r.Delayed, r.Suppressed = drained.Delayed, drained.Suppressed
	r.Dropped = drained.Dropped
	r.DropSeconds = math.Round(drained.DropSecs*1e6) / 1e6
	return c.end()
}

// judge says whether everything that was sent is there, and every repeat is explained. The child
// has ended already where a message that it had acked was handed out again.
func (b *backlogRun) judge() error {
	r, n := b.report, int64(b.Messages)
	var errs []error
	want := func(what string, got, want int64) {
		if got != want {
			errs = append(errs, fmt.Errorf("%s: %d, expected %d", what, got, want))
		}
	}
	want("IDs sent", r.Sent, n)
	switch b.Kind {
	case KindBacklog:
		want("IDs received", r.Received, n)
		want("messages nacked", r.Nacked, nackedOf(n))
		want("first hand-outs", r.HandOuts[ackwise.CauseFirst], n)
		want("hand-outs after a nack", r.HandOuts[ackwise.CauseFailed], r.Nacked)
		want("hand-outs after a release", r.HandOuts[ackwise.CauseReleased], r.Released)
	case KindScheduled:
		want("scheduled messages kept", r.Delayed, n)
	case KindIDs:
		want("IDs received", r.Received, n)
		want("IDs known after the kill", r.Suppressed, min(n, knownSample))
	case KindKeys:
		want("keys known after the kill", r.Suppressed, min(n, knownSample))
		want("keys dropped", r.Dropped, min(n, dropSample))
	}
	return errors.Join(errs...)
}

func mib(bytes int64) float64 { return math.Round(float64(bytes)/(1<<20)*10) / 10 }
