package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// member is one `ackwise run` process.
type member struct {
	*exec.Cmd
	t       *testing.T
	f       *fleet
	name    string
	log     string // the file of its standard error
	address string

	killed, frozen bool
	// seen is what its metrics said when it was last asked.
	seen map[series]int
}

// series is one time series of a member's metrics.
type series struct{ name, pipeline, label string }

// fleet is the processes of a group.
type fleet struct {
	t      *testing.T
	cfg    scaleConfig
	binary string
	file   string // of pipelines
	pipes  []string
	held   int // what a member holds in a pipeline, at most
	faults int // that may have hidden so many hand-outs from the metrics
	all    []*member
}

// add starts one more member.
func (f *fleet) add(name string) *member {
	f.t.Helper()
	c := f.cfg
	c.Member = name
	text, err := json.Marshal(c)
	if err != nil {
		f.t.Fatal(err)
	}
	m := &member{t: f.t, f: f, name: name, log: filepath.Join(c.Dir, name+".log"),
		Cmd: exec.CommandContext(context.WithoutCancel(f.t.Context()), f.binary, "run",
			"--listen", "127.0.0.1:0", f.file)}
	m.Env = append(os.Environ(), scaleEnv+"="+string(text))
	log, err := os.Create(m.log)
	if err != nil {
		f.t.Fatal(err)
	}
	m.Stderr = log
	if err := m.Start(); err != nil {
		f.t.Fatal(err)
	}
	_ = log.Close() // the process has it
	f.all = append(f.all, m)
	f.t.Cleanup(func() {
		m.signal(syscall.SIGCONT)
		_ = m.Process.Kill()
		_ = m.Wait()
		if f.t.Failed() {
			f.t.Logf("%s: %v\nit said:\n%s", m.name, m.seen, tailOf(m.log, 4000))
		}
	})
	f.wait(name+" listens", func() bool {
		at := regexp.MustCompile(`msg=listening address=(\S+)`).FindStringSubmatch(content(m.log))
		if at != nil {
			m.address = at[1]
		}
		return at != nil
	})
	return m
}

func tailOf(path string, n int) string {
	text := content(path)
	return text[max(0, len(text)-n):]
}

// wait waits for a condition, with bounds for busy machines.
func (f *fleet) wait(what string, holds func() bool) {
	f.t.Helper()
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		for _, m := range f.all {
			if m.ProcessState == nil && strings.Contains(content(m.log), "\nackwise: ") {
				f.t.Fatalf("%s has ended while the test waits: %s", m.name, what)
			}
		}
		select {
		case <-tick.C:
		case <-limit.C:
			f.t.Fatalf("waited in vain: %s", what)
		}
	}
}

// get asks a member for a page.
func (m *member) get(path string) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.address+path, nil)
	if err != nil {
		return 0, nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

// look asks a member for its metrics, and reports whether it answered.
func (m *member) look() bool {
	code, body, err := m.get("/metrics")
	if err != nil || code != http.StatusOK {
		return false
	}
	seen := map[series]int{}
	form := regexp.MustCompile(`(?m)^ackwise_(\w+)\{(.*)\} ([0-9.e+]+)$`)
	label := regexp.MustCompile(`(\w+)="([^"]*)"`)
	for _, found := range form.FindAllStringSubmatch(string(body), -1) {
		v, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			m.t.Fatal(err)
		}
		s := series{name: found[1]}
		for _, l := range label.FindAllStringSubmatch(found[2], -1) {
			if l[1] == "pipeline" {
				s.pipeline = l[2]
			} else {
				s.label = l[2]
			}
		}
		seen[s] = int(v)
	}
	m.seen = seen
	return true
}

// records reads what a member's handler of a pipeline has seen.
func (m *member) records(pipeline string) []record {
	text, err := os.ReadFile(recordsOf(m.f.cfg.Dir, pipeline, m.name))
	if err != nil {
		return nil // it has not begun
	}
	var all []record
	in := bufio.NewScanner(bytes.NewReader(text))
	for in.Scan() {
		var r record
		if err := json.Unmarshal(in.Bytes(), &r); err != nil {
			if !m.killed && !m.frozen {
				continue // it is just being written
			}
			m.t.Fatalf("the records of %s: %v in %s", m.name, err, in.Text())
		}
		all = append(all, r)
	}
	return all
}

// count counts the records of a kind.
func (m *member) count(pipeline, what string) int {
	n := 0
	for _, r := range m.records(pipeline) {
		if r.What == what {
			n++
		}
	}
	return n
}

// inFlight is how many deliveries a member's handler has got whose settlement has not returned.
func (m *member) inFlight(pipeline string) int {
	open := map[string]bool{}
	for _, r := range m.records(pipeline) {
		switch r.What {
		case "begin":
			open[r.Token] = true
		case "settled", "lost":
			delete(open, r.Token)
		}
	}
	return len(open)
}

// signal sends a signal to a member and to its handlers, as if their machine were stopped.
func (m *member) signal(sig syscall.Signal) {
	_ = m.Process.Signal(sig)
	for _, pipe := range m.f.pipes {
		for _, r := range m.records(pipe) {
			if r.What == "start" && syscall.Kill(r.Pid, 0) == nil {
				_ = syscall.Kill(r.Pid, sig)
			}
		}
	}
}

// busy waits until a member is at work in each pipeline.
func (m *member) busy() {
	m.t.Helper()
	m.f.wait(m.name+" is at work", func() bool {
		for _, pipe := range m.f.pipes {
			if m.inFlight(pipe) < 1 {
				return false
			}
		}
		return true
	})
}

// kill ends a member that has deliveries in flight, and says how many.
func (m *member) kill() map[string]int {
	m.t.Helper()
	m.busy()
	m.look()
	m.killed = true
	if err := m.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	_ = m.Wait()
	if !m.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
		m.t.Errorf("%s had ended before it was killed", m.name)
	}
	held := map[string]int{}
	for _, pipe := range m.f.pipes {
		held[pipe] = m.inFlight(pipe)
	}
	return held
}

// stop ends a member softly, and says how long that took.
func (m *member) stop() time.Duration {
	m.t.Helper()
	began := time.Now()
	if err := m.Process.Signal(syscall.SIGTERM); err != nil {
		m.t.Fatal(err)
	}
	for m.look() {
		continue // what it says last is what counts
	}
	if err := m.Wait(); err != nil {
		m.t.Errorf("%s ended with %v", m.name, err)
	}
	return time.Since(began)
}

// sum adds what all members but the killed said last.
func (f *fleet) sum(name, pipeline, label string) (alive, killed int) {
	for _, m := range f.all {
		if n := m.seen[series{name, pipeline, label}]; m.killed {
			killed += n
		} else {
			alive += n
		}
	}
	return alive, killed
}

// buildCommand builds the command as a user gets it.
func buildCommand(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ackwise")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the command: %v\n%s", err, out)
	}
	return path
}
