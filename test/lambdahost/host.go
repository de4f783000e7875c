package lambdahost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

// Options configure a Host.
type Options struct {
	// Command is the bootstrap and its arguments. Required.
	Command []string
	// Env is added to the environment of each process, as NAME=VALUE. Default: nothing.
	Env []string
	// Timeout is the function's: a process that has not answered by then is killed. Default: 30 s.
	Timeout time.Duration
	// Init bounds the time from a process's start to its first ask for an event. Default: 60 s.
	Init time.Duration
	// Processes bounds how many events are under way at once, each in a process of its own.
	// Default: 1.
	Processes int
	// Log gets what the processes print. Default: it is thrown away.
	Log io.Writer
}

// FunctionError says that the function did not answer an event: Type is Lambda's word for it.
type FunctionError struct {
	Type    string // as the function reported it, or one of the Type constants below
	Message string
}

// Error shows both.
func (e *FunctionError) Error() string { return e.Type + ": " + e.Message }

// The types of a FunctionError that Lambda reports itself.
const (
	TypeTimeout = "Sandbox.Timedout"  // the process was killed at the deadline
	TypeExit    = "Runtime.ExitError" // the process ended with an event in flight
	TypeInit    = "Runtime.InitError" // the process ended before it asked for an event
)

// ErrClosed says that the host was closed.
var ErrClosed = errors.New("the Lambda host is closed")

// Host is one function. Its methods may be called from several goroutines.
type Host struct {
	o     Options
	slots chan struct{} // one for each event under way

	mu     sync.Mutex // guards the fields below
	idle   []*environment
	all    map[*environment]bool
	closed bool
	starts int
}

// New makes a host. The first process starts with the first event.
func New(o Options) (*Host, error) {
	if len(o.Command) == 0 {
		return nil, errors.New("make a Lambda host: the options name no command")
	}
	if o.Timeout == 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Init == 0 {
		o.Init = 60 * time.Second
	}
	if o.Processes == 0 {
		o.Processes = 1
	}
	if o.Log == nil {
		o.Log = io.Discard
	}
	o.Log = &lockedWriter{w: o.Log}
	return &Host{o: o, slots: make(chan struct{}, o.Processes), all: map[*environment]bool{}}, nil
}

// Invoke gives the function an event and returns its answer. The error is a *FunctionError where
// the function did not answer.
func (h *Host) Invoke(ctx context.Context, event []byte) ([]byte, error) {
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("invoke: %w", context.Cause(ctx))
	}
	defer func() { <-h.slots }()
	e, err := h.take()
	if err != nil {
		return nil, err
	}
	answer, err, usable := e.invoke(ctx, event)
	h.give(e, usable)
	return answer, err
}

// take returns a process that waits for an event, or starts one.
func (h *Host) take() (*environment, error) {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil, ErrClosed
	}
	for len(h.idle) > 0 {
		e := h.idle[len(h.idle)-1]
		h.idle = h.idle[:len(h.idle)-1]
		if e.lives() {
			h.mu.Unlock()
			return e, nil
		}
		delete(h.all, e)
	}
	h.starts++
	n := h.starts
	h.mu.Unlock()

	e, err := start(h.o, n)
	if err != nil {
		return nil, fmt.Errorf("start a function's process: %w", err)
	}
	h.mu.Lock()
	closed := h.closed
	h.all[e] = true
	h.mu.Unlock()
	if closed {
		e.end()
		return nil, ErrClosed
	}
	return e, nil
}

func (h *Host) give(e *environment, usable bool) {
	if !usable {
		e.end()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if usable {
		h.idle = append(h.idle, e)
		return
	}
	delete(h.all, e)
}

// Kill kills every process with SIGKILL and returns how many of them had an event in flight.
func (h *Host) Kill() int {
	h.mu.Lock()
	all := make([]*environment, 0, len(h.all))
	for e := range h.all {
		all = append(all, e)
	}
	h.mu.Unlock()
	n := 0
	for _, e := range all {
		if e.busy() {
			n++
		}
		e.kill()
		<-e.gone
	}
	return n
}

// Starts returns how many processes were started.
func (h *Host) Starts() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.starts
}

// Close ends all processes and takes no more events.
func (h *Host) Close() error {
	h.mu.Lock()
	h.closed = true
	all := h.all
	h.all, h.idle = map[*environment]bool{}, nil
	h.mu.Unlock()
	for e := range all {
		e.end()
	}
	return nil
}

type lockedWriter struct {
	mu sync.Mutex // guards w: several processes print at once; the writer is a test's buffer
	w  io.Writer
}

func (l *lockedWriter) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(p)
}
