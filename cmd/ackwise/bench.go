package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/bench"
)

type benchCmd struct {
	Engine     benchEngineCmd     `cmd:"" default:"withargs" help:"Measure the embedded engine beside bare logs (also without the word)."`
	Dedup      benchDedupCmd      `cmd:"" help:"Measure dedup stores beside plain inserts of the same rows."`
	Guarantees benchGuaranteesCmd `cmd:"" help:"Measure what each guarantee and pattern costs beside at-least-once."`
	Relay      benchRelayCmd      `cmd:"" help:"Measure relaying one Kafka topic to another beside a bare loop."`
}

type benchEngineCmd struct {
	Dir           string  `placeholder:"DIR" help:"Measure in DIR. Default: the system's own."`
	Seconds       float64 `default:"1" help:"Length of one measurement."`
	Rounds        int     `default:"3" help:"Repetitions of each; the median counts."`
	Publishers    []int   `default:"1,64,512" help:"Numbers of concurrent publishers."`
	Sizes         []int   `default:"100,1024" help:"Lengths of the bodies, in bytes."`
	Against       string  `enum:"bare,none" default:"bare" help:"Compare publish with bare logs of the same bytes, or with nothing."`
	Subscriptions int     `default:"10000" help:"The large number of subscriptions, beside 10."`
	Keys          int     `placeholder:"N" help:"The large number of keys, beside 1 (default: 1,000,000); keys of --backlog (100,000)."`
	Plot          string  `placeholder:"FILE" help:"Write throughput and p99 over publishers as an SVG picture."`
	Backlog       int     `placeholder:"N" help:"Instead: fill with N messages, kill -9, reopen, drain; memory, disk, IDs."`
	Scheduled     int     `placeholder:"N" help:"Instead: the same with N scheduled messages, which stay."`
	IDs           int     `name:"ids" placeholder:"N" help:"Instead: the same with N IDs to remember, their messages acked."`
	Size          int     `default:"200" help:"Length of the bodies of --backlog, --scheduled and --ids."`
	SegmentBytes  int64   `placeholder:"N" help:"Size of the engine's segments. Default: 64 MiB."`
	Seed          uint64  `default:"1" help:"Makes the bodies and the order of the rounds."`
	Child         bool    `hidden:"" help:"Be the process that the run watches."`
	jsonFlag
}

// Help is printed under the usage.
func (c *benchEngineCmd) Help() string {
	return "Measures publish, cold and warm, beside bare logs of the same bytes in the same run, " +
		"the steady state, receive + ack, the latency from end to end, and what many subscriptions " +
		"and keys cost. It takes about five minutes. For steadier figures give it longer, such as " +
		"--seconds 10 --rounds 5, and an otherwise idle machine. --backlog, --scheduled and --ids " +
		"are runs of their own: they measure the memory of a process that is killed and started " +
		"again. All that it makes lies in one folder in DIR, or in the temporary directory, and is " +
		"removed."
}

// Run measures.
func (c *benchEngineCmd) Run(a *app) error {
	if c.Child {
		return bench.Child(a.ctx, a.in, a.out)
	}
	kinds := map[bench.Kind]int{bench.KindBacklog: c.Backlog,
		bench.KindScheduled: c.Scheduled, bench.KindIDs: c.IDs}
	maps.DeleteFunc(kinds, func(_ bench.Kind, n int) bool { return n == 0 })
	if len(kinds) > 1 {
		return usagef("--backlog, --scheduled and --ids are runs of their own: give one")
	}
	for kind, n := range kinds {
		if c.Plot != "" {
			return usagef("--plot shows publish: it does not go with --%s", kind)
		}
		return c.runBacklog(a, kind, n)
	}
	return c.runTables(a)
}

func (c *benchEngineCmd) runTables(a *app) error {
	if !(c.Seconds >= 0.001 && c.Seconds <= 3600) { // NaN too
		return usagef("--seconds %v: 0.001 to 3600 are allowed", c.Seconds)
	}
	if c.Rounds < 1 || len(c.Publishers) == 0 || len(c.Sizes) == 0 || c.Subscriptions < 1 {
		return usagef("--rounds, --publishers, --sizes, --subscriptions: " +
			"at least one is needed of each")
	}
	if c.Plot != "" { // rather now than after minutes
		if err := writePlot(c.Plot, func(io.Writer) error { return nil }); err != nil {
			return err
		}
	}
	tell, stop := benchProgress(a)
	r, err := bench.Run(a.ctx, bench.Options{Dir: c.Dir, Publishers: c.Publishers, Sizes: c.Sizes,
		Against: c.Against, Subscriptions: c.Subscriptions, Keys: c.Keys,
		Window: time.Duration(c.Seconds * float64(time.Second)), Rounds: c.Rounds, Seed: c.Seed,
		SegmentBytes: c.SegmentBytes, Progress: tell})
	stop()
	if err != nil {
		return benchError(err)
	}
	if c.JSON {
		err = writeJSON(a.out, r)
	} else {
		err = writeBench(a, r)
	}
	if err == nil && c.Plot != "" {
		err = writePlot(c.Plot, r.Plot)
	}
	return err
}

func (c *benchEngineCmd) runBacklog(a *app, kind bench.Kind, n int) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the program's own file: %w", err)
	}
	tell, stop := benchProgress(a)
	r, err := bench.RunBacklog(a.ctx, bench.BacklogOptions{Child: []string{self, "bench", "--child"},
		Kind: kind, Messages: n, Size: c.Size, Keys: c.Keys, Dir: c.Dir, Seed: c.Seed,
		Progress: tell})
	stop()
	if err != nil {
		return benchError(err)
	}
	if c.JSON {
		return writeJSON(a.out, r)
	}
	return writeBacklog(a, r)
}

func writeBacklog(a *app, r *bench.Backlog) error {
	t := newTable("figure", ">value")
	add := func(name, format string, v ...any) { t.add(name, fmt.Sprintf(format, v...)) }
	add("peak memory while filling", "%.1f MiB", r.FillMiB)
	first := "message"
	if r.Kind == bench.KindKeys {
		first = "answer"
	}
	add("peak memory until the first "+first+" after kill -9", "%.1f MiB", r.ReopenedMiB)
	add("peak memory from there to the end", "%.1f MiB", r.DrainMiB)
	add("from start after kill -9 to the first "+first, "%.2f s", r.ReopenSeconds)
	add("filled", "%s/s", perSecond(r.FillPerSecond))
	add("disk at the peak", "%.1f MiB", r.DiskPeakMiB)
	add("disk at the end", "%.1f MiB", r.DiskEndMiB)
	if r.Kind != bench.KindKeys {
		add("IDs sent", "%d", r.Sent)
	}
	switch r.Kind {
	case bench.KindBacklog:
		add("IDs received and acked, each once", "%d", r.Received)
		add("drained", "%s/s", perSecond(r.DrainPerSecond))
		add("nacked, with a delay", "%d", r.Nacked)
		add("released behind a nacked one of their key", "%d", r.Released)
		add("hand-outs by cause", "%s", handOuts(r.HandOuts))
	case bench.KindScheduled:
		add("scheduled messages there at the end", "%d", r.Delayed)
	case bench.KindIDs:
		add("IDs received and acked, each once", "%d", r.Received)
		add("IDs published again after kill -9, all known", "%d", r.Suppressed)
	case bench.KindKeys:
		add("keys claimed and completed", "%d", r.Sent)
		add("keys asked for again after kill -9, all known", "%d", r.Suppressed)
		add("keys that went with their expired buckets", "%d", r.Dropped)
		add("longest call meanwhile", "%.3f s", r.DropSeconds)
	}
	of := fmt.Sprintf("%s of %d B, %s keys", perSecond(float64(r.Messages)), r.Size,
		perSecond(float64(r.Keys)))
	if r.Kind == bench.KindKeys {
		of = perSecond(float64(r.Messages)) + " in the embedded dedup store"
	}
	if _, err := fmt.Fprintf(a.out, "%s\n\n%s, %s\n", benchFacts(&r.Machine), r.Kind,
		of); err != nil {
		return err
	}
	return t.write(a.out, "nothing measured")
}

// benchProgress returns what a run tells its progress to, and what ends its line on the terminal.
func benchProgress(a *app) (tell func(what string, done float64), stop func()) {
	var step atomic.Pointer[string]
	tell = func(what string, done float64) {
		s := fmt.Sprintf("%3.0f %%  %s", done*100, what)
		step.Store(&s)
	}
	tell("", 0)
	return tell, a.progress(func() string { return *step.Load() }).stop
}

func benchError(err error) error {
	if _, invalid := errors.AsType[*ackwise.InvalidError](err); invalid {
		return usage(err, "")
	}
	return err
}

func writePlot(name string, write func(io.Writer) error) error {
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("write the plot: %w", err)
	}
	return errors.Join(write(f), f.Close())
}

func writeBench(a *app, r *bench.Report) error {
	for _, part := range []struct {
		title string
		table *table
	}{
		{benchFacts(&r.Machine) + fmt.Sprintf("\nMedian of %s of %v s", count(r.Rounds, "round"),
			r.Seconds) + "\n\nPublish, synced before it is answered; cold: a new directory, " +
			"warm: segments to write again;\nratio to a bare log in a growing file, and in one " +
			"written before; fresh: log on the disk that was not there before", publishTable(r)},
		{"\nSteady state, each body once in and once out; ratio to what a bare log in a growing " +
			"file publishes", steadyTable(r)},
		{"\nReceive + ack of a backlog, one consumer", receiveTable(r)},
		{"\nLatency from publish to received, one message on the way for each publisher",
			latencyTable(r)},
		{"\nLarge numbers: publish + receive + ack on one of many subscriptions, publish with " +
			"many keys;\ncost is the time a message, as a ratio to few", scaleTable(r)},
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

func publishTable(r *bench.Report) *table {
	t := newTable(">publishers", ">body", "start", ">publish/s", ">ratio", ">recycled ratio",
		">p50 ms", ">p99 ms", ">p99 ratio", ">fresh MiB", ">growing/s", ">recycled/s")
	for _, p := range r.Publish {
		t.add(p.Publishers, p.Size, p.Start, perSecond(p.PerSecond), ratio(p.Ratio),
			ratio(p.RecycledRatio), ms(p.P50), ms(p.P99), ratio(p.P99Ratio),
			fmt.Sprintf("%.0f", p.Fresh), perSecond(p.Growing), perSecond(p.Recycled))
	}
	return t
}

func steadyTable(r *bench.Report) *table {
	t := newTable(">publishers", ">consumers", ">body", ">in and out/s", ">ratio", ">in/s",
		">p99 ms", ">growing/s")
	s := r.Steady
	t.add(s.Publishers, s.Consumers, s.Size, perSecond(s.PerSecond), ratio(s.Ratio),
		perSecond(s.Published), ms(s.P99), perSecond(s.Growing))
	return t
}

func receiveTable(r *bench.Report) *table {
	t := newTable(">body", ">batch", "order", ">received + acked/s")
	for _, d := range r.ReceiveAck {
		order := "none"
		if d.Keyed {
			order = "1,000 keys"
		}
		t.add(d.Size, d.Batch, order, perSecond(d.PerSecond))
	}
	return t
}

func latencyTable(r *bench.Report) *table {
	t := newTable(">on the way", ">body", ">p50 ms", ">p99 ms")
	for _, l := range r.Latency {
		t.add(l.Publishers, l.Size, ms(l.P50), ms(l.P99))
	}
	return t
}

func scaleTable(r *bench.Report) *table {
	t := newTable("of", ">few", ">many", ">few/s", ">many/s", ">cost")
	for _, s := range r.Scale {
		t.add(s.Of, perSecond(float64(s.Few)), perSecond(float64(s.Many)), perSecond(s.FewPerSec),
			perSecond(s.ManyPerSec), ratio(s.Cost))
	}
	return t
}

func benchFacts(m *bench.Machine) string {
	text := fmt.Sprintf("%s %s/%s, GOMAXPROCS %d of %s, file system: %s", m.Go, m.OS, m.Arch,
		m.GOMAXPROCS, count(m.CPUs, "CPU"), m.FileSystem)
	if m.Seed != 0 {
		text += fmt.Sprintf(", seed %d", m.Seed)
	}
	if m.FileSystem == "memory" {
		text += "\nThe directory lies in memory, where a sync costs nothing: these figures say " +
			"little. Give --dir on a disk."
	}
	return text
}

func ms(v float64) string { return fmt.Sprintf("%.2f", v) }

// ratio is a ratio, or "-" where there was nothing to compare with.
func ratio(v float64) string {
	if v == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", v)
}

// perSecond is a rate with thousands apart.
func perSecond(v float64) string {
	n := int64(math.Round(v))
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return perSecond(float64(n/1000)) + fmt.Sprintf(",%03d", n%1000)
}

// handOuts is a map of counts as a text, in the order of the names.
func handOuts(m map[ackwise.Cause]int64) string {
	var parts []string
	for cause, n := range m {
		parts = append(parts, fmt.Sprintf("%s %s", cause, perSecond(float64(n))))
	}
	slices.Sort(parts)
	return dash(strings.Join(parts, ", "))
}
