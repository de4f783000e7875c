package main

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/internal/demo"
)

// showDemo returns what is printed for a report, and the exit code.
func showDemo(t *testing.T, c demoCmd, r *demo.Report) (string, int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = out.Close() }()
	a := &app{out: out, err: io.Discard}
	code := a.report(c.show(a, r))
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text), code
}

func demoReport() *demo.Report {
	return &demo.Report{Events: 27004, TruthMiles: 26859611, Seed: 7, Kills: 13,
		Injected: demo.Faults{Kills: 13, AcksLost: 36, ProducedAgain: 2750, Requeued: 204},
		Counted:  demo.Faults{Kills: 605, AcksLost: 36, ProducedAgain: 2750, Requeued: 204},
		Runs: []demo.RunReport{
			{Guarantee: "at-most-once", Pattern: "none", Delivered: 27002, Lost: 21,
				Miles: 26840947},
			{Guarantee: "at-least-once", Pattern: "none", Delivered: 27360, Duplicates: 356,
				Miles: 26998936, Repeated: 118},
			{Guarantee: "exactly-once", Pattern: "transaction", Delivered: 27266,
				Duplicates: 262, Miles: 26859611, Exact: true}},
		Shuffled: []demo.ShuffledReport{
			{Delivered: 27040, OutOfOrder: 23701, Wrong: 2172, Kills: 3},
			{Resequencer: true, Exact: true, Delivered: 27040, Kills: 3}},
		Cost: []bench.Guarantee{
			{Guarantee: "at-least-once", Pattern: "none", PerSecond: 20100, Relative: 1, P99: 8.126,
				P99Relative: 1},
			{Guarantee: "exactly-once", Pattern: "transaction", PerSecond: 15825, Relative: 0.787,
				P99: 7.6, P99Relative: 0.935}},
		Causes: map[ackwise.Cause]int64{ackwise.CauseFirst: 108016, ackwise.CauseRebalanced: 572},
		Order:  demo.Order{Keys: 3148},
		Ledger: demo.Ledger{Accepted: 108016, Acked: 108016, Balanced: true}}
}

func TestDemoTable(t *testing.T) {
	text, code := showDemo(t, demoCmd{}, demoReport())
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{"27,004 flights, 26,859,611 miles, seed 7",
		"at-most-once   none            27,002           0    21              0  26,840,947  -18,664  wrong",
		"exactly-once   transaction     27,266         262     0              0  26,859,611        0  exact",
		"consumers killed at work                13      605",
		"rebalanced            rebalanced      572",
		"no              27,040        23,701     0               2,172  wrong",
		"yes             27,040             0     0                   0  exact",
		"exactly-once   transaction      15,825      0.79  7.6 ms      0.94",
		"The engine's books over the 3 runs",
		"3,148 aircraft, 0 violations", "13 kills", "lost 21 flights", "118 effects"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if _, closing, _ := strings.Cut(text, "\n13 kills"); strings.Count(closing, "\n") > 3 {
		t.Errorf("the closing has more than three lines:%s", closing)
	}
	for i, line := range strings.Split(text, "\n") {
		if utf8.RuneCountInString(line) > 104 {
			t.Errorf("line %d has %d columns: %s", i+1, utf8.RuneCountInString(line), line)
		}
	}
}

func TestABrokenPromiseIsAFinding(t *testing.T) {
	r := demoReport()
	r.Broken = []string{"1 flights lost"}
	for _, c := range []demoCmd{{}, {jsonFlag: jsonFlag{JSON: true}}} {
		text, code := showDemo(t, c, r)
		if code != exitFinding {
			t.Errorf("json %t: exit code %d, want %d", c.JSON, code, exitFinding)
		}
		if c.JSON != json.Valid([]byte(text)) {
			t.Errorf("json %t: printed %s", c.JSON, text)
		}
		if !c.JSON && !strings.Contains(text, "A promise was broken: 1 flights lost.") {
			t.Errorf("printed %s", text)
		}
	}
}

func TestDemoWantsAnEmptyDirectory(t *testing.T) {
	r := run(t, "", "demo", "--dir", "..")
	if r.code != exitUsage || !strings.Contains(r.err, "it is not empty") {
		t.Errorf("exit code %d\n%s", r.code, r.err)
	}
}

func TestDemoFromTheShell(t *testing.T) {
	if os.Getenv("ACKWISE_FAULTS") != "long" {
		t.Skip("set ACKWISE_FAULTS=long to run the whole demo")
	}
	dir := filepath.Join(t.TempDir(), "kept")
	var r demo.Report
	text := must(t, "", "demo", "--json", "--seed", "5", "--dir", dir)
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Seed != 5 || r.Events != 27004 || r.Kills < 10 || len(r.Runs) != 7 ||
		len(r.Shuffled) != 2 || len(r.Cost) != 4 {
		t.Errorf("got %s", text)
	}
	must(t, "", "audit", "--dir", dir)
	must(t, "", "verify", "--dir", dir)
}
