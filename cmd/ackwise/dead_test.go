package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ackwise/ackwise/queue"
)

// dirWithDead makes a directory whose messages all died: ID "error words".
func dirWithDead(t *testing.T, messages ...string) string {
	t.Helper()
	dir := dirOf(t)
	publish(t, dir, messages...)
	must(t, "", "consume", "--dir", dir, "t/s", "--exec",
		`echo "bad $ACKWISE_ID: $ACKWISE_KEY" >&2; exit 1`,
		"--max-failures", "1", "--until-empty", "--concurrency", "1")
	return dir
}

func deadIDs(t *testing.T, dir string, flags ...string) []string {
	t.Helper()
	args := append([]string{"dead", "list", "--dir", dir, "t/s", "--json"}, flags...)
	ids := []string{}
	for _, l := range decode[[]queue.DeadLetter](t, must(t, "", args...)) {
		ids = append(ids, l.Message.ID)
	}
	slices.Sort(ids)
	return ids
}

func TestDeadListings(t *testing.T) {
	dir := dirWithDead(t, "m1 timeout", "m2 timeout", "m3 refused")
	equal(t, "by error", deadIDs(t, dir, "--error", "timeout"), []string{"m1", "m2"})
	equal(t, "by key", deadIDs(t, dir, "--key", "refused"), []string{"m3"})
	equal(t, "by cause", deadIDs(t, dir, "--cause", "first", "--max", "1000"), []string{"m1", "m2", "m3"})
	equal(t, "by another cause", deadIDs(t, dir, "--cause", "failed"), []string{})
	equal(t, "before an hour ago", deadIDs(t, dir, "--before", "1h"), []string{})
	equal(t, "before in a while", deadIDs(t, dir, "--before",
		time.Now().Add(time.Hour).UTC().Format(time.RFC3339)), []string{"m1", "m2", "m3"})
	out := must(t, "", "dead", "list", "--dir", dir, "t/s", "--max", "2")
	if !strings.HasPrefix(out, "ID  KEY      DEAD FOR  ATTEMPTS  CAUSE  PARKED  ERROR\n") ||
		!strings.Contains(out, "exit status 1: bad m1: timeout") ||
		!strings.HasSuffix(out, "(the first 2; more with --max)\n") {
		t.Errorf("dead list prints\n%s", out)
	}
	out = must(t, "", "dead", "show", "--dir", dir, "t/s", "m2")
	for _, want := range []string{"id        m2", "hand-outs 1, ", "exit status 1: bad m2",
		"ATTEMPT", `body      {"i":"m2"`} {
		if !strings.Contains(out, want) {
			t.Errorf("dead show does not print %q:\n%s", want, out)
		}
	}
	l := decode[queue.DeadLetter](t, must(t, "", "dead", "show", "--dir", dir, "t/s", "m2", "--json"))
	if l.Message.ID != "m2" || len(l.History) != 1 {
		t.Errorf("dead show --json: %+v", l)
	}
	run(t, "", "dead", "show", "--dir", dir, "t/s", "m8").want(t, 1,
		`no dead letter "m8"; did you mean "m1"?`)
	groups := decode[[]deadGroup](t, must(t, "", "dead", "groups", "--dir", dir, "t/s", "--json"))
	if len(groups) != 2 || groups[0].Count != 2 || !slices.Equal(groups[0].IDs, []string{"m1", "m2"}) ||
		groups[0].Error != "exit status <n>: bad m<n>: timeout" {
		t.Errorf("groups %+v", groups)
	}
	var exported []string
	for _, line := range lines(must(t, "", "dead", "export", "--dir", dir, "t/s")) {
		var l queue.DeadLetter
		if err := json.Unmarshal([]byte(line), &l); err != nil || len(l.History) != 1 {
			t.Errorf("%v in %s", err, line)
		}
		exported = append(exported, l.Message.ID)
	}
	equal(t, "exported", exported, []string{"m1", "m2", "m3"})
	peek := must(t, "", "peek", "--dir", dir, "t/s", "--state", "dead")
	if len(lines(peek)) != 4 {
		t.Errorf("peek prints\n%s", peek)
	}
	one := must(t, "", "peek", "--dir", dir, "t/s", "--id", "m1")
	if !strings.Contains(one, "state     dead") || !strings.Contains(one, "bad m1: timeout") {
		t.Errorf("peek --id prints\n%s", one)
	}
}

func TestRedrive(t *testing.T) {
	dir := dirWithDead(t, numbers("m", 6)...)
	redrive := func(args ...string) result {
		return run(t, "", append([]string{"redrive", "--dir", dir, "t/s"}, args...)...)
	}
	out := redrive("--all", "--dry-run").out
	if !strings.HasPrefix(out, "6 dead letters would be redriven\n  m0\n") {
		t.Errorf("dry run prints %s", out)
	}
	if len(deadIDs(t, dir)) != 6 {
		t.Error("a dry run redrove")
	}
	r := redrive("m0", "m1", "--json")
	if c := decode[changed](t, r.out); r.code != 0 || c.Changed != 2 || c.Chosen != 2 {
		t.Errorf("by ID: %+v", c)
	}
	r = redrive("m2", "m0")
	r.want(t, 4, `no dead letter "m0" (1 of 2 IDs are none)`)
	redrive("m0").want(t, 1, `no dead letter "m0"`)
	if out := redrive("--error", "bad m3").out; out != "1 dead letter redriven\n" {
		t.Errorf("by error: %s", out)
	}
	if out := redrive("--before", "1h").out; out != "0 dead letters redriven\n" {
		t.Errorf("by time: %s", out)
	}
	begin := time.Now()
	if out := redrive("--all", "--rate", "5/s", "--redo").out; out != "2 dead letters redriven\n" {
		t.Errorf("all: %s", out)
	}
	if took := time.Since(begin); took < 200*time.Millisecond {
		t.Errorf("2 at 5/s took %s", took)
	}
	printed := must(t, "", "consume", "--dir", dir, "t/s", "--until-empty")
	if n := strings.Count(printed, `"cause":"redriven"`); n != 4 {
		t.Errorf("%d are redriven, want 4:\n%s", n, printed)
	}
	if n := strings.Count(printed, `"cause":"redone"`); n != 2 {
		t.Errorf("%d are redone, want 2:\n%s", n, printed)
	}
	if b := auditOf(t, dir); b.Acked != 6 || b.Dead != 0 || !b.Balanced {
		t.Errorf("books %+v", b)
	}
}

func TestDrop(t *testing.T) {
	dir := dirWithDead(t, numbers("m", 4)...)
	out := must(t, "", "dead", "drop", "--dir", dir, "t/s", "m1", "--reason", "old", "--dry-run")
	if out != "1 dead letter would be dropped\n  m1\n" {
		t.Errorf("dry run prints %s", out)
	}
	must(t, "", "dead", "drop", "--dir", dir, "t/s", "m1", "--reason", "old")
	equal(t, "left", deadIDs(t, dir), []string{"m0", "m2", "m3"})
	must(t, "", "dead", "drop", "--dir", dir, "t/s", "--all", "--reason", "all gone")
	b := auditOf(t, dir)
	if b.Dropped != 4 || b.DroppedFor["old"] != 1 || b.DroppedFor["all gone"] != 3 || !b.Balanced {
		t.Errorf("books %+v", b)
	}
	if out := must(t, "", "audit", "--dir", dir); !strings.Contains(out, "all gone: 3, old: 1") {
		t.Errorf("audit prints\n%s", out)
	}
}

func TestVerifyDamage(t *testing.T) {
	dir := dirWithDead(t, numbers("m", 100)...)
	report := decode[queue.VerifyReport](t, must(t, "", "verify", "--dir", dir, "--json"))
	if report.Records == 0 || report.Findings == nil {
		t.Errorf("report %+v", report)
	}
	damage(t, dir, "*.log", "m50")
	r := run(t, "", "verify", "--dir", dir)
	r.want(t, 3, "verify found")
	if !strings.Contains(r.out, "the state does NOT agree with the log") {
		t.Errorf("verify prints\n%s", r.out)
	}
	report = decode[queue.VerifyReport](t, run(t, "", "verify", "--dir", dir, "--json").out)
	if len(report.Findings) == 0 {
		t.Errorf("report %+v", report)
	}
	damage(t, dir, "checkpoint-*", "m50")
	for _, cmd := range []string{"verify", "audit", "publish t", "consume t/s"} {
		run(t, "", append(strings.Fields(cmd), "--dir", dir)...).want(t, 3, "checkpoint-", "at offset")
	}
}

// damage flips a bit of every place where a text stands, in the files of a pattern.
func damage(t *testing.T, dir, pattern, text string) {
	t.Helper()
	found := 0
	err := filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if match, _ := filepath.Match(pattern, e.Name()); err != nil || !match {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for i := 0; ; i++ {
			n := bytes.Index(b[i:], []byte(text))
			if n < 0 {
				break
			}
			i += n
			b[i] ^= 1
			found++
		}
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil || found == 0 {
		t.Fatalf("%d places in %s, %v", found, dir, err)
	}
}
