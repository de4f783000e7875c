package adaptertest

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// part is one check and what it needs.
type part struct {
	check Check
	// why says why the features exclude the check; "" = they do not.
	why func(h *Harness) string
	// bed says what the place lacks for it; "" = nothing. nil = nothing is needed.
	bed func(b *Bed) string
	run func(r *rig)
}

// parts returns every check.
func parts() []part {
	return []part{
		{AllArrive, either, nil, allArrive},
		{Crash, needsSource, nil, crash},
		{LostAck, needsSource, nil, lostAck},
		{ProducedAgain, needsSink, nil, producedAgain},
		{Requeue, needsSource, nil, requeue},
		{Moving, needsSource, nil, moving},
		{KeyOrder, needsOrder, nil, keyOrder},
		{NackDelay, needsDelay, nil, nackDelay},
		{Extend, needsExtend, nil, extend},
		{Release, needsSource, nil, release},
		{PartialBatch, needsSource, nil, partialBatch},
		{SlowHandler, needsHold, nil, slowHandler},
		{Restart, either, needsServer, restart},
		{Freeze, either, needsServer, freeze},
		{CutReply, either, needsProxy, cutReply},
		{CutBoth, either, needsProxy, cutBoth},
		{UnknownResent, needsSink, nil, unknownResent},
		{CleanStop, needsSource, nil, cleanStop},
		{BackPressure, needsSource, nil, backPressure},
		{PoisonKills, needsCounts, nil, poisonKills},
		{Bodies, needsSink, nil, bodies},
		{Headers, needsSink, nil, headers},
	}
}

// Run runs every check that the features allow, each as a subtest on a Bed of its own. A check that
// they exclude is listed, one of Cannot is skipped with its citation.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if faults := h.faults(); len(faults) > 0 {
		t.Fatalf("the harness %q: %s", h.Name, strings.Join(faults, "; "))
	}
	compareRow(t, &h)
	for _, p := range parts() {
		if why := p.why(&h); why != "" {
			t.Logf("%s: not run: %s", p.check, why)
			continue
		}
		for round := range rounds() {
			t.Run(roundName(p.check, round), func(t *testing.T) {
				if !h.Serial {
					t.Parallel()
				}
				p.try(t, &h)
			})
		}
	}
}

// rounds is how often each check runs: its kills come at other moments each time.
func rounds() int {
	if os.Getenv("ACKWISE_FAULTS") == "long" {
		return 10
	}
	return 1
}

func roundName(c Check, round int) string {
	if round == 0 {
		return string(c)
	}
	return fmt.Sprintf("%s, round %d", c, round+1)
}

// try runs a part on a bed of its own.
func (p *part) try(t *testing.T, h *Harness) {
	bed := h.New(t)
	cite := h.Cannot[p.check]
	if p.bed != nil {
		if lacks := p.bed(bed); lacks != "" {
			t.Skip(strings.TrimPrefix(cite+"; "+lacks, "; "))
		}
	}
	if cite == "" {
		p.run(newRig(t, h, bed))
		return
	}
	// That it really cannot is shown: the check fails. That it has little time can only help that.
	bed.Patience = 2 * time.Second
	faults := p.faults(t, h, bed)
	if len(faults) == 0 {
		t.Fatalf("the check passes: take %q out of Cannot", p.check)
	}
	t.Logf("the check fails: %s", faults[0])
	t.Skip("it cannot: " + cite)
}

// faults runs a part that is expected to fail.
func (p *part) faults(t *testing.T, h *Harness, bed *Bed) []string {
	return record(t, func(tb testing.TB) { p.run(newRig(tb, h, bed)) })
}

// faults returns what is wrong with a harness.
func (h *Harness) faults() []string {
	var faults []string
	bad := func(wrong bool, format string, args ...any) {
		if wrong {
			faults = append(faults, fmt.Sprintf(format, args...))
		}
	}
	bad(h.Name == "" || strings.ContainsAny(h.Name, "|\n"), "it needs a name without | in it")
	bad(h.New == nil, "it has no New")
	bad(h.Source == nil && h.Sink == nil, "it has neither source nor sink")
	bad((h.Source == nil) != (h.OpenSource == nil), "Source and OpenSource go together")
	bad((h.Sink == nil) != (h.OpenSink == nil), "Sink and OpenSink go together")
	cited := func(cite string) bool {
		return strings.Contains(cite, "http") || strings.Contains(cite, "docs/") ||
			strings.Contains(cite, "doc.go")
	}
	for c, cite := range h.Cannot {
		known := slices.ContainsFunc(parts(), func(p part) bool { return p.check == c })
		bad(!known, "Cannot names %q, which is no check", c)
		bad(!cited(cite), "Cannot[%q] cites no page", c)
	}
	forms := append(bodyForms(0), headerForms()...)
	for _, name := range h.Rejects {
		known := slices.ContainsFunc(forms, func(f form) bool { return f.name == name })
		bad(!known, "Rejects names %q, which is no message of the suite", name)
	}
	slices.Sort(faults)
	return faults
}

func either(*Harness) string { return "" }

func needsSource(h *Harness) string {
	if h.Source == nil {
		return "there is no source"
	}
	return ""
}

func needsSink(h *Harness) string {
	if h.Sink == nil {
		return "there is no sink"
	}
	return ""
}

func needsOrder(h *Harness) string {
	switch {
	case h.Source != nil && h.Source.Order == ackwise.OrderNone:
		return "the source keeps no order"
	case h.Source == nil && !h.Sink.KeyRunSafe:
		return "the sink keeps no order"
	}
	return ""
}

func needsDelay(h *Harness) string {
	if h.Source == nil || h.Source.MaxNackDelay == 0 {
		return "the source delays no nack"
	}
	return ""
}

func needsExtend(h *Harness) string {
	switch {
	case h.Source == nil || !h.Source.Extend:
		return "the source extends no lease"
	case h.Source.Lease == 0:
		return "a hand-out of the source lasts until it is settled"
	}
	return ""
}

// needsHold wants a source whose hand-outs can be held for longer than a lease.
func needsHold(h *Harness) string {
	if h.Source != nil && h.Source.Lease == 0 {
		return ""
	}
	return needsExtend(h)
}

func needsCounts(h *Harness) string {
	if h.Source == nil || !h.Source.Counts && !h.Source.HandOuts {
		return "the source counts nothing that survives its consumer"
	}
	return ""
}

func needsServer(b *Bed) string {
	if b.Server == nil {
		return "the place has no server of its own"
	}
	return ""
}

func needsProxy(b *Bed) string {
	if b.Proxy == nil {
		return "the place has no proxy"
	}
	return ""
}
