package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ackwise/ackwise"
	"github.com/ackwise/ackwise/queue"
)

// runFile prepares ackwise run of a text of pipelines, in dir.
func runFile(t *testing.T, dir, text string, flags ...string) *exec.Cmd {
	t.Helper()
	path := filepath.Join(dir, "pipelines.yaml")
	put(t, path, text)
	c := command(t, append([]string{"run", path}, flags...)...)
	c.Dir = dir
	return c
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func appendTo(t *testing.T, path, text string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
}

func content(path string) string {
	text, _ := os.ReadFile(path) // none is ""
	return string(text)
}

// numbered are n lines, and their text.
func numberedLines(n int) (all []string, text string) {
	for i := range n {
		all = append(all, fmt.Sprintf("line %d", i))
	}
	return all, strings.Join(all, "\n") + "\n"
}

// waitFor waits until a condition holds.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// launch starts a prepared command and returns its output.
func launch(t *testing.T, c *exec.Cmd) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	c.Stdout, c.Stderr = &out, &out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return &out
}

const throughAQueue = `
pipelines:
  - name: in
    from: file://in.txt
    to: queue://data/lines
    dead: file://dead.jsonl
    create: true
  - name: out
    from: queue://data/lines/all
    exec: printf '%s\n' "$(cat)" >> out.txt
    create: true
    concurrency: 4
`

// TestRunSurvivesKills kills a run of two pipelines again and again, wherever it is. The oracle is
// the file: every line comes out, and the position never passes a line that is not in the queue.
func TestRunSurvivesKills(t *testing.T) {
	const count = 300
	dir := t.TempDir()
	want, text := numberedLines(count)
	put(t, filepath.Join(dir, "in.txt"), text)
	kills := 0
	for round := range 6 {
		c := runFile(t, dir, throughAQueue, "--until-empty")
		out := launch(t, c)
		progress := min(len(lines(content(filepath.Join(dir, "out.txt"))))+20+7*round, count-20)
		waitFor(t, "the run comes on, or ends", func() bool {
			return len(lines(content(filepath.Join(dir, "out.txt")))) >= progress
		})
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if err := c.Wait(); c.ProcessState.ExitCode() != -1 {
			t.Fatalf("the run ended before the kill: %v\n%s", err, out)
		}
		kills++
		settled := strings.Count(text[:positionIn(t, filepath.Join(dir, "in.txt.position"))], "\n")
		b := auditOf(t, filepath.Join(dir, "data"))
		if int64(settled) > b.Accepted {
			t.Fatalf("the position is behind %d lines, and %d are in the queue", settled, b.Accepted)
		}
	}
	r := finish(t, runFile(t, dir, throughAQueue, "--until-empty"))
	r.want(t, 0)
	got := lines(content(filepath.Join(dir, "out.txt")))
	slices.Sort(got)
	repeats := len(got) - len(slices.Compact(slices.Clone(got)))
	got = slices.Compact(got)
	slices.Sort(want)
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("%q never came out", line)
		}
	}
	b := auditOf(t, filepath.Join(dir, "data"))
	if b.Accepted != count || b.Acked != count {
		t.Errorf("accepted %d and acked %d, want %d of each: a line's ID is the same at every read",
			b.Accepted, b.Acked, count)
	}
	t.Logf("%d kills, %d lines came out more than once", kills, repeats)
}

// positionIn reads the offset of the later of the two slots of a position file.
func positionIn(t *testing.T, path string) int {
	t.Helper()
	last, offset := -1, 0
	for _, m := range regexp.MustCompile(`"seq":(\d+),"generation":1,"offset":(\d+)`).
		FindAllStringSubmatch(content(path), -1) {
		if seq, _ := strconv.Atoi(m[1]); seq > last {
			last = seq
			offset, _ = strconv.Atoi(m[2])
		}
	}
	if last < 0 {
		t.Fatalf("%s holds no position", path)
	}
	return offset
}

func TestRunFollowsAndStopsSoftly(t *testing.T) {
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.txt"), filepath.Join(dir, "out.txt")
	put(t, in, "a\n")
	c := runFile(t, dir, pipelineOf("from: file://in.txt", "lines: {follow: true, every: 5ms}",
		"to: file://out.txt", "no_dead_letters: true"))
	log := launch(t, c)
	waitFor(t, "the first line", func() bool { return content(out) == "a\n" })
	appendTo(t, in, "b\nhalf")
	waitFor(t, "the second line", func() bool { return content(out) == "a\nb\n" })
	appendTo(t, in, " whole\n")
	waitFor(t, "the third line", func() bool { return content(out) == "a\nb\nhalf whole\n" })
	want := content(out)
	for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGINT} {
		begin := time.Now()
		if err := c.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		if err := c.Wait(); err != nil || time.Since(begin) > 10*time.Second {
			t.Errorf("%v ended it after %s with %v\n%s", s, time.Since(begin), err, log)
		}
		appendTo(t, in, "next\n")
		c = runFile(t, dir, content(filepath.Join(dir, "pipelines.yaml")))
		log = launch(t, c)
		want += "next\n"
		waitFor(t, "a line after the restart", func() bool { return content(out) == want })
	}
	if err := c.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = c.Wait() // it was killed
}

func TestRunTellsOfATruncatedFile(t *testing.T) {
	dir := t.TempDir()
	in := filepath.Join(dir, "in.txt")
	put(t, in, "a\nb\n")
	text := pipelineOf("from: file://in.txt", "to: \"-\"", "no_dead_letters: true")
	r := finish(t, runFile(t, dir, text))
	r.want(t, 0)
	if r.out != "a\nb\n" {
		t.Errorf("the first run wrote %q", r.out)
	}
	put(t, in, "c\n")
	finish(t, runFile(t, dir, text)).want(t, 1, `pipeline "p": the file `+in+
		" is not the one that was read: it has 2 bytes, and 4 were settled\n",
		"hint: Put the file back; or remove "+in+".position, or set on_change: restart")
	r = finish(t, runFile(t, dir, text+"    lines: {on_change: restart}\n"))
	r.want(t, 0, "is read from its start")
	if r.out != "c\n" {
		t.Errorf("with on_change: restart it wrote %q", r.out)
	}
}

func TestRunWithoutAPlaceForThePosition(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), "a\n")
	if err := os.Mkdir(filepath.Join(dir, "sealed"), 0o700); err != nil {
		t.Fatal(err)
	}
	text := pipelineOf("from: file://in.txt", "to: \"-\"", "no_dead_letters: true",
		"lines: {position: /proc/position}")
	r := finish(t, runFile(t, dir, text))
	r.want(t, 1, `pipeline "p": open position file: `)
	if r.out != "" {
		t.Errorf("it wrote %q though no position can be remembered", r.out)
	}
}

func TestRunReadOnlyDirectory(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("the superuser may write everywhere")
	}
	dir, sealed := t.TempDir(), t.TempDir()
	put(t, filepath.Join(sealed, "in.txt"), "a\n")
	if err := os.Chmod(sealed, 0o500); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.Chmod(sealed, 0o700) }()
	text := pipelineOf("from: file://"+sealed+"/in.txt", "to: \"-\"", "no_dead_letters: true")
	finish(t, runFile(t, dir, text)).want(t, 1, "permission denied", "with the option position")
	r := finish(t, runFile(t, dir, text+"    lines: {position: p}\n"))
	r.want(t, 0)
	if r.out != "a\n" {
		t.Errorf("wrote %q", r.out)
	}
}

// TestRunDeadLetters sees a bad line skipped and the others dead: exit code 4, and each dead letter
// says why.
func TestRunDeadLetters(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), `{"id":"a"}`+"\nnonsense\n"+`{"id":"b"}`+"\n")
	text := pipelineOf("from: file://in.txt", "lines: {id_field: id, on_bad: skip}",
		`exec: 'case $ACKWISE_ID in a) exit 0;; esac; echo no good >&2; exit 7'`,
		"dead: file://dead.jsonl", "max_failures: 2", "backoff: {first: 1ms}")
	r := finish(t, runFile(t, dir, text, "--until-empty"))
	r.want(t, 4, "1 dead letter made, 1 bad line skipped", "line=2", "id=b")
	var m ackwise.Message
	if err := json.Unmarshal([]byte(content(filepath.Join(dir, "dead.jsonl"))), &m); err != nil {
		t.Fatal(err)
	}
	why, _ := m.Header(ackwise.HeaderError)
	attempts, _ := m.Header(ackwise.HeaderAttempts)
	if m.ID != "b" || !strings.Contains(string(why), "no good") || string(attempts) != "2" {
		t.Errorf("the dead letter is %+v", m)
	}
	// Once settled, nothing comes again; the bad line does not either.
	finish(t, runFile(t, dir, text, "--until-empty")).want(t, 0)

	// A dead letter is a line that can be read again.
	again := pipelineOf("from: file://dead.jsonl", "lines: {format: json}", "to: \"-\"",
		"no_dead_letters: true")
	r = finish(t, runFile(t, dir, again))
	r.want(t, 0)
	if r.out != `{"id":"b"}`+"\n" {
		t.Errorf("read again, the dead letter's body is %q", r.out)
	}
}

func TestRunDeadLettersIntoAQueue(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), "a\n")
	r := finish(t, runFile(t, dir, pipelineOf("from: file://in.txt", "exec: exit 1",
		"dead: queue://data/dead", "create: true", "max_failures: 1"), "--until-empty"))
	r.want(t, 4, "1 dead letter made")
	out := must(t, "", "consume", "--dir", filepath.Join(dir, "data"), "--create", "--until-empty",
		"dead/all")
	if !strings.Contains(out, `"ackwise-error"`) || !strings.Contains(out, `"body":"a"`) {
		t.Errorf("the queue of dead letters holds %s", out)
	}
}

func TestRunBadLineStops(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), `{"id":"a"}`+"\nnonsense\n")
	text := pipelineOf("from: file://in.txt", "lines: {id_field: id}", "to: \"-\"",
		"no_dead_letters: true")
	r := finish(t, runFile(t, dir, text))
	r.want(t, 1, `pipeline "p": `, "in.txt, line 2: the line is not a JSON object")
	if r.out != `{"id":"a"}`+"\n" {
		t.Errorf("wrote %q, want the line before the bad one", r.out)
	}
}

// One pipeline that cannot work ends the others too, and is named.
func TestRunFaultsAtTheStart(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), "a\n")
	good := pipelineOf("from: file://in.txt", "lines: {follow: true}", "to: file://out.txt",
		"no_dead_letters: true")
	for _, c := range []struct{ name, more, want string }{
		{"no file", "  - {name: bad, from: 'file://no', to: '-', no_dead_letters: true}\n",
			`pipeline "bad": open source: open ` + dir + "/no: no such file or directory"},
		{"no directory", "  - {name: bad, from: 'queue://no/t/s', to: '-'}\n",
			`pipeline "bad": open directory`},
		{"a taken file", "  - {name: bad, from: 'file://in2', to: 'file://in.txt.position', " +
			"no_dead_letters: true}\n", "in.txt.position: another pipeline uses it"},
		{"a command that cannot start", "  - {name: bad, from: 'file://in2', pipe: 'exit 3', " +
			"no_dead_letters: true}\n", `pipeline "bad": `},
	} {
		t.Run(c.name, func(t *testing.T) {
			put(t, filepath.Join(dir, "in2"), "x\n")
			finish(t, runFile(t, dir, good+c.more)).want(t, 1, c.want)
		})
	}
}

func TestRunUnknownPlaces(t *testing.T) {
	dir := t.TempDir()
	must(t, "", "consume", "--dir", filepath.Join(dir, "data"), "--create", "--until-empty",
		"orders/billing")
	finish(t, runFile(t, dir, pipelineOf("from: queue://data/oders/billing", "to: \"-\""))).
		want(t, 1, `no topic "oders"; did you mean "orders"?`)
	finish(t, runFile(t, dir, pipelineOf("from: queue://data/orders/biling", "to: \"-\""))).
		want(t, 1, `no subscription "biling"; did you mean "billing"?`)
	finish(t, runFile(t, dir, pipelineOf("from: queue://data/orders/billing", "to: \"-\"",
		"create: true", "subscription: {ordered: true}"))).
		want(t, 1, "the subscription orders/billing exists with ordered: false, on_dead: skip")
	if r := run(t, "", "run", filepath.Join(dir, "no.yaml")); r.code != 1 ||
		!strings.Contains(r.err, "no such file") {
		t.Errorf("without a file: %+v", r)
	}
}

func TestRunDryRun(t *testing.T) {
	dir := t.TempDir()
	r := finish(t, runFile(t, dir, throughAQueue, "--dry-run"))
	r.want(t, 0)
	want := "in: file://in.txt -> queue://data/lines (at-least-once, concurrency 1, " +
		"dead letters: file://dead.jsonl)\n"
	if !strings.HasPrefix(r.out, want) || len(lines(r.out)) != 2 {
		t.Errorf("got\n%s", r.out)
	}
	if names, _ := filepath.Glob(dir + "/*"); len(names) != 1 {
		t.Errorf("a dry run has made %q", names)
	}
	finish(t, runFile(t, dir, pipelineOf("form: x"), "--dry-run")).want(t, 1,
		"pipelines.yaml:3: unknown word \"form\" in a pipeline; did you mean \"from\"?")
}

// A chain of pipelines is empty only when the last one is, and the owner may be another process.
func TestRunUntilEmptyThroughAChain(t *testing.T) {
	dir := t.TempDir()
	want, text := numberedLines(200)
	put(t, filepath.Join(dir, "in.txt"), text)
	must(t, "", "consume", "--dir", filepath.Join(dir, "data"), "--create", "--until-empty",
		"other/s")
	owner := command(t, "consume", "--dir", filepath.Join(dir, "data"), "other/s")
	launch(t, owner)
	defer func() { _, _ = owner.Process.Kill(), owner.Wait() }()
	chain := "pipelines:\n" + // the last one first, so that the order of looking is no help
		"  - {name: d, from: 'queue://data/c/s', to: 'file://out.txt', create: true}\n" +
		"  - {name: c, from: 'queue://data/b/s', to: 'queue://data/c', create: true}\n" +
		"  - {name: b, from: 'queue://data/a/s', to: 'queue://data/b', create: true}\n" +
		"  - {name: a, from: 'file://in.txt', to: 'queue://data/a', create: true, " +
		"no_dead_letters: true, lines: {follow: true}}\n"
	finish(t, runFile(t, dir, chain, "--until-empty")).want(t, 0)
	if got := lines(content(filepath.Join(dir, "out.txt"))); !slices.Equal(got, want) {
		t.Errorf("%d lines came out of %d, or in another order", len(got), len(want))
	}
}

func TestRunIntoAClosedPipe(t *testing.T) {
	dir := t.TempDir()
	_, text := numberedLines(20)
	put(t, filepath.Join(dir, "in.txt"), text)
	c := runFile(t, dir, pipelineOf("from: file://in.txt", "to: \"-\"", "dead: file://dead",
		"max_failures: 1"))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	var log bytes.Buffer
	c.Stdout, c.Stderr = w, &log
	err = c.Run()
	w.Close()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 ||
		!strings.Contains(log.String(), `pipeline "p": `) {
		t.Errorf("got %v, want exit code 1\n%s", err, &log)
	}
	if d := content(filepath.Join(dir, "dead")); d != "" {
		t.Errorf("a sink that is gone has made dead letters: %s", d)
	}
}

// TestExamples runs each example as it is.
func runOnce(t *testing.T, dir string, c *exec.Cmd) {
	c.Args = append(c.Args, "--until-empty")
	c.Stdin = strings.NewReader(strings.Repeat(`{"id":1}`+"\n"+`{"id":2}`+"\n", 3) +
		`{"id":1,"other":true}` + "\n")
	finish(t, c).want(t, 4, "1 dead letter made")
	sent := lines(content(filepath.Join(dir, "mails.txt")))
	slices.Sort(sent)
	equal(t, "mails", sent[1:], []string{`{"id":2}`})
	if !strings.HasPrefix(sent[0], `{"id":1`) {
		t.Errorf("the mails are %q", sent)
	}
}

func TestExamples(t *testing.T) {
	const examples = "../../examples/pipelines"
	for name, test := range map[string]func(t *testing.T, dir string, c *exec.Cmd){
		"sort-out.yaml": func(t *testing.T, dir string, c *exec.Cmd) {
			c.Args = append(c.Args, "--until-empty")
			c.Stdin = strings.NewReader(`{"id":1,"customer":"x"}` + "\nnonsense\n" +
				`{"id":2,"customer":"x"}` + "\n" + `{"id":1,"customer":"x"}` + "\n")
			r := finish(t, c)
			r.want(t, 4, "1 bad line skipped")
			if want := `{"id":1,"customer":"x"}` + "\n" + `{"id":2,"customer":"x"}` +
				"\n"; r.out != want {
				t.Errorf("it wrote %s", r.out)
			}
		},
		"follow.yaml": func(t *testing.T, dir string, c *exec.Cmd) {
			put(t, filepath.Join(dir, "access.log"), "GET /a\n")
			out := launch(t, c)
			handled := filepath.Join(dir, "handled.txt")
			waitFor(t, "the first line", func() bool { return content(handled) == "GET /a" })
			if err := os.Rename(filepath.Join(dir, "access.log"),
				filepath.Join(dir, "access.log.1")); err != nil {
				t.Fatal(err)
			}
			put(t, filepath.Join(dir, "access.log"), "GET /b\n")
			waitFor(t, "a line after the rotation", func() bool {
				return content(handled) == "GET /aGET /b"
			})
			if err := c.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if err := c.Wait(); err != nil {
				t.Errorf("SIGTERM: %v\n%s", err, out)
			}
		},
		"handler.yaml": func(t *testing.T, dir string, c *exec.Cmd) {
			put(t, filepath.Join(dir, "work.txt"), "one\n# two\nthree\n")
			finish(t, c).want(t, 4, "1 dead letter made")
			if got := content(filepath.Join(dir, "work.log")); got != "done\ndone\n" {
				t.Errorf("the work that was done: %q", got)
			}
			if d := content(filepath.Join(dir, "work.dead.jsonl")); !strings.Contains(d,
				`"body":"# two"`) || !strings.Contains(d, "a comment") {
				t.Errorf("the dead letters: %s", d)
			}
		},
		"once.yaml": runOnce,
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path, err := filepath.Abs(filepath.Join(examples, name))
			if err != nil {
				t.Fatal(err)
			}
			c := command(t, "run", path)
			c.Dir = dir
			test(t, dir, c)
		})
	}
	files, err := filepath.Glob(examples + "/*")
	if err != nil || len(files) != 4 {
		t.Errorf("there are the examples %q, %v: each has a test here", files, err)
	}
}

// Standard input is read as it comes.
func TestRunReadsStandardInput(t *testing.T) {
	dir := t.TempDir()
	c := runFile(t, dir, pipelineOf("from: \"-\"", "to: file://out.txt", "no_dead_letters: true"))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	log := launch(t, c)
	want := ""
	for _, line := range []string{"a\n", "b\n"} {
		if _, err := io.WriteString(in, line); err != nil {
			t.Fatal(err)
		}
		want += line
		waitFor(t, "a line", func() bool { return content(filepath.Join(dir, "out.txt")) == want })
	}
	in.Close()
	if err := c.Wait(); err != nil {
		t.Errorf("at its end: %v\n%s", err, log)
	}
}

// A message moves on between the looks, each time past the one who looks: only the number of the
// accepted tells.
func TestEmptyLooksTwice(t *testing.T) {
	accepted := map[string]int64{}
	waiting := map[string]int64{"a": 1}
	move := func(from, to string) {
		waiting[from]--
		waiting[to]++
		accepted[to]++
	}
	looks := 0
	flowOf := func(name string, before func()) *flow {
		return &flow{in: &inlet{held: func() int { return 0 },
			books: func(context.Context) (queue.Books, error) {
				before()
				return queue.Books{Accepted: accepted[name], Ready: waiting[name]}, nil
			}}}
	}
	r := &runner{flows: []*flow{
		flowOf("c", func() { looks++ }),
		flowOf("b", func() {
			if looks == 2 {
				move("b", "c")
			}
		}),
		flowOf("a", func() {
			if looks == 1 {
				move("a", "b")
			}
		}),
	}}
	if r.empty(t.Context()) {
		t.Error("found empty, and c has a message")
	}
	if looks != 2 {
		t.Errorf("looked %d times, want 2: the message has not moved", looks)
	}
	waiting["c"] = 0
	if !r.empty(t.Context()) {
		t.Error("not found empty")
	}
}
