package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func benchArgs(dir string, more ...string) []string {
	return append([]string{"bench", "--dir", dir, "--seconds", "0.01", "--rounds", "1",
		"--publishers", "1,8", "--sizes", "10"}, more...)
}

// benchShape is the part of the JSON that other programs read.
type benchShape struct {
	Go         string  `json:"go"`
	GOMAXPROCS int     `json:"gomaxprocs"`
	Seed       *uint64 `json:"seed"`
	Publish    []struct {
		Publishers    int     `json:"publishers"`
		Size          int     `json:"size"`
		Start         string  `json:"start"`
		PublishPerS   float64 `json:"publish_per_s"`
		Ratio         float64 `json:"ratio"`
		RecycledRatio float64 `json:"recycled_ratio"`
		P99           float64 `json:"p99_ms"`
	} `json:"publish"`
	ReceiveAck []struct {
		Size  int     `json:"size"`
		Batch int     `json:"batch"`
		Keyed *bool   `json:"keyed"`
		PerS  float64 `json:"per_s"`
	} `json:"receive_ack"`
	Latency []struct {
		Publishers int     `json:"publishers"`
		Size       int     `json:"size"`
		P50        float64 `json:"p50_ms"`
		P99        float64 `json:"p99_ms"`
	} `json:"latency"`
}

func TestBenchJSON(t *testing.T) {
	dir := t.TempDir()
	r := run(t, "", benchArgs(dir, "--json", "--seed", "7")...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	var got benchShape
	if err := json.Unmarshal([]byte(r.out), &got); err != nil {
		t.Fatal(err)
	}
	if got.Go == "" || got.GOMAXPROCS < 1 || got.Seed == nil || *got.Seed != 7 {
		t.Errorf("facts of the machine: %+v", got)
	}
	if len(got.Publish) != 2 || len(got.Latency) != 2 || len(got.ReceiveAck) != 4 {
		t.Fatalf("got %s", r.out)
	}
	for i, p := range got.Publish {
		if p.Publishers != []int{1, 8}[i] || p.Size != 10 || p.Start != "cold" ||
			p.PublishPerS <= 0 || p.Ratio <= 0 || p.RecycledRatio <= 0 || p.P99 <= 0 {
			t.Errorf("publish: %+v", p)
		}
	}
	for _, d := range got.ReceiveAck {
		if d.Size != 10 || d.Batch < 1 || d.Keyed == nil || d.PerS <= 0 {
			t.Errorf("receive + ack: %+v", d)
		}
	}
	for _, l := range got.Latency {
		if l.Publishers < 1 || l.Size != 10 || l.P50 <= 0 || l.P99 < l.P50 {
			t.Errorf("latency: %+v", l)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestBenchTable(t *testing.T) {
	out := must(t, "", benchArgs(t.TempDir())...)
	for _, want := range []string{"GOMAXPROCS", "publish/s", "ratio", "recycled ratio",
		"received + acked/s", "1,000 keys", "from publish to received"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestBenchUsage(t *testing.T) {
	for _, c := range []struct{ args, fault string }{
		{"--seconds 0", "--seconds 0"},
		{"--seconds NaN", "--seconds NaN"},
		{"--rounds 0", "--rounds"},
		{"--publishers 0", "Publishers"},
		{"--publishers 64,x", "--publishers"},
		{"--sizes=-1", "Sizes"},
		{"--publishers 100000 --sizes 1048576", "Publishers × Sizes"},
	} {
		r := run(t, "", append([]string{"bench", "--dir", t.TempDir()},
			strings.Fields(c.args)...)...)
		if r.code != exitUsage || !strings.Contains(r.err, c.fault) {
			t.Errorf("%s: exit code %d, %q, want %q", c.args, r.code, r.err, c.fault)
		}
	}
}

func TestPerSecond(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 999.4: "999", 999.6: "1,000",
		12345: "12,345", 1000002: "1,000,002"} {
		if got := perSecond(v); got != want {
			t.Errorf("%v: got %s, want %s", v, got, want)
		}
	}
}
