package process

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ackwise/ackwise"
)

// Options configure a handler process. The zero value is ready to use.
type Options struct {
	// Pipeline is what the process is told as the pipeline: TOPIC/SUBSCRIPTION.
	Pipeline string
	// Stdout gets the standard output of Exec's processes. Default: nobody.
	Stdout *os.File
	// Stderr gets the standard error of the processes, as they write it. Default: nobody.
	Stderr io.Writer
	// Report is told what the process does wrong, and of restarts. It is called from several
	// goroutines. Default: nobody is told.
	Report func(text string)
	// Grace is how long a process may take to end when it should: so long after {"stop":true}
	// and the end of its input before SIGTERM, and so long again before SIGKILL.
	// Default: 3 s.
	Grace time.Duration
	// MaxLine bounds an answer line of Pipe's process in bytes. Default: 1 MiB.
	MaxLine int
	// MaxUnread bounds the lines that wait for Pipe's process to read them; past it, or when it
	// has read nothing for Stall, it is killed. Default: 10,000 lines, 30 s.
	MaxUnread int
	Stall     time.Duration
	// RestartMin and RestartMax bound the pause before Pipe's process is started again. It doubles
	// with each end before an answer. Default: 100 ms and 10 s.
	RestartMin, RestartMax time.Duration
	// MaxIdleEnds is after how many ends in a row, each before the process was given a delivery,
	// Pipe gives up. Default: 5.
	MaxIdleEnds int
}

func (o Options) withDefaults() Options {
	if o.Report == nil {
		o.Report = func(string) {}
	}
	setDefault(&o.Grace, 3*time.Second)
	setDefault(&o.MaxLine, 1<<20)
	setDefault(&o.MaxUnread, 10_000)
	setDefault(&o.Stall, 30*time.Second)
	setDefault(&o.RestartMin, 100*time.Millisecond)
	setDefault(&o.RestartMax, 10*time.Second)
	setDefault(&o.MaxIdleEnds, 5)
	return o
}

func setDefault[T comparable](v *T, value T) {
	if *v == *new(T) {
		*v = value
	}
}

// LostError is a handler's return when its process died: the delivery is not settled but left to
// consumer-lost, which Sessions sees to.
type LostError struct{ Err error }

// Error says how the process died.
func (e *LostError) Error() string { return "the handler process was lost: " + e.Err.Error() }

// Unwrap returns Err.
func (e *LostError) Unwrap() error { return e.Err }

// ExecHandler runs one process for each delivery. Make it with Exec.
type ExecHandler struct {
	command string
	o       Options
	family  *family
}

// Exec runs sh -c command for each delivery: the body on standard input, the rest in the
// environment (see Environ). Exit code 0 is done, another one failed, with the code and the last
// line of standard error as the reason. Death by a signal is a *LostError. A process whose lease is
// lost, or that still runs at the end of a stop, gets SIGTERM and, after Options.Grace, SIGKILL.
func Exec(command string, o Options) (*ExecHandler, error) {
	f, err := newFamily()
	if err != nil {
		return nil, err
	}
	return &ExecHandler{command: command, o: o.withDefaults(), family: f}, nil
}

// Close ends the handler. No Handle may run.
func (h *ExecHandler) Close() error { return h.family.close() }

// startPause is how long a message waits when no process could be started for it.
const startPause = time.Second

// Handle runs the process of one delivery.
func (h *ExecHandler) Handle(ctx context.Context, d *ackwise.Delivery) error {
	c, streams, err := h.start(d)
	if errors.Is(err, syscall.E2BIG) {
		return err // its key or headers do not fit an environment: its own fault
	}
	if err != nil {
		h.o.Report(err.Error())
		return fmt.Errorf("%w: %w", err, ackwise.Snooze(startPause))
	}
	select {
	case <-c.done:
	case <-ctx.Done():
		endChild(c, h.o.Grace)
		streams.wait()
		return context.Cause(ctx)
	}
	streams.wait()
	if s, ok := c.signalled(); ok {
		return &LostError{fmt.Errorf("signal %d (%s)%s", s, s, streams.lastLine())}
	}
	if c.err != nil {
		return fmt.Errorf("%w%s", c.err, streams.lastLine())
	}
	return nil
}

// execStreams are our ends of the streams of one process.
type execStreams struct {
	stdin, stderr func() // wait for their end
	tail          *tail
}

func (s *execStreams) wait() {
	s.stdin()
	s.stderr()
}

func (s *execStreams) lastLine() string {
	if line := s.tail.line(); line != "" {
		return ": " + line
	}
	return ""
}

func (h *ExecHandler) start(d *ackwise.Delivery) (*child, *execStreams, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("start handler process: %w", err)
	}
	defer closeQuietly(inR)
	errR, errW, err := os.Pipe()
	if err != nil {
		_ = inW.Close()
		return nil, nil, fmt.Errorf("start handler process: %w", err)
	}
	defer closeQuietly(errW)
	env := append(cleanEnviron(os.Environ()), Environ(d, h.o.Pipeline)...)
	c, err := h.family.start(h.command, env, stdio{in: inR, out: h.o.Stdout, err: errW})
	if err != nil {
		_, _ = inW.Close(), errR.Close()
		return nil, nil, err
	}
	s := &execStreams{tail: &tail{pass: h.o.Stderr}}
	s.stdin = copyTo(inW, d.Body)
	s.stderr = copyFrom(errR, s.tail)
	return c, s, nil
}

// copyTo writes b to a stream and closes it. A process need not read it. The returned function
// waits for the end, once the process has ended.
func copyTo(w *os.File, b []byte) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { // ends when all is written or the reader is gone
		_, _ = io.Copy(w, bytes.NewReader(b))
		_ = w.Close()
	})
	return func() {
		_ = w.SetWriteDeadline(time.Now())
		wg.Wait()
	}
}

// endChild sends SIGTERM, waits for grace, sends SIGKILL and waits for the end.
func endChild(c *child, grace time.Duration) {
	c.signal(syscall.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-c.done:
	case <-t.C:
		c.signal(syscall.SIGKILL)
		<-c.done
	}
}

const envPrefix = "ACKWISE_"

// Names of the environment variables that Environ writes, without their prefix.
var envNames = []string{"ID", "KEY", "KEY_64", "TOPIC", "PIPELINE", "ATTEMPT", "CAUSE", "REDELIVERED",
	"TOKEN", "DEADLINE", "TIME", "DEDUP_KEY", "BODY_ABSENT", "HEADERS"}

// Environ is what a process of Exec gets of its delivery beside the body, as environment variables:
//
//	ACKWISE_ID  ACKWISE_KEY  ACKWISE_TOPIC  ACKWISE_PIPELINE  ACKWISE_ATTEMPT (from 1)
//	ACKWISE_CAUSE  ACKWISE_REDELIVERED (true, false)  ACKWISE_TOKEN  ACKWISE_DEDUP_KEY
//	ACKWISE_TIME  ACKWISE_DEADLINE (RFC 3339, UTC; absent where there is none)
//	ACKWISE_BODY_ABSENT=1 for a nil body  ACKWISE_HEADERS (how many)
//	ACKWISE_HEADER_1_NAME  ACKWISE_HEADER_1 (its value), and so on from 1
//
// An empty key is absent. A key or header value with a zero byte, which no variable can hold,
// stands base64-coded under its name with _64 added.
func Environ(d *ackwise.Delivery, pipeline string) []string {
	var env []string
	set := func(name, value string) {
		if strings.IndexByte(value, 0) >= 0 {
			name, value = name+"_64", base64.StdEncoding.EncodeToString([]byte(value))
		}
		env = append(env, envPrefix+name+"="+value)
	}
	setTime := func(name string, t time.Time) {
		if !t.IsZero() {
			set(name, t.UTC().Format(time.RFC3339Nano))
		}
	}
	set("ID", d.ID)
	if d.Key != "" {
		set("KEY", d.Key)
	}
	set("TOPIC", d.Topic)
	set("PIPELINE", pipeline)
	set("ATTEMPT", strconv.Itoa(d.Attempt))
	set("CAUSE", d.Cause.String())
	set("REDELIVERED", strconv.FormatBool(d.Redelivered()))
	set("TOKEN", string(d.Token))
	set("DEDUP_KEY", d.DedupKey())
	setTime("DEADLINE", d.Deadline)
	setTime("TIME", d.Time)
	if d.Body == nil {
		set("BODY_ABSENT", "1")
	}
	set("HEADERS", strconv.Itoa(len(d.Headers)))
	for i, h := range d.Headers {
		n := "HEADER_" + strconv.Itoa(i+1)
		set(n+"_NAME", h.Name)
		set(n, string(h.Value))
	}
	return env
}

// cleanEnviron takes out what Environ may write, so that a handler inside a handler does not see
// the outer one's message.
func cleanEnviron(env []string) []string {
	kept := make([]string, 0, len(env)+len(envNames))
	for _, e := range env {
		name, _, _ := strings.Cut(e, "=")
		name, ours := strings.CutPrefix(name, envPrefix)
		if ours && (strings.HasPrefix(name, "HEADER_") || isEnvName(name)) {
			continue
		}
		kept = append(kept, e)
	}
	return kept
}

func isEnvName(name string) bool {
	return slices.Contains(envNames, name)
}
