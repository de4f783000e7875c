package process

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// family starts child processes that do not outlive this one, however it ends. Two things see to
// that: the kernel kills a child when the thread that started it ends (Linux only, and not the
// child's own children), and the guard, a small shell, kills the groups that are left when its
// standard input, a pipe that only this process holds, is closed.
type family struct {
	requests chan startRequest
	guard    *exec.Cmd
	wg       sync.WaitGroup // the starter goroutine and every waiting one

	// guardIn takes lines "+ group", which a child writes of itself before it becomes its command,
	// so that there is no moment at which it is unknown, and "- group". Each is one write, which the
	// kernel keeps whole.
	guardIn *os.File
}

type startRequest struct {
	cmd   *exec.Cmd
	reply chan error
}

// guardScript keeps the list of groups and kills what is left of them at the end of its input.
const guardScript = `l=' '
while read -r op g; do
case $op in
+) l="$l$g " ;;
-) case $l in *" $g "*) l="${l%% $g *} ${l#* $g }" ;; esac ;;
esac
done
for g in $l; do kill -s KILL -- "-$g"; done`

// childScript tells the guard, by file 3, and becomes the command.
const childScript = `echo "+ $$" >&3; exec 3>&-; exec sh -c "$0"`

// closeQuietly closes an end of a pipe that this process has no more use for.
func closeQuietly(f *os.File) { _ = f.Close() }

func newFamily() (*family, error) {
	f := &family{requests: make(chan startRequest)}
	// It ends when its standard input does, and so with this process: no context ends it.
	f.guard = exec.CommandContext(context.Background(), "sh", "-c", guardScript)
	f.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's Ctrl-C is not for it
	in, out, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start the guard of handler processes: %w", err)
	}
	defer closeQuietly(in)
	f.guard.Stdin = in
	if err := f.guard.Start(); err != nil {
		_ = out.Close()
		return nil, fmt.Errorf("start the guard of handler processes: %w", err)
	}
	f.guardIn = out
	f.wg.Go(f.starter) // ends with close
	return f, nil
}

// starter starts every child from one thread that lives as long as the family.
func (f *family) starter() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for r := range f.requests {
		r.reply <- r.cmd.Start()
	}
}

// close kills what is left of every group. No child may be started after or during it.
func (f *family) close() error {
	close(f.requests)
	err := errors.Join(f.guardIn.Close(), f.guard.Wait())
	f.wg.Wait()
	if err != nil {
		return fmt.Errorf("end the guard of handler processes: %w", err)
	}
	return nil
}

// child is a running sh -c CMD.
type child struct {
	group int
	done  chan struct{} // closed when it has ended and its group was killed
	err   error         // how it ended, as exec.Cmd.Wait says; read after done
}

// stdio are the child's ends of its standard streams. start closes those that are pipes.
type stdio struct{ in, out, err *os.File }

func (f *family) start(command string, env []string, s stdio) (*child, error) {
	cmd := exec.CommandContext(context.Background(), "sh", "-c", childScript, command)
	cmd.ExtraFiles = []*os.File{f.guardIn}
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = env, s.in, s.out, s.err
	cmd.SysProcAttr = childAttr()
	r := startRequest{cmd: cmd, reply: make(chan error, 1)}
	f.requests <- r
	if err := <-r.reply; err != nil {
		return nil, fmt.Errorf("start handler process: %w", err)
	}
	c := &child{group: cmd.Process.Pid, done: make(chan struct{})}
	f.wg.Go(func() { // ends with the child
		c.err = cmd.Wait()
		// The leader's number cannot have been given to another process yet: the kernel counts
		// through all the others first.
		c.signal(syscall.SIGKILL)
		if _, err := fmt.Fprintf(f.guardIn, "- %d\n", c.group); err != nil && c.err == nil {
			c.err = fmt.Errorf("tell the guard of handler processes: %w", err)
		}
		close(c.done)
	})
	return c, nil
}

// signal sends a signal to the child and all of its group.
func (c *child) signal(s syscall.Signal) {
	_ = syscall.Kill(-c.group, s) // ESRCH: nobody is left
}

// signalled returns the signal that ended the child, and whether one did.
func (c *child) signalled() (syscall.Signal, bool) {
	var exit *exec.ExitError
	if !errors.As(c.err, &exit) {
		return 0, false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), true
}
