package repotest

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// layers is the import direction: a package may import what stands left of it.
func layers() [][]string {
	return [][]string{
		{"."},
		{"ordering", "idempotency", "deadletter"},
		{"queue", "deliver"},
		{"relay", "redrive", "ledger", "prove"},
		{"adapters", "server", "client", "console"},
		{"cmd", "examples", "test", "deploy"},
	}
}

func layerOf(dir string) int {
	return slices.IndexFunc(layers(), func(l []string) bool { return slices.Contains(l, top(dir)) })
}

// mayUseThirdParty says where third-party imports live. One example writes to DynamoDB, as its
// user would: with the vendor's client.
func mayUseThirdParty(dir string) bool {
	return dir == "examples/orders-relay" ||
		slices.Contains([]string{"adapters", "server", "console", "cmd"}, top(dir))
}

// standardOnly says which packages may not even reach third-party code through others.
func standardOnly(dir string) bool {
	return top(dir) == "internal" || top(dir) == "client" || layerOf(dir) < layerOf("adapters")
}

// importOf is one import of one file.
type importOf struct {
	file *file
	line int
	path string
}

func (i importOf) thirdParty() bool {
	first, _, _ := strings.Cut(i.path, "/")
	return i.path == "C" || strings.Contains(first, ".") && i.dir() == ""
}

// dir returns the directory of an import within the module, or "".
func (i importOf) dir() string {
	if i.path == modulePath {
		return "."
	}
	rest, ok := strings.CutPrefix(i.path, modulePath+"/")
	if !ok {
		return ""
	}
	return rest
}

func (r *repo) imports(keep func(*file) bool) []importOf {
	var out []importOf
	for _, f := range r.goFiles(keep) {
		for _, spec := range f.syntax.Imports {
			p, err := strconv.Unquote(spec.Path.Value)
			if err == nil { // the parser has checked it
				out = append(out, importOf{f, r.line(spec.Pos()), p})
			}
		}
	}
	return out
}

// reach returns the directories that dir imports within the module, through others too, itself
// included. Directories that follow rejects are reached but not looked through.
func (r *repo) reach(dir string, follow func(string) bool) []string {
	seen := []string{dir}
	for i := 0; i < len(seen); i++ {
		if i > 0 && !follow(seen[i]) {
			continue
		}
		for _, d := range r.direct[seen[i]] {
			if !slices.Contains(seen, d) {
				seen = append(seen, d)
			}
		}
	}
	return seen
}

func importRules() []rule {
	return append(standardRules(), rule{
		name:  "import direction",
		todo:  "move the shared part left, or take an interface from the root package",
		check: checkDirection,
		bad: `
-- deliver/a.go --
package deliver
import "github.com/ackwise/ackwise/internal/x"
-- internal/x/x.go --
package x
import "github.com/ackwise/ackwise/queue"
-- queue/q.go --
package queue
-- client/c.go --
package client
import "github.com/ackwise/ackwise/server"
-- stray/s.go --
package stray
import "github.com/ackwise/ackwise"
`,
		want: "deliver/a.go:2: import direction: deliver may not import queue (through internal/x)\n" +
			"client/c.go:2: import direction: client may not import server\n" +
			"stray/s.go:2: import direction: stray may not import .",
		good: `
-- deliver/a.go --
package deliver
import "github.com/ackwise/ackwise/internal/x"
-- deliver/a_test.go --
package deliver_test
import "github.com/ackwise/ackwise/queue"
-- internal/x/x.go --
package x
import "github.com/ackwise/ackwise"
-- queue/q.go --
package queue
import "github.com/ackwise/ackwise/queue/internal/wal"
-- server/s.go --
package server
import "github.com/ackwise/ackwise/client"
`,
	})
}

func standardRules() []rule {
	return []rule{{
		name:  "standard library only",
		todo:  "write it with the standard library, or move it under adapters, server or cmd",
		check: checkStandardOnly,
		bad: `
-- queue/q_test.go --
package queue
import "github.com/ackwise/ackwise/server"
-- server/s.go --
package server
import "gopkg.in/yaml.v3"
`,
		want: "queue/q_test.go:2: standard library only: queue reaches gopkg.in/yaml.v3 (in server)",
		good: `
-- queue/q_test.go --
package queue
import "os/exec"
-- server/s.go --
package server
import "gopkg.in/yaml.v3"
`,
	}, {
		name:  "third-party imports",
		todo:  "third-party imports live under adapters, server, console and cmd only",
		check: checkThirdParty,
		bad: `
-- examples/shop/main.go --
package main
import "gopkg.in/yaml.v3"
`,
		want: "examples/shop/main.go:2: third-party imports: examples/shop imports gopkg.in/yaml.v3",
		good: `
-- cmd/x/main.go --
package main
import "gopkg.in/yaml.v3"
-- test/compare/go.mod --
module x
-- test/compare/main.go --
package main
import "gopkg.in/yaml.v3"
`,
	}}
}

func checkDirection(r *repo) []finding {
	viaInternal := func(dir string) bool { return top(dir) == "internal" }
	var out []finding
	for _, imp := range r.imports(noTest) {
		from := imp.file.dir
		if top(from) == "internal" || imp.dir() == "" {
			continue
		}
		for _, to := range r.reach(imp.dir(), viaInternal) {
			if to != imp.dir() && !viaInternal(imp.dir()) || viaInternal(to) || mayImport(from, to) {
				continue
			}
			what := fmt.Sprintf("%s may not import %s", from, to)
			if to != imp.dir() {
				what += fmt.Sprintf(" (through %s)", imp.dir())
			}
			out = append(out, finding{path: imp.file.path, line: imp.line, what: what})
		}
	}
	return out
}

func mayImport(from, to string) bool {
	a, b := layerOf(from), layerOf(to)
	switch {
	case a < 0 || b < 0:
		return false // a directory without a place in the layout
	case top(from) == top(to):
		return true
	case a == b && a == layerOf("adapters"):
		return top(to) == "client" || top(from) == "console"
	}
	return b < a
}

func checkStandardOnly(r *repo) []finding {
	third := make(map[string]string) // directory → the first third-party import of it
	for _, imp := range r.imports(noTest) {
		if imp.thirdParty() && third[imp.file.dir] == "" {
			third[imp.file.dir] = imp.path
		}
	}
	everything := func(string) bool { return true }
	var out []finding
	for _, imp := range r.imports(func(f *file) bool { return standardOnly(f.dir) }) {
		if imp.thirdParty() {
			out = append(out, finding{path: imp.file.path, line: imp.line,
				what: fmt.Sprintf("%s imports %s", imp.file.dir, imp.path)})
			continue
		}
		if imp.dir() == "" {
			continue
		}
		for _, dir := range r.reach(imp.dir(), everything) {
			if third[dir] != "" {
				out = append(out, finding{path: imp.file.path, line: imp.line, what: fmt.Sprintf(
					"%s reaches %s (in %s)", imp.file.dir, third[dir], dir)})
			}
		}
	}
	return out
}

// nested reports whether a directory belongs to a module of its own, such as a comparison.
func (r *repo) nested(dir string) bool {
	return slices.ContainsFunc(r.files, func(f *file) bool {
		return path.Base(f.path) == "go.mod" && f.dir != "." &&
			(dir == f.dir || strings.HasPrefix(dir, f.dir+"/"))
	})
}

func checkThirdParty(r *repo) []finding {
	var out []finding
	for _, imp := range r.imports(any) {
		if imp.thirdParty() && !mayUseThirdParty(imp.file.dir) && !r.nested(imp.file.dir) {
			out = append(out, finding{path: imp.file.path, line: imp.line, what: fmt.Sprintf(
				"%s imports %s", path.Clean(imp.file.dir), imp.path)})
		}
	}
	return out
}
