package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
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

// member is one process of a fleet.
type member struct {
	*exec.Cmd
	t       *testing.T
	f       *fleet
	name    string
	log     string // the file of its standard error
	address string // of its metrics; "" = it has none

	killed bool
	seen   map[series]int   // what its metrics said when it was last asked
	files  map[string]*book // what its records said so far, by pipeline
}

// series is one time series of a member's metrics.
type series struct{ name, pipeline, label string }

// fleet is the processes of a group: of `ackwise run`, or consumers of this binary.
type fleet struct {
	t      *testing.T
	cfg    scaleConfig
	binary string // of the command; "" = this binary's consumers
	file   string // of pipelines
	pipes  []string
	held   int // what a member holds in a pipeline, at most
	all    []*member
	faults []scaleFault
}

// scaleFault is what was done to a member.
type scaleFault struct {
	kind   string // killed, frozen, added or stopped
	member string
	from   int64 // of the machine's clock
	to     int64 // of a frozen one, when it was woken
}

// fault notes a fault, and returns what notes its end.
func (f *fleet) fault(kind string, m *member) (over func()) {
	at := len(f.faults)
	now := func() int64 { return time.Now().UnixNano() }
	f.faults = append(f.faults, scaleFault{kind: kind, member: m.name, from: now()})
	return func() { f.faults[at].to = now() }
}

// hidden is how many hand-outs may be in nobody's books: those of a member that was killed or
// frozen between the note in the journal and its own.
func (f *fleet) hidden() int {
	n := 0
	for _, one := range f.faults {
		if one.kind == "killed" || one.kind == "frozen" {
			n += f.held
		}
	}
	return n
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
		files: map[string]*book{}}
	ctx := context.WithoutCancel(f.t.Context())
	if m.Cmd = exec.CommandContext(ctx, f.binary, "run", "--listen", "127.0.0.1:0",
		f.file); f.binary == "" {
		m.Cmd = exec.CommandContext(ctx, os.Args[0])
	}
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
	f.wait(name+" has started", func() bool {
		if f.binary == "" {
			return m.count(f.pipes[0], "start") > 0
		}
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

// wait waits for a condition, and ends the test where it does not come.
func (f *fleet) wait(what string, holds func() bool) {
	f.t.Helper()
	if !f.comes(what, holds) {
		f.t.FailNow()
	}
}

// comes waits for a condition, with bounds for busy machines.
func (f *fleet) comes(what string, holds func() bool) bool {
	f.t.Helper()
	ok := f.within(time.Minute, holds)
	if !ok {
		f.t.Errorf("waited in vain: %s", what)
	}
	return ok
}

// within waits for a condition, so long at most.
func (f *fleet) within(most time.Duration, holds func() bool) bool {
	f.t.Helper()
	limit := time.NewTimer(most)
	defer limit.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		for _, m := range f.all {
			if m.ProcessState == nil && strings.Contains("\n"+content(m.log), "\nackwise: ") {
				f.t.Errorf("%s has failed while the test waits", m.name)
				return false
			}
		}
		select {
		case <-tick.C:
		case <-limit.C:
			return false
		}
	}
	return true
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

// book is what was read of the records of a member's pipeline.
type book struct {
	end int64 // of what was read of the file
	all []record
	// open are tokens: of what was begun and has not ended, true; of what has ended, false.
	open     map[string]bool
	inFlight int            // how many are open
	counts   map[string]int // by kind; of given and begin also by kind and cause
}

// records reads what a member's handler of a pipeline has seen.
func (m *member) records(pipeline string) *book {
	b := m.files[pipeline]
	if b == nil {
		b = &book{open: map[string]bool{}, counts: map[string]int{}}
		m.files[pipeline] = b
	}
	f, err := os.Open(recordsOf(m.f.cfg.Dir, pipeline, m.name))
	if err != nil {
		return b // it has not begun
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.NewSectionReader(f, b.end, 1<<40))
	if err != nil {
		m.t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // the rest is just being written
	b.end += int64(len(text))
	for line := range bytes.Lines(text) {
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			m.t.Fatalf("the records of %s: %v in %s", m.name, err, line)
		}
		b.add(r)
	}
	return b
}

func (b *book) add(r record) {
	b.all = append(b.all, r)
	b.counts[r.What]++
	switch r.What {
	case "begin":
		if _, over := b.open[r.Token]; !over { // what is lost as it begins may have ended before
			b.open[r.Token] = true
			b.inFlight++
		}
		b.counts["begin "+r.Cause]++
	case "given":
		b.counts["given "+r.Cause]++
	case "settled", "lost", "unsure":
		if b.open[r.Token] {
			b.inFlight--
		}
		b.open[r.Token] = false
	}
}

// count counts the records of a kind.
func (m *member) count(pipeline, what string) int { return m.records(pipeline).counts[what] }

// inFlight is how many deliveries a member's handler has got whose settlement has not returned.
func (m *member) inFlight(pipeline string) int { return m.records(pipeline).inFlight }

// working is how many deliveries a member's handler has got and not answered: nobody can have
// settled them.
func (m *member) working(pipeline string) int {
	c := m.records(pipeline).counts
	return c["begin"] - c["done"] - c["again"] - c["failed"]
}

// handOuts is how many hand-outs of a cause a member had when it was last asked.
func (m *member) handOuts(pipeline, cause string) int {
	if m.f.binary == "" {
		return m.count(pipeline, "given "+cause)
	}
	return m.seen[series{"deliveries_total", pipeline, cause}]
}

// signal sends a signal to a member and to its handlers, as if their machine were stopped.
func (m *member) signal(sig syscall.Signal) {
	_ = m.Process.Signal(sig)
	for _, pipe := range m.f.pipes {
		for _, r := range m.records(pipe).all {
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
			if m.working(pipe) < 1 {
				return false
			}
		}
		return true
	})
}

// catch stops a member, and its handlers, with a delivery at a handler in each pipeline, and says
// how many there are.
func (m *member) catch() map[string]int {
	m.t.Helper()
	for range 100 {
		m.busy()
		m.look()
		m.signal(syscall.SIGSTOP)
		m.f.wait(m.name+" stands still", func() bool {
			stat := content(fmt.Sprintf("/proc/%d/stat", m.Process.Pid))
			return strings.HasPrefix(stat[strings.LastIndexByte(stat, ')')+1:], " T")
		})
		held, idle := map[string]int{}, false
		for _, pipe := range m.f.pipes {
			held[pipe] = m.working(pipe)
			idle = idle || held[pipe] == 0
		}
		if !idle {
			return held
		}
		m.signal(syscall.SIGCONT)
	}
	m.t.Fatalf("%s was never stopped with deliveries in flight", m.name)
	return nil
}

// kill ends a member that has deliveries in flight, and says how many.
func (m *member) kill() map[string]int {
	m.t.Helper()
	m.f.fault("killed", m)
	held := m.catch()
	m.killed = true
	if err := m.Process.Kill(); err != nil {
		m.t.Fatal(err)
	}
	m.signal(syscall.SIGCONT) // the handlers that it leaves behind
	_ = m.Wait()
	if m.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		m.t.Errorf("%s had ended before it was killed", m.name)
	}
	return held
}

// stop ends a member softly, and says how long that took.
func (m *member) stop() time.Duration {
	m.t.Helper()
	began := time.Now()
	m.f.fault("stopped", m)
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
