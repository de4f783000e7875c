package repotest

import (
	"fmt"
	"go/ast"
	"go/format"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

func codeRules() []rule {
	return []rule{{
		name:  "gofmt",
		todo:  "run gofmt -w on it",
		check: checkFormat,
		bad:   "-- a.go --\npackage a\n\nvar  x = 1\n",
		want:  "a.go:1: gofmt: it is not formatted",
		good:  "-- a.go --\npackage a\n\nvar x = 1\n",
	}, {
		name:  "package name",
		todo:  "name the package after what it does",
		check: checkPackageNames,
		bad:   "-- internal/util/a.go --\npackage util\n",
		want:  `internal/util/a.go:1: package name: "util" says nothing`,
		good:  "-- internal/vfs/a.go --\npackage vfs\n",
	}, {
		name:  "goroutine",
		todo:  "start it with wg.Go of the object that waits for it",
		check: checkGoroutines,
		bad:   "-- a.go --\npackage a\nfunc f() {\n\tgo g()\n}\n",
		want:  "a.go:3: goroutine: a go statement, which nobody waits for",
		good: "-- a.go --\npackage a\nfunc f() {\n\twg.Go(g)\n}\n" +
			"-- a_test.go --\npackage a\nfunc f() {\n\tgo g()\n}\n",
	}, {
		name:  "global state",
		todo:  "make it a field of the object that uses it, or an option",
		check: checkGlobals,
		bad:   "-- a.go --\npackage a\nvar n int\nvar c = make(chan int)\n",
		want: "a.go:2: global state: n can be changed by anybody\n" +
			"a.go:3: global state: c can be changed by anybody",
		good: "-- a.go --\npackage a\nvar ErrX = errors.New(`x`)\nvar _ I = T{}\n" +
			"//go:embed x.html\nvar page string\n",
	}, {
		name:  "example",
		todo:  "write one with an Output comment: it is what the reader copies",
		check: checkExamples,
		bad: `
-- deliver/a.go --
package deliver
func Run() {}
-- queue/a.go --
package queue
func Open() {}
-- queue/a_test.go --
package queue
func ExampleOpen() {}
`,
		want: "deliver/a.go:2: example: Run has no ExampleRun\n" +
			"queue/a.go:2: example: ExampleOpen has no Output comment",
		good: `
-- queue/a.go --
package queue
func Open() {}
func Validate() {}
-- queue/a_test.go --
package queue
func ExampleOpen() {
	// Output: x
}
-- internal/x/a.go --
package x
func Open() {}
`,
	}}
}

func checkFormat(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(any) {
		if got, err := format.Source([]byte(f.data)); err != nil || string(got) != f.data {
			out = append(out, finding{path: f.path, line: 1, what: "it is not formatted"})
		}
	}
	return out
}

func checkPackageNames(r *repo) []finding {
	empty := []string{"util", "utils", "common", "models", "manager", "helper", "helpers", "misc",
		"shared", "base", "types"}
	var out []finding
	for _, f := range r.goFiles(any) {
		if name := f.syntax.Name.Name; slices.Contains(empty, name) {
			out = append(out, finding{path: f.path, line: r.line(f.syntax.Name.Pos()),
				what: fmt.Sprintf("%q says nothing", name)})
		}
	}
	return out
}

func checkGoroutines(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(noTest) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			if g, ok := n.(*ast.GoStmt); ok {
				out = append(out, finding{path: f.path, line: r.line(g.Pos()),
					what: "a go statement, which nobody waits for"})
			}
			return true
		})
	}
	return out
}

func checkGlobals(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(noTest) {
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR || embeds(d) {
				continue
			}
			for _, spec := range d.Specs {
				if s, ok := spec.(*ast.ValueSpec); ok && s.Names[0].Name != "_" && mutable(s) {
					out = append(out, finding{path: f.path, line: r.line(s.Pos()),
						what: s.Names[0].Name + " can be changed by anybody"})
				}
			}
		}
	}
	return out
}

// embeds reports whether a variable is filled by a go:embed directive.
func embeds(d *ast.GenDecl) bool {
	if d.Doc == nil {
		return false
	}
	return slices.ContainsFunc(d.Doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// mutable reports whether a package-level variable exists in order to change: it has no value, or
// is made or pointed to.
func mutable(s *ast.ValueSpec) bool {
	if len(s.Values) == 0 {
		return true
	}
	return slices.ContainsFunc(s.Values, func(v ast.Expr) bool {
		switch x := v.(type) {
		case *ast.UnaryExpr:
			return x.Op == token.AND
		case *ast.CallExpr:
			fn, ok := x.Fun.(*ast.Ident)
			return ok && (fn.Name == "make" || fn.Name == "new")
		}
		return false
	})
}

// entryPoint matches the names of functions where a reader begins.
func entryPoint() *regexp.Regexp {
	return regexp.MustCompile(`^(New\w*|Open\w*|Dial|Run|RunBatch|Process|Transact|Local)$`)
}

func checkExamples(r *repo) []finding {
	output := make(map[string]bool) // by directory and name: whether it has an Output comment
	for _, f := range r.goFiles(func(f *file) bool { return f.test }) {
		for _, decl := range f.syntax.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if ok && d.Recv == nil && strings.HasPrefix(d.Name.Name, "Example") {
				// A suffix that begins with a small letter tells several examples apart.
				name, _, _ := strings.Cut(d.Name.Name, "_")
				key := f.dir + " " + name
				output[key] = output[key] || hasOutput(f.syntax, d)
			}
		}
	}
	begins := entryPoint()
	var out []finding
	r.functions(func(f *file, d *ast.FuncDecl, name string) {
		// A package for tests, such as queuetest, needs a testing.T, which no example has.
		inside := strings.Contains("/"+f.dir+"/", "/internal/") || strings.HasSuffix(f.dir, "test")
		if !library(f) || inside || d.Recv != nil || !begins.MatchString(name) {
			return
		}
		has, found := output[f.dir+" Example"+name]
		switch {
		case !found:
			out = append(out, finding{path: f.path, line: r.line(d.Type.Pos()),
				what: fmt.Sprintf("%s has no Example%s", name, name)})
		case !has:
			out = append(out, finding{path: f.path, line: r.line(d.Type.Pos()),
				what: fmt.Sprintf("Example%s has no Output comment", name)})
		}
	})
	return out
}

func hasOutput(f *ast.File, d *ast.FuncDecl) bool {
	return slices.ContainsFunc(f.Comments, func(c *ast.CommentGroup) bool {
		text := c.Text()
		return c.Pos() > d.Pos() && c.End() < d.End() &&
			(strings.HasPrefix(text, "Output:") || strings.HasPrefix(text, "Unordered output:"))
	})
}
