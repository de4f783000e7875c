package repotest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const modulePath = "github.com/ackwise/ackwise"

// rule is one rule of the repository. bad is a small repository that breaks it and good is the same
// one mended, both in the form that parseArchive reads; each line of want is part of what bad
// gives.
type rule struct {
	name  string
	todo  string // what to do about a finding
	check func(*repo) []finding
	bad   string
	want  string
	good  string
}

// finding is one place where a rule is broken.
type finding struct {
	path string
	line int
	what string
	// key and size are set by rules about sizes; the ratchet may allow that size for that key.
	key  string
	size int
}

func (r rule) message(f finding) string {
	return fmt.Sprintf("%s:%d: %s: %s; %s", f.path, f.line, r.name, f.what, r.todo)
}

// allRules returns every rule.
func allRules() []rule {
	return slices.Concat(importRules(), commentRules(), sizeRules(), codeRules(), textRules(),
		moduleRules())
}

// repo is the source that the rules look at.
type repo struct {
	fset  *token.FileSet
	files []*file // sorted by path
	dirs  []string
	// direct holds the directories within the module that each directory imports, tests left out.
	direct map[string][]string
}

// file is one text file. syntax is nil for what is not Go or lies in a testdata folder.
type file struct {
	path, dir string
	data      string
	syntax    *ast.File
	test      bool
}

// top returns the first part of a directory's path; "." is the root package.
func top(dir string) string {
	first, _, _ := strings.Cut(dir, "/")
	return first
}

func (f *file) lines() []string { return strings.Split(strings.TrimSuffix(f.data, "\n"), "\n") }

func (r *repo) line(p token.Pos) int { return r.fset.Position(p).Line }

// find returns the file at p, or nil.
func (r *repo) find(p string) *file {
	i := slices.IndexFunc(r.files, func(f *file) bool { return f.path == p })
	if i < 0 {
		return nil
	}
	return r.files[i]
}

// goFiles returns the parsed files that keep accepts.
func (r *repo) goFiles(keep func(*file) bool) []*file {
	var out []*file
	for _, f := range r.files {
		if f.syntax != nil && keep(f) {
			out = append(out, f)
		}
	}
	return out
}

func any(*file) bool       { return true }
func noTest(f *file) bool  { return !f.test }
func library(f *file) bool { return !f.test && f.syntax.Name.Name != "main" }

// parseRepo makes a repo of the contents of files by path.
func parseRepo(contents map[string]string) (*repo, error) {
	r := &repo{fset: token.NewFileSet()}
	for _, p := range slices.Sorted(maps.Keys(contents)) {
		f := &file{path: p, dir: path.Dir(p), data: contents[p],
			test: strings.HasSuffix(p, "_test.go")}
		if strings.HasSuffix(p, ".go") && !strings.Contains("/"+p, "/testdata/") {
			syntax, err := parser.ParseFile(r.fset, p, f.data, parser.ParseComments)
			if err != nil {
				return nil, err
			}
			f.syntax = syntax
		}
		r.files = append(r.files, f)
		if !slices.Contains(r.dirs, f.dir) {
			r.dirs = append(r.dirs, f.dir)
		}
	}
	r.direct = make(map[string][]string)
	for _, imp := range r.imports(noTest) {
		if d := imp.dir(); d != "" {
			r.direct[imp.file.dir] = append(r.direct[imp.file.dir], d)
		}
	}
	return r, nil
}

// loadRepo reads the repository that this package lies in.
func loadRepo(t *testing.T) *repo {
	t.Helper()
	root := rootDir(t)
	contents := make(map[string]string)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel == ".git" || rel == "bin" || rel == ".cache" {
				return fs.SkipDir
			}
			return nil
		}
		if !isText(rel) {
			return nil
		}
		data, err := os.ReadFile(p)
		contents[rel] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := parseRepo(contents)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.goFiles(any)) < 10 {
		t.Fatalf("found only %d Go files under %s: the rules would check nothing",
			len(r.goFiles(any)), root)
	}
	return r
}

func isText(p string) bool {
	switch path.Ext(p) {
	case ".go", ".md", ".mod", ".yml", ".yaml", ".sh", ".html", ".css", ".js", ".svg":
		return true
	}
	return path.Base(p) == "Makefile" || p == ".ci/run" || p == ".gitignore"
}

func rootDir(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// parseArchive reads files written one after the other, each behind a line "-- path --". Lines
// may begin with '|', which is dropped, so that a sample can hold what Go source cannot.
func parseArchive(s string) map[string]string {
	contents := make(map[string]string)
	name := ""
	for line := range strings.Lines(s) {
		if rest, ok := strings.CutPrefix(line, "-- "); ok {
			name = strings.TrimSuffix(strings.TrimSpace(rest), " --")
			contents[name] = ""
			continue
		}
		if name != "" {
			contents[name] += strings.TrimPrefix(line, "|")
		}
	}
	return contents
}

// TestRules checks the repository against every rule.
func TestRules(t *testing.T) {
	r := loadRepo(t)
	for _, rule := range allRules() {
		t.Run(rule.name, func(t *testing.T) {
			for _, fault := range judge(rule, rule.check(r), exceptions()) {
				t.Error(fault)
			}
		})
	}
	for _, e := range exceptions() {
		known := func(r rule) bool { return r.name == e.rule }
		if !slices.ContainsFunc(allRules(), known) {
			t.Errorf("ratchet_test.go: there is no rule %q", e.rule)
		}
	}
}

// TestEachRuleSeesItsBadInput shows every rule red on its bad sample and green on the good one.
func TestEachRuleSeesItsBadInput(t *testing.T) {
	for _, rule := range allRules() {
		t.Run(rule.name, func(t *testing.T) {
			got := messages(t, rule, rule.bad)
			for want := range strings.SplitSeq(rule.want, "\n") {
				if want == "" || !strings.Contains(got, want) {
					t.Errorf("on the bad sample got %q, want a finding with %q", got, want)
				}
			}
			if got := messages(t, rule, rule.good); got != "" {
				t.Errorf("on the good sample got %q, want no finding", got)
			}
		})
	}
}

func messages(t *testing.T, r rule, archive string) string {
	t.Helper()
	sample, err := parseRepo(parseArchive(archive))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range r.check(sample) {
		out = append(out, r.message(f))
	}
	return strings.Join(out, "\n")
}
