package repotest

import (
	"fmt"
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of the code's sizes.
const (
	maxFileLines     = 600
	maxTestFileLines = 1000
	maxFuncLines     = 70
	maxColumns       = 100 // characters, a tab is one
	maxParameters    = 4
	maxMethods       = 5
	maxExported      = 30
	maxRootExported  = 80
	maxTopDirs       = 20
)

func sizeRules() []rule {
	long := strings.Repeat("\tx++\n", maxFuncLines)
	wide := strings.Repeat("x", maxColumns)
	var names, few strings.Builder
	for i := range maxExported + 1 {
		fmt.Fprintf(&names, "type T%d struct{}\n", i)
		fmt.Fprintf(&few, "\tC%d\n", i)
	}
	var dirs strings.Builder
	for i := range maxTopDirs + 1 {
		fmt.Fprintf(&dirs, "-- d%d/a.md --\n", i)
	}
	return []rule{{
		name:  "file size",
		todo:  "split the file by what its parts are about",
		check: checkFileSize,
		bad:   "-- a.go --\npackage a\n" + strings.Repeat("//\n", maxFileLines),
		want:  "a.go:601: file size: a.go has 601 lines, at most 600",
		good:  "-- a_test.go --\npackage a\n" + strings.Repeat("//\n", maxFileLines),
	}, {
		name:  "function size",
		todo:  "split the function: one reads, one decides, one writes",
		check: checkFuncSize,
		bad:   "-- a.go --\npackage a\nfunc (s *S) F(x int) {\n" + long + "}\n",
		want:  "a.go:2: function size: S.F has 72 lines, at most 70",
		good:  "-- a.go --\npackage a\nfunc F(x int) {\n\tx++\n}\n",
	}, {
		name:  "line length",
		todo:  "break the line (raw strings, tags, web addresses and tables of constants may be longer)",
		check: checkLineLength,
		bad:   "-- a.go --\npackage a\nvar x = f(`" + wide + "`)\n",
		want:  "a.go:2: line length: 113 columns, at most 100",
		good: "-- a.go --\npackage a\nconst x = `" + wide + "`\n" +
			"var y = []string{\n\t\"" + wide + "\"}\n" +
			"// https://" + wide + "\nvar z = `\n" + wide + "\n`\n" +
			"type t struct {\n\tA int `" + wide + "`\n}\n",
	}, {
		name:  "parameters",
		todo:  "gather them in an Options struct (a context, a testing.T and Options do not count)",
		check: checkParameters,
		bad:   "-- a.go --\npackage a\nfunc F(ctx context.Context, a, b, c, d, e int) {}\n",
		want:  "a.go:2: parameters: F has 5 parameters, at most 4",
		good: "-- a.go --\npackage a\n" +
			"func F(ctx context.Context, a, b, c, d int, o q.FOptions) {}\n",
	}, {
		name:  "interface size",
		todo:  "split it by who calls what",
		check: checkInterfaces,
		bad: "-- a.go --\npackage a\n" +
			"type I interface {\n\tA()\n\tB()\n\tC()\n\tD()\n\tE()\n\tF()\n}\n",
		want: "a.go:2: interface size: I has 6 methods, at most 5",
		good: "-- a.go --\npackage a\n" +
			"type I interface {\n\tA()\n\tJ\n}\ntype N interface{ ~int | ~string }\n",
	}, {
		name:  "exported names",
		todo:  "unexport what nobody outside needs, or split the package",
		check: checkExported,
		bad:   "-- q/a.go --\npackage q\n" + names.String(),
		want:  "q/a.go:1: exported names: package q has 31, at most 30",
		good: "-- q/a.go --\npackage q\ntype T int\nconst (\n\tC T = iota\n" + few.String() +
			")\nfunc (T) M() {}\n",
	}, {
		name:  "top-level directories",
		todo:  "put it below one that is there",
		check: checkTopDirs,
		bad:   dirs.String(),
		want:  "has 21, at most 20",
		good:  "-- .github/a.md --\n-- a/b/c.md --\n-- a/d/e.md --\n",
	}}
}

func checkFileSize(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(any) {
		limit := maxFileLines
		if f.test {
			limit = maxTestFileLines
		}
		if n := len(f.lines()); n > limit {
			out = append(out, finding{path: f.path, line: n, key: f.path, size: n,
				what: fmt.Sprintf("%s has %d lines, at most %d", f.path, n, limit)})
		}
	}
	return out
}

// functions calls visit for every declared function and the name to show.
func (r *repo) functions(visit func(f *file, d *ast.FuncDecl, name string)) {
	for _, f := range r.goFiles(any) {
		for _, decl := range f.syntax.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok {
				name, _ := funcName(d)
				visit(f, d, name)
			}
		}
	}
}

func checkFuncSize(r *repo) []finding {
	var out []finding
	r.functions(func(f *file, d *ast.FuncDecl, name string) {
		n := r.line(d.End()) - r.line(d.Type.Pos()) + 1
		if n > maxFuncLines {
			out = append(out, finding{path: f.path, line: r.line(d.Type.Pos()),
				key: f.path + " " + name, size: n,
				what: fmt.Sprintf("%s has %d lines, at most %d", name, n, maxFuncLines)})
		}
	})
	return out
}

func checkLineLength(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(any) {
		var exempt map[int]bool // found only where a line is long
		for i, line := range f.lines() {
			n := utf8.RuneCountInString(line)
			if n <= maxColumns || strings.Contains(line, "://") || strings.HasPrefix(line, "//go:") {
				continue
			}
			if exempt == nil {
				exempt = r.exemptLines(f)
			}
			if !exempt[i+1] {
				out = append(out, finding{path: f.path, line: i + 1,
					what: fmt.Sprintf("%d columns, at most %d", n, maxColumns)})
			}
		}
	}
	return out
}

// exemptLines returns the lines of tables of constants, of raw strings over several lines, and of
// struct tags, which have no place to break.
func (r *repo) exemptLines(f *file) map[int]bool {
	lines := make(map[int]bool)
	ast.Inspect(f.syntax, func(n ast.Node) bool {
		ok := false
		switch x := n.(type) {
		case *ast.GenDecl:
			ok = x.Tok == token.CONST
		case *ast.CompositeLit:
			ok = isTable(x)
		case *ast.BasicLit:
			ok = strings.Contains(x.Value, "\n")
		case *ast.Field:
			ok = x.Tag != nil
		}
		if ok {
			for l := r.line(n.Pos()); l <= r.line(n.End()); l++ {
				lines[l] = true
			}
		}
		return true
	})
	return lines
}

// isTable reports whether an array, slice or map literal holds constants only.
func isTable(c *ast.CompositeLit) bool {
	switch c.Type.(type) {
	case *ast.ArrayType, *ast.MapType:
		return constant(c)
	}
	return false
}

func constant(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.BasicLit, *ast.Ident, *ast.SelectorExpr:
		return true
	case *ast.UnaryExpr:
		return x.Op != token.ARROW && constant(x.X)
	case *ast.BinaryExpr:
		return constant(x.X) && constant(x.Y)
	case *ast.KeyValueExpr:
		return constant(x.Key) && constant(x.Value)
	case *ast.CompositeLit:
		return !slices.ContainsFunc(x.Elts, func(e ast.Expr) bool { return !constant(e) })
	}
	return false
}

func checkParameters(r *repo) []finding {
	var out []finding
	r.functions(func(f *file, d *ast.FuncDecl, name string) {
		n := 0
		for _, p := range d.Type.Params.List {
			if !freeParameter(p.Type) {
				n += max(1, len(p.Names))
			}
		}
		if n > maxParameters {
			out = append(out, finding{path: f.path, line: r.line(d.Type.Pos()),
				key: f.path + " " + name, size: n,
				what: fmt.Sprintf("%s has %d parameters, at most %d", name, n, maxParameters)})
		}
	})
	return out
}

// freeParameter reports whether a parameter of this type does not count.
func freeParameter(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.StarExpr:
		return freeParameter(x.X)
	case *ast.Ident:
		return isOptions(x.Name)
	case *ast.SelectorExpr:
		pkg, _ := x.X.(*ast.Ident)
		return isOptions(x.Sel.Name) || pkg != nil && (pkg.Name == "testing" ||
			pkg.Name == "context" && x.Sel.Name == "Context")
	}
	return false
}

func checkInterfaces(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(any) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if i, ok := spec.Type.(*ast.InterfaceType); ok && i.Methods.NumFields() > maxMethods {
				out = append(out, finding{path: f.path, line: r.line(spec.Pos()),
					key: f.path + " " + spec.Name.Name, size: i.Methods.NumFields(),
					what: fmt.Sprintf("%s has %d methods, at most %d", spec.Name.Name,
						i.Methods.NumFields(), maxMethods)})
			}
			return true
		})
	}
	return out
}

func checkExported(r *repo) []finding {
	var out []finding
	for _, dir := range r.dirs {
		files := r.goFiles(func(f *file) bool { return f.dir == dir && library(f) })
		if len(files) == 0 {
			continue
		}
		limit := maxExported
		if dir == "." {
			limit = maxRootExported
		}
		if n := countExported(files); n > limit {
			out = append(out, finding{path: files[0].path, line: 1, key: dir, size: n,
				what: fmt.Sprintf("package %s has %d, at most %d", files[0].syntax.Name.Name, n,
					limit)})
		}
	}
	return out
}

// countExported counts functions, types, variables and constants that are visible outside; the
// constants of one type count as one.
func countExported(files []*file) int {
	n := 0
	constants := make(map[string]bool) // the types that have some
	for _, f := range files {
		for _, decl := range f.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil && d.Name.IsExported() {
					n++
				}
			case *ast.GenDecl:
				n += countSpecs(d, constants)
			}
		}
	}
	return n + len(constants)
}

func countSpecs(d *ast.GenDecl, constants map[string]bool) int {
	n := 0
	typeName := "" // of a constant; it is carried on in an iota list
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				n++
			}
		case *ast.ValueSpec:
			if t, ok := s.Type.(*ast.Ident); ok {
				typeName = t.Name
			} else if len(s.Values) > 0 {
				typeName = ""
			}
			for _, name := range s.Names {
				switch {
				case !name.IsExported():
				case d.Tok == token.CONST && typeName != "":
					constants[typeName] = true
				default:
					n++
				}
			}
		}
	}
	return n
}

func checkTopDirs(r *repo) []finding {
	var tops []string
	for _, dir := range r.dirs {
		if t := top(dir); !strings.HasPrefix(t, ".") && !slices.Contains(tops, t) {
			tops = append(tops, t)
		}
	}
	if len(tops) <= maxTopDirs {
		return nil
	}
	return []finding{{path: ".", what: fmt.Sprintf("the repository has %d, at most %d: %s",
		len(tops), maxTopDirs, strings.Join(tops, " "))}}
}
