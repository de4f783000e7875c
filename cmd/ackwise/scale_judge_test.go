package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// causes are the words that a delivery may carry here.
func causes() []string {
	return []string{"first", "failed", "snoozed", "released", "rebalanced", "consumer-lost"}
}

// judge holds what a pipeline did against what was published.
type judge struct {
	t    *testing.T
	f    *fleet
	pool *pgxpool.Pool
	pipe string
	sent map[string]int // by ID: its place among those of its key
}

// effects checks that each message has one effect, in the order of its key.
func (j *judge) effects() {
	j.t.Helper()
	rows, err := j.pool.Query(j.t.Context(), "SELECT id, key, seq, place FROM "+
		j.f.cfg.Tables+"_effect WHERE pipeline = $1", j.pipe)
	if err != nil {
		j.t.Fatal(err)
	}
	got := map[string]int{}
	doubled, foreign, disordered := 0, 0, 0
	var id, key string
	var seq, place int
	if _, err := pgx.ForEachRow(rows, []any{&id, &key, &seq, &place}, func() error {
		if got[id]++; got[id] > 1 {
			doubled++
		}
		if want, ok := j.sent[id]; !ok || want != seq {
			foreign++
		}
		if seq != place {
			disordered++
		}
		return nil
	}); err != nil {
		j.t.Fatal(err)
	}
	lost := 0
	for id := range j.sent {
		if got[id] == 0 {
			lost++
		}
	}
	if lost+doubled+foreign+disordered > 0 {
		j.t.Errorf("%s: of %d messages %d are lost, %d have more than one effect, %d are not the "+
			"ones that were sent, %d are not in the order of their key", j.pipe, len(j.sent), lost,
			doubled, foreign, disordered)
	}
	j.t.Logf("%-11s %d messages: %d lost, %d doubled, %d out of order", j.pipe, len(j.sent), lost,
		doubled, disordered)
}

// books checks that the members' metrics hold every hand-out that the handlers saw, by cause, and
// that together they are as many as there were. full: each hand-out that ends a message is seen by
// a handler, so that the highest attempt of a message is how often it was handed out.
func (j *judge) books(full bool) {
	j.t.Helper()
	highest, times := map[string]int{}, map[string]int{}
	seen := map[string]map[string]int{} // by member and cause
	handOuts := map[string]int{}        // of attempts, to find one that was given twice
	for _, m := range j.f.all {
		seen[m.name] = map[string]int{}
		for _, r := range m.records(j.pipe) {
			if r.What != "begin" {
				continue
			}
			seen[m.name][r.Cause]++
			highest[r.ID] = max(highest[r.ID], r.Attempt)
			times[r.ID]++
			handOuts[fmt.Sprint(r.ID, " ", r.Attempt)]++
			if (r.Attempt == 1) != (r.Cause == "first") {
				j.t.Errorf("%s: %s has attempt %d with cause %s", m.name, r.ID, r.Attempt, r.Cause)
			}
		}
	}
	for which, n := range handOuts {
		if n > 1 {
			j.t.Errorf("%s: the hand-out %s was given %d times", j.pipe, which, n)
		}
	}
	all, unseen := 0, 0
	for id, n := range highest {
		all += n
		unseen += n - times[id]
	}
	j.causes(seen)
	alive, killed := 0, 0
	for _, c := range causes() {
		a, k := j.f.sum("deliveries_total", j.pipe, c)
		alive, killed = alive+a, killed+k
	}
	// What a member got after it was last asked, before it was killed or while it was frozen, is in
	// no metrics.
	hidden := all - alive - killed
	j.t.Logf("%-11s %d hand-outs, %d of them not begun by a handler; metrics: %d of the living, %d "+
		"of the killed, %d unasked", j.pipe, all, unseen, alive, killed, hidden)
	if most := j.f.faults * j.f.held; full && (hidden < 0 || hidden > most) {
		j.t.Errorf("%s: there were %d hand-outs, and metrics of %d: at most %d may be missing", j.pipe,
			all, alive+killed, most)
	}
}

// causes holds the causes that each living member's handler saw against its metrics: those that are
// in the metrics alone were given back before the handler had them.
func (j *judge) causes(seen map[string]map[string]int) {
	j.t.Helper()
	for _, m := range j.f.all {
		var row strings.Builder
		for _, c := range causes() {
			n := m.seen[series{"deliveries_total", j.pipe, c}]
			fmt.Fprintf(&row, " %s %d/%d", c, seen[m.name][c], n)
			if n < seen[m.name][c] && !m.killed {
				j.t.Errorf("%s, %s: the handler saw %d deliveries with cause %s, the metrics %d",
					j.pipe, m.name, seen[m.name][c], c, n)
			}
		}
		settled := func(outcome string) int {
			return m.seen[series{"settled_total", j.pipe, outcome}]
		}
		j.t.Logf("%-11s %s handler/metrics:%s; acked %d, released %d, lost %d", j.pipe, m.name, &row,
			settled("ack"), settled("release"), m.seen[series{"lease_expiries_total", j.pipe, ""}])
		if handOuts, ended := m.balance(j.pipe); handOuts != ended && !m.killed {
			j.t.Errorf("%s, %s: %d hand-outs, of which %d were settled or lost", j.pipe, m.name,
				handOuts, ended)
		}
		for key := range m.seen {
			if key.name == "deliveries_total" && key.pipeline == j.pipe &&
				!strings.Contains(strings.Join(causes(), " "), key.label) {
				j.t.Errorf("%s, %s: %d deliveries with cause %s", j.pipe, m.name, m.seen[key],
					key.label)
			}
		}
	}
	alive, killed := j.f.sum("deliveries_total", j.pipe, "first")
	if missing := len(j.sent) - alive - killed; missing < 0 || missing > j.f.faults*j.f.held {
		j.t.Errorf("%s: %d first deliveries of %d messages", j.pipe, alive+killed, len(j.sent))
	}
	for _, c := range []string{"rebalanced", "consumer-lost"} {
		if alive, _ := j.f.sum("deliveries_total", j.pipe, c); alive == 0 {
			j.t.Errorf("%s: no delivery has the cause %s: the fault did not fire", j.pipe, c)
		}
	}
}

// balance says how many hand-outs a member's metrics have, and how many of them ended: each is
// settled or lost, and none is both.
func (m *member) balance(pipe string) (handOuts, ended int) {
	for _, c := range causes() {
		handOuts += m.seen[series{"deliveries_total", pipe, c}]
	}
	ended = m.seen[series{"lease_expiries_total", pipe, ""}]
	for _, o := range []string{"ack", "nack", "snooze", "release", "dead", "drop"} {
		ended += m.seen[series{"settled_total", pipe, o}]
	}
	return handOuts, ended
}
