// Package bench measures the embedded engine beside a bare log of the same bytes, so that a figure
// says how much of the disk is left, not only how fast this disk is today.
//
//	bodies ─┬─▶ bare log, a growing file ──────────────┐
//	        ├─▶ bare log, a file written before ───────┼─▶ one round ─▶ median of the rounds
//	        ├─▶ queue.Store, cold: a new directory ────┤
//	        └─▶ queue.Store, warm: segments to reuse ──┘
//
//	RunBacklog ─▶ child: fill ─▶ kill -9 ─▶ child: reopen ─▶ drain; its memory, its IDs, its disk
//
// It promises that the contestants get the same bodies from the same closed loops in the same run,
// in an order that changes from round to round; that everything it writes lies in one folder, which
// it removes; and that a refused publish, a lost or repeated delivery and a failed ack end the run
// with an error: a figure is never of work that was not done.
//
// Each measurement is a file. It does not compare figures with earlier ones, and measures nothing
// over a socket.
package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/vfs"
)

// Options configure a run. The zero value is ready to use.
type Options struct {
	// Dir is where the run makes its folder. Default: the system's temporary directory, which may
	// lie in memory, where a sync costs nothing: see Report.FileSystem.
	Dir string
	// Publishers are the numbers of concurrent publishers. Default: 1, 64, 512.
	Publishers []int
	// Sizes are the lengths of the bodies, in bytes. Default: 100, 1024.
	Sizes []int
	// Against is what publish is compared with: AgainstBare or AgainstNone. Default: AgainstBare.
	Against string
	// Subscriptions is the large number of subscriptions, beside 10. Default: 10,000.
	Subscriptions int
	// Keys is the large number of keys, beside 1. Default: 1,000,000.
	Keys int
	// Window is how long one measurement takes. Default: 1 s.
	Window time.Duration
	// Rounds is how often each measurement is repeated; the median counts. Default: 3.
	Rounds int
	// SegmentBytes is the engine's option. The file that is written before has four of them.
	// Default: 64 MiB, as the engine's.
	SegmentBytes int64
	// Seed makes the bodies and the order of the contestants. Default: 1.
	Seed uint64
	// Progress is told what is measured now, and how much of the run is done. It is called from
	// the caller's goroutine. Default: nil.
	Progress func(what string, done float64)
}

// What publish is compared with.
const (
	AgainstBare = "bare" // bare logs of the same bytes, growing and written before
	AgainstNone = "none" // nothing: no ratios, and less time
)

func (o *Options) fill() error {
	if len(o.Publishers) == 0 {
		o.Publishers = []int{1, 64, 512}
	}
	if len(o.Sizes) == 0 {
		o.Sizes = []int{100, 1024}
	}
	setDefault(&o.Against, AgainstBare)
	setDefault(&o.Subscriptions, 10_000)
	setDefault(&o.Keys, 1_000_000)
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.Window, time.Second)
	setDefault(&o.Rounds, 3)
	setDefault(&o.Seed, 1)
	if o.Progress == nil {
		o.Progress = func(string, float64) {}
	}
	errs := []error{inRange("Subscriptions", int64(o.Subscriptions), 1, 100_000),
		inRange("Keys", int64(o.Keys), 1, 10_000_000),
		inRange("SegmentBytes", o.SegmentBytes, 1<<16, 1<<32),
		inRange("Rounds", int64(o.Rounds), 1, 1000),
		inRange("Window", int64(o.Window), int64(time.Millisecond), int64(time.Hour))}
	if o.Against != AgainstBare && o.Against != AgainstNone {
		errs = append(errs, &ackwise.InvalidError{Field: "Against", Value: o.Against,
			Reason: "it is bare or none"})
	}
	for _, n := range o.Publishers {
		errs = append(errs, inRange("Publishers", int64(n), 1, 100_000))
		for _, size := range o.Sizes {
			errs = append(errs, inRange("Publishers × Sizes",
				int64(n)*int64(size), 0, o.recycledBytes()/2))
		}
	}
	for _, size := range o.Sizes {
		errs = append(errs, inRange("Sizes", int64(size), 0, 1<<20))
	}
	return errors.Join(errs...)
}

// recycledBytes is the length of the file that is written before. Half of it is the most that the
// publishers may have on their way, which is the largest group of a bare log.
func (o *Options) recycledBytes() int64 { return 4 * o.SegmentBytes }

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func inRange(field string, value, least, most int64) error {
	if value < least || value > most {
		return &ackwise.InvalidError{Field: field,
			Reason: fmt.Sprintf("it is %d, %d to %d are allowed", value, least, most)}
	}
	return nil
}

// Machine is what is needed to read figures.
type Machine struct {
	Go         string `json:"go"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	CPUs       int    `json:"cpus"`
	GOMAXPROCS int    `json:"gomaxprocs"`
	FileSystem string `json:"file_system"` // disk, memory or unknown
	Seed       uint64 `json:"seed"`
}

func machine(dir string, seed uint64) Machine {
	return Machine{Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH,
		CPUs: runtime.NumCPU(), GOMAXPROCS: runtime.GOMAXPROCS(0), FileSystem: fileSystem(dir),
		Seed: seed}
}

// Report is what a run has measured, with what is needed to read it.
type Report struct {
	Machine
	Against    string       `json:"against"`
	Seconds    float64      `json:"seconds"` // of one measurement
	Rounds     int          `json:"rounds"`
	Publish    []Publish    `json:"publish"`
	Steady     Steady       `json:"steady"`
	ReceiveAck []ReceiveAck `json:"receive_ack"`
	Latency    []Latency    `json:"latency"`
	Scale      []Scale      `json:"scale"`
}

// Run measures, and removes what it wrote. It ends early, with the context's cause, when ctx ends.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	err = inFolder(o.Dir, func(dir string) error {
		b := &bench{Options: o, dir: dir, random: rand.New(rand.NewPCG(o.Seed, 0))}
		b.total = (len(o.Sizes)*(2*len(o.Publishers)+len(drains())) + 1 + scales) * o.Rounds
		report = &Report{Machine: machine(dir, o.Seed), Against: o.Against,
			Seconds: o.Window.Seconds(), Rounds: o.Rounds}
		return b.run(ctx, report)
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return report, nil
}

// inFolder makes a folder in parent ("" = the system's temporary directory), and removes it.
func inFolder(parent string, use func(dir string) error) error {
	if parent != "" {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return fmt.Errorf("make directory: %w", err)
		}
	}
	dir, err := os.MkdirTemp(parent, "ackwise-bench-")
	if err != nil {
		return fmt.Errorf("make a folder for the run: %w", err)
	}
	err = use(dir)
	if removeErr := os.RemoveAll(dir); removeErr != nil {
		err = errors.Join(err, fmt.Errorf("remove the run's folder: %w", removeErr))
	}
	return err
}

// bench is a run under way.
type bench struct {
	Options
	dir    string
	random *rand.Rand
	files  int // names given
	done   int // rounds measured, of total
	total  int
}

func (b *bench) run(ctx context.Context, report *Report) error {
	if err := b.runPublish(ctx, report); err != nil {
		return err
	}
	for _, size := range b.Sizes {
		bodies := b.bodies(size)
		for _, d := range drains() {
			r, err := b.receiveAck(ctx, d, bodies)
			if err != nil {
				return fmt.Errorf("measure receive and ack: %w", err)
			}
			report.ReceiveAck = append(report.ReceiveAck, r)
		}
		for _, n := range b.Publishers {
			l := load{publishers: n, window: b.Window, bodies: bodies}
			r, err := b.latency(ctx, l)
			if err != nil {
				return fmt.Errorf("measure latency: %w", err)
			}
			report.Latency = append(report.Latency, r)
		}
	}
	var err error
	if report.Scale, err = b.scale(ctx); err != nil {
		return fmt.Errorf("measure large numbers: %w", err)
	}
	return nil
}

// runPublish measures what is compared with the bare logs.
func (b *bench) runPublish(ctx context.Context, report *Report) (err error) {
	var recycled vfs.File
	if b.Against == AgainstBare {
		if recycled, err = b.writtenBefore(); err != nil {
			return err
		}
		defer func() { _ = recycled.Close() }() // nothing of it is kept
	}
	for _, size := range b.Sizes {
		bodies := b.bodies(size)
		for _, n := range b.Publishers {
			l := load{publishers: n, window: b.Window, bodies: bodies}
			rows, err := b.publish(ctx, l, recycled)
			if err != nil {
				return fmt.Errorf("measure publish: %w", err)
			}
			report.Publish = append(report.Publish, rows...)
		}
	}
	if report.Steady, err = b.steady(ctx); err != nil {
		return fmt.Errorf("measure the steady state: %w", err)
	}
	return nil
}

// round tells the progress, and lets the run begin the round without the garbage of the one before.
func (b *bench) round(format string, args ...any) {
	b.Progress(fmt.Sprintf(format, args...), float64(b.done)/float64(b.total))
	b.done++
	runtime.GC()
}

// name gives a new file or folder its path.
func (b *bench) name(what string) string {
	b.files++
	return filepath.Join(b.dir, fmt.Sprintf("%s-%04d", what, b.files))
}

// bodiesPerSize is how many different bodies the publishers take turns with.
const bodiesPerSize = 64

func (b *bench) bodies(size int) [][]byte {
	bodies := make([][]byte, bodiesPerSize)
	for i := range bodies {
		bodies[i] = make([]byte, size)
		for j := range bodies[i] {
			bodies[i][j] = byte(b.random.Uint32())
		}
	}
	return bodies
}

// syncDir makes the file system finish with what was removed before the next measurement begins.
func (b *bench) syncDir() error { return vfs.OS{}.SyncDir(b.dir) }
