package lockfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestMain makes the test binary a child that owns a directory when it is asked to.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ACKWISE_LOCKFILE_CHILD"); dir != "" {
		os.Exit(child(dir))
	}
	os.Exit(m.Run())
}

// child owns dir until its standard input ends.
func child(dir string) int {
	l, err := Acquire(dir)
	if err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	if err := l.SetSocket("/some/socket"); err != nil {
		os.Stdout.WriteString(err.Error() + "\n")
		return 1
	}
	os.Stdout.WriteString("owner\n")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return 1
	}
	if err := l.Release(); err != nil {
		return 1
	}
	return 0
}

// startChild starts a process that owns dir, and returns once it does. end closes its input.
func startChild(t *testing.T, dir string) (cmd *exec.Cmd, end func()) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), "ACKWISE_LOCKFILE_CHILD="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "owner\n" {
		t.Fatalf("the child said %q, %v", line, err)
	}
	return cmd, func() { _ = in.Close() }
}

func TestAKilledOwnerFreesTheDirectoryAndALivingOneNever(t *testing.T) {
	dir := t.TempDir()
	cmd, _ := startChild(t, dir)
	var held *HeldError
	if _, err := Acquire(dir); !errors.As(err, &held) {
		t.Fatalf("Acquire with a living owner: %v, want a *HeldError", err)
	}
	if held.Info.PID != cmd.Process.Pid || held.Info.Socket != "/some/socket" ||
		held.Info.Process != ProcessID(cmd.Process.Pid) || time.Since(held.Info.Since) > time.Minute {
		t.Errorf("the lock file says %+v of process %d", held.Info, cmd.Process.Pid)
	}
	if want := fmt.Sprintf("process %d,", cmd.Process.Pid); !strings.Contains(held.Error(), want) {
		t.Errorf("%q does not name %q", held, want)
	}
	if !Alive(held.Info.Process) {
		t.Errorf("the owner %s counts as dead while it runs", held.Info.Process)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the killed child ended well")
	}
	if Alive(held.Info.Process) {
		t.Errorf("the owner %s counts as alive after its end", held.Info.Process)
	}
	l, err := Acquire(dir)
	if err != nil {
		t.Fatalf("Acquire after kill -9: %v", err)
	}
	if info, err := Read(dir); err != nil || info.PID != os.Getpid() || info.Socket != "" {
		t.Errorf("the new owner's file says %+v, %v", info, err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
}

func TestAnOwnerThatLeavesIsNamedNoMore(t *testing.T) {
	dir := t.TempDir()
	cmd, end := startChild(t, dir)
	end()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if info, err := Read(dir); err != nil || info != (Info{}) {
		t.Errorf("after its owner left the file says %+v, %v", info, err)
	}
}

func TestOneOfManyOwns(t *testing.T) {
	dir := t.TempDir()
	const rounds, racers = 50, 8
	refused := 0
	for range rounds {
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex // guards got and held
			got  []*Lock
			held int
		)
		for range racers {
			wg.Go(func() {
				l, err := Acquire(dir)
				var h *HeldError
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					got = append(got, l)
				case errors.As(err, &h):
					held++
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(got) != 1 || held != racers-1 {
			t.Fatalf("%d of %d own the directory, %d were refused", len(got), racers, held)
		}
		refused += held
		if err := got[0].Release(); err != nil {
			t.Fatal(err)
		}
	}
	if refused != rounds*(racers-1) {
		t.Errorf("%d refusals", refused)
	}
}

func TestAReplacedLockFileIsNotASecondLock(t *testing.T) {
	dir := t.TempDir()
	f, err := os.OpenFile(filepath.Join(dir, Name), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if l, err := take(dir, f); l != nil || err != nil {
		t.Errorf("a lock on a deleted file: %v, %v; want neither", l, err)
	}
	if err := os.WriteFile(f.Name(), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := take(dir, f); l != nil || err != nil {
		t.Errorf("a lock on a replaced file: %v, %v; want neither", l, err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestAnnounce(t *testing.T) {
	dir := t.TempDir()
	if err := Announce(dir, "/s"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("announced without a lock file: %v", err)
	}
	l, err := Acquire(dir)
	if err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 100)
	for _, socket := range []string{long, "/short"} {
		if err := Announce(dir, socket); err != nil {
			t.Fatal(err)
		}
		if info, err := Read(dir); err != nil || info.Socket != socket || info.PID != l.Info().PID {
			t.Errorf("announced %s, the file says %+v, %v", socket, info, err)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	var held *HeldError
	if err := Announce(dir, "/s"); !errors.As(err, &held) {
		t.Errorf("announced by one who is not the owner: %v", err)
	}
}

func TestADirectoryThatCannotBeWritten(t *testing.T) {
	if _, err := Acquire(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing directory: %v", err)
	}
	// The kernel lets nobody make files here, not even root.
	if _, err := os.Stat("/sys/kernel"); err == nil {
		_, err := Acquire("/sys/kernel")
		if err == nil || !strings.Contains(err.Error(), "/sys/kernel/LOCK") {
			t.Errorf("read-only directory: %v", err)
		}
	}
}

func TestProcessIDTellsProcessesOfOneNumberApart(t *testing.T) {
	id := ProcessID(0)
	if id != ProcessID(os.Getpid()) || !Alive(id) {
		t.Fatalf("%s, Alive %t", id, Alive(id))
	}
	f := strings.Split(id, ".")
	if len(f) != 4 {
		t.Fatalf("%s has %d parts", id, len(f))
	}
	for _, c := range []struct {
		name, id string
		alive    bool
	}{
		{"another start", join(f[0], f[1]+"1", f[2], f[3]), false},
		{"another boot", join(f[0], f[1], "00000000", f[3]), false},
		{"another namespace, out of sight", join(f[0], f[1], f[2], "1"), true},
		{"nothing known", "", true},
		{"nonsense", "a.b.c.d", true},
	} {
		if f[1] == "" && !c.alive {
			continue // this system does not say
		}
		if got := Alive(c.id); got != c.alive {
			t.Errorf("%s: Alive(%s) = %t", c.name, c.id, got)
		}
	}
}

func join(f ...string) string { return strings.Join(f, ".") }
