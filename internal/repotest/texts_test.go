package repotest

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

const maxAgentsLines = 100

func textRules() []rule {
	mark := "TO" + "DO" // in two parts, or this file would break the rule itself
	return []rule{{
		name:  "banned words",
		todo:  "say what is so now, in words that a stranger to this machine understands",
		check: checkWords,
		bad: "-- a.md --\nline\n" + mark + ": later\nsee /wo" + "rk/x\nas in iss" + "ue #5\n" +
			"-- b.go --\npackage b // from proxy.gol" + "ang.org\n",
		want: "a.md:2: banned words: \"" + mark + "\"\na.md:3: banned words: \"/wo" + "rk/\"\n" +
			"a.md:4: banned words: \"iss" + "ue #5\"\nb.go:1: banned words: \"proxy.gol" +
			"ang.org\"",
		good: "-- a.md --\nThe issues of others: owner/repo#5. Open an issue.\n",
	}, {
		name:  "links",
		todo:  "correct the link or write the file",
		check: checkLinks,
		bad:   "-- README.md --\n[a](docs/A.md) and [b](docs/B.md#top)\n-- docs/A.md --\n",
		want:  "README.md:1: links: docs/B.md is not there",
		good: "-- README.md --\n[a](docs/A.md#x) [web](https://example.com) [here](#there) " +
			"[dir](docs/)\n-- docs/A.md --\n[up](../README.md)\n",
	}, {
		name:  "agents file",
		todo:  "cut it: commands, layout, rules",
		check: checkAgents,
		bad:   "-- AGENTS.md --\n" + strings.Repeat("x\n", maxAgentsLines+1),
		want:  "AGENTS.md:101: agents file: it has 101 lines, at most 100",
		good:  "-- AGENTS.md --\nx\n",
	}, {
		name:  "readme example",
		todo:  "make the two equal: the Example is what is compiled and run",
		check: checkReadme,
		bad: "-- README.md --\n```go\nf()\n```\n-- example_test.go --\npackage a\n" +
			"func ExampleX() {\n\tg()\n\t// Output: x\n}\n",
		want: "README.md:1: readme example: this Go code is the body of no Example",
		good: "-- README.md --\n```go\nf()\nif x {\n\tg()\n}\n```\n-- example_test.go --\npackage a\n" +
			"func ExampleX() {\n\tf()\n\tif x {\n\t\tg()\n\t}\n\t// Output: x\n}\n",
	}, {
		name:  "make targets",
		todo:  "give the Makefile this target, with a ## comment that says what it does",
		check: checkMakefile,
		bad: "-- Makefile --\nhelp: ## a\nbuild: ## a\ntest:\nrace: ## a\nlint: ## a\n" +
			"fuzz: ## a\nfaults: ## a\nbench: ## a\n",
		want: "Makefile:1: make targets: test is missing",
		good: "-- Makefile --\nhelp: ## a\nbuild: ## a\ntest: ## a\nrace: ## a\nlint: ## a\n" +
			"fuzz: x ## a\nfaults: ## a\nbench: ## a\n",
	}}
}

// banned matches words of unfinished work, paths of one machine, hosts of package registries and
// numbers of a tracker that a reader cannot see. Each is written in a form that does not match.
func banned() *regexp.Regexp {
	return regexp.MustCompile(strings.Join([]string{
		`\bTO[D]O\b`, `\bFIX[M]E\b`, `\bX[X]X\b`, `\bHA[C]K\b`,
		`/wor[k]/`, `/roo[t]/`, `/home/[a-z]+/`, `/tmp/brie[f]`, `/tmp/bash_job[s]`,
		`prox[y]\.golang\.org`, `su[m]\.golang\.org`, `registr[y]\.npmjs\.org`, `pyp[i]\.org`,
		`(?i)\bissues? [#]?[0-9]+`, `(?i)\bsub-?agen[t]s?\b`, `(?i)\bwork sessio[n]s?\b`,
		`(?i)\b(asked|told) by the lea[d]\b`, `(?i)\blanguage mode[l]s?\b`,
	}, "|"))
}

func checkWords(r *repo) []finding {
	words := banned()
	var out []finding
	for _, f := range r.files {
		for i, line := range f.lines() {
			if word := words.FindString(line); word != "" {
				out = append(out, finding{path: f.path, line: i + 1,
					what: fmt.Sprintf("%q", word)})
			}
		}
	}
	return out
}

func checkLinks(r *repo) []finding {
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	var out []finding
	for _, f := range r.files {
		if path.Ext(f.path) != ".md" {
			continue
		}
		for i, line := range f.lines() {
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				target, _, _ := strings.Cut(m[1], "#")
				if target == "" || strings.Contains(target, ":") {
					continue
				}
				if p := path.Join(f.dir, target); !r.exists(p) {
					out = append(out, finding{path: f.path, line: i + 1, what: p + " is not there"})
				}
			}
		}
	}
	return out
}

func (r *repo) exists(p string) bool {
	if path.Base(p) == "LICENSE" {
		return true // it has no ending that says text, so it is not loaded
	}
	inside := func(d string) bool { return d == p || strings.HasPrefix(d, p+"/") }
	return r.find(p) != nil || slices.ContainsFunc(r.dirs, inside)
}

func checkAgents(r *repo) []finding {
	f := r.find("AGENTS.md")
	if f == nil {
		return []finding{{path: "AGENTS.md", line: 1, what: "it is missing"}}
	}
	if n := len(f.lines()); n > maxAgentsLines {
		return []finding{{path: f.path, line: n,
			what: fmt.Sprintf("it has %d lines, at most %d", n, maxAgentsLines)}}
	}
	return nil
}

// checkReadme compares every block of Go code in the README with the bodies of the examples.
func checkReadme(r *repo) []finding {
	readme := r.find("README.md")
	if readme == nil {
		return []finding{{path: "README.md", line: 1, what: "it is missing"}}
	}
	bodies := r.exampleBodies()
	var out []finding
	var block []string
	begin := 0 // the line of the block's fence; 0 = outside
	for i, line := range readme.lines() {
		switch {
		case begin == 0 && line == "```go":
			begin, block = i+1, nil
		case begin > 0 && line == "```":
			if !slices.Contains(bodies, strings.Join(block, "\n")) {
				out = append(out, finding{path: readme.path, line: begin,
					what: "this Go code is the body of no Example"})
			}
			begin = 0
		case begin > 0:
			block = append(block, line)
		}
	}
	return out
}

// exampleBodies returns the code of every example of the root package, without the outer tab and
// without its Output comment.
func (r *repo) exampleBodies() []string {
	var out []string
	r.functions(func(f *file, d *ast.FuncDecl, name string) {
		if f.dir != "." || !f.test || !strings.HasPrefix(name, "Example") {
			return
		}
		var body []string
		for _, line := range f.lines()[r.line(d.Body.Lbrace) : r.line(d.Body.Rbrace)-1] {
			line = strings.TrimPrefix(line, "\t")
			if strings.HasPrefix(line, "// Output:") || strings.HasPrefix(line, "// Unordered") {
				break
			}
			body = append(body, line)
		}
		out = append(out, strings.TrimRight(strings.Join(body, "\n"), "\n"))
	})
	return out
}

func checkMakefile(r *repo) []finding {
	f := r.find("Makefile")
	if f == nil {
		return []finding{{path: "Makefile", line: 1, what: "it is missing"}}
	}
	var out []finding
	for target := range strings.FieldsSeq("help build test race lint fuzz faults bench") {
		if !regexp.MustCompile(`(?m)^` + target + `:.*## \S`).MatchString(f.data) {
			out = append(out, finding{path: f.path, line: 1, what: target + " is missing"})
		}
	}
	return out
}
