package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// writeFile writes a file into a directory of the test's own.
func writeFile(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// started is a run of the command beside the test.
type started struct {
	*exec.Cmd
	t       *testing.T
	log     chan string // lines of standard error
	out     strings.Builder
	address string
}

// listening starts the command, and waits until it listens.
func listening(t *testing.T, args ...string) *started {
	t.Helper()
	s := &started{Cmd: command(t, args...), t: t, log: make(chan string, 10_000)}
	stderr, err := s.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.Stdout = &s.out
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with the command
		defer close(s.log)
		for sc := bufio.NewScanner(stderr); sc.Scan(); {
			s.log <- sc.Text()
		}
	}()
	s.address = regexp.MustCompile(`address=(\S+)`).FindStringSubmatch(s.until("listening"))[1]
	return s
}

// until waits for a line of the log.
func (s *started) until(part string) string {
	s.t.Helper()
	var seen []string
	patience := time.NewTimer(time.Minute)
	defer patience.Stop()
	for {
		select {
		case line, ok := <-s.log:
			if !ok {
				s.t.Fatalf("it ended without saying %q:\n%s", part, strings.Join(seen, "\n"))
			}
			if seen = append(seen, line); strings.Contains(line, part) {
				return line
			}
		case <-patience.C:
			s.t.Fatalf("it did not say %q:\n%s", part, strings.Join(seen, "\n"))
		}
	}
}

// get gets a page of it.
func (s *started) get(path, host string) (int, string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet,
		"http://"+s.address+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestHealth sees a pipeline through its life from outside: ready, counted, draining, gone.
func TestHealth(t *testing.T) {
	dir, release := t.TempDir(), filepath.Join(t.TempDir(), "release")
	must(t, `{"n":1}`+"\n"+`{"n":2}`+"\n", "publish", "--dir", dir+"/d", "--create", "orders")
	path := writeFile(t, "p.yaml", fmt.Sprintf(`pipelines:
  - name: slow
    from: queue://%[1]s/d/orders/s
    exec: echo x >> %[1]s/up; while [ ! -e %[2]s ]; do sleep 0.02; done; grep -q 1
    create: true
    concurrency: 2
    max_failures: 1
`, dir, release))
	s := listening(t, "run", "--listen", "127.0.0.1:0", path)
	waitFor(t, "ready", func() bool { code, _ := s.get("/readyz", ""); return code == 200 })
	for _, c := range []struct {
		path, host string
		code       int
	}{{"/livez", "", 200}, {"/metrics", "localhost:1", 200}, {"/metrics", "[::1]:80", 200},
		{"/metrics", "10.1.2.3", 200}, {"/metrics", "evil.example", 403},
		{"/readyz", "evil.example:80", 403}, {"/", "", 404}} {
		if code, body := s.get(c.path, c.host); code != c.code {
			t.Errorf("%s as %q: %d %s, want %d", c.path, c.host, code, body, c.code)
		}
	}
	waitFor(t, "both are at work", func() bool { return content(dir+"/up") == "x\nx\n" })
	waitFor(t, "both are counted", func() bool {
		_, body := s.get("/metrics", "")
		return strings.Contains(body, `ackwise_deliveries_total{cause="first",pipeline="slow"} 2`)
	})
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "draining", func() bool {
		code, body := s.get("/readyz", "")
		return code == 503 && strings.Contains(body, "slow: draining")
	})
	if code, _ := s.get("/livez", ""); code != 200 {
		t.Errorf("while it drains, it is alive: %d", code)
	}
	if err := os.WriteFile(release, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the handlers have returned", func() bool {
		resp, err := http.Get("http://" + s.address + "/metrics")
		if err != nil {
			return true // it has ended
		}
		defer func() { _ = resp.Body.Close() }()
		body, _ := io.ReadAll(resp.Body)
		return strings.Contains(string(body), `ackwise_handled_total{outcome="ack",pipeline="slow"} 1`)
	})
	if err := s.Wait(); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if b := auditOf(t, dir+"/d").Books; b.Acked != 1 || b.Dead != 1 || b.InFlight != 0 {
		t.Errorf("the books are %+v", b)
	}
}

// TestMetricNames holds what is served against the names that dashboards are built on, and against
// labels without bound.
func TestMetricNames(t *testing.T) {
	dir := t.TempDir()
	path := writeFile(t, "p.yaml", fmt.Sprintf(`pipelines:
  - name: in
    from: file://%[1]s/in
    to: queue://%[1]s/d/orders
    create: true
    lines: {follow: true, key_field: k, on_bad: skip}
    dead: file://%[1]s/dead
  - name: fails
    from: queue://%[1]s/d/orders/s
    exec: "exit 1"
    create: true
    max_failures: 2
    backoff: {first: 1ms, cap: 1ms}
`, dir))
	if err := os.WriteFile(dir+"/in", []byte("{\"k\":\"secret-key\"}\nbad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := listening(t, "run", "--listen", "localhost:0", path)
	var text string
	waitFor(t, "a dead letter is counted", func() bool {
		_, text = s.get("/metrics", "")
		return strings.Contains(text, `dead_letters_total{pipeline="fails",reason="failures"} 1`)
	})
	_, text = s.get("/metrics", "") // what is read first of a page may be older than its end
	families := map[string]bool{}
	for line := range strings.Lines(text) {
		parts := regexp.MustCompile(`^ackwise_(\w+)(\{.*\})? `).FindStringSubmatch(line)
		if parts == nil {
			continue
		}
		families[parts[1]] = true
		for _, label := range regexp.MustCompile(`(\w+)="`).FindAllStringSubmatch(parts[2], -1) {
			if !slices.Contains([]string{"pipeline", "cause", "outcome", "reason", "state",
				"version"}, label[1]) {
				t.Errorf("ackwise_%s has a label %s", parts[1], label[1])
			}
		}
	}
	for _, name := range []string{"deliveries_total", "handled_total", "settled_total",
		"dead_letters_total", "retries_total", "lease_expiries_total", "skipped_total",
		"suppressed_total", "messages", "breaker_state", "receiving", "oldest_message_age_seconds", "lag_records", "lag_seconds",
		"build_info"} {
		if !families[name] {
			t.Errorf("there is no ackwise_%s", name)
		}
	}
	for _, line := range []string{`retries_total{pipeline="fails"} 1`,
		`deliveries_total{cause="failed",pipeline="fails"} 1`, `breaker_state{pipeline="in"} 0`,
		`handled_total{outcome="nack",pipeline="fails"} 2`, `skipped_total{pipeline="in"} 1`,
		`settled_total{outcome="ack",pipeline="in"} 1`} {
		if !strings.Contains(text, "ackwise_"+line) {
			t.Errorf("the metrics lack %s", line)
		}
	}
	if strings.Contains(text, "secret-key") {
		t.Error("a key is among the metrics")
	}
	if err := s.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = s.Wait()
}

func TestListenIsRefused(t *testing.T) {
	path := writeFile(t, "p.yaml", "pipelines:\n  - {name: p, from: \"-\", exec: cat, "+
		"no_dead_letters: true}\n")
	for flag, part := range map[string]string{"0.0.0.0:0": "--insecure", ":0": "--insecure",
		"10.1.2.3:80": "--insecure", "[::]:0": "--insecure", "8080": "HOST:PORT",
		"example.com:80": "address of this machine"} {
		run(t, "", "run", "--listen", flag, path).want(t, 2, part)
	}
	run(t, "", "run", "--insecure", path).want(t, 2, "--listen")
	if r := run(t, "", "run", "--listen", "0.0.0.0:0", "--insecure", path); r.code != 0 ||
		!strings.Contains(r.err, "open_to_others=true") {
		t.Errorf("got %+v", r)
	}
}
