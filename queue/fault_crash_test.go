package queue

import (
	"errors"
	"math/rand/v2"
	"runtime/debug"
	"testing"
	"testing/synctest"
)

const alphabet = "PKRANDCO"

// histories calls fn with every history of up to most operations.
func histories(most int, fn func(history string)) {
	var grow func(h string)
	grow = func(h string) {
		if h != "" {
			fn(h)
		}
		if len(h) < most {
			for _, op := range alphabet {
				grow(h + string(op))
			}
		}
	}
	grow("")
}

// starts are the stores on which the histories begin: an empty one, and one with a full segment, a
// checkpoint, a dead letter whose key is parked, and messages in hand.
var starts = []struct{ name, ops string }{{"empty", ""}, {"used", "KRDPCFR"}}

// Row: kill at every operation, also in recovery, checkpoint and rotation, twice in a row; power
// cut with every subset of the unsynced. Of the histories of three and four operations every
// twelfth is played, in the short form every hundredth; the log's own tests play all of them.
func TestFaultCrashInEveryShortHistory(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // the heap is tiny, and made anew all the time
	each, deep, drain, least := 100, 80, 10, 1_500
	if long() {
		each, deep, drain, least = 12, 60, 10, 12_000
	}
	var total counts
	played := 0
	for _, start := range starts {
		t.Run(start.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				index := 0
				histories(4, func(h string) {
					if index++; len(h) > 2 && index%each != 0 {
						return
					}
					p := newPlayer(t, uint64(index))
					p.deep, p.drain = deep, drain
					idle, err := p.play(start.ops+h[:len(h)-1], h[len(h)-1:])
					if err != nil {
						t.Fatalf("history %s on a store that is %s: %v", h, start.name, err)
					}
					if !idle {
						played++
						total.add(p.counts)
					}
				})
			})
		})
	}
	t.Logf("%d histories, %s", played, total.String())
	if !t.Failed() && (total.states() < least || total.again < least/10 || total.drained < 100) {
		t.Errorf("too few crash states: %s, want %d", total.String(), least)
	}
}

// Row: the same, in the last operations of long histories drawn by a seed.
func TestFaultCrashInLongHistories(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(400))
	runs, least := 2, 500
	if long() {
		runs, least = 16, 3_000
	}
	var total counts
	synctest.Test(t, func(t *testing.T) {
		for seed := range uint64(runs) {
			rng := rand.New(rand.NewPCG(seed, 5))
			h := ""
			for range 30 + rng.IntN(40) {
				h += string("PKRRAANDCOF"[rng.IntN(11)])
			}
			if err := inLong(t, h, seed, &total); err != nil {
				t.Fatalf("seed %d, history %s: %v", seed, h, err)
			}
		}
	})
	t.Log(total.String())
	if total.states() < least && !t.Failed() {
		t.Errorf("only %d crash states were tried, want %d", total.states(), least)
	}
}

// inLong plays a history in which idle operations are nothing, and crashes in its last ten.
func inLong(t *testing.T, h string, seed uint64, total *counts) error {
	p := newPlayer(t, seed)
	p.deep, p.drain = 100, 10
	at := len(h) - 10
	for _, op := range "O" + h[:at] {
		if _, err := p.do(op); err != nil {
			return errors.Join(err, p.end())
		}
	}
	for _, op := range h[at:] {
		if _, err := p.crashIn(string(op)); err != nil {
			return errors.Join(err, p.end())
		}
	}
	total.add(p.counts)
	return p.end()
}
