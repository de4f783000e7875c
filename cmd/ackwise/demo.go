package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/demo"
)

type demoCmd struct {
	Dir  string  `placeholder:"DIR" help:"Make the store in DIR, which has to be missing or empty, and keep it. Default: a temporary directory."`
	Seed *uint64 `placeholder:"N" help:"Make the same plan of faults as the run that printed N. Default: random."`
	jsonFlag
}

// Help is printed under the usage.
func (c *demoCmd) Help() string {
	return "Runs the 27,004 departures from New York in January 2013 through the engine, once for " +
		"each guarantee and pattern, and adds up the miles, while consumer processes are killed " +
		"and leave, acks and answers get lost, and dead letters come back. What was delivered, " +
		"lost and added up is judged by what the consumers wrote themselves, and by the tables " +
		"that they wrote to. Then in a shuffled order, without and with a resequencer; and " +
		"without faults, to measure what each guarantee costs. It takes less than a minute. Exit " +
		"code 3 where a promise was broken. With --dir, audit and verify show the books " +
		"afterwards."
}

// Run shows the three guarantees.
func (c *demoCmd) Run(a *app) error {
	o := demo.Options{Dir: c.Dir, Logger: a.logger(), Seed: rand.Uint64N(1_000_000)}
	if c.Seed != nil {
		o.Seed = *c.Seed
	}
	var at atomic.Pointer[demo.Progress]
	at.Store(&demo.Progress{Run: "starting"})
	o.Progress = func(p demo.Progress) { at.Store(&p) }
	shown := a.progress(func() string {
		p := at.Load()
		return fmt.Sprintf("seed %d  %-25s  %s of %s delivered, %s", o.Seed, p.Run,
			thousands(int64(p.Delivered)), thousands(int64(p.Of)), count(p.Kills, "kill"))
	})
	r, err := demo.Run(a.ctx, o)
	shown.stop()
	var invalid *ackwise.InvalidError
	switch {
	case errors.As(err, &invalid) && invalid.Field == "dir":
		return usage(err, "")
	case err != nil:
		return fmt.Errorf("demo with --seed %d: %w", o.Seed, err)
	}
	return c.show(a, r)
}

// show prints a report. A promise that was broken is a finding.
func (c *demoCmd) show(a *app, r *demo.Report) error {
	write := writeDemo
	if c.JSON {
		write = func(a *app, r *demo.Report) error { return writeJSON(a.out, r) }
	}
	err := write(a, r)
	if err == nil && len(r.Broken) > 0 {
		return finding(fmt.Errorf("demo with --seed %d: broken: %s", r.Seed,
			strings.Join(r.Broken, "; ")))
	}
	return err
}

func writeDemo(a *app, r *demo.Report) error {
	runs := newTable("guarantee", "pattern", ">delivered", ">duplicates", ">lost",
		">applied again", ">miles", ">off by", "sum")
	for _, n := range r.Runs {
		sum := "wrong"
		if n.Exact {
			sum = "exact"
		}
		runs.add(n.Guarantee, n.Pattern, thousands(int64(n.Delivered)),
			thousands(int64(n.Duplicates)), thousands(int64(n.Lost)),
			thousands(int64(n.Repeated)), thousands(n.Miles), thousands(n.Miles-r.TruthMiles), sum)
	}
	again := newTable("source of duplicates", "cause", ">repeats")
	for _, c := range ackwise.Causes() {
		if n := r.Causes[c]; n > 0 && c != ackwise.CauseFirst {
			again.add(dash(c.DuplicateSource()), c, thousands(n))
		}
	}
	shuffled := newTable("resequencer", ">delivered", ">out of order", ">lost",
		">aircraft elsewhere", "state")
	for _, s := range r.Shuffled {
		state := "wrong"
		if s.Exact {
			state = "exact"
		}
		shuffled.add(yesNo(s.Resequencer), thousands(int64(s.Delivered)),
			thousands(int64(s.OutOfOrder)), thousands(int64(s.Lost)), thousands(int64(s.Wrong)), state)
	}
	l := r.Ledger
	books := newTable(">accepted", ">acked", ">ready", ">delayed", ">in flight", ">parked",
		">dead", ">dropped", "balanced")
	books.add(thousands(l.Accepted), thousands(l.Acked), l.Ready, l.Delayed, l.InFlight, l.Parked,
		l.Dead, l.Dropped, l.Balanced)
	for _, part := range []struct {
		title string
		table *table
	}{
		{fmt.Sprintf("%s flights, %s miles, seed %d. Each line is all of them through the engine, as "+
			"the\nconsumers' own files tell; exactly-once's sum is what its table holds",
			thousands(int64(r.Events)), thousands(r.TruthMiles), r.Seed), runs},
		{"\nFaults, made outside the engine, beside what it counted", faultTable(r)},
		{"\nThe same flights in a shuffled order: where is each aircraft, by what comes last", shuffled},
		{"\nWhat a guarantee costs without faults: the same effect, a durable sum by key", costTable(r)},
		{"\nRepeats by cause, as the engine counts them (produced-again: at publish)", again},
		{fmt.Sprintf("\nThe engine's books over the %d runs", len(r.Runs)), books},
	} {
		if _, err := fmt.Fprintln(a.out, part.title); err != nil {
			return err
		}
		if err := part.table.write(a.out, "nothing"); err != nil {
			return err
		}
	}
	_, err := fmt.Fprint(a.out, demoOrder(r), demoClosing(r))
	return err
}

func faultTable(r *demo.Report) *table {
	in, of := r.Injected, r.Counted
	t := newTable("fault", ">injected", ">counted", "the count")
	t.add("consumers killed at work", thousands(in.Kills), thousands(of.Kills),
		"consumer-lost: all that it held comes again")
	t.add("acks sent too late", thousands(in.AcksLost), thousands(of.AcksLost), fmt.Sprintf(
		"ack-lost, %s (%d withheld, the rest unsent)",
		sameAs(in.AcksLost, of.AcksLost), r.Withheld))
	t.add("messages published again", thousands(in.ProducedAgain), thousands(of.ProducedAgain),
		"produced-again, "+sameAs(in.ProducedAgain, of.ProducedAgain)+"; all were suppressed")
	t.add("dead letters requeued", thousands(in.Requeued), thousands(of.Requeued),
		"redriven, "+sameAs(in.Requeued, of.Requeued))
	t.add("consumers left, partitions moved", thousands(in.Rebalanced), thousands(of.Rebalanced),
		"rebalanced: all that was in flight comes again")
	return t
}

func costTable(r *demo.Report) *table {
	t := newTable("guarantee", "pattern", ">messages/s", ">relative", ">p99", ">relative")
	for _, c := range r.Cost {
		t.add(c.Guarantee, c.Pattern, thousands(int64(c.PerSecond)),
			fmt.Sprintf("%.2f", c.Relative), fmt.Sprintf("%.1f ms", c.P99),
			fmt.Sprintf("%.2f", c.P99Relative))
	}
	return t
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}

func sameAs(injected, counted int64) string {
	if injected == counted {
		return "equal"
	}
	return "not equal"
}

func demoOrder(r *demo.Report) string {
	return fmt.Sprintf("\nOrder: %s aircraft, %s of it. Two members that shared two "+
		"partitions of a\nlog and lost them: %s delivered, %s, %d lost.\n",
		thousands(int64(r.Order.Keys)), count(r.Order.Violations, "violation"),
		thousands(int64(r.Shared.Delivered)), count(r.Shared.Duplicates, "duplicate"),
		r.Shared.Lost)
}

func demoClosing(r *demo.Report) string {
	if len(r.Broken) > 0 {
		return "\nA promise was broken: " + strings.Join(r.Broken, "; ") + ".\n"
	}
	lost, twice := r.Runs[0], r.Runs[1]
	return fmt.Sprintf("\n%s under load: at-most-once lost %s; at-least-once lost none and applied "+
		"%s\nagain, so that its plain sum is wrong. Each of the patterns, and one transaction of "+
		"sum and ack,\nkept it exact through as many repeats.\n",
		count(int(r.Kills), "kill"), count(lost.Lost, "flight"), count(twice.Repeated, "effect"))
}

// thousands is a number with its thousands apart.
func thousands(n int64) string {
	if n < 0 {
		return "-" + thousands(-n)
	}
	return perSecond(float64(n))
}
