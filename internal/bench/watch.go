package bench

import (
	"bufio"
	"bytes"
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
	"sync"
	"time"
)

// process is a child as its parent sees it. It says a line of JSON now and then, and goes on when
// it is told to.
type process struct {
	run    *backlogRun
	cmd    *exec.Cmd
	orders io.WriteCloser
	lines  chan said
	stderr bytes.Buffer // read when the process has ended
	wg     sync.WaitGroup
}

// diskInterval is how often the disk is measured.
const diskInterval = 200 * time.Millisecond

// start starts a child with an order. Whoever calls it calls kill or end.
func (b *backlogRun) start(ctx context.Context) (*process, error) {
	c := &process{run: b, lines: make(chan said)}
	// The context does not kill it: kill and end wait for it as well.
	c.cmd = exec.CommandContext(context.WithoutCancel(ctx), b.Child[0], b.Child[1:]...)
	c.cmd.Stderr = &c.stderr
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	if c.orders, err = c.cmd.StdinPipe(); err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the child: %w", err)
	}
	c.wg.Go(func() { // ends with the output, or with kill, which empties the channel
		defer close(c.lines)
		for in := json.NewDecoder(bufio.NewReader(out)); ; {
			var s said
			if in.Decode(&s) != nil {
				return
			}
			c.lines <- s
		}
	})
	if err := json.NewEncoder(c.orders).Encode(b.order); err != nil {
		return nil, fmt.Errorf("tell the child: %w: %s", err, c.whatItSaid())
	}
	return c, nil
}

// await waits until the child has done what it was told, and measures the disk meanwhile.
func (c *process) await(ctx context.Context, what string) (said, error) {
	patience := time.NewTimer(c.run.Patience)
	defer patience.Stop()
	disk := time.NewTicker(diskInterval)
	defer disk.Stop()
	for {
		select {
		case <-ctx.Done():
			return said{}, context.Cause(ctx)
		case <-patience.C:
			return said{}, fmt.Errorf("%s: the child said nothing for %v", what, c.run.Patience)
		case <-disk.C:
			if err := c.measureDisk(); err != nil {
				return said{}, err
			}
		case s, ok := <-c.lines:
			switch {
			case !ok:
				return s, fmt.Errorf("%s: the child ended: %s", what, c.whatItSaid())
			case s.Ready:
				return s, c.measureDisk()
			}
			patience.Reset(c.run.Patience)
			c.run.Progress(what, float64(s.Done)/float64(c.run.Messages))
		}
	}
}

// whatItSaid ends the process, whose output is closed, and returns what it wrote as an error.
func (c *process) whatItSaid() string {
	if err := c.kill(); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(c.stderr.String())
}

func (c *process) measureDisk() error {
	if _, err := os.Stat(c.run.order.Dir); err != nil {
		return ignoreGone(err) // it is not made yet
	}
	n, err := diskBytes(c.run.order.Dir, func(string) bool { return true })
	c.run.diskPeak = max(c.run.diskPeak, n)
	return err
}

// goOn tells the child to take the next step.
func (c *process) goOn() error {
	if _, err := io.WriteString(c.orders, "\n"); err != nil {
		return fmt.Errorf("tell the child: %w", err)
	}
	return nil
}

// kill ends the process with SIGKILL, where it has not ended, and waits for it.
func (c *process) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill the child: %w", err)
	}
	_ = c.wait() // it says that the process was killed
	return nil
}

// wasKilled is an error where the process had ended before kill could end it: then it closed its
// store in good order, and nothing was shown.
func (c *process) wasKilled() error {
	if c.cmd.ProcessState.Exited() {
		return fmt.Errorf("the child was to be killed and ended by itself: %s", c.cmd.ProcessState)
	}
	return nil
}

// end waits until the process has ended by itself.
func (c *process) end() error {
	if err := c.wait(); err != nil {
		return fmt.Errorf("the child: %w: %s", err, strings.TrimSpace(c.stderr.String()))
	}
	return nil
}

func (c *process) wait() error {
	for range c.lines { // the reader must not wait for anybody
	}
	c.wg.Wait()
	return c.cmd.Wait()
}

// peakMiB is the most resident memory that the process had since its start, or since forgetPeak.
func (c *process) peakMiB() (float64, error) {
	status, err := os.ReadFile(procFile(c.cmd.Process.Pid, "status"))
	if err != nil {
		return 0, fmt.Errorf("read the child's memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the child's memory: %w", err)
			}
			return mib(kib << 10), nil
		}
	}
	return 0, errors.New("read the child's memory: it has ended, or its status has no VmHWM")
}

// forgetPeak begins a new peak at what the process has now: "5" is the kernel's word for that.
func (c *process) forgetPeak() error {
	if err := os.WriteFile(procFile(c.cmd.Process.Pid, "clear_refs"), []byte("5"), 0); err != nil {
		return fmt.Errorf("reset the child's peak of memory: %w", err)
	}
	return nil
}

func procFile(pid int, name string) string {
	return filepath.Join("/proc", strconv.Itoa(pid), name)
}
