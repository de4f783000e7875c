package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const toLint = `pipelines:
  - name: mails
    from: queue://data/orders/mails
    exec: ./send-mail
  - name: said
    from: queue://data/orders/said
    pipe: ./note
    pattern: upsert
  - name: copy
    from: file://in.txt
    to: file://out.txt
    no_dead_letters: true
  - name: short
    from: file://in2.txt
    to: queue://data/lines
    dead: file://dead.txt
  - name: long
    from: file://in3.txt
    to: queue://data/lines
    dead: file://dead.txt
    create: true
    topic: {dedup_window: 2h}
  - name: every
    from: file://in4.txt
    to: queue://data/all
    dead: file://dead.txt
    create: true
    topic: {dedup_window: none}
  - name: lossy
    from: file://in5.txt
    to: "-"
    guarantee: at-most-once
`

func TestLintAdvises(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	put(t, path, toLint)
	r := run(t, "", "lint", "--json", path)
	r.want(t, 3, "lint found 6 places in "+path)
	found := decode[[]lintFinding](t, r.out)
	for i, want := range []struct {
		pipeline string
		line     int
		suggest  []pattern
		advice   string
	}{
		{"mails", 2, []pattern{patternDedup, patternWrite, patternUpsert, patternCompare,
			patternTransaction, patternNone}, "exec: a handler that is killed between"},
		{"copy", 9, []pattern{patternDedup, patternNone}, "tries a message again for ever"},
		{"short", 13, []pattern{patternDedup, patternNone},
			"5m0s here), and this pipeline's attempts may go on longer (53m31s)"},
		{"long", 17, []pattern{patternNone, patternDedup},
			"one message of an ID for 2h0m0s, longer than the pauses"},
		{"every", 23, []pattern{patternDedup, patternNone}, "keeps every repeat"},
		{"lossy", 29, []pattern{patternNone}, "at-most-once handles no message twice"},
	} {
		if i >= len(found) {
			t.Fatalf("%d findings: %s", len(found), r.out)
		}
		f := found[i]
		if f.File != path || f.Pipeline != want.pipeline || f.Line != want.line ||
			f.Check != "pattern" || !slices.Equal(f.Suggest, want.suggest) ||
			!strings.Contains(strings.Join(f.Advice, "\n"), want.advice) {
			t.Errorf("got %+v, want %+v", f, want)
		}
	}
	r = run(t, "", "lint", path)
	r.want(t, 3, "lint found 6 places")
	for _, want := range []string{path + ":2: the pipeline \"mails\" does not say",
		"\n  exec: a handler", "docs/guides/choose-a-pattern.md", "\ntransaction  lives in"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("%q is missing in\n%s", want, r.out)
		}
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "data")); err == nil {
		t.Error("lint made a directory")
	}
}

func TestLintFindsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	put(t, path, pipelineOf("from: queue://d/t/s", "exec: cat", "pattern: dedup"))
	if out := must(t, "", "lint", path); out != "nothing found\n" {
		t.Errorf("lint prints %s", out)
	}
	if out := must(t, "", "lint", "--json", path); out != "[]\n" {
		t.Errorf("lint --json prints %s", out)
	}
}

func TestLintOfAFaultyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.yaml")
	put(t, path, pipelineOf("form: x", "exec: cat", "pattern: dedupe"))
	r := run(t, "", "lint", "--json", path)
	r.want(t, 3, "lint found 2 places")
	found := decode[[]lintFinding](t, r.out)
	if len(found) != 2 || found[0].Line != 3 || found[0].Check != "file" ||
		!strings.Contains(found[1].Text, `did you mean "dedup"?`) {
		t.Errorf("got %+v", found)
	}
	run(t, "", "lint", path+".not").want(t, 1, "no such file")
}

// TestLintOfTheExamples: what is shown to others says its pattern.
func TestLintOfTheExamples(t *testing.T) {
	paths, err := filepath.Glob("../../examples/pipelines/*.yaml")
	if err != nil || len(paths) == 0 {
		t.Fatal("no examples", err)
	}
	for _, path := range paths {
		if r := run(t, "", "lint", path); r.code != 0 {
			t.Errorf("%s: exit code %d\n%s", path, r.code, r.out)
		}
	}
}

// A place that lets dead letters go by itself is told, unless the file brings them back.
func TestLintOfDeadLettersThatExpire(t *testing.T) {
	const queue = "sqs://eu-central-1/dlq"
	path := writeFile(t, "f.yaml", pipelineOf("from: \"-\"", "to: https://example.com/hook",
		"dead: "+queue+"?calls=2", "pattern: none"))
	r := run(t, "", "lint", "--json", path)
	r.want(t, 3, "lint found 1 place")
	found := decode[[]lintFinding](t, r.out)
	if len(found) != 1 || found[0].Line != 5 || found[0].Check != "dead" ||
		!strings.Contains(found[0].Text, "14 days") {
		t.Errorf("got %+v", found)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path = writeFile(t, "f.yaml", string(text)+"redrive:\n  - name: back\n    from: "+queue+
		"\n    to: https://example.com/hook\n")
	if out := must(t, "", "lint", path); out != "nothing found\n" {
		t.Errorf("lint prints %s", out)
	}
}

// A stream that forgets its changes does not wait out an outage behind a breaker, which is told,
// unless the file says that it is meant so.
func TestLintOfAStreamBehindABreaker(t *testing.T) {
	lines := []string{"from: dynamodb-streams://eu-central-1/orders?group=relay",
		"to: https://example.com/hook", "dead: file://dead.jsonl", "pattern: none"}
	for _, c := range []struct {
		more  string
		found bool
	}{
		{"max_failures: 4", true},
		{"breaker: {failures: 5}", true},
		{"breaker: {off: true}", false},
		{"breaker: {off: false}", false}, // as it is, and said
		{"max_failures: unlimited", false},
	} {
		path := writeFile(t, "f.yaml", pipelineOf(append(lines, c.more)...))
		found := decode[[]lintFinding](t, run(t, "", "lint", "--json", path).out)
		if !c.found {
			if len(found) != 0 {
				t.Errorf("%s: got %+v", c.more, found)
			}
			continue
		}
		if len(found) != 1 || found[0].Check != "breaker" || found[0].Line != 3 ||
			!strings.Contains(found[0].Text, "24 hours") ||
			!strings.Contains(strings.Join(found[0].Advice, ""), "breaker: {off: true}") {
			t.Errorf("%s: got %+v", c.more, found)
		}
	}
	lines[0] = "from: sqs://eu-central-1/orders" // keeps its messages for days
	path := writeFile(t, "f.yaml", pipelineOf(lines...))
	if out := must(t, "", "lint", path); out != "nothing found\n" {
		t.Errorf("lint prints %s", out)
	}
}

func TestLintAdvisesOnOtherSystems(t *testing.T) {
	path := writeFile(t, "f.yaml", pipelineOf("from: \"-\"", "to: https://example.com/hook",
		"no_dead_letters: true"))
	found := decode[[]lintFinding](t, run(t, "", "lint", "--json", path).out)
	if len(found) != 1 || found[0].Suggest[0] != patternNone ||
		!strings.Contains(found[0].Advice[0], "under its ID") {
		t.Errorf("got %+v", found)
	}
}
