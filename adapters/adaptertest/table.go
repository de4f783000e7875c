package adaptertest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
)

// update is the variable that lets Run write its line instead of comparing it.
const update = "ACKWISE_UPDATE"

// tableHead is what the table of features begins with.
const tableHead = `# Systems

What each system can do as a source and as a sink, and what it cannot and why. Every line is the
expectation of the conformance suite (adapters/adaptertest): a test fails where the adapter says
something else of itself. ` + "`ACKWISE_UPDATE=1 go test ./adapters/...`" + ` writes the lines.

- Order: none, key (of each key), partition. Lease: a hand-out ends by itself after a time, or lasts
  until it is settled. Extend: it can be held longer. Delay: the longest delay of a nack, 0 = the loop
  holds the retry. Dead: dead letters of its own. Counts: what survives a consumer's process: all,
  hand-outs, or none. Causes: known, or only ` + "`first` and `unknown`" + `. Batch: the most of one call.
- Runs: one batch may hold several messages of a key. Dedup: a repeated ID is accepted once. Body: the
  longest.

| System | Order | Lease | Extend | Delay | Dead | Counts | Causes | Batch | Sink: runs | Dedup | Batch | Body | Cannot, refuses |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
`

// compareRow compares a harness's line with the one in docs/systems/README.md, or writes it. One
// with "(fake)" in its name has none.
func compareRow(t *testing.T, h *Harness) {
	t.Helper()
	if strings.Contains(h.Name, "(fake)") {
		return
	}
	path, err := tablePath()
	if err != nil {
		t.Fatal(err)
	}
	want := h.row()
	if os.Getenv(update) != "" {
		if err := writeRow(path, want); err != nil {
			t.Fatal(err)
		}
		return
	}
	text, err := readTable(path)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(strings.SplitAfter(text, "\n"), want) {
		t.Errorf("%s lacks the line of %q, or has another; %s=1 writes\n%s", path, h.Name, update, want)
	}
}

// readTable returns the table; one that is missing is empty.
func readTable(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return string(text), err
}

// tablePath returns where the table is in the checkout.
func tablePath() (string, error) {
	_, here, _, ok := runtime.Caller(0)
	if !ok || !filepath.IsAbs(here) {
		return "", errors.New("the table of features cannot be found: build without -trimpath")
	}
	return filepath.Join(filepath.Dir(here), "..", "..", "docs", "systems", "README.md"), nil
}

// writeRow puts a line into its place. Several packages may do so at once.
func writeRow(path, row string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	return errors.Join(putRow(f, row), f.Close())
}

func putRow(f *os.File, row string) error {
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		return err
	}
	text, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	name, _, _ := strings.Cut(row, " | ")
	rows := []string{row}
	for _, line := range rowsOf(string(text)) {
		if !strings.HasPrefix(line, name+" | ") {
			rows = append(rows, line)
		}
	}
	slices.Sort(rows)
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(tableHead+strings.Join(rows, "")), 0)
	return err
}

// rowsOf returns the lines of the systems.
func rowsOf(text string) []string {
	var rows []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "| ") && !strings.Contains(tableHead, line) {
			rows = append(rows, line)
		}
	}
	return rows
}

// row is the line of a harness.
func (h *Harness) row() string {
	cells := []string{h.Name}
	if f := h.Source; f != nil {
		order := map[ackwise.Order]string{ackwise.OrderNone: "none", ackwise.OrderKey: "key",
			ackwise.OrderPartition: "partition"}[f.Order]
		counts := "none"
		switch {
		case f.Counts:
			counts = "all"
		case f.HandOuts:
			counts = "hand-outs"
		}
		cells = append(cells, order, yes(f.Lease > 0), yes(f.Extend), span(f.MaxNackDelay),
			yes(f.Dead), counts, map[bool]string{true: "known", false: "unknown"}[f.Causes],
			number(f.MaxBatch))
	} else {
		cells = append(cells, "no source", "", "", "", "", "", "", "")
	}
	if f := h.Sink; f != nil {
		cells = append(cells, yes(f.KeyRunSafe), yes(f.Dedup), number(f.MaxBatch),
			number(f.MaxBodyBytes))
	} else {
		cells = append(cells, "no sink", "", "", "")
	}
	return "| " + strings.Join(append(cells, h.limits()), " | ") + " |\n"
}

// limits is what the system cannot, by citation, and what its sink refuses.
func (h *Harness) limits() string {
	var cites, out []string
	checks := map[string][]string{}
	for _, p := range parts() {
		cite := h.Cannot[p.check]
		if cite == "" {
			continue
		}
		if checks[cite] == nil {
			cites = append(cites, cite)
		}
		checks[cite] = append(checks[cite], string(p.check))
	}
	for _, cite := range cites {
		out = append(out, strings.Join(checks[cite], ", ")+": "+strings.ReplaceAll(cite, "|", "/"))
	}
	if len(h.Rejects) > 0 {
		out = append(out, "refuses: "+strings.Join(h.Rejects, ", "))
	}
	return strings.Join(out, "; ")
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func number(n int) string {
	if n == 0 {
		return "no limit"
	}
	return fmt.Sprint(n)
}

// span shows a duration in the unit that people know it by.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d >= 365*day:
		return fmt.Sprintf("%d years", d/(365*day))
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	}
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
