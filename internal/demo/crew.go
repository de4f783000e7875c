package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// endTimeout bounds how long a consumer may take to stop, to end, or to end when told to.
const endTimeout = 10 * time.Second

// worker is a consumer process. It is in a process group of its own: when this process ends while
// the worker is stopped, the kernel lets it go on with a hang-up, and so it ends too; when it runs,
// it ends with its standard input.
type worker struct {
	name    string
	pid     int
	in      io.WriteCloser
	stopped chan struct{} // one slot: it was stopped by a signal
	ended   chan struct{} // closed when it has ended
	status  syscall.WaitStatus
	waitErr error
	trace   reader
	marks   []mark // all of its trace so far
	begun   int
	done    int
}

// start starts a worker. files is the folder of its trace and its standard error.
func (r *run) start(a assignment) (*worker, error) {
	text, err := json.Marshal(a)
	if err != nil {
		return nil, fmt.Errorf("start consumer: %w", err)
	}
	w := &worker{name: a.Name, stopped: make(chan struct{}, 1), ended: make(chan struct{}),
		trace: reader{path: a.Trace}}
	// No context ends it: SIGKILL comes from the plan, or from close.
	cmd := exec.CommandContext(context.Background(), r.exe)
	cmd.Env = append(os.Environ(), consumerVar+"="+string(text),
		"GOGC="+strconv.Itoa(collectAt))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	errs, err := os.Create(w.errFile())
	if err != nil {
		return nil, fmt.Errorf("start consumer: %w", err)
	}
	defer func() { _ = errs.Close() }() // the child has its own
	cmd.Stderr = errs
	if w.in, err = cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start consumer: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start consumer: %w", err)
	}
	w.pid = cmd.Process.Pid
	r.waiting.Go(w.wait) // ends with the process, which close kills
	return w, nil
}

func (w *worker) errFile() string { return strings.TrimSuffix(w.trace.path, ".trace") + ".err" }

// wait follows the process: os/exec does not tell when one is stopped.
func (w *worker) wait() {
	defer close(w.ended)
	for {
		var status syscall.WaitStatus
		_, err := syscall.Wait4(w.pid, &status, syscall.WUNTRACED, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			w.waitErr = err
			return
		case status.Stopped():
			select {
			case w.stopped <- struct{}{}:
			default:
			}
		default:
			w.status = status
			return
		}
	}
}

// look reads what the worker has written since the last look.
func (w *worker) look() error {
	more, err := w.trace.next()
	if err != nil {
		return err
	}
	for _, m := range more {
		switch m.what {
		case markBegin:
			w.begun++
		case markEnd:
			w.done++
		}
	}
	w.marks = append(w.marks, more...)
	return nil
}

// atWork is how many deliveries were begun and not ended, as far as was looked at.
func (w *worker) atWork() int { return w.begun - w.done }

func (w *worker) hasEnded() bool {
	select {
	case <-w.ended:
		return true
	default:
		return false
	}
}

func (w *worker) signal(s syscall.Signal) error {
	if w.hasEnded() {
		return nil
	}
	return syscall.Kill(w.pid, s)
}

// kill kills the worker with SIGKILL, but only if its own trace shows a delivery at work. It is
// stopped meanwhile, so that nothing ends between the look and the kill.
func (w *worker) kill() (killed bool, err error) {
	if err := w.signal(syscall.SIGSTOP); err != nil {
		return false, fmt.Errorf("stop consumer %s: %w", w.name, err)
	}
	if err := w.await(w.stopped, "be stopped"); err != nil {
		return false, err
	}
	if err := w.look(); err != nil {
		return false, err
	}
	if w.atWork() == 0 {
		return false, w.signal(syscall.SIGCONT)
	}
	if err := w.signal(syscall.SIGKILL); err != nil {
		return false, fmt.Errorf("kill consumer %s: %w", w.name, err)
	}
	return true, w.await(w.ended, "end")
}

func (w *worker) await(happened <-chan struct{}, what string) error {
	timer := time.NewTimer(endTimeout)
	defer timer.Stop()
	select {
	case <-happened:
		return nil
	case <-timer.C:
		return fmt.Errorf("consumer %s (process %d) did not %s within %s", w.name,
			w.pid, what, endTimeout)
	}
}

// dismiss gives the worker its last order and waits until it has ended well.
func (w *worker) dismiss(order string) error {
	if _, err := io.WriteString(w.in, order+"\n"); err != nil {
		return errors.Join(fmt.Errorf("tell consumer %s to %s: %w", w.name, order, err), w.fault())
	}
	if err := w.await(w.ended, order); err != nil {
		return err
	}
	return errors.Join(w.look(), w.fault())
}

// fault says how the worker ended, unless it ended well.
func (w *worker) fault() error {
	if !w.hasEnded() || w.waitErr == nil && w.status.Exited() && w.status.ExitStatus() == 0 {
		return nil
	}
	said, err := os.ReadFile(w.errFile())
	if err != nil {
		said = []byte(err.Error())
	}
	how := fmt.Sprintf("exit code %d", w.status.ExitStatus())
	if w.status.Signaled() {
		how = w.status.Signal().String()
	}
	return fmt.Errorf("consumer %s ended by itself: %s: %.1000s", w.name, how,
		strings.TrimSpace(string(said)))
}

// end kills the worker if it still runs.
func (w *worker) end() {
	_ = w.signal(syscall.SIGKILL) // it may be gone already
	_ = w.in.Close()              // nobody reads it any more
}

// file is a path in the folder of what the consumers write.
func (r *run) file(name string) string { return filepath.Join(r.files, name) }
