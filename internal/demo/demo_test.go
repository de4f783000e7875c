package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/internal/bench"
	"github.com/ackwise/ackwise/queue"
)

// parentVar makes this test binary a process that runs a demo in the directory it names.
const parentVar = "ACKWISE_DEMO_TEST_PARENT"

func TestMain(m *testing.M) {
	if code, is := Consumer(); is {
		os.Exit(code)
	}
	if dir := os.Getenv(parentVar); dir != "" {
		_, _ = Run(context.Background(), Options{Dir: dir})
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// smallEvents is how many flights small runs.
const smallEvents = 1500

// small runs a demo of few flights.
func small(t *testing.T, seed uint64, dir string) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := Run(ctx, Options{Seed: seed, Dir: dir, events: smallEvents})
	if err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	if len(r.Broken) > 0 {
		t.Errorf("seed %d: broken: %q\n%+v", seed, r.Broken, r)
	}
	return r
}

func TestAnotherSeedMakesOtherCountsAndTheSameSums(t *testing.T) {
	flights, err := Flights(smallEvents)
	if err != nil {
		t.Fatal(err)
	}
	var truth int64 // by a few lines of its own
	aircraft := map[string]bool{}
	for _, f := range flights {
		var line struct {
			Type, Key string
			Miles     int64
		}
		if err := json.Unmarshal(f.Body, &line); err != nil {
			t.Fatal(err)
		}
		if line.Type == "departed" {
			truth += line.Miles
		}
		if line.Key != "" {
			aircraft[line.Key] = true
		}
	}
	dir := filepath.Join(t.TempDir(), "kept")
	var reports [2]*Report
	t.Run("run", func(t *testing.T) { // both at a time: most of a run is waiting
		for i, dir := range []string{"", dir} {
			t.Run(fmt.Sprintf("seed %d", i+1), func(t *testing.T) {
				t.Parallel()
				reports[i] = small(t, uint64(i+1), dir)
			})
		}
	})
	a, b := reports[0], reports[1]
	if a == nil || b == nil {
		return // said already
	}
	for _, r := range []*Report{a, b} {
		if r.Order.Keys != len(aircraft) {
			t.Errorf("seed %d: %d aircraft, want %d", r.Seed, r.Order.Keys, len(aircraft))
		}
		checkRuns(t, r, truth)
		checkShuffled(t, r.Shuffled)
		checkCost(t, r.Cost)
	}
	if a.Injected == b.Injected || a.Runs[1].Miles == b.Runs[1].Miles ||
		a.Shuffled[0].OutOfOrder == b.Shuffled[0].OutOfOrder {
		t.Errorf("two seeds made the same counts: %+v, %+v", a, b)
	}
	checkJSON(t, a)
	checkKept(t, dir, b)
}

// checkRuns wants every run but the first two to come to the truth, and each kind of fault.
func checkRuns(t *testing.T, r *Report, truth int64) {
	t.Helper()
	if r.Events != smallEvents || r.TruthMiles != truth || len(r.Runs) != 7 {
		t.Fatalf("seed %d: %+v, want %d miles", r.Seed, r, truth)
	}
	for i := range r.Runs {
		if n := &r.Runs[i]; n.Exact != (i >= 2) || n.Exact != (n.Miles == truth) {
			t.Errorf("seed %d: %+v, the truth is %d miles", r.Seed, n, truth)
		}
	}
	for name, n := range map[string]int64{"kills": r.Injected.Kills - minAllKills + 1,
		"acks": r.Injected.AcksLost, "produced": r.Injected.ProducedAgain,
		"requeued": r.Injected.Requeued, "rebalanced": r.Injected.Rebalanced} {
		if n <= 0 {
			t.Errorf("seed %d: too few %s: %+v", r.Seed, name, r.Injected)
		}
	}
}

// checkShuffled wants the first run wrong and the second one right, through kills.
func checkShuffled(t *testing.T, runs []ShuffledReport) {
	t.Helper()
	var got []bool
	for _, s := range runs {
		got = append(got, s.Resequencer, s.Exact)
		if s.Lost > 0 || s.Kills == 0 {
			t.Errorf("shuffled: %+v", s)
		}
	}
	if !slices.Equal(got, []bool{false, false, true, true}) {
		t.Errorf("resequencer and exact: %v", got)
	}
}

// checkCost wants a row for each guarantee, beside plain at-least-once. What they cost depends on
// the machine.
func checkCost(t *testing.T, rows []bench.Guarantee) {
	t.Helper()
	var names []string
	for _, c := range rows {
		names = append(names, c.Guarantee+" "+c.Pattern)
		plain := c.Guarantee == "at-least-once" && c.Pattern == "none"
		if c.PerSecond <= 0 || c.P99 <= 0 || c.Relative <= 0 || c.P99Relative <= 0 ||
			plain && (c.Relative != 1 || c.P99Relative != 1) {
			t.Errorf("no cost: %+v", c)
		}
	}
	want := []string{"at-most-once none", "at-least-once none", "at-least-once dedup",
		"exactly-once transaction"}
	if !slices.Equal(names, want) {
		t.Errorf("costs of %q, want %q", names, want)
	}
}

// checkJSON compares the words of the report with those that others depend on.
func checkJSON(t *testing.T, r *Report) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"":         "causes cost events injected kills ledger order runs seed shuffled truth_miles",
		"injected": "acks_lost kills produced_again rebalanced requeued",
		"order":    "keys violations",
		"ledger":   "accepted acked balanced dead delayed dropped in_flight parked ready",
		"causes": "ack-lost consumer-lost failed first lease-expired produced-again rebalanced " +
			"redone redriven released replayed restarted snoozed unknown",
		"runs":     "delivered duplicates exact guarantee lost miles pattern",
		"shuffled": "exact lost resequencer",
		"cost":     "guarantee messages_per_s p99_ms p99_relative pattern relative",
	} {
		at := got
		switch v := got[path].(type) {
		case map[string]any:
			at = v
		case []any:
			at = v[0].(map[string]any)
		}
		var words []string
		for w := range at {
			words = append(words, w)
		}
		slices.Sort(words)
		if have := strings.Join(words, " "); have != want {
			t.Errorf("the JSON's %q has the words %q, want %q", path, have, want)
		}
	}
}

// checkKept opens a directory that was kept and holds its books against the report.
func checkKept(t *testing.T, dir string, r *Report) {
	t.Helper()
	store, err := queue.Open(dir, queue.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = store.Close() }()
	books, err := store.Books(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var acked int64
	shuffled := map[string]int64{}
	for _, b := range books {
		if b.Subscription == subscription && strings.Contains(b.Topic, "-once-") {
			acked += b.Acked
		} else {
			shuffled[b.Topic+"/"+b.Subscription] = b.Acked
		}
	}
	if acked != r.Ledger.Acked || acked != 7*smallEvents {
		t.Errorf("the kept books have %d acked, the report %d", acked, r.Ledger.Acked)
	}
	for _, name := range []string{"shuffled/miles", "unordered/resequencer", "resequenced/miles"} {
		if shuffled[name] != smallEvents {
			t.Errorf("the kept books have %d acked of %s: %v", shuffled[name], name, shuffled)
		}
	}
	if v, err := store.Verify(t.Context()); err != nil || len(v.Findings) > 0 {
		t.Errorf("verify: %q, %v", v.Findings, err)
	}
}

func TestADirectoryInUseIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "letter"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), Options{Dir: dir})
	var invalid *ackwise.InvalidError
	if !errors.As(err, &invalid) || invalid.Field != "dir" {
		t.Errorf("got %v, want an *InvalidError of dir", err)
	}
}

func TestAConsumerThatDoesNothingFailsTheDemo(t *testing.T) {
	for program, want := range map[string]string{
		"cat":   "no delivery in 300ms: consumers",
		"false": "ended by itself: exit code 1",
	} {
		path, err := exec.LookPath(program)
		if err != nil {
			t.Skip(err)
		}
		temp := t.TempDir()
		t.Setenv("TMPDIR", temp)
		_, err = Run(t.Context(), Options{Program: path, Stall: 300 * time.Millisecond,
			events: 100})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s as a consumer: %v, want %q", program, err, want)
		}
		if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", program, left, err)
		}
	}
}

func TestCancelEndsTheDemo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Run(ctx, Options{events: 3000, Progress: func(p Progress) {
		if p.Delivered > 100 {
			cancel()
		}
	}})
	cancel()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

// A consumer ends with the process that started it, however that ends, also while it is stopped.
func TestConsumersEndWithTheirParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	dir := filepath.Join(t.TempDir(), "demo")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.CommandContext(t.Context(), exe)
	parent.Env = append(os.Environ(), parentVar+"="+dir)
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	within(t, func() bool { return len(processes(t, dir)) > 0 })
	stopped := processes(t, dir)[0]
	within(t, func() bool { // it stands still; the demo itself may wake it, or kill it
		_ = syscall.Kill(stopped, syscall.SIGSTOP)
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", stopped))
		return err != nil || bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T"))
	})
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
	within(t, func() bool { return len(processes(t, dir)) == 0 })
}

func within(t *testing.T, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("it did not happen within a minute")
		}
	}
}

// processes returns the consumers that work for the demo in dir.
func processes(t *testing.T, dir string) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		t.Fatal(err)
	}
	var out []int
	for _, path := range paths {
		env, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) ||
			errors.Is(err, syscall.ESRCH) {
			continue
		}
		if !bytes.Contains(env, []byte(consumerVar+"=")) || !bytes.Contains(env, []byte(dir)) {
			continue
		}
		if pid, err := strconv.Atoi(strings.Split(path, "/")[2]); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// Every promise that is broken is named, and only that one.
func TestBrokenPromisesAreNamed(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Report)
		want  string
	}{
		"none":      {func(*Report) {}, ""},
		"at most":   {func(r *Report) { r.Runs[0].Lost = 0 }, "at-most-once, none: nothing"},
		"lost":      {func(r *Report) { r.Runs[1].Lost = 1 }, "at-least-once, none: 1 flights lost"},
		"no repeat": {func(r *Report) { r.Runs[1].Duplicates = 0 }, "at-least-once, none: 0 dup"},
		"same sum":  {func(r *Report) { r.Runs[1].Miles = 10 }, "at-least-once, none: 2 duplicates"},
		"dedup":     {func(r *Report) { r.Runs[2].Exact = false }, "dedup: the sum"},
		"write":     {func(r *Report) { r.Runs[3].Exact = false }, "write: the sum"},
		"table":     {func(r *Report) { r.Runs[3].Wrong = 2 }, "write: 2 values of its table"},
		"upsert":    {func(r *Report) { r.Runs[4].Exact = false }, "upsert: the sum"},
		"overtaken": {func(r *Report) { r.Runs[4].Overtaken = 0 }, "upsert: no flight was overtaken"},
		"compare":   {func(r *Report) { r.Runs[5].Exact = false }, "compare: the sum"},
		"exactly":   {func(r *Report) { r.Runs[6].Exact = false }, "transaction: the sum"},
		"in order":  {func(r *Report) { r.Shuffled[0].OutOfOrder = 0 }, "the order was not lost"},
		"by luck":   {func(r *Report) { r.Shuffled[0].Exact = true }, "the order was not lost"},
		"reordered": {func(r *Report) { r.Shuffled[1].OutOfOrder = 1 }, "1 deliveries out of order"},
		"elsewhere": {func(r *Report) { r.Shuffled[1].Exact, r.Shuffled[1].Wrong = false, 4 },
			"4 aircraft are elsewhere"},
		"shuffled": {func(r *Report) { r.Shuffled[1].Lost = 2 }, "resequencer true: 2 flights lost"},
		"one run":  {func(r *Report) { r.Shuffled = r.Shuffled[:1] }, "1 shuffled runs"},
		"shared":   {func(r *Report) { r.Shared.Lost = 3 }, "the shared log: 3"},
		"order":    {func(r *Report) { r.Order.Violations = 1 }, "1 deliveries out of the order"},
		"keys":     {func(r *Report) { r.Order.Keys = 1 }, "1 aircraft were delivered"},
		"balance":  {func(r *Report) { r.Ledger.Balanced = false }, "do not balance"},
		"acked":    {func(r *Report) { r.Ledger.Acked-- }, "35 accepted and 34 acked"},
		"left":     {func(r *Report) { r.Ledger.Parked = 1 }, "1 messages are left"},
		"first":    {func(r *Report) { r.Causes[ackwise.CauseFirst]++ }, "36 first hand-outs"},
		"kills":    {func(r *Report) { r.Kills = 9 }, "9 kills"},
		"acks":     {func(r *Report) { r.Counted.AcksLost = 3 + r.Kills }, "2 acks were lost"},
		"no ack":   {func(r *Report) { r.Counted.AcksLost = 1 }, "2 acks were lost"},
		"produced": {func(r *Report) { r.Counted.ProducedAgain = 3 }, "produced again"},
		"requeued": {func(r *Report) { r.Counted.Requeued = 3 }, "requeued"},
		"a source": {func(r *Report) { r.Causes[ackwise.CauseRebalanced] = 0 },
			"no duplicate from the source rebalanced"},
	} {
		t.Run(name, func(t *testing.T) {
			r := kept()
			c.spoil(r)
			r.check(few())
			switch got := strings.Join(r.Broken, "; "); {
			case c.want == "" && got != "":
				t.Errorf("broken: %s", got)
			case c.want != "" && (len(r.Broken) != 1 || !strings.Contains(got, c.want)):
				t.Errorf("broken: %q, want %q alone", got, c.want)
			}
		})
	}
}

// kept is a report of five flights in which every promise was kept.
func kept() *Report {
	r := newReport(1, few())
	r.TruthMiles, r.Kills = 10, 12
	r.Runs = []RunReport{
		{Guarantee: "at-most-once", Pattern: "none", Lost: 1, Miles: 9},
		{Guarantee: "at-least-once", Pattern: "none", Duplicates: 2, Miles: 12},
		{Guarantee: "at-least-once", Pattern: "dedup", Miles: 10, Exact: true},
		{Guarantee: "at-least-once", Pattern: "write", Miles: 10, Exact: true, Repeated: 2},
		{Guarantee: "at-least-once", Pattern: "upsert", Miles: 10, Exact: true, Overtaken: 1},
		{Guarantee: "at-least-once", Pattern: "compare", Miles: 10, Exact: true},
		{Guarantee: "exactly-once", Pattern: "transaction", Miles: 10, Exact: true}}
	r.Shuffled = []ShuffledReport{{OutOfOrder: 3, Wrong: 1},
		{Resequencer: true, Exact: true}}
	r.Order.Keys = 2
	r.Ledger = Ledger{Accepted: 35, Acked: 35, Balanced: true}
	r.Injected = Faults{12, 2, 2, 2, 2, 0, 0}
	r.Counted = r.Injected
	for _, c := range ackwise.Causes() {
		r.Causes[c] = 2
	}
	r.Causes[ackwise.CauseFirst] = 35
	return r
}

func TestFullDemo(t *testing.T) {
	if os.Getenv("ACKWISE_FAULTS") != "long" {
		t.Skip("set ACKWISE_FAULTS=long to run all flights under three seeds")
	}
	for seed := range uint64(3) {
		r, err := Run(t.Context(), Options{Seed: seed})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if len(r.Broken) > 0 || r.Events != 27004 || r.TruthMiles != 26859611 ||
			r.Order.Keys != 3148 {
			t.Errorf("seed %d: broken: %q\n%+v", seed, r.Broken, r)
		}
	}
}
