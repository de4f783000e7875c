package orders

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	fake "github.com/ackwise/ackwise/test/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

const (
	fakeVariable     = "ORDERS_FAKE_NAKADI"
	consumerVariable = "ORDERS_CONSUMER"
)

// TestMain is also the fake Nakadi and the consumers, so that they are processes of their own.
func TestMain(m *testing.M) {
	if args := os.Getenv(fakeVariable); args != "" {
		err := fake.Main(strings.Fields(args), os.Stdout)
		fmt.Fprintln(os.Stderr, "fake nakadi:", err)
		os.Exit(1)
	}
	if text := os.Getenv(consumerVariable); text != "" {
		if err := consume(text); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// patience is more than any step of the run takes on a busy machine.
const patience = 5 * time.Minute

func pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}

// process is a program that is started again when it ends, as an orchestrator would.
type process struct {
	name string
	make func(start int) *exec.Cmd
	log  *os.File

	wg   sync.WaitGroup // the goroutine that starts it; ended by stop
	mu   sync.Mutex     // guards all below
	cmd  *exec.Cmd
	ends []string // how it ended
	stop bool
}

func startProcess(t *testing.T, dir, name string, mk func(start int) *exec.Cmd) *process {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, name+".log"))
	if err != nil {
		t.Fatal(err)
	}
	p := &process{name: name, make: mk, log: log}
	p.wg.Go(p.supervise)
	t.Cleanup(func() {
		p.end(syscall.SIGKILL)
		if t.Failed() {
			tail(t, log.Name())
		}
		_ = log.Close() // only its process wrote
	})
	return p
}

// tail logs the end of a file.
func tail(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Log(err)
	}
	text = bytes.TrimSpace(text)
	t.Logf("%s ends with:\n%s", filepath.Base(path), text[max(0, len(text)-1500):])
}

func (p *process) supervise() {
	for n := 0; ; n++ {
		p.mu.Lock()
		if p.stop {
			p.mu.Unlock()
			return
		}
		p.cmd = p.make(n)
		p.cmd.Stderr = p.log
		err := p.cmd.Start()
		cmd := p.cmd
		p.mu.Unlock()
		if err == nil {
			err = cmd.Wait()
		}
		how := "exit code 0"
		if err != nil {
			how = err.Error()
		}
		p.mu.Lock()
		p.ends = append(p.ends, how)
		p.mu.Unlock()
		pause(100 * time.Millisecond)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd != nil && p.cmd.Process != nil {
		_ = p.cmd.Process.Signal(s) // one that has ended needs none
	}
}

// ended returns how often it ended so.
func (p *process) ended(how string) (n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.ends {
		if strings.Contains(e, how) {
			n++
		}
	}
	return n
}

// kill kills it and waits until it is gone; it is started again.
func (p *process) kill(t *testing.T) {
	t.Helper()
	n := p.ended("")
	p.signal(syscall.SIGKILL)
	servers.Until(t, p.name+" is gone", patience, func() bool { return p.ended("") > n })
}

// end ends it for good.
func (p *process) end(s syscall.Signal) {
	p.mu.Lock()
	p.stop = true
	p.mu.Unlock()
	p.signal(s)
	p.wg.Wait()
}

// nakadiServer is the fake as a process, with a data directory.
type nakadiServer struct {
	dir, address string
	cmd          *exec.Cmd
}

const token = "a-bearer-token"

func startNakadi(t *testing.T, dir string) *nakadiServer {
	t.Helper()
	n := &nakadiServer{dir: filepath.Join(dir, "nakadi"), address: "127.0.0.1:0"}
	if err := os.Mkdir(n.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.kill(t) })
	n.start(t)
	text, err := os.ReadFile("event-type.json")
	if err != nil {
		t.Fatal(err)
	}
	n.call(t, http.MethodPost, "/event-types", text, nil)
	return n
}

func (n *nakadiServer) start(t *testing.T) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	n.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), self)
	n.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=-listen %s -dir %s -tokens %s=orders",
		fakeVariable, n.address, n.dir, token))
	n.cmd.Stderr = os.Stderr
	out, err := n.cmd.StdoutPipe()
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("start the fake Nakadi: %v", err)
	}
	n.address = strings.TrimSpace(line)
}

func (n *nakadiServer) kill(t testing.TB) {
	if n.cmd == nil || n.cmd.ProcessState != nil {
		return
	}
	if err := n.cmd.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = n.cmd.Wait() // it was killed
}

// Freeze stops it where it stands.
func (n *nakadiServer) Freeze(t testing.TB) { n.signal(t, syscall.SIGSTOP) }

// Thaw lets it go on.
func (n *nakadiServer) Thaw(t testing.TB) { n.signal(t, syscall.SIGCONT) }

func (n *nakadiServer) signal(t testing.TB, s syscall.Signal) {
	t.Helper()
	if err := n.cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// call asks the fake, past all gates, and again while it does not answer.
func (n *nakadiServer) call(t *testing.T, method, path string, body []byte, into any) {
	t.Helper()
	var last error
	servers.Until(t, method+" "+path, patience, func() bool {
		last = n.try(t.Context(), method, path, body, into)
		return last == nil
	})
}

func (n *nakadiServer) try(ctx context.Context, method, path string, body []byte, into any) error {
	r, err := http.NewRequestWithContext(ctx, method, "http://"+n.address+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(res.Body)
	err = errors.Join(err, res.Body.Close())
	if err != nil || res.StatusCode >= 300 {
		return fmt.Errorf("%s %s: %s %s %w", method, path, res.Status, text, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

func (n *nakadiServer) inject(t *testing.T, f fake.Fault) {
	t.Helper()
	text, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	n.call(t, http.MethodPost, "/admin/faults", text, nil)
}

// fired waits until a kind of fault has happened so often.
func (n *nakadiServer) fired(t *testing.T, kind fake.FaultKind, times int) {
	t.Helper()
	servers.Until(t, string(kind)+" happens", patience, func() bool {
		var counts map[string]int
		return n.try(t.Context(), http.MethodGet, "/admin/faults", nil, &counts) == nil &&
			counts[string(kind)] >= times
	})
}

// size is how many events are stored, copies included.
func (n *nakadiServer) size(t *testing.T) int {
	t.Helper()
	var parts []struct {
		Newest string `json:"newest_available_offset"`
	}
	n.call(t, http.MethodGet, "/event-types/orders.changed/partitions", nil, &parts)
	total := 0
	for _, p := range parts {
		var last int
		if _, err := fmt.Sscanf(p.Newest, "001-0001-%d", &last); err == nil {
			total += last + 1
		}
	}
	return total
}
