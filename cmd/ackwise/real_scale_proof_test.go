package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// world is what a good run past one process leaves behind, in small: four messages of two keys and
// a copy; one member is killed, one frozen, one joins and one leaves.
type world struct {
	sent     map[string]sentAs
	rows     []effect
	accounts map[string]int
	hs       []*handOut
	faults   []scaleFault
	whole    bool
	ledgers  []ledger
}

func goodWorld() *world {
	at := func(member, id string, attempt int, cause string) *handOut {
		return &handOut{member: member, id: id, key: "k", attempt: attempt, cause: cause,
			begun: cause, work: "done", end: "ack", from: int64(attempt) * 100,
			to: int64(attempt)*100 + 50}
	}
	open := func(member, id string, attempt int, cause, end string) *handOut {
		h := at(member, id, attempt, cause)
		h.begun, h.work, h.end = "", "", end
		if end == "" {
			h.to = 0
		}
		return h
	}
	w := &world{whole: true,
		sent: map[string]sentAs{"a": {"k", 0}, "b": {"k", 1}, "c": {"l", 0}, "d": {"l", 1}},
		rows: []effect{{"a", "k", 0, 0}, {"b", "k", 1, 1}, {"c", "l", 0, 0},
			{"d", "l", 1, 1}},
		accounts: map[string]int{"k": 2, "l": 2},
		faults: []scaleFault{{"killed", "p0", 120, 0}, {"frozen", "p1", 110, 180},
			{"stopped", "p2", 120, 0}}}
	moved := open("p3", "b", 1, "first", "release")
	moved.revoked = true
	again := at("p3", "a", 1, "first")
	again.copied, again.work = true, "again"
	late := open("p0", "a", 1, "first", "") // killed between its effect and its ack
	late.begun, late.work = "first", "done"
	w.hs = []*handOut{
		late, at("p3", "a", 2, "consumer-lost"), again,
		moved, at("p4", "b", 2, "rebalanced"), // a member joined
		open("p1", "c", 1, "first", "lost"), at("p3", "c", 2, "consumer-lost"), // frozen
		open("p2", "d", 1, "first", "release"), at("p3", "d", 2, "released"), // it left
	}
	w.ledgers = []ledger{
		{member: "p0", killed: true, metrics: map[string]int{"first": 1}},
		{member: "p1", metrics: map[string]int{"first": 1}, lost: 1},
		{member: "p2", metrics: map[string]int{"first": 1}, settled: map[string]int{"release": 1}},
		{member: "p3", metrics: map[string]int{"first": 2, "consumer-lost": 2, "released": 1},
			handled: map[string]int{"first": 1, "consumer-lost": 2, "released": 1},
			settled: map[string]int{"ack": 4, "release": 1}},
		{member: "p4", metrics: map[string]int{"rebalanced": 1},
			handled: map[string]int{"rebalanced": 1}, settled: map[string]int{"ack": 1}},
	}
	return w
}

// find finds a hand-out.
func (w *world) find(member, id string, attempt int) *handOut {
	for _, h := range w.hs {
		if h.member == member && h.id == id && h.attempt == attempt && !h.copied {
			return h
		}
	}
	panic("there is no such hand-out")
}

// verdict is what all judges say.
func (w *world) verdict() string {
	j := &causeJudge{faults: w.faults, whole: w.whole}
	j.judge(w.hs)
	all := slices.Concat(judgeEffects(w.sent, w.rows, w.accounts).lines(), j.lines(),
		judgeMemory(w.hs, w.faults).lines(), judgeLedgers(w.ledgers, 5, 9, 0).lines())
	if j.gaps > 0 {
		all = append(all, fmt.Sprintf("gaps: %d", j.gaps))
	}
	return strings.Join(all, "\n")
}

// TestScaleJudges shows each judge of the runs past one process a good run, and each fault that it
// is there to see.
func TestScaleJudges(t *testing.T) {
	if got := goodWorld().verdict(); got != "" {
		t.Fatalf("a good run: %s", got)
	}
	for name, c := range badWorlds() {
		t.Run(name, func(t *testing.T) {
			w := goodWorld()
			c.spoil(w)
			if got := w.verdict(); !strings.Contains(got, c.want) {
				t.Errorf("the judges say %q, want %q", got, c.want)
			}
		})
	}
}

// badWorld is a run with a fault.
type badWorld struct {
	want  string
	spoil func(w *world)
}

func badWorlds() map[string]badWorld {
	all := badEffects()
	maps.Copy(all, badHandOuts())
	maps.Copy(all, badLedgers())
	return all
}

func badEffects() map[string]badWorld {
	return map[string]badWorld{
		"a message is lost": {"lost: 1: d, number 1 of l", func(w *world) {
			w.rows, w.accounts["l"] = w.rows[:3], 1
		}},
		"an effect is doubled": {"doubled: 1: d of l", func(w *world) {
			w.rows, w.accounts["l"] = append(w.rows, effect{"d", "l", 1, 2}), 3
		}},
		"an effect is doubled on the account alone": {"wrong account: 1: l has 3, want 2",
			func(w *world) { w.accounts["l"] = 3 }},
		"an account is missing": {"wrong account: 1: l has none", func(w *world) {
			delete(w.accounts, "l")
		}},
		"a message nobody sent": {"foreign: 1: x of l", func(w *world) {
			w.rows = append(w.rows, effect{"x", "l", 2, 2})
		}},
		"a message of another key": {"foreign: 1: d of k", func(w *world) { w.rows[3].key = "k" }},
		"a key out of order": {"out of order: 2: a is number 0 of k and came as number 1",
			func(w *world) { w.rows[0].place, w.rows[1].place = 1, 0 }},
	}
}

func badHandOuts() map[string]badWorld {
	cause := func(member, id, cause string) func(w *world) {
		return func(w *world) {
			h := w.find(member, id, 2)
			h.cause, h.begun = cause, cause
		}
	}
	return map[string]badWorld{
		"rebalanced is taken for released":      {"wrong cause: 1: b", cause("p4", "b", "released")},
		"rebalanced is taken for consumer-lost": {"wrong cause: 1: b", cause("p4", "b", "consumer-lost")},
		"a kill is taken for rebalanced":        {"wrong cause: 1: a", cause("p3", "a", "rebalanced")},
		"a frozen one is taken for rebalanced":  {"wrong cause: 1: c", cause("p3", "c", "rebalanced")},
		"a release is taken for a kill":         {"wrong cause: 1: d", cause("p3", "d", "consumer-lost")},
		"no cause":                              {"wrong cause: 2: b", cause("p4", "b", "unknown")},
		"a redelivery is taken for the first":   {"wrong cause: 2: b", cause("p4", "b", "first")},
		"the handler sees another cause": {"given as rebalanced, handled as released",
			func(w *world) { w.find("p4", "b", 2).begun = "released" }},
		"a hand-out is counted twice": {"one hand-out twice: 1: b, attempt 1", func(w *world) {
			h := w.find("p4", "b", 2)
			h.attempt, h.cause, h.begun = 1, "first", "first"
		}},
		"a hand-out is not counted": {"gaps: 1", func(w *world) {
			w.find("p4", "b", 2).attempt = 3
		}},
		"it comes again after its ack": {"handed out after its end: 1: b, attempt 3",
			func(w *world) {
				h := *w.find("p4", "b", 2)
				h.attempt = 3
				w.hs = append(w.hs, &h)
			}},
		"it is acked without a handler": {"acked and not handled: 1: b", func(w *world) {
			h := w.find("p4", "b", 2)
			h.begun, h.work = "", ""
		}},
		"it is acked after its handler failed": {"acked and not handled: 1: b", func(w *world) {
			w.find("p4", "b", 2).work = "failed"
		}},
		"a living member never ends it": {"never ended: 1: b", func(w *world) {
			h := w.find("p4", "b", 2)
			h.end, h.to = "", 0
		}},
		"after an ack of unknown end it is released": {"wrong cause: 1: d", func(w *world) {
			h := w.find("p2", "d", 1)
			h.end, h.unsure, h.member = "", "ack: cut off", "p4"
		}},
		"a failure is taken for rebalanced": {"wrong cause: 1: b", func(w *world) {
			w.find("p3", "b", 1).end = "nack"
		}},
		"in handlers' records alone, a kill is taken for rebalanced": {"wrong cause: 1: a",
			func(w *world) {
				w.whole = false
				cause("p3", "a", "rebalanced")(w)
			}},
		"a completed effect is asked for again": {"asked again: 1: b", func(w *world) {
			w.find("p4", "b", 2).work = "again"
		}},
	}
}

func badLedgers() map[string]badWorld {
	return map[string]badWorld{
		"rebalanced is not counted": {"not counted: 1: p4: the handler saw 1 deliveries with cause " +
			"rebalanced, the metrics have 0", func(w *world) { delete(w.ledgers[4].metrics, "rebalanced") }},
		"rebalanced is counted nowhere": {"given back: 1: 2 were given back, 1 handed out",
			func(w *world) { w.ledgers[4].metrics, w.ledgers[4].handled = nil, nil }},
		"a cause that cannot be": {"wrong cause: 1: p4: 1 deliveries with cause unknown",
			func(w *world) { w.ledgers[4].metrics = map[string]int{"unknown": 1} }},
		"a hand-out that does not end": {"out of balance: 1: p4: 1 hand-outs, of which 0",
			func(w *world) { w.ledgers[4].settled = nil }},
		"a first hand-out too few": {"first hand-outs: 1: 4 of 5", func(w *world) {
			w.ledgers[1].metrics["first"]--
		}},
		"a first hand-out too many": {"first hand-outs: 1: 6 of 5", func(w *world) {
			w.ledgers[1].metrics["first"]++
		}},
		"a hand-out that no metrics have": {"hand-outs: 1: there were 9, the metrics have 8",
			func(w *world) { w.ledgers[3].metrics["consumer-lost"]-- }},
	}
}
