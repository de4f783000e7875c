package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/server"
)

// Options configure a demo. The zero value is ready to use.
type Options struct {
	// Dir is where the store is made, and kept. It has to be missing or empty.
	// Default: a temporary directory that is removed.
	Dir string
	// Seed makes the plan of faults.
	Seed uint64
	// Program is what is started as a consumer; its main has to call Consumer.
	// Default: this program.
	Program string
	// Progress is told how far the demo is. It is called from the caller's goroutine.
	// Default: nobody is told.
	Progress func(Progress)
	// Stall is how long a run may go without a delivery before the demo fails. Default: 20 s.
	Stall time.Duration
	// Logger gets what the engine reports. Default: nothing is logged.
	Logger *slog.Logger

	events int // only so many flights; 0 = all
}

// Progress is how far a demo is.
type Progress struct {
	Run       string // what runs now
	Delivered int    // deliveries of it that were begun
	Of        int    // flights
	Kills     int    // in all runs
}

// sharedPart is which part of the flights goes through the shared log: one in so many.
const sharedPart = 8

// Run runs the demo. A promise that was broken is in Report.Broken, not in the error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	if o.Stall == 0 {
		o.Stall = 20 * time.Second
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	flights, err := readFlights(o.events)
	if err != nil {
		return nil, err
	}
	dir, remove, err := directory(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	files := filepath.Join(dir, "consumers")
	if err := os.MkdirAll(files, 0o700); err != nil {
		return nil, fmt.Errorf("make the consumers' folder: %w", err)
	}
	store, err := queue.Open(dir, queue.Options{Logger: o.Logger})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	serving, err := server.Local(store)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closed(serving)) }()
	d := &demo{o: o, store: store, flights: flights, files: files,
		report: newReport(o.Seed, flights)}
	if err := d.runs(ctx); err != nil {
		return nil, err
	}
	d.report.check(flights)
	return d.report, nil
}

func closed(c io.Closer) error { return c.Close() }

// directory makes an empty directory.
func directory(dir string) (path string, remove func() error, err error) {
	if dir == "" {
		dir, err = os.MkdirTemp("", "ackwise-demo-")
		if err != nil {
			return "", nil, fmt.Errorf("make a temporary directory: %w", err)
		}
		return dir, func() error { return os.RemoveAll(dir) }, nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("make the directory: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, fmt.Errorf("read the directory: %w", err)
	}
	if len(entries) > 0 {
		return "", nil, &ackwise.InvalidError{Field: "dir", Value: dir,
			Reason: "it is not empty; the demo makes a store of its own"}
	}
	return dir, func() error { return nil }, nil
}

// demo is a demo under way.
type demo struct {
	o       Options
	store   *queue.Store
	flights []flight
	files   string
	report  *Report
}

// runs makes the four runs and the leg of the shared log.
func (d *demo) runs(ctx context.Context) error {
	for i, kind := range []struct {
		guarantee deliver.Guarantee
		pattern   string
	}{
		{deliver.AtMostOnce, patternNone}, {deliver.AtLeastOnce, patternNone},
		{deliver.AtLeastOnce, patternDedup}, {deliver.ExactlyOnce, patternTransaction},
	} {
		r := d.newRun(i, d.flights)
		r.guarantee, r.pattern = kind.guarantee, kind.pattern
		r.plan = newPlan(d.o.Seed, i, d.flights, kind.guarantee != deliver.AtMostOnce)
		if kind.guarantee == deliver.ExactlyOnce {
			r.plan.withholds = nil // the transaction is the ack: it cannot be lost alone
		}
		r.tell = d.teller(kind.guarantee.String()+", "+kind.pattern, len(d.flights))
		if err := r.do(ctx); err != nil {
			return err
		}
		d.report.add(r)
	}
	part := d.flights[:len(d.flights)/sharedPart]
	r := d.newRun(len(d.report.Runs), part)
	r.tell = d.teller("two members share a log", len(part))
	rnd := rand.New(rand.NewPCG(d.o.Seed, uint64(r.number)))
	var moves []int
	for at := 0; at < len(part)*8/10; at += len(part)/20 + rnd.IntN(len(part)/20+1) {
		if at > 0 {
			moves = append(moves, at)
		}
	}
	handed, err := r.share(ctx, moves)
	if err != nil {
		return err
	}
	d.report.addShared(r, handed)
	return nil
}

func (d *demo) newRun(number int, flights []flight) *run {
	return &run{number: number, store: d.store, flights: flights, exe: d.o.Program,
		files: d.files, stall: d.o.Stall}
}

func (d *demo) teller(name string, of int) func(begun, kills int) {
	if d.o.Progress == nil {
		return func(int, int) {}
	}
	return func(begun, kills int) {
		d.o.Progress(Progress{name, begun, of, kills + int(d.report.Kills)})
	}
}
