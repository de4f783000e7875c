package main

import (
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/bench"
)

type benchCmd struct {
	Dir        string  `placeholder:"DIR" help:"Measure in DIR. Default: the system's own."`
	Seconds    float64 `default:"1" help:"Length of one measurement."`
	Rounds     int     `default:"3" help:"Repetitions of each; the median counts."`
	Publishers []int   `default:"1,64,512" help:"Numbers of concurrent publishers."`
	Sizes      []int   `default:"100,1024" help:"Lengths of the bodies, in bytes."`
	Seed       uint64  `default:"1" help:"Makes the bodies and the order of the rounds."`
	jsonFlag
}

// Help is printed under the usage.
func (c *benchCmd) Help() string {
	return "Measures publish beside a bare log of the same bytes in the same run, receive + ack, " +
		"and the latency from end to end. It takes about two minutes. For steadier figures give " +
		"it longer, such as --seconds 5 --rounds 5, and an otherwise idle machine. All that it " +
		"makes lies in one folder in DIR, or in the temporary directory, and is removed."
}

// Run measures.
func (c *benchCmd) Run(a *app) error {
	if !(c.Seconds >= 0.001 && c.Seconds <= 3600) { // NaN too
		return usagef("--seconds %v: 0.001 to 3600 are allowed", c.Seconds)
	}
	if c.Rounds < 1 || len(c.Publishers) == 0 || len(c.Sizes) == 0 {
		return usagef("--rounds, --publishers, --sizes: at least one is needed of each")
	}
	var step atomic.Pointer[string]
	tell := func(what string, done float64) {
		s := fmt.Sprintf("%3.0f %%  %s", done*100, what)
		step.Store(&s)
	}
	tell("", 0)
	shown := a.progress(func() string { return *step.Load() })
	r, err := bench.Run(a.ctx, bench.Options{Dir: c.Dir, Publishers: c.Publishers, Sizes: c.Sizes,
		Window: time.Duration(c.Seconds * float64(time.Second)), Rounds: c.Rounds, Seed: c.Seed,
		Progress: tell})
	shown.stop()
	if _, invalid := errors.AsType[*ackwise.InvalidError](err); invalid {
		return usage(err, "")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		return writeJSON(a.out, r)
	}
	return writeBench(a, r)
}

func writeBench(a *app, r *bench.Report) error {
	publish := newTable(">publishers", ">body", ">publish/s", ">ratio", ">recycled ratio",
		">p50 ms", ">p99 ms", ">growing/s", ">its p99 ms", ">recycled/s")
	for _, p := range r.Publish {
		publish.add(p.Publishers, p.Size, perSecond(p.PerSecond), fmt.Sprintf("%.2f", p.Ratio),
			fmt.Sprintf("%.2f", p.RecycledRatio), ms(p.P50), ms(p.P99), perSecond(p.Growing),
			ms(p.GrowingP99), perSecond(p.Recycled))
	}
	receive := newTable(">body", ">batch", "order", ">received + acked/s")
	for _, d := range r.ReceiveAck {
		order := "none"
		if d.Keyed {
			order = "1,000 keys"
		}
		receive.add(d.Size, d.Batch, order, perSecond(d.PerSecond))
	}
	latency := newTable(">on the way", ">body", ">p50 ms", ">p99 ms")
	for _, l := range r.Latency {
		latency.add(l.Publishers, l.Size, ms(l.P50), ms(l.P99))
	}
	for _, part := range []struct {
		title string
		table *table
	}{
		{benchFacts(r) + "\n\nPublish, synced before it is answered; ratio to a bare log in a " +
			"growing file, and in one written before", publish},
		{"\nReceive + ack of a backlog, one consumer", receive},
		{"\nLatency from publish to received, one message on the way for each publisher", latency},
	} {
		if _, err := fmt.Fprintln(a.out, part.title); err != nil {
			return err
		}
		if err := part.table.write(a.out, "nothing measured"); err != nil {
			return err
		}
	}
	return nil
}

func benchFacts(r *bench.Report) string {
	text := fmt.Sprintf("%s %s/%s, GOMAXPROCS %d of %s, file system: %s, seed %d, "+
		"median of %s of %v s", r.Go, r.OS, r.Arch, r.GOMAXPROCS, count(r.CPUs, "CPU"),
		r.FileSystem, r.Seed, count(r.Rounds, "round"), r.Seconds)
	if r.FileSystem == "memory" {
		text += "\nThe directory lies in memory, where a sync costs nothing: these figures say " +
			"little. Give --dir on a disk."
	}
	return text
}

func ms(v float64) string { return fmt.Sprintf("%.2f", v) }

// perSecond is a rate with thousands apart.
func perSecond(v float64) string {
	n := int64(math.Round(v))
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return perSecond(float64(n/1000)) + fmt.Sprintf(",%03d", n%1000)
}
