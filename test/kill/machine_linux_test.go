package kill

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// cannotError is the proof that a machine can never do what a test needs. Nothing else excuses a
// skipped test in the long runs: a program that is only not installed does not.
type cannotError struct{ reason string }

func (c *cannotError) Error() string { return c.reason }

// need is something that only some machines can do. Its probe tries it, once.
type need struct {
	what  string
	probe func() error // nil = it works here
}

// smallDisks is a file system of few bytes.
var smallDisks = need{"small file systems in memory", sync.OnceValue(func() error {
	return tryMount(func(dir string) error {
		return syscall.Mount("none", dir, "tmpfs", 0, "size=1m")
	})
})}

// loopDisks is a disk whose plug can be pulled.
var loopDisks = need{"ext4 on a loop device, to pull its plug", sync.OnceValue(func() error {
	if err := smallDisks.probe(); err != nil {
		return err
	}
	if err := tryLoop(); err != nil {
		return err
	}
	return tryMount(func(dir string) error {
		d := disk{image: filepath.Join(filepath.Dir(dir), "image"), dir: dir}
		if err := errors.Join(d.make(8<<20), d.mount()); err != nil {
			return err
		}
		return d.pull()
	})
})}

// tracing is strace, which fails, delays and interrupts the calls of a process.
var tracing = need{"strace, to fail and delay calls of the kernel", sync.OnceValue(func() error {
	if _, err := exec.LookPath("strace"); err != nil {
		if _, noApt := exec.LookPath("apt-get"); os.Getuid() != 0 || noApt != nil {
			return &cannotError{"strace is missing, and this user cannot install it"}
		}
		return errors.New("strace is missing: apt-get install strace")
	}
	out, err := exec.Command("strace", "-f", "-qq", "-o", os.DevNull, "true").CombinedOutput()
	if bytes.Contains(out, []byte("Operation not permitted")) {
		return &cannotError{"the kernel lets no process trace another one here"}
	}
	if err != nil {
		return fmt.Errorf("try strace: %w: %s", err, out)
	}
	return nil
})}

// tryMount mounts something for a moment.
func tryMount(mount func(dir string) error) error {
	if os.Getuid() != 0 {
		return &cannotError{"only root may mount"}
	}
	base, err := os.MkdirTemp("", "kill")
	if err != nil {
		return err
	}
	defer os.RemoveAll(base)
	dir := filepath.Join(base, "mounted")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	err = mount(dir)
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		return &cannotError{"this root may not mount: " + err.Error()}
	}
	return errors.Join(err, unmount(dir))
}

// tryLoop asks for a free loop device.
func tryLoop() error {
	const getFree = 0x4c82 // LOOP_CTL_GET_FREE
	f, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return &cannotError{"there are no loop devices: " + err.Error()}
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), getFree, 0); errno != 0 {
		return &cannotError{"there is no free loop device: " + errno.Error()}
	}
	return nil
}

// excused reports whether a test may be skipped for what its probe said: in the short runs always,
// in the long ones only with the proof that the machine never can.
func excused(err error, long bool) bool {
	_, proved := errors.AsType[*cannotError](err)
	return proved || !long
}

// needs skips a test that this machine cannot run, or fails it where that is not excused.
func needs(t *testing.T, n need) {
	t.Helper()
	switch err := n.probe(); {
	case err == nil:
	case excused(err, long()):
		t.Skipf("needs %s: %v", n.what, err)
	default:
		t.Fatalf("the long runs need %s, and this machine could have it: %v", n.what, err)
	}
}

// TestMachine tells what this machine can do, so that a run of "go test -v -run TestMachine" shows
// which tests it skips. In the long runs it fails where it could do more than it is set up for.
func TestMachine(t *testing.T) {
	for _, n := range []need{smallDisks, loopDisks, tracing} {
		t.Run(n.what, func(t *testing.T) {
			needs(t, n)
			t.Log("works here")
		})
	}
}

// TestOnlyProofExcuses shows what excuses a skip.
func TestOnlyProofExcuses(t *testing.T) {
	proved, missing := error(&cannotError{"never"}), errors.New("it is not installed")
	for _, c := range []struct {
		name string
		err  error
		long bool
		want bool
	}{
		{"the proof, in a long run", fmt.Errorf("probe: %w", proved), true, true},
		{"no proof, in a long run", missing, true, false},
		{"no proof, in a short run", missing, false, true},
	} {
		if got := excused(c.err, c.long); got != c.want {
			t.Errorf("%s: excused %t, want %t", c.name, got, c.want)
		}
	}
}
