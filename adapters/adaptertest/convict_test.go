package adaptertest

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// fakeHarness is a fake that does one thing wrong, for one check.
func fakeHarness(wrong string, withSource bool) Harness {
	f := newFake(wrong)
	sink := f.Features()
	h := Harness{
		Name: "memory (fake)", Sink: &sink,
		OpenSink: func(context.Context, string) (ackwise.Sink, error) { return fakeSink{f}, nil },
		New: func(*testing.T) *Bed {
			if !withSource {
				return &Bed{Server: f, Proxy: f, Patience: 2 * time.Second, Read: f.read}
			}
			return &Bed{Server: f, Proxy: f, Patience: 2 * time.Second,
				Kill: func(s ackwise.Source) { s.(*session).kill() }}
		},
	}
	if withSource {
		features := (&session{}).Features()
		h.Source = &features
		h.OpenSource = func(context.Context, string) (ackwise.Source, error) {
			return &session{f: f}, nil
		}
	}
	return h
}

// conviction says which check has to find what is wrong.
type conviction struct {
	wrong   string
	by      Check
	sinkToo bool // also where there is no source
}

// convictions holds one for each check at least.
func convictions() []conviction {
	return []conviction{
		{"loses one", AllArrive, true},
		{"stores backwards", KeyOrder, true},
		{"loses at a crash", Crash, false},
		{"forgets acks at a crash", LostAck, false},
		{"takes a repeated ID twice", ProducedAgain, true},
		{"always says first", Requeue, false},
		{"always says first", Crash, false},
		{"charges snoozes", Requeue, false},
		{"hands out what another member holds", Moving, false},
		{"breaks key order", KeyOrder, false},
		{"does not delay", NackDelay, false},
		{"extends nothing", Extend, false},
		{"charges releases", Release, false},
		{"forgets a batch with one bad token", PartialBatch, false},
		{"extends nothing", SlowHandler, false},
		{"loses at a restart", Restart, false},
		{"counts anew after a restart", Restart, false},
		{"invents hand-outs that were lost", Restart, false},
		{"loses when frozen", Freeze, false},
		{"is never cut", CutReply, true},
		{"says that a cut call was not taken, and gives it another ID", CutReply, true},
		{"loses when cut off", CutBoth, false},
		{"takes acks back when cut off", CutBoth, false},
		{"says restarted when cut off", CutBoth, false},
		{"accepts what it says it did not", UnknownResent, true},
		{"charges a clean stop", CleanStop, false},
		{"keeps at a stop", CleanStop, false},
		{"gives more than was asked for", BackPressure, false},
		{"counts no crashes", PoisonKills, false},
		{"makes nil bodies empty", Bodies, true},
		{"sorts headers", Headers, true},
		{"forgets times", Headers, true},
	}
}

// TestSoundFakePasses shows that the fake which the others spoil is sound.
func TestSoundFakePasses(t *testing.T) {
	t.Parallel()
	for _, p := range parts() {
		t.Run(string(p.check), func(t *testing.T) {
			t.Parallel()
			h := fakeHarness("", true)
			bed := h.New(t)
			bed.Patience = time.Minute
			p.run(newRig(t, &h, bed))
		})
	}
}

// TestSoundSinkPasses shows the same of a system that has no source.
func TestSoundSinkPasses(t *testing.T) {
	t.Parallel()
	for _, p := range parts() {
		h := fakeHarness("", false)
		if p.why(&h) == "" {
			t.Run(string(p.check), func(t *testing.T) {
				t.Parallel()
				bed := h.New(t)
				bed.Patience = time.Minute
				p.run(newRig(t, &h, bed))
			})
		}
	}
}

// TestTheSuiteConvicts shows each check red.
func TestTheSuiteConvicts(t *testing.T) {
	t.Parallel()
	for _, p := range parts() {
		if !slices.ContainsFunc(convictions(), func(c conviction) bool { return c.by == p.check }) {
			t.Errorf("nothing shows that the check %q finds anything", p.check)
		}
	}
	for _, c := range convictions() {
		for _, withSource := range []bool{true, false} {
			h := fakeHarness(c.wrong, withSource)
			i := slices.IndexFunc(parts(), func(p part) bool { return p.check == c.by })
			p := parts()[i]
			if p.why(&h) != "" || !withSource && !c.sinkToo {
				continue
			}
			t.Run(fmt.Sprintf("%s: %s (source: %t)", c.by, c.wrong, withSource), func(t *testing.T) {
				t.Parallel()
				faults := p.faults(t, &h, h.New(t))
				if len(faults) == 0 {
					t.Fatalf("a system that %s passes", c.wrong)
				}
				t.Log(faults[0])
			})
		}
	}
}
