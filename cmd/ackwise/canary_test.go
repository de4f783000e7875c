package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// TestNoSecretIsShown plants a secret wherever a file may say where one is, lets the systems refuse
// it, and looks for it in all that the command prints and serves.
func TestNoSecretIsShown(t *testing.T) {
	const canary = "canary-51ab"
	file := writeFile(t, "secret", canary)
	t.Setenv("ACKWISE_TEST_CANARY", canary)
	t.Setenv("ACKWISE_TEST_SIGNING", "whsec_"+canary) // not base64: it is refused
	g := newTarget(t, func(string, int) int { return 401 })
	dir := t.TempDir()
	path := writeFile(t, "f.yaml", fmt.Sprintf(`pipelines:
  - name: hook
    from: file://%[1]s/in
    to: %[2]s/?authorization=env:ACKWISE_TEST_CANARY&path=file:%[3]s
    dead: file://%[1]s/dead
    lines: {follow: true}
    max_failures: 2
    backoff: {first: 1ms}
redrive:
  - name: back
    from: queue://%[1]s/d/orders/s
    to: %[2]s/?authorization=file:%[3]s
    deadline: 1s
`, dir, g.URL, file))
	if err := os.WriteFile(dir+"/in", []byte("one\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	shown := shown{}
	shown.aRun(t, path)
	must(t, "x\n", "publish", "--dir", dir+"/d", "--create", "orders")
	killAll(t, dir+"/d")
	shown.note("redrive", run(t, "", "redrive", "--once", path))
	shown.note("redrive --dry-run", run(t, "", "redrive", "--once", "--dry-run", path))
	dead, err := os.ReadFile(dir + "/dead")
	if err != nil {
		t.Fatal(err)
	}
	shown["the dead letters"] = string(dead)
	unsigned := writeFile(t, "g.yaml", pipelineOf(`from: "-"`,
		"to: "+g.URL+"?secret=env:ACKWISE_TEST_SIGNING", "no_dead_letters: true"))
	shown.note("a secret that is none", run(t, "x\n", "run", unsigned))
	for name, address := range map[string]string{
		"kafka":    "kafka://127.0.0.1:1/t?sasl=plain&user=u&password=file:" + file,
		"nakadi":   "nakadi://127.0.0.1:1/e?token=file:" + file,
		"userinfo": "kafka://u:" + canary + "@127.0.0.1:1/t",
	} {
		p := writeFile(t, "h.yaml", pipelineOf(`from: "-"`, "to: "+address, "no_dead_letters: true"))
		shown.note(name, run(t, "x\n", "run", "--until-empty", p))
		shown.note(name+" lint", run(t, "", "lint", p))
	}
	for what, text := range shown {
		if text == "" {
			t.Errorf("%s shows nothing: it is not tried", what)
		}
		if i := strings.Index(text, canary); i >= 0 {
			t.Errorf("%s shows the secret: …%s…", what, text[max(i-100, 0):i])
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	sent := false
	for _, h := range g.heads {
		sent = sent || h.Get("Authorization") == canary
	}
	if !sent {
		t.Error("the target never got the secret: nothing was tried")
	}
}

// shown is what the command has printed and served, by when.
type shown map[string]string

func (s shown) note(what string, r result) { s[what] = r.out + r.err }

// aRun notes what is shown of a run from its check to its end.
func (s shown) aRun(t *testing.T, path string) {
	t.Helper()
	s.note("lint", run(t, "", "lint", path))
	s.note("lint --json", run(t, "", "lint", "--json", path))
	s.note("dry run", run(t, "", "run", "--dry-run", path))
	p := listening(t, "run", "--listen", "127.0.0.1:0", path)
	p.until("dead letter")
	_, s["metrics"] = p.get("/metrics", "")
	_, s["readyz"] = p.get("/readyz", "")
	if err := p.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for line := range p.log {
		s["the log"] += line + "\n"
	}
	_ = p.Wait()
}
