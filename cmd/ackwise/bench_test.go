package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func benchArgs(dir string, more ...string) []string {
	return append([]string{"bench", "--dir", dir, "--seconds", "0.01", "--rounds", "1",
		"--publishers", "1,8", "--sizes", "10", "--subscriptions", "20", "--keys", "500",
		"--segment-bytes", "1048576"}, more...)
}

// benchShape is the part of the JSON that other programs read.
type benchShape struct {
	Go         string  `json:"go"`
	GOMAXPROCS int     `json:"gomaxprocs"`
	Seed       *uint64 `json:"seed"`
	Against    string  `json:"against"`
	Seconds    float64 `json:"seconds"`
	Rounds     int     `json:"rounds"`
	Publish    []struct {
		Publishers    int      `json:"publishers"`
		Size          int      `json:"size"`
		Start         string   `json:"start"`
		PublishPerS   float64  `json:"publish_per_s"`
		Ratio         float64  `json:"ratio"`
		RecycledRatio float64  `json:"recycled_ratio"`
		P99           float64  `json:"p99_ms"`
		P99Ratio      float64  `json:"p99_ratio"`
		Fresh         *float64 `json:"fresh_mib"`
	} `json:"publish"`
	Steady struct {
		Publishers int     `json:"publishers"`
		Consumers  int     `json:"consumers"`
		Size       int     `json:"size"`
		PerS       float64 `json:"per_s"`
		Ratio      float64 `json:"ratio"`
	} `json:"steady"`
	Scale []struct {
		Of   string  `json:"of"`
		Few  int     `json:"few"`
		Many int     `json:"many"`
		Cost float64 `json:"cost_ratio"`
	} `json:"scale"`
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
	if got.Against != "bare" || got.Rounds != 1 || got.Seconds != 0.01 {
		t.Errorf("facts of the run: %+v", got)
	}
	if len(got.Publish) != 4 || len(got.Latency) != 2 || len(got.ReceiveAck) != 4 {
		t.Fatalf("got %s", r.out)
	}
	for i, p := range got.Publish {
		if p.Publishers != []int{1, 8}[i/2] || p.Size != 10 ||
			p.Start != []string{"cold", "warm"}[i%2] || p.PublishPerS <= 0 || p.Ratio <= 0 ||
			p.RecycledRatio <= 0 || p.P99 <= 0 || p.P99Ratio <= 0 || p.Fresh == nil {
			t.Errorf("publish: %+v", p)
		}
	}
	if s := got.Steady; s.Publishers != 64 || s.Consumers != 64 || s.Size != 1024 ||
		s.PerS <= 0 || s.Ratio <= 0 {
		t.Errorf("steady state: %+v", s)
	}
	if s := got.Scale; len(s) != 2 || s[0].Of != "subscriptions" || s[0].Few != 10 ||
		s[0].Many != 20 || s[1].Of != "keys" || s[1].Few != 1 || s[1].Many != 500 ||
		s[0].Cost <= 0 || s[1].Cost <= 0 {
		t.Errorf("large numbers: %+v", s)
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
	plot := filepath.Join(t.TempDir(), "publish.svg")
	r := run(t, "", benchArgs(t.TempDir(), "--plot", plot, "--against", "none")...)
	if r.code != 0 || r.err != "" { // no progress where there is no terminal
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	for _, want := range []string{"GOMAXPROCS", "publish/s", "cold", "warm", "ratio",
		"recycled ratio", "received + acked/s", "1,000 keys", "from publish to received",
		"in and out/s", "subscriptions", "cost"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in\n%s", want, r.out)
		}
	}
	if svg, err := os.ReadFile(plot); err != nil || !strings.HasPrefix(string(svg), "<svg ") ||
		!strings.Contains(string(svg), "engine, warm") {
		t.Errorf("the plot: %v, %s", err, svg)
	}
}

func TestBenchBacklog(t *testing.T) {
	for _, c := range []struct{ kind, want, json string }{
		{"backlog", "IDs received and acked, each once", "ids_received"},
		{"scheduled", "scheduled messages there at the end", "delayed"},
		{"ids", "all known", "suppressed"},
	} {
		dir := t.TempDir()
		args := []string{"bench", "--dir", dir, "--" + c.kind, "300", "--size", "16", "--keys", "5"}
		r := run(t, "", args...)
		if r.code != 0 || r.err != "" || !strings.Contains(r.out, c.want) {
			t.Errorf("%s: exit code %d, %q\n%s", c.kind, r.code, r.err, r.out)
		}
		got := decode[map[string]any](t, must(t, "", append(args, "--json")...))
		if got["kind"] != c.kind || got["messages"] != 300.0 || got["keys"] != 5.0 ||
			got["ids_sent"] != 300.0 || got[c.json] != 300.0 {
			t.Errorf("%s: got %v", c.kind, got)
		}
		for _, figure := range []string{"fill_peak_mib", "reopened_peak_mib", "drain_peak_mib",
			"reopen_s", "fill_per_s", "disk_peak_mib", "disk_end_mib"} {
			if v, ok := got[figure].(float64); !ok || v <= 0 {
				t.Errorf("%s: %s is %v", c.kind, figure, got[figure])
			}
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("%s: left behind: %v, %v", c.kind, left, err)
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
		{"--against kafka", "--against"},
		{"--subscriptions 0", "--subscriptions"},
		{"--keys=-1", "Keys"},
		{"--segment-bytes 1", "SegmentBytes"},
		{"--backlog=-1", "Messages"},
		{"--backlog 10 --size 7", "Size"},
		{"--backlog 10 --ids 10", "give one"},
		{"--scheduled 10 --plot x.svg", "--plot"},
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
