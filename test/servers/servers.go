package servers

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Must names the variable that forbids to skip a test for want of a server.
const Must = "ACKWISE_TEST_REAL"

// Address returns the value of a server's variable, such as ACKWISE_TEST_REDIS. Without it the test
// is skipped, or fails where Must is 1.
func Address(t testing.TB, variable string) string {
	t.Helper()
	address := os.Getenv(variable)
	if address == "" {
		missing(t, variable+" is not set: `make real` starts the server and sets it")
	}
	return address
}

func missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(Must) == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Server is a server that belongs to one test.
type Server struct {
	Address string // as its variable has it; the same after a restart

	kind, dir string
	options   []string
}

// startLimit is more than a script waits for its server, on a machine that is busy.
const startLimit = 5 * time.Minute

// Start starts a server of a kind, which is the name of its script without ".sh", and ends it with
// the test. Its script gets the options, which only those of redis and kafka know.
// Without the kind's variable it does what Address does: where with.sh did not start one, another
// one cannot be started either.
func Start(t testing.TB, kind string, options ...string) *Server {
	t.Helper()
	Address(t, variable(kind))
	dir, err := os.MkdirTemp("", "ackwise-"+kind+"-") //nolint:usetesting // Postgres is another user
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{kind: kind, dir: dir, options: options}
	t.Cleanup(func() {
		if _, err := s.script("stop"); err != nil {
			t.Errorf("stop %s: %v", kind, err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	s.Restart(t)
	return s
}

func variable(kind string) string { return "ACKWISE_TEST_" + strings.ToUpper(kind) }

// Restart starts the server again, with its data and at its address, after Kill.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	out, err := s.script("start", s.options...)
	if err != nil {
		t.Fatalf("start %s: %v", s.kind, err)
	}
	_, address, ok := strings.Cut(strings.TrimSpace(string(out)), variable(s.kind)+"=")
	if !ok {
		t.Fatalf("start %s: it printed %q", s.kind, out)
	}
	s.Address = strings.Trim(address, `"'`)
}

// Kill ends the server's process at once, as a crash does, and waits until it is gone.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGKILL)
	gone := time.Now().Add(20 * time.Second)
	for s.lives(t) {
		if time.Now().After(gone) {
			t.Fatalf("%s is still there after it was killed", s.kind)
		}
		wait(10 * time.Millisecond)
	}
}

// Freeze stops the server's process where it stands: it keeps its connections and answers nothing.
func (s *Server) Freeze(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGSTOP)
}

// Thaw lets a frozen server go on.
func (s *Server) Thaw(t testing.TB) {
	t.Helper()
	s.signal(t, syscall.SIGCONT)
}

func (s *Server) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(s.pid(t), sig); err != nil {
		t.Fatalf("send %s to %s: %v", sig, s.kind, err)
	}
}

// lives reports whether the process is there; one that has ended and was not waited for is not.
func (s *Server) lives(t testing.TB) bool {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.pid(t)), "stat"))
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func (s *Server) pid(t testing.TB) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, s.kind+".pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		t.Fatalf("%s has the pid %q", s.kind, text)
	}
	return pid
}

// script runs a verb of the server's script. Its context is not the test's, which is over when the
// server is stopped.
func (s *Server) script(verb string, options ...string) ([]byte, error) {
	_, here, _, _ := runtime.Caller(0)
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	path := filepath.Join(filepath.Dir(here), s.kind+".sh")
	cmd := exec.CommandContext(ctx, "bash", append([]string{path, verb, s.dir}, options...)...)
	cmd.Stderr = os.Stderr
	return cmd.Output()
}

func wait(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	<-timer.C
}
