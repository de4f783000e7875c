package main

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
)

// relayShape is what other programs read of bench relay --json.
type relayShape struct {
	Go       string `json:"go"`
	Messages int    `json:"messages"`
	Size     int    `json:"size"`
	Rounds   int    `json:"rounds"`
	Relay    []struct {
		Keys  string  `json:"keys"`
		Relay float64 `json:"relay_per_s"`
		Bare  float64 `json:"bare_per_s"`
		Ratio float64 `json:"ratio"`
		CPU   float64 `json:"relay_cpu_us"`
		Plain float64 `json:"bare_cpu_us"`
	} `json:"relay"`
}

// TestBenchRelay: every message arrives by both ways, which the command itself counts at the
// broker, and its topics are gone afterwards.
func TestBenchRelay(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	args := []string{"bench", "relay", "--brokers", broker.ListenAddrs()[0], "--messages", "2000",
		"--rounds", "2", "--keys", "50", "--partitions", "2"}
	r := run(t, "", append(args, "--json")...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	got := decode[relayShape](t, r.out)
	if got.Go == "" || got.Messages != 2000 || got.Size != 200 || got.Rounds != 2 ||
		len(got.Relay) != 2 {
		t.Fatalf("got %s", r.out)
	}
	for i, x := range got.Relay {
		if x.Keys != []string{"uniform", "hot"}[i] || x.Relay <= 0 ||
			x.Bare <= 0 || x.Ratio <= 0 || x.CPU <= 0 || x.Plain <= 0 {
			t.Errorf("got %+v", x)
		}
	}
	r = run(t, "", append(args, "--rounds", "1")...)
	if r.code != 0 || r.err != "" {
		t.Fatalf("exit code %d, error output %q", r.code, r.err)
	}
	for _, want := range []string{"Median of 1 round of 2000 messages of 200 B, 2 partitions",
		"relay/s", "bare/s", "relay CPU", "uniform", "hot"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in\n%s", want, r.out)
		}
	}
	if r = run(t, "", "bench", "relay", "--brokers", "127.0.0.1:1", "--batch", "0"); r.code != 2 ||
		!strings.Contains(r.err, "--batch 0: at least 1") {
		t.Errorf("exit code %d, error output %q", r.code, r.err)
	}
}
