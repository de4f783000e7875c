package repotest

import (
	"fmt"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// goVersion is the version's first release: what a dependency needs that names it so.
const goVersion = "1.26.0"

func moduleRules() []rule {
	return []rule{{
		name:  "module file",
		todo:  "`go install` from anywhere must just work, with any Go 1.26",
		check: checkModule,
		bad: `
-- go.mod --
module github.com/ackwise/ackwise
go 1.27.1
toolchain go1.27.3
replace a => ../a
replace (
	b => ../b
)
-- queue/go.mod --
module x
`,
		want: "go.mod:2: module file: go 1.27.1, want " + goVersion + "\n" +
			"go.mod:3: module file: a toolchain directive\n" +
			"go.mod:4: module file: a replace directive\n" +
			"go.mod:5: module file: a replace directive\n" +
			"queue/go.mod:1: module file: a module within the module",
		good: `
-- go.mod --
module github.com/ackwise/ackwise
go 1.26.0
require x v1.0.0 // replace later
-- tools/compare/go.mod --
module x
`,
	}}
}

func checkModule(r *repo) []finding {
	var out []finding
	for _, f := range r.files {
		if path.Base(f.path) != "go.mod" {
			continue
		}
		if f.dir != "." {
			if top(f.dir) != "tools" && top(f.dir) != "test" {
				out = append(out, finding{path: f.path, line: 1, what: "a module within the module"})
			}
			continue
		}
		for i, line := range f.lines() {
			what := ""
			switch words := strings.Fields(line); {
			case len(words) == 0:
			case words[0] == "go" && words[1] != goVersion:
				what = fmt.Sprintf("go %s, want %s", words[1], goVersion)
			case words[0] == "module" && words[1] != modulePath:
				what = fmt.Sprintf("module %s, want %s", words[1], modulePath)
			case words[0] == "replace", words[0] == "toolchain", words[0] == "exclude":
				what = "a " + words[0] + " directive"
			}
			if what != "" {
				out = append(out, finding{path: f.path, line: i + 1, what: what})
			}
		}
	}
	return out
}

// TestCoreBuildsNoThirdParty lists all that is built for a user who imports the core packages.
func TestCoreBuildsNoThirdParty(t *testing.T) {
	core := []string{".", "./queue", "./deliver", "./client"}
	args := append([]string{"list", "-deps", "-f",
		"{{if not .Standard}}{{.ImportPath}}{{end}}"}, core...)
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = rootDir(t)
	listed, err := cmd.Output()
	if err != nil {
		t.Fatalf("list what the core builds: %v", err)
	}
	packages := strings.Fields(string(listed))
	for _, p := range core {
		if !slices.Contains(packages, path.Join(modulePath, p)) {
			t.Errorf("%s is not among the packages listed: %s", p, packages)
		}
	}
	for _, p := range foreign(packages) {
		t.Errorf("a user of %s would build %s: keep the core to the standard library", core, p)
	}
}

// foreign returns the packages that are not the module's own.
func foreign(packages []string) []string {
	return slices.DeleteFunc(slices.Clone(packages), func(p string) bool {
		return p == modulePath || strings.HasPrefix(p, modulePath+"/")
	})
}

// TestForeignSeesThirdParty shows the check above red.
func TestForeignSeesThirdParty(t *testing.T) {
	got := foreign([]string{modulePath, modulePath + "/queue", "gopkg.in/yaml.v3",
		modulePath + "x"})
	if want := []string{"gopkg.in/yaml.v3", modulePath + "x"}; !slices.Equal(got, want) {
		t.Errorf("foreign = %q, want %q", got, want)
	}
}
