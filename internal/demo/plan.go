package demo

import (
	"math/rand/v2"
	"slices"
)

// faultKind is what the plan does to a consumer.
type faultKind uint8

const (
	killing faultKind = iota
	leaving
)

// fault is done once so many deliveries of the run have begun.
type fault struct {
	kind   faultKind
	after  int
	victim int // which consumer, modulo how many there are
}

// plan is what goes wrong in one run. It depends on the seed, the run and the input alone.
type plan struct {
	faults    []fault         // by after
	fails     map[string]bool // IDs whose handler fails until they are redriven
	withholds map[string]bool // IDs whose ack comes too late
	unheard   map[int]bool    // batches whose producer does not hear the answer
}

// The least that a run has of each fault, however few the flights are.
const (
	minKills     = 3
	minLeaves    = 1
	minUnheard   = 2
	minFailing   = 4
	minWithheld  = 8
	moreOrLess   = 3 // up to so many kills less one, and so many leaves less one, come on top
	flightsAFail = 400
	flightsAnAck = 600
)

// newPlan plans a run. What comes before the handler cannot be tried again, so that at-most-once
// has neither failures nor lost acks.
func newPlan(seed uint64, run int, flights []Flight, retries bool) plan {
	r := rand.New(rand.NewPCG(seed, uint64(run)))
	p := plan{fails: map[string]bool{}, withholds: map[string]bool{}, unheard: map[int]bool{}}
	for range minKills + r.IntN(moreOrLess) {
		p.faults = append(p.faults, fault{killing, between(r, len(flights), 8, 85), r.IntN(8)})
	}
	for range minLeaves + r.IntN(moreOrLess) {
		p.faults = append(p.faults, fault{leaving, between(r, len(flights), 8, 85), r.IntN(8)})
	}
	slices.SortStableFunc(p.faults, func(a, b fault) int { return a.after - b.after })
	batches := (len(flights) + batchSize - 1) / batchSize
	for n := minUnheard + r.IntN(moreOrLess); len(p.unheard) < min(n, batches); {
		p.unheard[r.IntN(batches)] = true
	}
	if !retries {
		return p
	}
	fails := max(minFailing, len(flights)/flightsAFail) + r.IntN(moreOrLess)
	withholds := max(minWithheld, len(flights)/flightsAnAck) + r.IntN(moreOrLess)
	for range 100 * (fails + withholds) { // bounded, also for an input with too few to choose from
		f := &flights[between(r, len(flights), 2, 80)]
		if len(p.withholds)%2 == 1 { // behind all kills, which would overtake the late ack
			f = &flights[between(r, len(flights), 92, 98)]
		}
		switch {
		case f.Key == "" || f.Flown() == 0 || p.fails[f.ID] || p.withholds[f.ID]:
		case len(p.fails) < fails:
			p.fails[f.ID] = true
		case len(p.withholds) < withholds:
			p.withholds[f.ID] = true
		}
	}
	return p
}

// between draws a number between two percentages of n.
func between(r *rand.Rand, n, from, to int) int {
	return n*from/100 + r.IntN(max(1, n*(to-from)/100))
}

func (p *plan) count(kind faultKind) int {
	n := 0
	for _, f := range p.faults {
		if f.kind == kind {
			n++
		}
	}
	return n
}
