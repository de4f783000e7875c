package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/ackwise/ackwise/internal/bench"
)

type benchDedupCmd struct {
	Dir     string   `placeholder:"DIR" help:"Measure the embedded store in DIR. Default: the system's own."`
	Store   []string `sep:"none" placeholder:"URL" help:"Measure this store too; may be repeated: postgres://…, redis://…, dynamodb://…"`
	Seconds float64  `default:"1" help:"Length of one measurement."`
	Rounds  int      `default:"3" help:"Repetitions of each; the median counts."`
	Workers int      `default:"16" help:"Callers at once."`
	Batch   []int    `default:"1,100" help:"Keys a call."`
	Keys    int      `placeholder:"N" help:"Instead: remember N keys in the embedded store, kill -9, reopen; its memory, and how long an expired bucket takes to drop."`
	Seed    uint64   `default:"1" help:"Makes the order of the contestants."`
	jsonFlag
}

// Help is printed under the usage.
func (c *benchDedupCmd) Help() string {
	return "Measures how many keys a second a dedup store claims and completes, fresh ones and ones " +
		"that are done, beside the plain insert of the same rows in the same run: publish for the " +
		"embedded store, a map insert for memory, INSERT, SET and PutItem for those of --store. A " +
		"ratio of 1 is as fast as that insert. Each round opens a store under a name of its own; " +
		"what lies in a server expires after a minute, and goes when somebody next uses the table: " +
		"give a database that is not in use. --json prints the machine, seconds, rounds, workers, " +
		"and dedup: a list of store, batch, keys (fresh or duplicate), claims_per_s, completes_per_s " +
		"and both_per_s (fresh only), plain, plain_per_s, claim_ratio, complete_ratio, both_ratio. " +
		"--keys is a run of its own: a process fills the store and is killed, another one opens " +
		"it; --json prints the fields of bench --ids, with dropped_keys and drop_s."
}

// Run measures.
func (c *benchDedupCmd) Run(a *app) error {
	if !(c.Seconds >= 0.001 && c.Seconds <= 3600) { // NaN too
		return usagef("--seconds %v: 0.001 to 3600 are allowed", c.Seconds)
	}
	if c.Rounds < 1 || c.Workers < 1 || len(c.Batch) == 0 {
		return usagef("--rounds, --workers, --batch: at least one is needed of each")
	}
	if c.Keys != 0 {
		if len(c.Store) > 0 {
			return usagef("--keys measures the embedded store: it does not go with --store")
		}
		return c.runKeys(a)
	}
	stores, err := c.stores(a)
	if err != nil {
		return err
	}
	tell, stop := benchProgress(a)
	r, err := bench.RunDedup(a.ctx, bench.DedupOptions{Dir: c.Dir, Stores: stores,
		Batches: c.Batch, Workers: c.Workers, Rounds: c.Rounds, Seed: c.Seed, Progress: tell,
		Window: time.Duration(c.Seconds * float64(time.Second))})
	stop()
	if err != nil {
		return benchError(err)
	}
	if c.JSON {
		return writeJSON(a.out, r)
	}
	return writeDedup(a, r)
}

// serverWindow is how long the rows of a measurement stay in a server.
const serverWindow = time.Minute

// stores are those of --store. Each one is reached before anything is measured.
func (c *benchDedupCmd) stores(a *app) ([]bench.DedupStore, error) {
	var out []bench.DedupStore
	for _, text := range c.Store {
		u, err := parseStoreURL(text)
		if err != nil {
			return nil, usagef("--store: %w", err)
		}
		if u.scheme.insert == nil {
			return nil, usagef("--store: %s is measured always, in a folder of its own in --dir; "+
				"--store is for a server", u.scheme.form)
		}
		s := bench.DedupStore{Name: u.kind(), Plain: u.scheme.insertName}
		s.Open = func(ctx context.Context, dir string) (*bench.DedupTarget, error) {
			return openTarget(ctx, u, filepath.Base(dir))
		}
		target, err := openTarget(a.ctx, u, "start")
		if err != nil {
			return nil, err
		}
		if err := target.Close(); err != nil {
			return nil, fmt.Errorf("close the dedup store %s: %w", u.key(), err)
		}
		out = append(out, s)
	}
	return out, nil
}

// openTarget opens a store and its plain insert under a name that no other run has.
func openTarget(ctx context.Context, u storeURL, name string) (*bench.DedupTarget, error) {
	u.name = fmt.Sprintf("%s-%s-%d-%d", u.name, name, os.Getpid(), time.Now().UnixMilli())
	store, err := openStore(ctx, u, storeOptions{window: serverWindow, maxKeys: 100_000_000,
		create: true})
	if err != nil {
		return nil, err
	}
	plain, err := u.scheme.insert(ctx, u)
	if err != nil {
		return nil, joinClose(err, store.Close)
	}
	return &bench.DedupTarget{Store: store, Insert: plain.insert,
		Close: func() error { return joinClose(plain.close(), store.Close) }}, nil
}

func writeDedup(a *app, r *bench.DedupReport) error {
	if _, err := fmt.Fprintf(a.out, "%s\nMedian of %s of %v s, %s\n\nKeys claimed and completed a "+
		"second; ratio to the plain insert of the same rows\n", benchFacts(&r.Machine),
		count(r.Rounds, "round"), r.Seconds, count(r.Workers, "caller")); err != nil {
		return err
	}
	t := newTable("store", ">batch", "keys", ">claims/s", ">ratio", ">completes/s", ">ratio",
		">both/s", ">ratio", "plain", ">plain/s")
	for _, d := range r.Dedup {
		completes, both := "-", "-"
		if d.Keys == "fresh" {
			completes, both = perSecond(d.Completes), perSecond(d.Both)
		}
		t.add(d.Store, d.Batch, d.Keys, perSecond(d.Claims), ratio(d.ClaimRatio), completes,
			ratio(d.CompleteRatio), both, ratio(d.BothRatio), d.Plain, perSecond(d.Inserts))
	}
	return t.write(a.out, "nothing measured")
}

// runKeys measures the memory of many keys.
func (c *benchDedupCmd) runKeys(a *app) error {
	e := benchEngineCmd{Dir: c.Dir, Seed: c.Seed, Size: 200, jsonFlag: c.jsonFlag}
	return e.runBacklog(a, bench.KindKeys, c.Keys)
}
