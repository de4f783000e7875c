package main

import (
	"os"
	"strings"
	"testing"
)

// dedupShape is what other programs read of bench dedup --json.
type dedupShape struct {
	Go      string  `json:"go"`
	Seconds float64 `json:"seconds"`
	Rounds  int     `json:"rounds"`
	Workers int     `json:"workers"`
	Dedup   []struct {
		Store         string   `json:"store"`
		Batch         int      `json:"batch"`
		Keys          string   `json:"keys"`
		Claims        float64  `json:"claims_per_s"`
		Completes     *float64 `json:"completes_per_s"`
		Both          *float64 `json:"both_per_s"`
		Plain         string   `json:"plain"`
		Inserts       float64  `json:"plain_per_s"`
		ClaimRatio    float64  `json:"claim_ratio"`
		CompleteRatio *float64 `json:"complete_ratio"`
		BothRatio     *float64 `json:"both_ratio"`
	} `json:"dedup"`
}

func TestBenchDedup(t *testing.T) {
	dir := t.TempDir()
	args := []string{"bench", "dedup", "--dir", dir, "--seconds", "0.01", "--rounds", "2",
		"--workers", "3", "--batch", "1,20"}
	r := run(t, "", append(args, "--json")...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	got := decode[dedupShape](t, r.out)
	if got.Go == "" || got.Seconds != 0.01 || got.Rounds != 2 || got.Workers != 3 ||
		len(got.Dedup) != 8 {
		t.Fatalf("got %s", r.out)
	}
	for i, d := range got.Dedup {
		fresh := i%2 == 0
		if d.Store != []string{"memory", "embedded"}[i/4] || d.Batch != []int{1, 20}[i/2%2] ||
			d.Keys != []string{"fresh", "duplicate"}[i%2] || d.Claims <= 0 || d.Inserts <= 0 ||
			d.Plain != []string{"map insert", "publish"}[i/4] || d.ClaimRatio <= 0 ||
			(d.Completes != nil) != fresh || (d.Both != nil) != fresh ||
			(d.CompleteRatio != nil) != fresh || (d.BothRatio != nil) != fresh {
			t.Errorf("got %+v", d)
		}
	}
	r = run(t, "", args...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	for _, want := range []string{"GOMAXPROCS", "Median of 2 rounds of 0.01 s, 3 callers",
		"claims/s", "completes/s", "plain/s", "embedded", "map insert", "duplicate"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in\n%s", want, r.out)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchDedupKeys(t *testing.T) {
	dir := t.TempDir()
	args := []string{"bench", "dedup", "--dir", dir, "--keys", "700"}
	got := decode[map[string]any](t, must(t, "", append(args, "--json")...))
	for _, figure := range []string{"fill_peak_mib", "reopened_peak_mib", "drain_peak_mib",
		"reopen_s", "fill_per_s", "disk_peak_mib", "disk_end_mib", "drop_s"} {
		if v, ok := got[figure].(float64); !ok || v <= 0 {
			t.Errorf("%s is %v", figure, got[figure])
		}
	}
	if got["kind"] != "keys" || got["messages"] != 700.0 || got["suppressed"] != 700.0 ||
		got["dropped_keys"] != 700.0 {
		t.Errorf("got %v", got)
	}
	r := run(t, "", args...)
	if r.code != 0 || r.err != "" || !strings.Contains(r.out, "longest call meanwhile") ||
		!strings.Contains(r.out, "keys, 700 in the embedded dedup store") {
		t.Errorf("exit code %d, %q\n%s", r.code, r.err, r.out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchGuarantees(t *testing.T) {
	dir := t.TempDir()
	args := []string{"bench", "guarantees", "--dir", dir, "--messages", "200", "--rounds", "1"}
	got := decode[guaranteeReport](t, must(t, "", append(args, "--json")...))
	if got.Messages != 200 || got.Rounds != 1 || len(got.Guarantees) < 4 {
		t.Fatalf("got %+v", got)
	}
	for _, g := range got.Guarantees {
		if g.Guarantee == "" || g.Pattern == "" || g.PerSecond <= 0 || g.Relative <= 0 ||
			g.P99 <= 0 || g.P99Relative <= 0 {
			t.Errorf("got %+v", g)
		}
	}
	if out := must(t, "", args...); !strings.Contains(out, "exactly-once") ||
		!strings.Contains(out, "relative") {
		t.Errorf("it prints %s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchDedupUsage(t *testing.T) {
	for _, c := range []struct{ args, fault string }{
		{"dedup --seconds 0", "--seconds 0"},
		{"dedup --seconds NaN", "--seconds NaN"},
		{"dedup --rounds 0", "--rounds"},
		{"dedup --workers 0", "--workers"},
		{"dedup --batch 0", "Batches"},
		{"dedup --batch 5000", "Batches"},
		{"dedup --batch x", "--batch"},
		{"dedup --keys=-1", "Messages"},
		{"dedup --keys 10 --store redis://h?name=x", "--keys"},
		{"dedup --store reds://h?name=x", `did you mean "redis://"`},
		{"dedup --store redis://h", "the name is empty"},
		{"dedup --store memory:", "is measured always"},
		{"dedup --store queue://d/x", "is measured always"},
		{"dedup --store kafka://u:hush@h", "the stores are"},
		{"guarantees --messages 0", "--messages"},
		{"guarantees --messages 5", "Messages"},
		{"dedpu", "dedpu"},
	} {
		r := run(t, "", append([]string{"bench"}, strings.Fields(c.args)...)...)
		if r.code != exitUsage || !strings.Contains(r.err, c.fault) ||
			strings.Contains(r.err, "hush") {
			t.Errorf("%s: exit code %d, %q, want %q", c.args, r.code, r.err, c.fault)
		}
	}
}

func TestBenchDedupStoreIsDown(t *testing.T) {
	const free = "127.0.0.1:1"
	r := run(t, "", "bench", "dedup", "--store", "redis://u:hush@"+free+"?name=x")
	r.want(t, 1, "open the dedup store redis://"+free+"?name=x", "refused")
	if strings.Contains(r.err, "hush") {
		t.Errorf("a password is shown: %s", r.err)
	}
}

// The words of the default command may be left out in the environment too.
func TestBenchFlagsFromTheEnvironment(t *testing.T) {
	for name, fault := range map[string]string{"ACKWISE_BENCH_ROUNDS": "--rounds",
		"ACKWISE_BENCH_ENGINE_ROUNDS": "--rounds", "ACKWISE_BENCH_DEDUP_ROUNDS": ""} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(name, "0")
			r := run(t, "", "bench", "--publishers", "0")
			if r.code != exitUsage || fault != "" && !strings.Contains(r.err, fault) ||
				fault == "" && strings.Contains(r.err, "--rounds") {
				t.Errorf("exit code %d: %s", r.code, r.err)
			}
		})
	}
}
