package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/deliver"
	"github.com/ackwise/ackwise/internal/bench"
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
	// Progress is told how far the demo is. It is called by one goroutine at a time.
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
	Run       string // what runs now: one run, or several
	Delivered int    // deliveries of them that were begun
	Of        int    // flights
	Kills     int    // in all runs
}

// sharedPart is which part of the flights goes through the shared log: one in so many.
const sharedPart = 8

// collectAt is how far, in percent, the demo's processes let their heaps grow between two
// collections. They are small, and all wait for the same processors: it saves a tenth of the time.
const collectAt = 400

// Run runs the demo. A promise that was broken is in Report.Broken, not in the error.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	defer debug.SetGCPercent(debug.SetGCPercent(collectAt))
	if o.Stall == 0 {
		o.Stall = 20 * time.Second
	}
	if o.Program == "" {
		if o.Program, err = os.Executable(); err != nil {
			return nil, fmt.Errorf("find this program: %w", err)
		}
	}
	flights, err := Flights(o.events)
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
	if err := d.legs(ctx); err != nil {
		return nil, err
	}
	if err := d.cost(ctx); err != nil { // alone: it measures
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
	flights []Flight
	files   string
	report  *Report
	told    tellings
}

// kind is a guarantee and the way in which its effects are applied.
type kind struct {
	guarantee deliver.Guarantee
	pattern   string
}

func kinds() []kind {
	return []kind{{deliver.AtMostOnce, patternNone}, {deliver.AtLeastOnce, patternNone},
		{deliver.AtLeastOnce, patternDedup}, {deliver.AtLeastOnce, patternWrite},
		{deliver.AtLeastOnce, patternUpsert}, {deliver.AtLeastOnce, patternCompare},
		{deliver.ExactlyOnce, patternTransaction}}
}

// atATime is how many legs are made at a time: one alone waits for its faults, its leases and its
// disk half of the time.
const atATime = 2

// legs makes the runs that the ledger is over, and the others. Meanwhile shuffle and shared write
// to fields of the report that are theirs alone; the runs are added when all are over.
func (d *demo) legs(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var runs []*run
	for i, kind := range kinds() {
		runs = append(runs, d.runOf(i, kind))
	}
	next := make(chan func(context.Context) error, len(runs)+2)
	for _, r := range runs {
		next <- r.do
	}
	next <- d.shuffle
	next <- d.shared
	close(next)
	failed := make(chan error, atATime)
	var lanes sync.WaitGroup
	for range atATime {
		lanes.Go(func() { // ends with the last leg, or the first error
			for leg := range next {
				if err := leg(ctx); err != nil {
					failed <- err
					cancel()
					return
				}
			}
		})
	}
	lanes.Wait()
	close(failed)
	if err := <-failed; err != nil {
		return err // the other lane's is of the cancel
	}
	for _, r := range runs {
		d.report.add(r)
	}
	return nil
}

func (d *demo) runOf(number int, k kind) *run {
	r := d.newRun(number, d.flights)
	r.guarantee, r.pattern = k.guarantee, k.pattern
	r.plan = newPlan(d.o.Seed, number, d.flights, k.guarantee != deliver.AtMostOnce)
	if k.guarantee == deliver.ExactlyOnce {
		r.plan.withholds = nil // the transaction is the ack: it cannot be lost alone
	}
	if k.pattern == patternUpsert {
		r.sent = displaced(d.o.Seed, d.flights)
	}
	name := k.pattern
	if k.pattern == patternNone || k.guarantee == deliver.ExactlyOnce {
		name = k.guarantee.String()
	}
	r.tell, r.over = d.teller(name, len(d.flights))
	return r
}

// displacement is how many places a flight may be from its own where the order is lost.
func displacement(flights []Flight) int { return max(len(flights)/20, 2*batchSize) }

// displaced is a sequence of the flights in which each is up to displacement places from its own.
func displaced(seed uint64, flights []Flight) []Flight {
	by := displacement(flights)
	rnd := rand.New(rand.NewPCG(seed, 1<<33))
	type place struct{ flight, at int }
	places := make([]place, len(flights))
	for i := range places {
		places[i] = place{i, i + rnd.IntN(by)}
	}
	slices.SortStableFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	out := make([]Flight, len(flights))
	for i, p := range places {
		out[i] = flights[p.flight]
	}
	return out
}

// shared is the leg of the two members that share a log.
func (d *demo) shared(ctx context.Context) error {
	part := d.flights[:len(d.flights)/sharedPart]
	r := d.newRun(len(kinds())+shuffledRuns, part)
	r.tell, r.over = d.teller("two members share a log", len(part))
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

// costMessages are handled in each measurement of what a guarantee costs: a part of a second's.
const costMessages = 2000

// cost measures what each guarantee costs where nothing goes wrong.
func (d *demo) cost(ctx context.Context) (err error) {
	tell, over := d.teller("the cost of each guarantee", 0)
	defer over()
	d.report.Cost, err = bench.RunGuarantees(ctx, bench.GuaranteeOptions{
		Messages: min(costMessages, max(len(d.flights)/4, 100)), Dir: d.files,
		Progress: func(string) { tell(0, 0) }})
	return err
}

func (d *demo) newRun(number int, flights []Flight) *run {
	return &run{number: number, store: d.store, flights: flights, exe: d.o.Program,
		files: d.files, stall: d.o.Stall}
}

// tellings say how far the runs are that are under way.
type tellings struct {
	mu    sync.Mutex // guards the fields below; held while Options.Progress runs, one call at a time
	under []*Progress
	kills int // of the runs that are over
}

// teller returns what a run tells how far it is with, and what it calls when it is over.
func (d *demo) teller(name string, of int) (tell func(begun, kills int), over func()) {
	if d.o.Progress == nil {
		return func(int, int) {}, func() {}
	}
	t := &d.told
	mine := &Progress{Run: name, Of: of}
	tell = func(begun, kills int) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if !slices.Contains(t.under, mine) {
			t.under = append(t.under, mine)
		}
		mine.Delivered, mine.Kills = begun, kills
		sum := Progress{Kills: t.kills}
		var names []string
		for _, p := range t.under {
			names = append(names, p.Run)
			sum.Delivered += p.Delivered
			sum.Of += p.Of
			sum.Kills += p.Kills
		}
		sum.Run = strings.Join(names, " + ")
		d.o.Progress(sum)
	}
	return tell, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.kills += mine.Kills
		t.under = slices.DeleteFunc(t.under, func(p *Progress) bool { return p == mine })
	}
}
