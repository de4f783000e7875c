package kill

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for anything.
const patience = 40 * time.Second

// printed is one whole line that a process printed.
type printed struct {
	text string
	at   time.Time // when the test had read it
	by   *process
}

// record is what processes printed, in the order in which the test read it.
type record struct {
	mu      sync.Mutex // guards the fields below
	lines   []printed
	changed chan struct{} // closed and replaced with every line and every end
}

func newRecord() *record { return &record{changed: make(chan struct{})} }

func (r *record) wake(add ...printed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, add...)
	close(r.changed)
	r.changed = make(chan struct{})
}

// read returns the lines so far, and a channel that is closed when there is news.
func (r *record) read() ([]printed, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clip(r.lines), r.changed
}

// forget removes the lines that were read at a time or later, and returns how many they were.
func (r *record) forget(since time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := len(r.lines)
	r.lines = slices.DeleteFunc(slices.Clone(r.lines), func(l printed) bool {
		return !l.at.Before(since)
	})
	return before - len(r.lines)
}

func (r *record) count() int {
	lines, _ := r.read()
	return len(lines)
}

// process is a run of the command.
type process struct {
	name   string
	cmd    *exec.Cmd
	out    *record
	stdout io.ReadCloser
	stderr string        // a file
	torn   string        // what was printed after the last whole line; read after done
	done   chan struct{} // closed when it has ended and its output is read
}

// start starts the command. Its whole lines go to out.
func start(t *testing.T, out *record, env []string, args ...string) *process {
	t.Helper()
	p := prepare(t, env, args...)
	p.out = out
	p.launch(t)
	go func() { // ends with the process
		p.readLines()
		p.end()
	}()
	return p
}

// prepare makes a process that is not started yet.
func prepare(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{name: args[0], cmd: exec.Command(binary, args...), done: make(chan struct{}),
		out: newRecord()}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.WaitDelay = 5 * time.Second
	f, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr, p.stderr = f, f.Name()
	return p
}

func (p *process) launch(t *testing.T) {
	t.Helper()
	var err error
	if p.cmd.Stdout == nil {
		if p.stdout, err = p.cmd.StdoutPipe(); err != nil {
			t.Fatal(err)
		}
	}
	if err = p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if f, ok := p.cmd.Stderr.(*os.File); ok {
		f.Close()
	}
	t.Cleanup(func() {
		p.signal(syscall.SIGCONT)
		p.signal(syscall.SIGKILL)
		p.abandon()
	})
}

// readLines reads standard output to its end.
func (p *process) readLines() {
	r := bufio.NewReader(p.stdout)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			p.torn = line // no newline: it does not count as printed
			return
		}
		p.out.wake(printed{text: strings.TrimSuffix(line, "\n"), at: time.Now(), by: p})
	}
}

func (p *process) end() {
	_ = p.cmd.Wait() // the ProcessState has it
	close(p.done)
	p.out.wake()
}

// signal sends a signal; a process that has ended, and was reaped, does not get it.
func (p *process) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) }

// prints reports whether it has printed a whole line.
func (p *process) prints() bool {
	lines, _ := p.out.read()
	for _, line := range slices.Backward(lines) {
		if line.by == p {
			return true
		}
	}
	return false
}

// wasKilled reports whether SIGKILL has ended it. That it ended by itself, and not well, fails the
// test.
func (p *process) wasKilled(t *testing.T) bool {
	t.Helper()
	if p.alive() {
		return false
	}
	if p.cmd.ProcessState.ExitCode() > 0 {
		p.wantExit(t, 0)
	}
	return p.cmd.ProcessState.ExitCode() < 0
}

func (p *process) alive() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// kill ends it with SIGKILL and reports whether that, and nothing else, ended it.
func (p *process) kill(t *testing.T) bool {
	t.Helper()
	p.signal(syscall.SIGKILL)
	p.wait(t)
	status, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// wait waits for its end.
func (p *process) wait(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	select {
	case <-p.done:
	case <-ctx.Done():
		p.signal(syscall.SIGQUIT) // its stacks tell where it hangs
		p.abandon()
		t.Fatalf("%s does not end; it said:\n%s", p.name, p.said())
	}
}

// abandon gives up its output, which another process may hold open after its end.
func (p *process) abandon() {
	if p.stdout != nil {
		p.stdout.Close()
	}
	<-p.done
}

// wantExit waits for its end, which must be this exit code.
func (p *process) wantExit(t *testing.T, code int) {
	t.Helper()
	p.wait(t)
	if got := p.cmd.ProcessState.ExitCode(); got != code {
		t.Fatalf("%s ended with %s, want exit code %d; it said:\n%s", p.name, p.cmd.ProcessState,
			code, p.said())
	}
}

// said returns the end of its standard error, without the failures that the handler makes.
func (p *process) said() string {
	b, err := os.ReadFile(p.stderr)
	if err != nil {
		return err.Error()
	}
	var kept []byte
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, []byte("delivery failed")) {
			kept = append(kept, line...)
		}
	}
	return string(kept[max(0, len(kept)-8000):])
}

// run runs the command to its end with an input and returns its output.
func run(t *testing.T, input string, code int, args ...string) (out, said string) {
	t.Helper()
	p := prepare(t, nil, args...)
	var b bytes.Buffer
	p.cmd.Stdin, p.cmd.Stdout = strings.NewReader(input), &b
	p.launch(t)
	go p.end() // ends with the process
	p.wait(t)
	if p.cmd.ProcessState.ExitCode() != code {
		t.Logf("%s printed:\n%.4000s", p.name, b.String())
	}
	p.wantExit(t, code)
	return b.String(), p.said()
}

// until polls a condition and fails the test where it does not come true in time.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if !soon(t, patience, holds) {
		t.Fatalf("waited in vain: %s", what)
	}
}

// soon polls a condition for at most d.
func soon(t *testing.T, d time.Duration, holds func() bool) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if holds() {
			return true
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// pass lets a time pass.
func pass(t *testing.T, d time.Duration) {
	t.Helper()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.Context().Done():
	}
}

// self is this test binary as a handler process for consume --pipe.
func self(t *testing.T) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return "exec '" + path + "'"
}

// exists reports whether a file is there.
func exists(path string) bool {
	_, err := os.Stat(filepath.Clean(path))
	return !errors.Is(err, os.ErrNotExist)
}
