package main

import (
	"fmt"

	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/internal/demo"
)

type benchGuaranteesCmd struct {
	Dir         string `placeholder:"DIR" help:"Measure in DIR. Default: the system's own."`
	Messages    int    `default:"5000" help:"Messages of each measurement."`
	Keys        int    `default:"1000" help:"Keys that they belong to, in order by key."`
	Concurrency int    `default:"16" help:"Handlers at once."`
	Rounds      int    `default:"3" help:"Repetitions of each; the median counts."`
	jsonFlag
}

// Help is printed under the usage.
func (c *benchGuaranteesCmd) Help() string {
	return "Measures what each guarantee and pattern costs beside at-least-once, with nothing going " +
		"wrong: the same messages through the engine and the loop, the same effect, a durable sum " +
		"by key. p99 goes from the hand-out until effect and settlement are both there. A sum that " +
		"is not exact ends the run. --json prints the machine, messages, rounds, concurrency, and " +
		"guarantees: a list of guarantee, pattern, messages_per_s, relative, p99_ms, p99_relative."
}

// guaranteeReport is what the run has measured.
type guaranteeReport struct {
	bench.Machine
	Messages    int               `json:"messages"`
	Rounds      int               `json:"rounds"`
	Concurrency int               `json:"concurrency"`
	Guarantees  []bench.Guarantee `json:"guarantees"`
}

// Run measures.
func (c *benchGuaranteesCmd) Run(a *app) error {
	if c.Messages < 1 || c.Keys < 1 || c.Concurrency < 1 || c.Rounds < 1 {
		return usagef("--messages, --keys, --concurrency, --rounds: at least one is needed of each")
	}
	tell, stop := benchProgress(a)
	step := 0.0
	rows, err := bench.RunGuarantees(a.ctx, bench.GuaranteeOptions{Dir: c.Dir,
		Messages: c.Messages, Keys: c.Keys, Concurrency: c.Concurrency, Rounds: c.Rounds,
		Progress: func(what string) {
			tell(what, step/float64(4*c.Rounds+1))
			step++
		}})
	stop()
	if err != nil {
		return benchError(err)
	}
	r := guaranteeReport{bench.ThisMachine(c.Dir), c.Messages, c.Rounds, c.Concurrency, rows}
	if c.JSON {
		return writeJSON(a.out, r)
	}
	if _, err := fmt.Fprintf(a.out, "%s\nMedian of %s of %s, %s at once\n\nWhat a guarantee costs "+
		"without faults, relative to plain at-least-once\n", benchFacts(&r.Machine),
		count(r.Rounds, "round"), count(r.Messages, "message"),
		count(r.Concurrency, "handler")); err != nil {
		return err
	}
	return costTable(&demo.Report{Cost: rows}).write(a.out, "nothing measured")
}
