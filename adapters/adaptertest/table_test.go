package adaptertest_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTable holds the table's form: one line a system, each with every column, sorted.
func TestTable(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "systems", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var columns int
	last := ""
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "|") {
			continue
		}
		n := strings.Count(line, "|")
		if columns == 0 {
			columns = n
		}
		name, _, _ := strings.Cut(line, " | ")
		switch {
		case n != columns:
			t.Errorf("%d bars, the head has %d: %s", n, columns, line)
		case strings.HasPrefix(name, "| System"), strings.HasPrefix(name, "| ---"):
		case line <= last:
			t.Errorf("%s comes after %s", line, last)
		default:
			last = line
		}
	}
	if columns == 0 || last == "" {
		t.Error("there is no table")
	}
}
