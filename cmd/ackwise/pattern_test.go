package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

const fromQueue = "from: queue://d/t/s"

// again is a pipeline of pattern dedup.
func again(more ...string) string {
	return pipelineOf(append([]string{fromQueue, "exec: cat", "pattern: dedup"}, more...)...)
}

func faultsOfPatterns() []faulty {
	return []faulty{
		{"an unknown pattern", pipelineOf(fromQueue, "exec: cat", "pattern: dedupe"),
			"f:5: pattern: expected compare, dedup, none, transaction, upsert or write, " +
				"found the text \"dedupe\"; did you mean \"dedup\"?"},
		{"an empty pattern", pipelineOf(fromQueue, "exec: cat", "pattern: \"\""),
			"f:5: pattern: expected compare, dedup, none, transaction, upsert or write, " +
				"found the text \"\""},
		{"unknown words of dedup", again("dedup: {windw: 1h, by: ids, sum: crc}"),
			"f:6: unknown word \"windw\" in dedup; did you mean \"window\"?\n" +
				"f:6: dedup.by: expected body or id, found the text \"ids\"; did you mean \"id\"?\n" +
				"f:6: dedup.sum: expected body or none, found the text \"crc\""},
		{"dedup without its pattern", pipelineOf(fromQueue, "exec: cat", "pattern: write",
			"dedup: {window: 2h}"), "f:6: dedup has no effect: pattern is not dedup"},
		{"a sum of what is the key", again("dedup: {by: body, sum: body}"),
			"f:6: dedup.sum has no effect: with by: body two bodies never differ"},
		{"a window shorter than the retries", again("dedup: {window: 30m}"),
			"f:6: dedup.window: 30m0s is shorter than the 53m31s for which a message may come " +
				"again (dedup.again, or max_failures, backoff and retry_budget): what comes after " +
				"the window would be done twice"},
		{"a window shorter than the redrive age", again("dedup:", "  window: 24h", "  again: 48h"),
			"f:7: dedup.window: 24h0m0s is shorter than the 48h0m0s for which a message may come " +
				"again (dedup.again, or max_failures, backoff and retry_budget): what comes after " +
				"the window would be done twice"},
		{"again shorter than the retries", again("dedup: {again: 1m}"),
			"f:6: dedup.again: 1m0s is shorter than the 53m31s that the pauses between this " +
				"pipeline's attempts may take (max_failures, backoff, retry_budget)"},
		{"retries for ever", again("max_failures: unlimited"),
			"f:5: dedup.again is needed: this pipeline tries a message again for ever " +
				"(no_dead_letters, or max_failures: unlimited), which no window covers; say how " +
				"long after its first delivery a message may come again"},
		{"more retries than the default window", again("max_failures: 1000"),
			"f:5: dedup.window: 24h0m0s is shorter than the 165h53m31s for which a message may come " +
				"again (dedup.again, or max_failures, backoff and retry_budget): what comes after " +
				"the window would be done twice"},
		{"at most once", again("guarantee: at-most-once"), "f:5: pattern: dedup is for " +
			"at-least-once; with at-most-once no message is handled twice, leave pattern out or " +
			"say none"},
	}
}

func faultsOfStores() []faulty {
	stores := "memory:, queue://DIR/NAME, postgres://USER@HOST/DATABASE?name=NAME, " +
		"redis://HOST:PORT?name=NAME, dynamodb://REGION/TABLE?name=NAME"
	store := func(url string) string { return again("dedup: {store: \"" + url + "\"}") }
	return []faulty{
		{"no store", pipelineOf(lineSource, lineSink, "dead: file://dead", "pattern: dedup"),
			"f:6: dedup.store: file://in keeps no dedup store, so one has to be named: " + stores},
		{"a near store", store("postgre://h/d?name=x"), "f:6: dedup.store: unknown kind of store " +
			"\"postgre:\"; did you mean \"postgres://\"? the stores are " + stores},
		{"a near store of one word", store("memry:"), "f:6: dedup.store: unknown kind of store " +
			"\"memry:\"; did you mean \"memory:\"? the stores are " + stores},
		{"another store", store("mysql://root:hush@h/d"), "f:6: dedup.store: unknown kind of " +
			"store \"mysql:\"; the stores are " + stores},
		{"no kind of store", store("somewhere"), "f:6: dedup.store: it does not begin with the " +
			"kind of store; the stores are " + stores},
		{"memory of something", store("memory:x"), "f:6: dedup.store: memory: has nothing behind " +
			"it, found \"x\"; here it is memory:"},
		{"no directory", store("queue://x"), "f:6: dedup.store: \"queue://x\" is not whole; here " +
			"it is queue://DIR/NAME"},
		{"an empty name", store("queue://d/"), "f:6: dedup.store: invalid name: the name is empty; " +
			"here it is queue://DIR/NAME"},
		{"no name", store("postgres://u:hush@h/d"), "f:6: dedup.store: invalid name: the name is " +
			"empty; here it is postgres://USER@HOST/DATABASE?name=NAME"},
		{"no host", store("redis://:hush@?name=x"), "f:6: dedup.store: the URL behind redis:// " +
			"names no host or cannot be read; here it is redis://HOST:PORT?name=NAME"},
		{"an unreadable URL", store("redis://u:hush@h:x%zz?name=x"), "f:6: dedup.store: the URL " +
			"behind redis:// names no host or cannot be read; here it is redis://HOST:PORT?name=NAME"},
		{"a password in the option", store("redis://h?name=x&password=hush"), "f:6: dedup.store: " +
			"the option password holds no secret itself: it is env:NAME or file:PATH; here it is " +
			"redis://HOST:PORT?name=NAME"},
		{"a password kept in no place", store("postgres://h/d?name=x&password=file:"), "f:6: " +
			"dedup.store: the option password holds no secret itself: it is env:NAME or file:PATH; " +
			"here it is postgres://USER@HOST/DATABASE?name=NAME"},
		{"two passwords", store("redis://u:hush@h?name=x&password=env:A"), "f:6: dedup.store: a " +
			"password stands before the host, and the option password names another one: leave one " +
			"of them out; here it is redis://HOST:PORT?name=NAME"},
		{"two places of a password", store("redis://h?name=x&password=env:A&password=env:B"),
			"f:6: dedup.store: the option password stands twice; here it is " +
				"redis://HOST:PORT?name=NAME"},
		{"an unreadable option", store("redis://h?name=x&password=hush%zz"), "f:6: dedup.store: an " +
			"option behind ? is not NAME=VALUE, well encoded; here it is redis://HOST:PORT?name=NAME"},
		{"no table", store("dynamodb://eu-west-1?name=x"), "f:6: dedup.store: it names no table; " +
			"here it is dynamodb://REGION/TABLE?name=NAME"},
		{"no region", store("dynamodb:///t?name=x"), "f:6: dedup.store: it names no region; here " +
			"it is dynamodb://REGION/TABLE?name=NAME"},
		{"an unknown part", store("dynamodb://r/t?nme=x"), "f:6: dedup.store: unknown word " +
			"\"nme\"; the words are name and endpoint; here it is dynamodb://REGION/TABLE?name=NAME"},
	}
}

func TestTwoPipelinesCannotShareAStore(t *testing.T) {
	text := "pipelines:\n"
	for _, name := range []string{"p", "q"} {
		text += "  - {name: " + name + ", from: \"queue://d/t/" + name + "\", exec: cat, " +
			"pattern: dedup, dedup: {store: \"redis://" + name + ":hush@h:1?name=x\"}}\n"
	}
	_, err := parseConfig("f", []byte(text))
	want := "f:3: the dedup store redis://h:1?name=x is taken by the pipeline on line 2"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestPatternsThatAreRight(t *testing.T) {
	for _, more := range [][]string{
		{"pattern: write"}, {"pattern: none"}, {"pattern: transaction"},
		{"pattern: dedup"},
		{"pattern: dedup", "max_failures: unlimited", "dedup: {again: 20h}"},
		{"pattern: dedup", "dedup: {window: 100h, again: 100h, max_keys: 5, lease: 5s, sum: none}"},
		{"pattern: dedup", "dedup: {store: \"queue:///srv/d/names\", by: body}"},
		{"pattern: dedup", "dedup: {store: \"postgres://u:p@h:5432/d?sslmode=disable&name=a\"}"},
		{"pattern: dedup", "dedup: {store: \"redis://h:6379/2?name=a\"}"},
		{"pattern: dedup",
			"dedup: {store: \"dynamodb://r/t?name=a&endpoint=http%3A%2F%2F127.0.0.1%3A8000\"}"},
	} {
		c, err := parseConfig("f", []byte(pipelineOf(append(more, fromQueue, "exec: cat")...)))
		if err != nil {
			t.Errorf("%q: %v", more, err)
			continue
		}
		if p := c.Pipelines[0]; p.Pattern == patternDedup && p.store.name == "" {
			t.Errorf("%q: no store", more)
		}
	}
	u, err := parseStoreURL("postgres://u:p@h:5432/d?sslmode=disable&name=a")
	if err != nil || u.server != "postgres://u:p@h:5432/d?sslmode=disable" ||
		u.key() != "postgres://h:5432/d?name=a" {
		t.Errorf("got %+v, %v", u, err)
	}
}

// note is a handler that notes its message in one write.
const note = `exec: printf '%s\n' "$(cat)" >> out.txt`

// doubled is a topic that keeps every repeat, and holds each of n messages three times.
func doubled(t *testing.T, dir string, n int) {
	t.Helper()
	var text strings.Builder
	for round := range 3 {
		for i := range n {
			fmt.Fprintf(&text, "{\"id\":\"m-%d\",\"n\":%d}\n", (i*7+round)%n, (i*7+round)%n)
		}
	}
	put(t, filepath.Join(dir, "in.txt"), text.String())
	finish(t, runFile(t, dir, `
pipelines:
  - name: in
    from: file://in.txt
    lines: {id_field: id}
    to: queue://data/t
    topic: {dedup_window: none}
    no_dead_letters: true
    create: true
`)).want(t, 0)
}

// dedupFrom is a pipeline of pattern dedup that reads the topic t.
func dedupFrom(target string, more ...string) string {
	return pipelineOf(append([]string{"from: queue://data/t/s", target, "create: true",
		"pattern: dedup"}, more...)...)
}

func TestRunDedup(t *testing.T) {
	for _, c := range []struct{ name, target, more string }{
		{"a sink, remembered in the queue", "to: file://out.txt", "batch_size: 7"},
		{"a command, remembered in the queue", note,
			"concurrency: 2"},
		{"a sink, remembered in memory", "to: file://out.txt", "dedup: {store: \"memory:\"}"},
		{"by its body", "to: file://out.txt", "dedup: {by: body}"},
	} {
		t.Run(c.name, func(t *testing.T) {
			const n = 40
			dir := t.TempDir()
			doubled(t, dir, n)
			finish(t, runFile(t, dir, dedupFrom(c.target, c.more), "--until-empty")).want(t, 0)
			var want []string
			for i := range n {
				want = append(want, fmt.Sprintf("{\"id\":\"m-%d\",\"n\":%d}", i, i))
			}
			slices.Sort(want)
			got := lines(content(filepath.Join(dir, "out.txt")))
			slices.Sort(got)
			equal(t, "effects", got, want)
			if b := auditOf(t, filepath.Join(dir, "data")); b.Acked != 3*n {
				t.Errorf("%d of %d messages are acked", b.Acked, 3*n)
			}
		})
	}
}

// TestRunDedupSurvivesKills kills the run of a command that notes what it did. Each kill may leave
// one effect that was made and not completed, which is made again; every other one is made once.
func TestRunDedupSurvivesKills(t *testing.T) {
	const n, kills = 60, 3
	dir := t.TempDir()
	doubled(t, dir, n)
	text := dedupFrom(note, "concurrency: 1",
		"dedup: {lease: 200ms}", "subscription: {lease: 1s}")
	out := filepath.Join(dir, "out.txt")
	for round := range kills {
		c := runFile(t, dir, text, "--until-empty")
		said := launch(t, c)
		waitFor(t, "the run comes on", func() bool {
			return len(lines(content(out))) >= 10*(round+1)
		})
		if err := c.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatalf("%v\n%s", err, said)
		}
		if err := c.Wait(); c.ProcessState.ExitCode() != -1 {
			t.Fatalf("the run ended before the kill: %v\n%s", err, said)
		}
	}
	finish(t, runFile(t, dir, text, "--until-empty")).want(t, 0)
	count := map[string]int{}
	again := 0
	for _, line := range lines(content(out)) {
		if count[line]++; count[line] > 1 {
			again++
		}
	}
	if len(count) != n || again > kills {
		t.Errorf("%d different effects of %d, %d made again after %d kills", len(count), n, again,
			kills)
	}
}

// TestSuppressedIsCounted: a repeat that pattern dedup keeps away is seen from outside.
func TestSuppressedIsCounted(t *testing.T) {
	for name, target := range map[string]string{"a sink": "to: file://%s/out",
		"a command": "exec: printf '%%s\\n' \"$(cat)\" >> %s/out"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			put(t, filepath.Join(dir, "in"), "{\"id\":\"a\"}\n{\"id\":\"b\"}\n{\"id\":\"a\"}\n")
			s := listening(t, "run", "--listen", "127.0.0.1:0", writeFile(t, "p.yaml", pipelineOf(
				"from: file://"+dir+"/in", "lines: {follow: true, id_field: id}",
				fmt.Sprintf(target, dir), "dead: file://"+dir+"/dead", "pattern: dedup",
				"dedup: {store: \"memory:\"}")))
			var text string
			waitFor(t, "all is acked", func() bool {
				_, text = s.get("/metrics", "")
				return strings.Contains(text, `ackwise_settled_total{outcome="ack",pipeline="p"} 3`)
			})
			if !strings.Contains(text, "\nackwise_suppressed_total{pipeline=\"p\"} 1\n") {
				t.Errorf("one repeat is not counted as suppressed:\n%s", text)
			}
			made := lines(content(filepath.Join(dir, "out")))
			slices.Sort(made) // commands run beside each other
			equal(t, "effects", made, []string{`{"id":"a"}`, `{"id":"b"}`})
			if err := s.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			_ = s.Wait()
		})
	}
}

func TestRunDedupConflict(t *testing.T) {
	dir := t.TempDir()
	put(t, filepath.Join(dir, "in.txt"), "{\"id\":\"a\",\"n\":1}\n{\"id\":\"a\",\"n\":2}\n")
	text := pipelineOf("from: file://in.txt", "lines: {id_field: id}", "to: file://out.txt",
		"dead: file://dead.txt", "pattern: dedup", "dedup: {store: \"memory:\"}")
	finish(t, runFile(t, dir, text)).want(t, 4, "1 dead letter made")
	equal(t, "effects", lines(content(filepath.Join(dir, "out.txt"))), []string{`{"id":"a","n":1}`})
	if d := content(filepath.Join(dir, "dead.txt")); !strings.Contains(d, "payload") {
		t.Errorf("the dead letter does not say why: %s", d)
	}
}

// TestRunDedupStoreIsDown: nothing listens where the store should be, or it never answers.
func TestRunDedupStoreIsDown(t *testing.T) {
	const free = "127.0.0.1:1"
	for _, url := range []string{"postgres://u:hush@" + free + "/d?name=x",
		"redis://u:hush@" + free + "?name=x",
		"dynamodb://eu-west-1/t?name=x&endpoint=http%3A%2F%2F" + free} {
		dir := t.TempDir()
		put(t, filepath.Join(dir, "in.txt"), "one\n")
		text := pipelineOf("from: file://in.txt", "to: file://out.txt", "no_dead_letters: true",
			"pattern: dedup", "dedup: {again: 1h, store: \""+url+"\"}")
		c := runFile(t, dir, text, "--until-empty")
		c.Env = append(c.Env, "AWS_ACCESS_KEY_ID=x", "AWS_SECRET_ACCESS_KEY=hush")
		r := finish(t, c)
		r.want(t, 1, "pipeline \"p\": open the dedup store "+strings.SplitN(url, "://", 2)[0],
			"Nothing was handled")
		if strings.Contains(r.err, "hush") {
			t.Errorf("a password is shown: %s", r.err)
		}
		if _, err := os.Stat(filepath.Join(dir, "out.txt")); err == nil &&
			content(filepath.Join(dir, "out.txt")) != "" {
			t.Error("something was handled without a store")
		}
	}
}

func TestRunDryRunTellsThePattern(t *testing.T) {
	dir := t.TempDir()
	r := finish(t, runFile(t, dir, dedupFrom("exec: cat",
		"dedup: {store: \"postgres://u:hush@h/d?name=x\", window: 72h}"), "--dry-run"))
	if r.code != 0 || !strings.Contains(r.out, "pattern: dedup for 72h0m0s in postgres://h/d?name=x") {
		t.Errorf("exit code %d, %s%s", r.code, r.out, r.err)
	}
}
