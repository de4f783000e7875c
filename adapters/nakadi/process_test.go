package nakadi_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/ackwise/ackwise/adapters/adaptertest"
	fake "github.com/ackwise/ackwise/test/nakadi"
	"github.com/ackwise/ackwise/test/servers"
)

// fakeProcess is the variable that makes the test binary the fake server.
const fakeProcess = "ACKWISE_TEST_FAKE_NAKADI"

func TestMain(m *testing.M) {
	if args := os.Getenv(fakeProcess); args != "" {
		err := fake.Main(strings.Fields(args), os.Stdout)
		fmt.Fprintln(os.Stderr, "fake nakadi:", err)
		os.Exit(1)
	}
	// The checks wait for most of their time; what the command line says comes later, and counts.
	if err := flag.Set("test.parallel", "12"); err != nil {
		panic(err)
	}
	os.Exit(adaptertest.Main(m, boxes(), objectsRow()))
}

// process is the fake as a process of its own, with a data directory.
type process struct {
	dir, address string
	cmd          *exec.Cmd
}

func startFake(t *testing.T) *process {
	t.Helper()
	p := &process{dir: t.TempDir(), address: servers.Fixed(t)}
	t.Cleanup(func() { p.Kill(t) })
	p.Restart(t)
	return p
}

// Restart starts it with its data, at its address.
func (p *process) Restart(t testing.TB) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = exec.CommandContext(context.WithoutCancel(t.Context()), self)
	p.cmd.Env = append(os.Environ(), fakeProcess+"=-listen "+p.address+" -dir "+p.dir)
	p.cmd.Stderr = os.Stderr
	out, err := p.cmd.StdoutPipe()
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("start the fake: %v", err)
	}
	p.address = strings.TrimSpace(line)
}

// Kill ends it without a word.
func (p *process) Kill(t testing.TB) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = p.cmd.Wait() // it says that it was killed
	p.cmd = nil
}

// Freeze stops it where it stands.
func (p *process) Freeze(t testing.TB) { p.signal(t, syscall.SIGSTOP) }

// Thaw lets it go on.
func (p *process) Thaw(t testing.TB) { p.signal(t, syscall.SIGCONT) }

func (p *process) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
