package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The judges of the runs past one process. Each holds lists that were recorded against each other
// and says what is wrong; TestScaleJudges shows each of them what it must see.

// causes are the words that a delivery may carry here.
func causes() []string {
	return []string{"first", "failed", "snoozed", "released", "rebalanced", "consumer-lost"}
}

// sentAs is a message that was published.
type sentAs struct {
	key string
	seq int // its place among those of its key
}

// effect is a row that a message left in the database.
type effect struct {
	id, key    string
	seq, place int // what it says, and the how manieth effect of its key it was
}

// findings are what is wrong, with a count for each kind and the first that show it.
type findings struct {
	kinds []string
	count map[string]int
	shown map[string][]string
}

func (f *findings) add(kind, format string, a ...any) {
	if f.count == nil {
		f.count, f.shown = map[string]int{}, map[string][]string{}
	}
	if f.count[kind]++; f.count[kind] == 1 {
		f.kinds = append(f.kinds, kind)
	}
	if f.count[kind] <= 5 {
		f.shown[kind] = append(f.shown[kind], fmt.Sprintf(format, a...))
	}
}

// lines says it all.
func (f *findings) lines() []string {
	var all []string
	for _, kind := range f.kinds {
		all = append(all, fmt.Sprintf("%s: %d: %s", kind, f.count[kind],
			strings.Join(f.shown[kind], "; ")))
	}
	return all
}

// judgeEffects checks that each message has one effect, in the order of its key, and that the
// accounts are those of a clean computation.
func judgeEffects(sent map[string]sentAs, rows []effect, accounts map[string]int) *findings {
	f := &findings{}
	times := map[string]int{}
	for _, e := range rows {
		if times[e.id]++; times[e.id] > 1 {
			f.add("doubled", "%s of %s", e.id, e.key)
		}
		if want, ok := sent[e.id]; !ok || want != (sentAs{e.key, e.seq}) {
			f.add("foreign", "%s of %s, number %d", e.id, e.key, e.seq)
		}
		if e.seq != e.place {
			f.add("out of order", "%s is number %d of %s and came as number %d", e.id, e.seq, e.key,
				e.place)
		}
	}
	clean := map[string]int{}
	for id, m := range sent {
		clean[m.key]++
		if times[id] == 0 {
			f.add("lost", "%s, number %d of %s", id, m.seq, m.key)
		}
	}
	for key, n := range accounts {
		if n != clean[key] {
			f.add("wrong account", "%s has %d, want %d", key, n, clean[key])
		}
	}
	for key, n := range clean {
		if _, ok := accounts[key]; !ok {
			f.add("wrong account", "%s has none, want %d", key, n)
		}
	}
	return f
}

// handOut is one hand-out of a message to a member, as its records tell it.
type handOut struct {
	member, id, key string
	copied          bool // it is of the copy that the producer published again
	attempt         int
	cause           string
	from, to        int64  // of the machine's clock; to 0 = it has not ended
	begun           string // the cause that the handler saw; "" = it never had it
	work            string // what the handler said: done, again, failed or ""
	// end is lost, the outcome of its settlement, settled where its process was not told which, or
	// "" where it has not ended.
	end     string
	revoked bool   // the source had asked for it before it ended
	unsure  string // how a settlement was answered of which nobody knows whether it is carried out
}

// which names the record that is handed out.
func (h *handOut) which() string {
	if h.copied {
		return h.id + " (copy)"
	}
	return h.id
}

// handOutsOf reads hand-outs from a member's records.
func handOutsOf(member string, all []record) []*handOut {
	var hs []*handOut
	open := map[string]*handOut{}
	for _, r := range all {
		h := open[r.Token]
		switch r.What {
		case "given", "begin":
			if h == nil {
				h = &handOut{member: member, id: r.ID, key: r.Key, copied: r.Copy,
					attempt: r.Attempt, cause: r.Cause, from: r.At}
				hs, open[r.Token] = append(hs, h), h
			}
			if r.What == "begin" {
				h.begun = r.Cause
			}
		case "done", "again", "failed":
			if h != nil {
				h.work = r.What
			}
		case "unsure":
			if h != nil {
				h.unsure, h.to = r.Outcome+": "+r.Error, r.At
			}
		case "settled", "lost":
			if h != nil && h.end == "" {
				h.end, h.to, h.revoked = cmp.Or(r.Outcome, r.What), r.At, r.Revoked
			}
		}
	}
	return hs
}

// causeJudge holds each hand-out's cause against how the hand-out before ended.
type causeJudge struct {
	findings
	faults []scaleFault
	whole  bool // every hand-out is in the list, with its settlement's outcome

	gaps, unsure           int // hand-outs that nobody recorded; those whose end nobody knows
	rebalanced, moved      int // hand-outs with that cause, and those that had to have it
	beganMoved, endedMoved int // of the first: seen by a handler; given back or lost before
}

// judge goes through all hand-outs.
func (j *causeJudge) judge(hs []*handOut) {
	by := map[string][]*handOut{}
	for _, h := range hs {
		by[h.which()] = append(by[h.which()], h)
		j.one(h)
	}
	for which, list := range by {
		slices.SortFunc(list, func(a, b *handOut) int { return a.attempt - b.attempt })
		for i, h := range list {
			var last *handOut
			if i > 0 {
				last = list[i-1]
			}
			switch {
			case last != nil && last.attempt == h.attempt:
				j.add("one hand-out twice", "%s, attempt %d, at %s and at %s", which, h.attempt,
					last.member, h.member)
			case h.attempt > 1 && (last == nil || last.attempt != h.attempt-1):
				j.gaps++
			case last != nil:
				j.follows(last, h)
			}
		}
	}
}

// one checks what a hand-out alone can tell.
func (j *causeJudge) one(h *handOut) {
	if (h.attempt == 1) != (h.cause == "first") || !slices.Contains(causes(), h.cause) {
		j.add("wrong cause", "%s at %s: attempt %d with cause %s", h.which(), h.member, h.attempt,
			h.cause)
	}
	if h.begun != "" && h.begun != h.cause {
		j.add("wrong cause", "%s at %s: given as %s, handled as %s", h.which(), h.member, h.cause,
			h.begun)
	}
	if h.end == "ack" && h.work != "done" && h.work != "again" {
		j.add("acked and not handled", "%s at %s", h.which(), h.member)
	}
	if h.end == "" && h.unsure != "" {
		j.unsure++
	}
	if h.cause == "rebalanced" {
		j.rebalanced++
		if h.begun != "" {
			j.beganMoved++
		} else if h.end+h.unsure != "" {
			j.endedMoved++
		}
	}
	if killed := j.met(h, "killed"); h.end == "" && h.unsure == "" && !killed &&
		j.whole {
		j.add("never ended", "%s, attempt %d at %s, %s", h.which(), h.attempt, h.member,
			cmp.Or(h.work, "not begun"))
	}
}

// met reports whether a fault met a hand-out's member while the hand-out was open.
func (j *causeJudge) met(h *handOut, kind string) bool {
	return slices.ContainsFunc(j.faults, func(f scaleFault) bool {
		return f.kind == kind && f.member == h.member && (h.to == 0 || f.from <= h.to) &&
			(f.to == 0 || h.from <= f.to)
	})
}

// follows checks the cause of a hand-out by how the one before it ended.
func (j *causeJudge) follows(last, next *handOut) {
	allowed := j.allowed(last, next)
	if len(allowed) == 1 && allowed[0] == "rebalanced" {
		j.moved++
	}
	if slices.Contains(allowed, next.cause) {
		return
	}
	kind := "wrong cause"
	if len(allowed) == 0 {
		kind = "handed out after its end"
	}
	j.add(kind, "%s, attempt %d at %s: %s, after %s (%s, revoked %t) at %s; want %v", next.which(),
		next.attempt, next.member, next.cause, cmp.Or(last.end, "no end"), cmp.Or(last.work,
			"not begun"), last.revoked, last.member, allowed)
}

// allowed are the causes that a hand-out may have after another one. None = there may be no other.
func (j *causeJudge) allowed(last, next *handOut) []string {
	switch last.end {
	case "ack", "dead", "drop":
		return nil
	case "nack":
		return []string{"failed"}
	case "snooze":
		return []string{"snoozed"}
	case "release":
		switch {
		case j.met(last, "stopped"):
			return []string{"released", "rebalanced"}
		case last.revoked:
			return []string{"rebalanced"}
		}
		return []string{"released"}
	case "settled":
		return []string{"failed", "snoozed", "released", "rebalanced"}
	}
	switch {
	case j.met(last, "killed"):
		return []string{"consumer-lost"}
	case last.end == "" && last.unsure != "":
		return []string{"consumer-lost", "rebalanced"}
	case j.met(last, "frozen") || !j.whole || !last.revoked && last.end != "":
		// Its session ran out, or the partition came back to it before anybody else had it.
		if next.member == last.member || !j.whole {
			return []string{"consumer-lost", "rebalanced"}
		}
		return []string{"consumer-lost"}
	}
	return []string{"rebalanced"}
}

// judgeMemory checks that a handler is called again for an effect that is complete only where its
// process could not say so: it was killed or frozen meanwhile, lost the delivery or failed.
func judgeMemory(hs []*handOut, faults []scaleFault) *findings {
	f, j := &findings{}, causeJudge{faults: faults}
	before := map[string]bool{} // by ID: it may have been left without a completion
	for _, h := range hs {
		if h.begun != "" && (h.end == "" || h.end == "lost" || h.work == "failed" ||
			h.cause == "failed" || j.met(h, "killed") || j.met(h, "frozen")) {
			before[h.id] = true
		}
	}
	for _, h := range hs {
		if h.work == "again" && !before[h.id] {
			f.add("asked again", "%s, attempt %d at %s, for %s", h.which(), h.attempt, h.member, h.key)
		}
	}
	return f
}

// ledger is what a member's metrics say of a pipeline, and what its handler saw.
type ledger struct {
	member           string
	killed           bool
	handled, metrics map[string]int // hand-outs by cause
	settled          map[string]int // by outcome
	lost             int
}

// balance says how many hand-outs a ledger has, and how many of them ended: each is settled or
// lost, and none is both.
func (l *ledger) balance() (handOuts, ended int) {
	for _, n := range l.metrics {
		handOuts += n
	}
	for _, n := range l.settled {
		ended += n
	}
	return handOuts, ended + l.lost
}

// judgeLedgers checks that the metrics hold every hand-out that the handlers saw, by cause; that
// each has ended; that what members gave back is handed out again as released or rebalanced, each
// once; and that there are as many as there have to be, but for those that are hidden.
func judgeLedgers(all []ledger, published, total, hidden int) *findings {
	f := &findings{}
	counted, first, back, again := 0, 0, 0, 0
	for _, l := range all {
		for cause, n := range l.handled {
			if l.metrics[cause] < n && !l.killed {
				f.add("not counted", "%s: the handler saw %d deliveries with cause %s, the metrics "+
					"have %d", l.member, n, cause, l.metrics[cause])
			}
		}
		for cause, n := range l.metrics {
			if n > 0 && !slices.Contains(causes(), cause) {
				f.add("wrong cause", "%s: %d deliveries with cause %s", l.member, n, cause)
			}
		}
		handOuts, ended := l.balance()
		if counted += handOuts; handOuts != ended && !l.killed {
			f.add("out of balance", "%s: %d hand-outs, of which %d were settled or lost", l.member,
				handOuts, ended)
		}
		first += l.metrics["first"]
		back += l.settled["release"]
		again += l.metrics["released"] + l.metrics["rebalanced"]
	}
	if missing := published - first; missing < 0 || missing > hidden {
		f.add("first hand-outs", "%d of %d messages", first, published)
	}
	if missing := total - counted; total > 0 && (missing < 0 || missing > hidden) {
		f.add("hand-outs", "there were %d, the metrics have %d", total, counted)
	}
	if back != again {
		f.add("given back", "%d were given back, %d handed out as released or rebalanced", back, again)
	}
	return f
}
