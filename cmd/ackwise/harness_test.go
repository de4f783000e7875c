package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// mainEnv makes this test binary the command itself.
const mainEnv = "TEST_RUNS_ACKWISE"

func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" {
		main()
	}
	if text := os.Getenv(scaleEnv); text != "" {
		if err := runScaleHandler(text, os.Getenv(scalePipeline)); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// result is what a run of the command left behind.
type result struct {
	out, err string
	code     int
}

// command prepares a run of the command.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, args...)
	// The race detector would let every run wait for a second at its end.
	c.Env = append(os.Environ(), mainEnv+"=1", "GORACE=atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	return c
}

// finish runs a prepared command.
func finish(t *testing.T, c *exec.Cmd) result {
	t.Helper()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	err := c.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	r := result{out.String(), errOut.String(), c.ProcessState.ExitCode()}
	if r.code < 0 {
		t.Fatalf("%q did not end by itself: %s\n%s", c.Args[1:], c.ProcessState, r.err)
	}
	return r
}

// run runs the command with an input.
func run(t *testing.T, input string, args ...string) result {
	t.Helper()
	c := command(t, args...)
	c.Stdin = strings.NewReader(input)
	return finish(t, c)
}

// must runs the command and fails the test where it does.
func must(t *testing.T, input string, args ...string) string {
	t.Helper()
	r := run(t, input, args...)
	if r.code != 0 {
		t.Fatalf("ackwise %q: exit code %d\n%s", args, r.code, r.err)
	}
	return r.out
}

// want checks an exit code and parts of the error output.
func (r result) want(t *testing.T, code int, parts ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d\n%s%s", r.code, code, r.out, r.err)
	}
	for _, p := range parts {
		if !strings.Contains(r.err, p) {
			t.Errorf("standard error does not hold %q:\n%s", p, r.err)
		}
	}
}

// lines are the lines of an output.
func lines(s string) []string {
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// decode reads a JSON output.
func decode[T any](t *testing.T, s string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return v
}

// auditOf returns the books of the only subscription.
func auditOf(t *testing.T, dir string) audited {
	t.Helper()
	all := decode[[]audited](t, must(t, "", "audit", "--dir", dir, "--json"))
	if len(all) != 1 {
		t.Fatalf("books of %d subscriptions, want 1", len(all))
	}
	return all[0]
}

// dirOf makes a directory with a topic t and a subscription t/s.
func dirOf(t *testing.T, flags ...string) string {
	t.Helper()
	dir := t.TempDir() + "/d"
	must(t, "", append([]string{"consume", "--dir", dir, "--create", "t/s", "--until-empty"},
		flags...)...)
	return dir
}
