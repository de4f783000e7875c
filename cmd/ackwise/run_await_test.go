package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/test/nakadi"
)

// threeLines is a file of three messages.
func threeLines(t *testing.T) string {
	t.Helper()
	return writeFile(t, "in.jsonl", `{"id":"a","body":{}}`+"\n"+`{"id":"b","body":{}}`+"\n"+
		`{"id":"c","body":{}}`+"\n")
}

// refuseTypes makes a target look away from whoever opens it.
func refuseTypes(s *nakadi.Server, times int) {
	s.Inject(nakadi.Fault{Kind: nakadi.Status, Code: http.StatusServiceUnavailable, On: "types",
		Times: times})
}

// A target that is away at the start is an outage like any other: what is tried in vain becomes a
// dead letter, or waits until it is back.
func TestRunTargetAwayAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		refused int // 0 = until the end
		more    string
		dead    int
	}{
		"it comes back":      {5, "max_failures: unlimited", 0},
		"it stays away":      {0, "max_failures: 1", 3},
		"it is back in time": {2, "max_failures: 1, concurrency: 1, breaker: {off: true}", 1},
	} {
		t.Run(name, func(t *testing.T) {
			s, to := nakadiTarget(t)
			refuseTypes(s, c.refused)
			dead := filepath.Join(t.TempDir(), "dead.jsonl")
			r := run(t, "", "run", writeFile(t, "p.yaml", fmt.Sprintf("pipelines:\n  - {name: p, "+
				"from: %q, to: %q, dead: %q, pattern: none, batch_size: 1, backoff: {first: 1ms}, %s}\n",
				"file://"+threeLines(t), to, "file://"+dead, c.more)))
			letters, _ := os.ReadFile(dead) // none was made where there is no file
			got := strings.Count(string(letters), "\n")
			if copies := s.Copies("orders"); got != c.dead || len(copies) != 3-c.dead {
				t.Errorf("%d dead letters, want %d; the target has %v\n%s", got, c.dead, copies, r.err)
			}
			if s.Fired(nakadi.Status) < 2 || !strings.Contains(r.err, "a sink does not answer") {
				t.Errorf("%d calls were refused; said was\n%s", s.Fired(nakadi.Status), r.err)
			}
		})
	}
}

// A run that is to end does not wait for a target.
func TestRunUntilEmptyTargetAway(t *testing.T) {
	s, to := nakadiTarget(t)
	refuseTypes(s, 0)
	run(t, "", "run", "--until-empty", writeFile(t, "p.yaml", fmt.Sprintf("pipelines:\n"+
		"  - {name: p, from: %q, to: %q, pattern: none, no_dead_letters: true}\n",
		"file://"+threeLines(t), to))).
		want(t, 1, `pipeline "p"`, "503")
}

// A source, or a dedup store, that is away at the start holds its own pipeline up and no other.
func TestRunSourceAwayAtTheStart(t *testing.T) {
	s, to := nakadiTarget(t)
	s.Inject(nakadi.Fault{Kind: nakadi.Status, Code: http.StatusServiceUnavailable,
		On: "subscriptions", Times: 2})
	host, _, _ := strings.Cut(strings.TrimPrefix(to, "nakadi://"), "/")
	dir := t.TempDir()
	p := listening(t, "run", "--listen", "127.0.0.1:0", writeFile(t, "p.yaml", fmt.Sprintf(
		`pipelines:
  - {name: late, from: %q, to: %q, pattern: none, create: true, no_dead_letters: true}
  - {name: store, from: %q, to: %q, pattern: dedup, dedup: {store: %q, window: 1h, again: 30m}, no_dead_letters: true}
  - {name: other, from: %q, to: %q, pattern: none, no_dead_letters: true}
`, "nakadi://"+host+"?tls=false&event_types=orders&application=test", "file://"+dir+"/late",
		"file://"+threeLines(t), "file://"+dir+"/store", "redis://127.0.0.1:1?name=n",
		"file://"+threeLines(t), to)))
	waitFor(t, "the pipeline that can work has ended", func() bool {
		code, body := p.get("/readyz", "")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "store: opening\n") &&
			strings.Contains(body, "other: ended\n")
	})
	if copies := s.Copies("orders"); len(copies) != 3 {
		t.Errorf("the pipeline that can work has brought %v", copies)
	}
	waitFor(t, "all is there", func() bool {
		b, _ := os.ReadFile(dir + "/late") // what is missing is seen as empty
		return strings.Count(string(b), "\n") == 3
	})
	if _, body := p.get("/readyz", ""); !strings.Contains(body, "late: receiving\n") {
		t.Errorf("/readyz is %s", body)
	}
	if n := s.Fired(nakadi.Status); n != 2 {
		t.Errorf("%d calls were refused", n)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Errorf("stopped while it waits for a store: %v", err)
	}
	if b, err := os.ReadFile(dir + "/store"); err != nil || len(b) > 0 {
		t.Errorf("the pipeline has worked without its store: %s %v", b, err)
	}
}

// TestRunTargetIsWrong: what an outage at the start has hidden, and no time will mend, ends the
// run; no message is spent on it. So does a connection that is cut, perhaps for want of a login.
func TestRunTargetIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		fault     nakadi.Fault
		kind      string
		guarantee string
		want      string
	}{
		"once it is back": {nakadi.Fault{Kind: nakadi.Status, Code: 503, On: "types", Times: 1},
			"ordres", "at-least-once", "does not exist"},
		"a cut connection": {nakadi.Fault{Kind: nakadi.Down, On: "types"}, "orders", "at-least-once",
			"EOF"},
		"acked before it is there": {nakadi.Fault{Kind: nakadi.Status, Code: 503, On: "types"},
			"orders", "at-most-once", "503"},
	} {
		t.Run(name, func(t *testing.T) {
			s, to := nakadiTarget(t)
			s.Inject(c.fault)
			in, dead := threeLines(t), filepath.Join(t.TempDir(), "dead.jsonl")
			more := fmt.Sprintf("dead: %q", "file://"+dead)
			if c.guarantee == "at-most-once" {
				more = "guarantee: at-most-once"
			}
			run(t, "", "run", writeFile(t, "p.yaml", fmt.Sprintf("pipelines:\n  - {name: p, "+
				"from: %q, to: %q, pattern: none, max_failures: 1, %s}\n", "file://"+in,
				strings.Replace(to, "/orders", "/"+c.kind, 1), more))).want(t, 1, c.want)
			if s.Fired(c.fault.Kind) == 0 {
				t.Error("the fault never fired")
			}
			if letters := content(dead); letters != "" {
				t.Errorf("dead letters: %s", letters)
			}
			if position := content(in + ".position"); strings.Contains(position, "offset") &&
				!strings.Contains(position, `"offset":0`) {
				t.Errorf("messages were consumed: %s", position)
			}
		})
	}
}

// TestRunAtMostOnceBesideAnother: a sink that another pipeline waits for is none for one that acks
// first.
func TestRunAtMostOnceBesideAnother(t *testing.T) {
	s, to := nakadiTarget(t)
	refuseTypes(s, 0)
	in := threeLines(t)
	run(t, "", "run", writeFile(t, "p.yaml", fmt.Sprintf(`pipelines:
  - {name: waits, from: %q, to: %q, pattern: none, no_dead_letters: true}
  - {name: first, from: %q, to: %q, pattern: none, guarantee: at-most-once}
`, "file://"+threeLines(t), to, "file://"+in, to))).want(t, 1, `pipeline "first"`, "503")
	if position := content(in + ".position"); strings.Contains(position, "offset") &&
		!strings.Contains(position, `"offset":0`) {
		t.Errorf("messages were acked: %s", position)
	}
}

// TestRunSubscribesWhileItsStoreIsAway: what another pipeline publishes meanwhile waits for the one
// that has no store yet.
func TestRunSubscribesWhileItsStoreIsAway(t *testing.T) {
	dir := t.TempDir()
	p := listening(t, "run", "--listen", "127.0.0.1:0", writeFile(t, "p.yaml", fmt.Sprintf(
		`pipelines:
  - {name: in, from: %q, to: %q, pattern: none, create: true, no_dead_letters: true}
  - {name: store, from: %q, to: %q, create: true, pattern: dedup, dedup: {store: %q, again: 1h}}
`, "file://"+threeLines(t), "queue://"+dir+"/d/orders", "queue://"+dir+"/d/orders/s",
		"file://"+dir+"/out", "redis://127.0.0.1:1?name=n")))
	waitFor(t, "the first pipeline has ended", func() bool {
		_, body := p.get("/readyz", "")
		return strings.Contains(body, "in: ended\n") && strings.Contains(body, "store: opening\n")
	})
	if b := auditOf(t, dir+"/d").Books; b.Accepted != 3 || b.Ready != 3 {
		t.Errorf("the books are %+v", b)
	}
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(); err != nil {
		t.Error(err)
	}
}
