package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestDocumentedPipelinesAreRight lints every pipeline that a page shows.
func TestDocumentedPipelinesAreRight(t *testing.T) {
	var pages []string
	for _, place := range []string{"*.md", "docs/*.md", "docs/*/*.md", "deploy/*/*.md",
		"examples/*/*.md"} {
		found, err := filepath.Glob("../../" + place)
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: pages %v, %v", place, found, err)
		}
		pages = append(pages, found...)
	}
	block := regexp.MustCompile("(?ms)^```yaml\n(.*?)^```")
	shown := 0
	for _, page := range pages {
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
