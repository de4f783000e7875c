package adaptertest

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

func TestRow(t *testing.T) {
	h := Harness{Name: "a b", Source: &ackwise.Features{Order: ackwise.OrderKey, Lease: time.Second,
		MaxNackDelay: 15 * time.Minute, HandOuts: true, MaxBatch: 10},
		Cannot:  map[Check]string{Moving: "docs/a|b", Crash: "docs/a|b", Extend: "docs/c"},
		Rejects: []string{"nil body"}}
	want := "| a b | key | yes | no | 15m | no | hand-outs | unknown | 10 | no sink |  |  |  | " +
		"crash before the ack, moving: docs/a/b; extend: docs/c; refuses: nil body |\n"
	if got := h.row(); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	for d, want := range map[time.Duration]string{0: "0s", 10 * time.Minute: "10m",
		90 * time.Second: "1m30s", 12 * time.Hour: "12h", 100 * time.Minute: "1h40m",
		24 * time.Hour: "24h", 48 * time.Hour: "2 days", 10 * 365 * 24 * time.Hour: "10 years"} {
		if got := span(d); got != want {
			t.Errorf("%s is shown as %q, want %q", time.Duration(d), got, want)
		}
	}
}

// TestWriteRow puts lines into a new table, replaces one and leaves it alone.
func TestWriteRow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "systems", "README.md")
	for _, row := range []string{"| b | 1 |\n", "| a b | 1 |\n", "| a | 1 |\n", "| b | 2 |\n", "| a | 1 |\n"} {
		if err := writeRow(path, row); err != nil {
			t.Fatal(err)
		}
	}
	text, err := readTable(path)
	if want := tableHead + "| a b | 1 |\n| a | 1 |\n| b | 2 |\n"; err != nil || text != want {
		t.Errorf("the table is %v\n%s", err, text)
	}
}

// TestHarnessFaults shows what a harness may not be.
func TestHarnessFaults(t *testing.T) {
	sound := fakeHarness("", true)
	if faults := sound.faults(); len(faults) > 0 {
		t.Errorf("the sound one: %v", faults)
	}
	for name, spoil := range map[string]func(h *Harness){
		"no name":            func(h *Harness) { h.Name = "" },
		"a bar in its name":  func(h *Harness) { h.Name = "a|b" },
		"nothing to open":    func(h *Harness) { h.OpenSource = nil },
		"features missing":   func(h *Harness) { h.Sink = nil },
		"no place":           func(h *Harness) { h.New = nil },
		"no such check":      func(h *Harness) { h.Cannot = map[Check]string{"x": "https://a.example"} },
		"a claim, not cited": func(h *Harness) { h.Cannot = map[Check]string{Moving: "it cannot"} },
		"no such message":    func(h *Harness) { h.Rejects = []string{"x"} },
	} {
		h := sound
		if spoil(&h); len(h.faults()) != 1 {
			t.Errorf("%s: the faults are %q", name, h.faults())
		}
	}
}
