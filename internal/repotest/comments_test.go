package repotest

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"slices"
	"strings"
)

func commentRules() []rule {
	return append(packageCommentRules(), nameCommentRules()...)
}

func packageCommentRules() []rule {
	return []rule{{
		name:  "package comment",
		todo:  `begin exactly one file of the package with "// Package NAME …" (say what it promises)`,
		check: checkPackageComments,
		bad: `
-- queue/a_test.go --
package queue_test
`,
		want: "queue/a_test.go:1: package comment: package queue has 0 package comments",
		good: `
-- queue/doc.go --
// Package queue keeps messages.
package queue
-- queue/a_test.go --
package queue_test
-- cmd/x/main.go --
// Command x does a thing.
package main
`,
	}, {
		name:  "package comment form",
		todo:  `begin it with "Package NAME" ("Command NAME" for a program)`,
		check: checkPackageCommentForm,
		bad: `
-- queue/a.go --
// This keeps messages.
package queue
`,
		want: `queue/a.go:1: package comment form: it begins with "This keeps"`,
		good: `
-- queue/doc.go --
// Package queue keeps messages.
package queue
`,
	}}
}

func nameCommentRules() []rule {
	return []rule{{
		name:  "documented names",
		todo:  "write a comment whose first word is the name and that says why or what for",
		check: checkDocumented,
		bad: `
-- queue/a.go --
package queue
// A Store keeps messages.
type Store struct{}
func (s *Store) Close() {}
`,
		want: `queue/a.go:3: documented names: the comment of Store begins with "A"
queue/a.go:4: documented names: Store.Close has no comment`,
		good: `
-- queue/a.go --
package queue
// Store keeps messages.
type Store struct{}
// Close closes.
func (s *Store) Close() {}
func (s *hidden) Close() {}
type hidden struct{}
// The states.
const (
	Ready = iota
	Done // all is done
)
var (
	// ErrGone: it is gone.
	ErrGone error
)
-- queue/a_test.go --
package queue
func TestX() {}
`,
	}, {
		name:  "documented options",
		todo:  "say what the field means, its unit and its default",
		check: checkOptionFields,
		bad: `
-- queue/a.go --
package queue
// Options configure.
type Options struct {
	// MaxBatch bounds a batch. Default: 10.
	MaxBatch int
	MaxBytes int
}
`,
		want: "queue/a.go:6: documented options: Options.MaxBytes has no comment",
		good: `
-- queue/a.go --
package queue
// Options configure.
type Options struct {
	MaxBatch int // bounds a batch. Default: 10
	hidden int
}
`,
	}}
}

func checkPackageComments(r *repo) []finding {
	var out []finding
	for _, dir := range r.dirs {
		files := r.goFiles(func(f *file) bool { return f.dir == dir })
		if len(files) == 0 {
			continue
		}
		count := 0
		for _, f := range files {
			if f.syntax.Doc != nil {
				count++
			}
		}
		name := strings.TrimSuffix(files[0].syntax.Name.Name, "_test")
		if count != 1 {
			out = append(out, finding{path: files[0].path, line: 1, what: fmt.Sprintf(
				"package %s has %d package comments, want 1", name, count)})
		}
	}
	return out
}

func checkPackageCommentForm(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(any) {
		if f.syntax.Doc == nil {
			continue
		}
		want := "Package " + f.syntax.Name.Name
		if f.syntax.Name.Name == "main" {
			want = "Command " + path.Base(f.dir)
		}
		text := strings.Fields(f.syntax.Doc.Text())
		if got := strings.Join(text[:min(2, len(text))], " "); got != want {
			out = append(out, finding{path: f.path, line: r.line(f.syntax.Doc.Pos()),
				what: fmt.Sprintf("it begins with %q, want %q", got, want)})
		}
	}
	return out
}

func checkDocumented(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(noTest) {
		report := func(pos token.Pos, name, want string, docs ...*ast.CommentGroup) {
			if what := docFault(name, want, docs); what != "" {
				out = append(out, finding{path: f.path, line: r.line(pos), what: what})
			}
		}
		for _, decl := range f.syntax.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if name, exported := funcName(d); exported {
					report(d.Pos(), name, d.Name.Name, d.Doc)
				}
			case *ast.GenDecl:
				reportSpecs(d, report)
			}
		}
	}
	return out
}

// reportSpecs looks at the names of a type, const or var declaration. Within parentheses a comment
// of the whole group, or one behind the name, is enough for constants and variables.
func reportSpecs(d *ast.GenDecl, report func(token.Pos, string, string, ...*ast.CommentGroup)) {
	group := d.Lparen.IsValid()
	for _, spec := range d.Specs {
		switch s := spec.(type) {
		case *ast.TypeSpec:
			if s.Name.IsExported() {
				doc := s.Doc
				if !group {
					doc = d.Doc
				}
				report(s.Pos(), s.Name.Name, s.Name.Name, doc)
			}
		case *ast.ValueSpec:
			for _, name := range s.Names {
				switch {
				case !name.IsExported():
				case !group:
					report(s.Pos(), name.Name, name.Name, d.Doc)
				case s.Doc != nil && len(s.Names) == 1:
					report(s.Pos(), name.Name, name.Name, s.Doc)
				default:
					report(s.Pos(), name.Name, "", s.Doc, s.Comment, d.Doc)
				}
			}
		}
	}
}

// docFault says what is wrong with the comments of name; want is what the first must begin with.
func docFault(name, want string, docs []*ast.CommentGroup) string {
	text := ""
	for _, d := range docs {
		text += d.Text()
	}
	words := strings.Fields(text)
	if len(words) == 0 {
		return name + " has no comment"
	}
	if first := strings.TrimRight(words[0], ":,.;"); want != "" && first != want &&
		first != want+"'s" {
		return fmt.Sprintf("the comment of %s begins with %q", name, words[0])
	}
	return ""
}

// funcName returns a function's name with its receiver's type, and whether it is visible outside.
func funcName(d *ast.FuncDecl) (string, bool) {
	if d.Recv == nil {
		return d.Name.Name, d.Name.IsExported()
	}
	receiver := receiverName(d.Recv.List[0].Type)
	return receiver + "." + d.Name.Name, d.Name.IsExported() && ast.IsExported(receiver)
}

func receiverName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.StarExpr:
		return receiverName(x.X)
	case *ast.IndexExpr:
		return receiverName(x.X)
	case *ast.IndexListExpr:
		return receiverName(x.X)
	case *ast.Ident:
		return x.Name
	}
	return ""
}

func checkOptionFields(r *repo) []finding {
	var out []finding
	for _, f := range r.goFiles(noTest) {
		ast.Inspect(f.syntax, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || !spec.Name.IsExported() || !isOptions(spec.Name.Name) {
				return true
			}
			fields, ok := spec.Type.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range fields.Fields.List {
				for _, name := range field.Names {
					if name.IsExported() && !describes(fields, field, name.Name) {
						out = append(out, finding{path: f.path, line: r.line(field.Pos()),
							what: spec.Name.Name + "." + name.Name + " has no comment"})
					}
				}
			}
			return true
		})
	}
	return out
}

// describes reports whether a field has a comment, or another field's comment names it: "A and B
// bound …" stands above A only.
func describes(s *ast.StructType, field *ast.Field, name string) bool {
	return slices.ContainsFunc(s.Fields.List, func(f *ast.Field) bool {
		text := f.Doc.Text() + f.Comment.Text()
		return f == field && text != "" || slices.ContainsFunc(strings.Fields(text),
			func(word string) bool { return strings.Trim(word, ".,;:") == name })
	})
}

func isOptions(name string) bool {
	return strings.HasSuffix(name, "Options")
}
