package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedPipelinesAreRight lints every pipeline that the README and the pages of the systems
// show.
func TestDocumentedPipelinesAreRight(t *testing.T) {
	pages, err := filepath.Glob("../../docs/systems/*.md")
	if err != nil || len(pages) < 8 {
		t.Fatalf("pages %v, %v", pages, err)
	}
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	shown := 0
	for _, page := range append(pages, "../../README.md") {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range block.FindAllSubmatch(text, -1) {
			if text := string(m[1]); !strings.Contains(text, "pipelines:") &&
				!strings.Contains(text, "redrive:") {
				continue // a part of one, or another program's
			}
			shown++
			path := writeFile(t, "f.yaml", string(m[1]))
			if r := run(t, "", "lint", path); r.code != 0 {
				t.Errorf("%s:\n%s\n%s%s", page, m[1], r.out, r.err)
			}
		}
	}
	if shown < 8 {
		t.Errorf("%d pipelines found, want one of each system", shown)
	}
}
