package bench

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/idempotency"
	"github.com/ackwise/ackwise/idempotency/memstore"
	"github.com/ackwise/ackwise/queue"
	"github.com/ackwise/ackwise/queue/queuestore"
)

// DedupOptions configure RunDedup.
type DedupOptions struct {
	// Dir is where the run makes its folder. Default: the system's temporary directory.
	Dir string
	// Stores are measured beside the embedded and the memory store, which always are.
	Stores []DedupStore
	// Batches are the numbers of keys that a call asks for. Default: 1, 100.
	Batches []int
	// Workers is how many callers there are at once. Default: 16.
	Workers int
	// Window is how long one measurement takes. Default: 1 s.
	Window time.Duration
	// Rounds is how often each measurement is repeated; the median counts. Default: 3.
	Rounds int
	// Seed makes the order of the contestants. Default: 1.
	Seed uint64
	// Progress is told what is measured now, and how much of the run is done. Default: nil.
	Progress func(what string, done float64)
}

// DedupStore is a kind of store to measure.
type DedupStore struct {
	Name  string // such as postgres
	Plain string // what the plain insert is, such as INSERT
	// Open makes an empty store in dir, a folder of its own. It is closed before the next one.
	Open func(ctx context.Context, dir string) (*DedupTarget, error)
}

// DedupTarget is an open store, and the plain insert of the same rows where it is.
type DedupTarget struct {
	Store  idempotency.Store
	Insert func(ctx context.Context, rows []DedupRow) error
	Close  func() error // of both
}

// DedupRow is what a claim and its completion leave behind.
type DedupRow struct {
	Key string
	Sum idempotency.Sum
}

func (o *DedupOptions) fill() error {
	if len(o.Batches) == 0 {
		o.Batches = []int{1, 100}
	}
	setDefault(&o.Workers, 16)
	setDefault(&o.Window, time.Second)
	setDefault(&o.Rounds, 3)
	setDefault(&o.Seed, 1)
	if o.Progress == nil {
		o.Progress = func(string, float64) {}
	}
	errs := []error{inRange("Workers", int64(o.Workers), 1, 10_000),
		inRange("Rounds", int64(o.Rounds), 1, 1000),
		inRange("Window", int64(o.Window), int64(time.Millisecond), int64(time.Hour))}
	for _, n := range o.Batches {
		errs = append(errs, inRange("Batches", int64(n), 1, 1000))
	}
	return errors.Join(errs...)
}

// DedupReport is what RunDedup has measured.
type DedupReport struct {
	Machine
	Seconds float64 `json:"seconds"` // of one measurement
	Rounds  int     `json:"rounds"`
	Workers int     `json:"workers"`
	Dedup   []Dedup `json:"dedup"`
}

// Dedup is how fast a store answers, beside the plain insert of the same rows in the same round.
// Ratios are rates to that rate: 1 = as fast as the insert.
type Dedup struct {
	Store         string  `json:"store"`
	Batch         int     `json:"batch"`                     // keys a call
	Keys          string  `json:"keys"`                      // fresh, or duplicate: all are done
	Claims        float64 `json:"claims_per_s"`              // while nothing but claims is asked
	Completes     float64 `json:"completes_per_s,omitempty"` // the same of completions
	Both          float64 `json:"both_per_s,omitempty"`      // keys claimed and completed
	Plain         string  `json:"plain"`
	Inserts       float64 `json:"plain_per_s"`
	ClaimRatio    float64 `json:"claim_ratio"`
	CompleteRatio float64 `json:"complete_ratio,omitempty"`
	BothRatio     float64 `json:"both_ratio,omitempty"`
}

// RunDedup measures stores, and removes what it wrote in its folder. An answer that is not the one
// that a store owes ends the run with an error.
func RunDedup(ctx context.Context, o DedupOptions) (report *DedupReport, err error) {
	if err := o.fill(); err != nil {
		return nil, err
	}
	stores := append([]DedupStore{memoryStore(), embeddedStore()}, o.Stores...)
	err = inFolder(o.Dir, func(dir string) error {
		report = &DedupReport{Machine: machine(dir, o.Seed), Seconds: o.Window.Seconds(),
			Rounds: o.Rounds, Workers: o.Workers}
		b := &dedupRun{DedupOptions: o, random: rand.New(rand.NewPCG(o.Seed, 0)),
			bench: &bench{dir: dir}, total: len(stores) * len(o.Batches) * o.Rounds}
		for _, s := range stores {
			for _, batch := range o.Batches {
				rows, err := b.measure(ctx, s, batch)
				if err != nil {
					return fmt.Errorf("measure %s: %w", s.Name, err)
				}
				report.Dedup = append(report.Dedup, rows...)
			}
		}
		return nil
	})
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, err
	}
	return report, nil
}

// ThisMachine is what is needed to read the figures of a run in dir, "" = the system's temporary
// directory. It has no seed.
func ThisMachine(dir string) Machine {
	if dir == "" {
		dir = os.TempDir()
	}
	return machine(dir, 0)
}

// dedupRun is a run under way.
type dedupRun struct {
	DedupOptions
	bench  *bench // names of folders
	random *rand.Rand
	done   int // rounds measured, of total
	total  int
}

// dedupRound is what one round showed, in keys a second.
type dedupRound struct{ claims, completes, both, duplicates, inserts float64 }

func (b *dedupRun) measure(ctx context.Context, s DedupStore, batch int) ([]Dedup, error) {
	var all []dedupRound
	for round := range b.Rounds {
		b.Progress(fmt.Sprintf("%s, %d a call, round %d of %d", s.Name, batch, round+1, b.Rounds),
			float64(b.done)/float64(b.total))
		b.done++
		r, err := b.round(ctx, s, batch)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	rate := func(of func(dedupRound) float64) float64 { return math.Round(medianOf(all, of)) }
	ratio := func(of func(dedupRound) float64) float64 {
		return decimals(medianOf(all, func(r dedupRound) float64 { return of(r) / r.inserts }))
	}
	claims := func(r dedupRound) float64 { return r.claims }
	completes := func(r dedupRound) float64 { return r.completes }
	both := func(r dedupRound) float64 { return r.both }
	duplicates := func(r dedupRound) float64 { return r.duplicates }
	fresh := Dedup{Store: s.Name, Batch: batch, Keys: "fresh", Plain: s.Plain,
		Inserts: rate(func(r dedupRound) float64 { return r.inserts }), Claims: rate(claims),
		Completes: rate(completes), Both: rate(both), ClaimRatio: ratio(claims),
		CompleteRatio: ratio(completes), BothRatio: ratio(both)}
	again := Dedup{Store: s.Name, Batch: batch, Keys: "duplicate", Plain: s.Plain,
		Inserts: fresh.Inserts, Claims: rate(duplicates), ClaimRatio: ratio(duplicates)}
	return []Dedup{fresh, again}, nil
}

func medianOf(rounds []dedupRound, of func(dedupRound) float64) float64 {
	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}
	return median(values)
}

// round lets the store and the plain insert take turns, in an order that changes.
func (b *dedupRun) round(ctx context.Context, s DedupStore, batch int) (r dedupRound, err error) {
	target, err := s.Open(ctx, b.bench.name(s.Name))
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, target.Close()) }()
	if err := target.Store.Bind(ctx, "bench"); err != nil {
		return r, err
	}
	plain := func() error {
		w, err := b.drive(ctx, &work{batch: batch}, func(ctx context.Context, rows []DedupRow,
			w *work) error {
			return w.time(0, func() error { return target.Insert(ctx, rows) })
		})
		r.inserts = w.perSecond(-1)
		return err
	}
	store := func() error { return b.store(ctx, target.Store, batch, &r) }
	turns := []func() error{plain, store}
	for _, i := range b.random.Perm(len(turns)) {
		if err := turns[i](); err != nil {
			return r, err
		}
	}
	return r, nil
}

// store claims and completes fresh keys, then claims the same ones again.
func (b *dedupRun) store(ctx context.Context, s idempotency.Store, batch int, r *dedupRound) error {
	const claiming, completing = 0, 1
	fresh, err := b.drive(ctx, &work{batch: batch}, func(ctx context.Context, rows []DedupRow,
		w *work) error {
		answers, err := w.claim(ctx, s, rows, idempotency.Claimed)
		if err != nil {
			return err
		}
		return w.time(completing, func() error { return complete(ctx, s, rows, answers) })
	})
	if err != nil {
		return fmt.Errorf("fresh keys: %w", err)
	}
	r.claims, r.completes, r.both = fresh.perSecond(claiming), fresh.perSecond(completing),
		fresh.perSecond(-1)
	again, err := b.drive(ctx, fresh, func(ctx context.Context, rows []DedupRow, w *work) error {
		_, err := w.claim(ctx, s, rows, idempotency.Done)
		return err
	})
	if err != nil {
		return fmt.Errorf("duplicate keys: %w", err)
	}
	r.duplicates = again.perSecond(claiming)
	return nil
}

// work is what all workers of a measurement did.
type work struct {
	batch   int
	workers int
	calls   []int // of each worker
	keys    int
	spent   [2]time.Duration // in calls, of all workers together
	elapsed time.Duration
}

// time counts a call.
func (w *work) time(kind int, call func() error) error {
	begin := time.Now()
	err := call()
	w.spent[kind] += time.Since(begin)
	return err
}

// perSecond is how many keys a second there were, or would have been with nothing but calls of one
// kind.
func (w *work) perSecond(kind int) float64 {
	spent := w.elapsed
	if kind >= 0 {
		spent = w.spent[kind] / time.Duration(w.workers)
	}
	return float64(w.keys) / max(spent, time.Microsecond).Seconds()
}

func (w *work) claim(ctx context.Context, s idempotency.Store, rows []DedupRow,
	want idempotency.Status) (answers []idempotency.Answer, err error) {
	asks := make([]idempotency.Ask, len(rows))
	for i, r := range rows {
		asks[i] = idempotency.Ask{Key: r.Key, Sum: r.Sum, Lease: time.Minute}
	}
	err = w.time(0, func() (err error) {
		answers, err = s.Claim(ctx, asks)
		return err
	})
	if err != nil {
		return nil, err
	}
	for i, a := range answers {
		switch {
		case a.Err != nil:
			return nil, fmt.Errorf("claim %s: %w", rows[i].Key, a.Err)
		case a.Status != want:
			return nil, fmt.Errorf("claim %s: it is %s, want %s", rows[i].Key, a.Status, want)
		}
	}
	return answers, nil
}

// step is one call, or a pair of calls, of one worker.
type step func(ctx context.Context, rows []DedupRow, w *work) error

// drive lets the workers call until the window is over: with fresh keys, or with those of an
// earlier drive.
func (b *dedupRun) drive(ctx context.Context, of *work, step step) (*work, error) {
	runtime.GC() // what came before leaves its garbage to nobody
	var wg sync.WaitGroup
	parts, errs := make([]work, b.Workers), make([]error, b.Workers)
	begin := time.Now()
	for p := range b.Workers {
		wg.Go(func() { // ends with the window
			rows, calls := make([]DedupRow, of.batch), 0
			for ; calls == 0 || time.Since(begin) < b.Window; calls++ {
				n := calls
				if of.calls != nil {
					n %= of.calls[p]
				}
				for i := range rows {
					rows[i] = dedupRow(p, n*of.batch+i)
				}
				if errs[p] = errors.Join(ctx.Err(), step(ctx, rows, &parts[p])); errs[p] != nil {
					return
				}
			}
			parts[p].keys, parts[p].calls = calls*of.batch, []int{calls}
		})
	}
	wg.Wait()
	w := &work{batch: of.batch, workers: b.Workers, elapsed: time.Since(begin)}
	for _, part := range parts {
		w.keys += part.keys
		w.calls = append(w.calls, part.calls...)
		for kind, d := range part.spent {
			w.spent[kind] += d
		}
	}
	return w, firstOf(errs)
}

// dedupRow is row n of a worker.
func dedupRow(worker, n int) DedupRow {
	r := DedupRow{Key: fmt.Sprintf("bench-%d-%d", worker, n)}
	copy(r.Sum[:], r.Key)
	r.Sum[15] = byte(n) | 1 // never the zero Sum
	return r
}

func memoryStore() DedupStore {
	return DedupStore{Name: "memory", Plain: "map insert",
		Open: func(context.Context, string) (*DedupTarget, error) {
			s, err := memstore.Open(memstore.Options{Window: time.Hour,
				MaxKeys: 100_000_000})
			if err != nil {
				return nil, err
			}
			var mu sync.Mutex // guards rows
			rows := map[string]idempotency.Sum{}
			return &DedupTarget{Store: s, Close: s.Close,
				Insert: func(_ context.Context, insert []DedupRow) error {
					mu.Lock()
					defer mu.Unlock()
					for _, r := range insert {
						rows[r.Key] = r.Sum
					}
					return nil
				}}, nil
		}}
}

// embeddedStore is the engine, whose plain insert is to publish a row to a topic without dedup.
func embeddedStore() DedupStore {
	return DedupStore{Name: "embedded", Plain: "publish",
		Open: func(ctx context.Context, dir string) (*DedupTarget, error) {
			engine, err := queue.Open(dir, queue.Options{})
			if err != nil {
				return nil, fmt.Errorf("open the engine: %w", err)
			}
			closeAll := func() error { return errors.Join(engine.Close(), os.RemoveAll(dir)) }
			err = engine.CreateTopic(ctx, topic, queue.TopicOptions{DedupWindow: queue.NoDedup})
			if err != nil {
				return nil, errors.Join(err, closeAll())
			}
			s, err := queuestore.Open(ctx, engine, "bench",
				queuestore.Options{Window: time.Hour, MaxKeys: 100_000_000})
			if err != nil {
				return nil, errors.Join(err, closeAll())
			}
			return &DedupTarget{Store: s, Close: closeAll,
				Insert: func(ctx context.Context, rows []DedupRow) error {
					msgs := make([]ackwise.Message, len(rows))
					for i, r := range rows {
						msgs[i] = ackwise.Message{Topic: topic, Body: append(r.Sum[:], r.Key...)}
					}
					return publishAll(ctx, engine, msgs)
				}}, nil
		}}
}
