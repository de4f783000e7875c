package wal

import (
	"math/rand/v2"
	"runtime/debug"
	"testing"

	"github.com/ackwise/ackwise/internal/vfs"
)

const alphabet = "DNBRIO"

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

// starts are the disks on which the histories begin: an empty one, and one with sealed segments,
// freed ones, a mark and two epochs behind it.
var starts = []struct{ name, ops string }{{"empty", ""}, {"used", "BDRNOBDR"}}

// Row: kill at every operation, also in recovery, rotation and freeing, twice in a row; power cut
// with every subset of the unsynced; lost and early renames, creations and removals. Each history
// is crashed in its last operation: in its earlier ones the shorter histories are.
func TestFaultCrashInEveryShortHistory(t *testing.T) {
	deep, on, each, least := 40, 20, 8, 60_000
	if longFaults() {
		deep, on, each, least = 12, 6, 1, 500_000
	}
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // the heap is tiny, and made anew all the time
	var total counts
	played := 0
	for _, start := range starts {
		t.Run(start.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				index := 0
				histories(4, func(h string) {
					if index++; len(h) == 4 && index%each != 0 {
						return
					}
					played++
					p := newPlayer(*seedFlag)
					p.deep, p.on = deep, on
					if len(h) <= 2 {
						p.deep, p.on = 6, 4
					}
					if err := p.play(start.ops+h[:len(h)-1], h[len(h)-1:]); err != nil {
						t.Fatalf("history %s on a disk that is %s: %v\n%s", h, start.name, err,
							repeat(t, *seedFlag))
					}
					total.add(p.counts)
				})
			})
		})
	}
	t.Logf("%d histories, %s", played, total.String())
	if total.states() < least && !t.Failed() {
		t.Errorf("only %d crash states were tried, want %d", total.states(), least)
	}
}

// Row: the same, in the last operations of long histories drawn by a seed.
func TestFaultCrashInLongHistories(t *testing.T) {
	runs, least := 20, 15_000
	if longFaults() {
		runs, least = 60, 40_000
	}
	var total counts
	bubble(t, func(t *testing.T) {
		for run := range uint64(runs) {
			seed := *seedFlag + run
			rng := rand.New(rand.NewPCG(seed, 5))
			h := ""
			for range 30 + rng.IntN(40) {
				h += string("DNNBRIDNO"[rng.IntN(9)])
			}
			p := newPlayer(seed)
			p.deep, p.on = 50, 20
			if err := p.play(h[:len(h)-20], h[len(h)-20:]); err != nil {
				t.Fatalf("history %s: %v\n%s", h, err, repeat(t, seed))
			}
			total.add(p.counts)
		}
	})
	t.Log(total.String())
	if total.states() < least && !t.Failed() {
		t.Errorf("only %d crash states were tried, want %d", total.states(), least)
	}
}

// Row: the cut-and-rewrite trap, over many crashes in a row. Each time some of the last records are
// cut, others of the same length take their places, in new files and in ones that are used again,
// and nothing that was cut comes back.
func TestFaultManyCrashesInARow(t *testing.T) {
	runs, least := 1000, 10_000
	if longFaults() {
		runs, least = 30_000, 300_000
	}
	tried := 0
	bubble(t, func(t *testing.T) {
		for run := range uint64(runs) {
			seed := *seedFlag + run
			rng := rand.New(rand.NewPCG(seed, 6))
			disk := vfs.NewMem()
			found := page{}
			for round := range 10 {
				l, _, err := Open(faultOptions(disk))
				if err != nil {
					t.Fatalf("crash %d: %v\n%s", round, err, repeat(t, seed))
				}
				p := &player{disk: disk, log: l, rng: rng, text: rng, opt: faultOptions}
				p.book.sent, p.book.pos, p.book.kept = found.sent, found.pos, len(found.sent)
				for range rng.IntN(4) {
					if err := p.do(rune("NNNDR"[rng.IntN(5)])); err != nil {
						t.Fatal(err)
					}
				}
				now := p.book.page()
				next := disk.CrashClone(rng)
				mustClose(t, l)
				check, _, err := Open(faultOptions(next.Clone()))
				if err == nil {
					found.sent, found.pos, err = now.holds(check, now.synced)
					mustClose(t, check)
				}
				if err != nil {
					t.Fatalf("crash %d: %v\n%s", round, err, repeat(t, seed))
				}
				disk = next
				tried++
			}
		}
	})
	t.Logf("%d crashes in a row of ten each", tried)
	if tried < least && !t.Failed() {
		t.Errorf("only %d", tried)
	}
}
