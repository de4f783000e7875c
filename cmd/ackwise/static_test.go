package main

import (
	"debug/buildinfo"
	"debug/elf"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
)

// TestTheBinaryIsStatic builds the command with the flags of make build: it needs no loader and no
// library, so that it runs in an image that has nothing but it.
func TestTheBinaryIsStatic(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the command")
	}
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile(`(?m)^\t(.*)\$\(GO\) build (.*)-o bin/ \./cmd/\.\.\.$`).
		FindSubmatch(makefile)
	if recipe == nil {
		t.Fatal("the Makefile does not say how the commands are built")
	}
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(readme)) {
		if strings.Contains(line, "go install ") && !strings.Contains(line, string(recipe[1])+"go ") {
			t.Errorf("the README has it built otherwise: %s", line)
		}
	}
	binary := filepath.Join(t.TempDir(), "ackwise")
	args := append([]string{"build", "-o", binary}, strings.Fields(string(recipe[2]))...)
	build := exec.CommandContext(t.Context(), "go", append(args, ".")...)
	build.Env = append(os.Environ(), "GOOS=linux")
	build.Env = append(build.Env, strings.Fields(string(recipe[1]))...)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	info, err := buildinfo.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{"CGO_ENABLED": "0", "-trimpath": "true"} {
		i := slices.IndexFunc(info.Settings, func(s debug.BuildSetting) bool { return s.Key == key })
		if i < 0 || info.Settings[i].Value != want {
			t.Errorf("the binary's %s is not %s: %v", key, want, info.Settings)
		}
	}
	file, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary asks for a loader")
		}
	}
	if libraries, err := file.ImportedLibraries(); err != nil || len(libraries) > 0 {
		t.Errorf("the binary needs %v, %v", libraries, err)
	}
}
