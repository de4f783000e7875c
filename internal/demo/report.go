package demo

import (
	"fmt"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/queue"
)

// Report is what a demo has seen.
type Report struct {
	Events     int                     `json:"events"`
	TruthMiles int64                   `json:"truth_miles"`
	Seed       uint64                  `json:"seed"`
	Kills      int64                   `json:"kills"`
	Injected   Faults                  `json:"injected"`
	Runs       []RunReport             `json:"runs"`
	Shuffled   []ShuffledReport        `json:"shuffled"`
	Cost       []bench.Guarantee       `json:"cost"`
	Causes     map[ackwise.Cause]int64 `json:"causes"`
	Order      Order                   `json:"order"`
	Ledger     Ledger                  `json:"ledger"`

	// Counted is what the engine and the log source counted of the injected faults: for kills and
	// rebalances the messages that were handed out again because of them.
	Counted Faults `json:"-"`
	// Shared is the leg of the two members that share a log.
	Shared RunReport `json:"-"`
	// Withheld counts the acks that were not sent in time. Of them Injected.AcksLost were refused;
	// the others' consumers ended first, or they were still taken. Unsure are acks that the engine
	// may have counted beyond these: their consumer was killed, or closed, while one was on its way,
	// or nobody had withheld them and the machine was too busy to send them in time.
	Withheld, Unsure int64 `json:"-"`
	// Broken says which promises were broken; empty = none.
	Broken []string `json:"-"`

	keys map[string]bool
}

// Faults counts the faults that were made outside the engine.
type Faults struct {
	Kills         int64 `json:"kills"`          // processes, each with a delivery at work
	AcksLost      int64 `json:"acks_lost"`      // acks that came too late
	ProducedAgain int64 `json:"produced_again"` // messages that a producer repeated
	Requeued      int64 `json:"requeued"`       // dead letters
	Rebalanced    int64 `json:"rebalanced"`     // consumers that left, partitions that moved

	withheld, unsure int64
}

func (f *Faults) add(g Faults) {
	f.Kills += g.Kills
	f.AcksLost += g.AcksLost
	f.ProducedAgain += g.ProducedAgain
	f.Requeued += g.Requeued
	f.Rebalanced += g.Rebalanced
	f.withheld += g.withheld
	f.unsure += g.unsure
}

// RunReport is one run, by what its consumers wrote.
type RunReport struct {
	Guarantee  string `json:"guarantee"`
	Pattern    string `json:"pattern"`
	Delivered  int    `json:"delivered"`
	Lost       int    `json:"lost"`
	Duplicates int    `json:"duplicates"`
	Miles      int64  `json:"miles"`
	Exact      bool   `json:"exact"`
	Repeated   int    `json:"-"` // effects beyond a flight's first
	Overtaken  int    `json:"-"` // effects after one of a later flight of their aircraft
	Wrong      int    `json:"-"` // values of the run's table that are not what they should be
}

// ShuffledReport is one run of the flights in another order than theirs, whose effect is where each
// aircraft is by what came last.
type ShuffledReport struct {
	Resequencer bool `json:"resequencer"` // their order was repaired
	Lost        int  `json:"lost"`        // flights without an effect
	Exact       bool `json:"exact"`       // every aircraft is where its last flight ended

	Delivered  int   `json:"-"`
	OutOfOrder int   `json:"-"` // deliveries that came before one of an earlier flight
	Wrong      int   `json:"-"` // aircraft that are said to be elsewhere
	Kills      int64 `json:"-"` // consumers, at work
}

// Order says how well the order of the keys was kept.
type Order struct {
	Keys       int `json:"keys"`
	Violations int `json:"violations"`
}

// Ledger is the engine's books over all runs.
type Ledger struct {
	Accepted int64 `json:"accepted"`
	Acked    int64 `json:"acked"`
	Ready    int64 `json:"ready"`
	Delayed  int64 `json:"delayed"`
	InFlight int64 `json:"in_flight"`
	Parked   int64 `json:"parked"`
	Dead     int64 `json:"dead"`
	Dropped  int64 `json:"dropped"`
	Balanced bool  `json:"balanced"`
}

func (l *Ledger) add(b *queue.Books) {
	l.Accepted += b.Accepted
	l.Acked += b.Acked
	l.Ready += b.Ready
	l.Delayed += b.Delayed
	l.InFlight += b.InFlight
	l.Parked += b.Parked
	l.Dead += b.Dead
	l.Dropped += b.Dropped
	l.Balanced = l.Balanced && b.Balanced()
}

func newReport(seed uint64, flights []Flight) *Report {
	r := &Report{Events: len(flights), TruthMiles: Sum(flights), Seed: seed,
		Causes: map[ackwise.Cause]int64{}, Ledger: Ledger{Balanced: true},
		keys: map[string]bool{}}
	for _, c := range ackwise.Causes() {
		r.Causes[c] = 0
	}
	return r
}

// add adds a finished run.
func (r *Report) add(n *run) {
	r.Runs = append(r.Runs, r.fold(n))
	r.Kills = r.Injected.Kills
	for c, count := range n.books.Causes {
		r.Causes[c] += count
	}
	r.Causes[ackwise.CauseProducedAgain] += n.told.ProducedAgain
	r.Ledger.add(&n.books)
	r.Counted.Kills += n.books.Causes[ackwise.CauseConsumerLost]
	r.Counted.AcksLost += n.books.Causes[ackwise.CauseAckLost]
	r.Counted.ProducedAgain += n.told.ProducedAgain
	r.Counted.Requeued += n.books.Causes[ackwise.CauseRedriven]
	r.Counted.Rebalanced += n.books.Causes[ackwise.CauseRebalanced]
}

// addShared adds the leg of the shared log. Its messages are not the engine's, so of its hand-outs
// only those beyond the first are added: first stays what the engine accepted.
func (r *Report) addShared(n *run, handed map[ackwise.Cause]int64) {
	r.Shared = r.fold(n)
	for c, count := range handed {
		if c != ackwise.CauseFirst {
			r.Causes[c] += count
		}
	}
	r.Counted.Rebalanced += handed[ackwise.CauseRebalanced]
}

func (r *Report) fold(n *run) RunReport {
	r.Injected.add(n.did)
	r.Withheld, r.Unsure = r.Injected.withheld, r.Injected.unsure
	if n.ordered() {
		r.Order.Violations += n.verdict.violations
	}
	for key := range n.verdict.keys {
		r.keys[key] = true
	}
	r.Order.Keys = len(r.keys)
	if n.verdict.strangers > 0 {
		r.broken("%d deliveries of what was never published", n.verdict.strangers)
	}
	return RunReport{Guarantee: n.guarantee.String(), Pattern: n.pattern,
		Delivered: n.verdict.delivered, Lost: n.verdict.lost, Duplicates: n.verdict.duplicates,
		Miles: n.verdict.miles, Repeated: n.verdict.repeated, Overtaken: n.verdict.overtaken,
		Wrong: n.verdict.wrong, Exact: n.verdict.lost == 0 && n.verdict.wrong == 0 &&
			(n.verdict.repeated == 0 || keyed(n.pattern)) && n.verdict.miles == Sum(n.flights)}
}

func (r *Report) broken(format string, args ...any) {
	r.Broken = append(r.Broken, fmt.Sprintf(format, args...))
}
